package rib

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// scene is one table with positions, in which backends p and q of shard s may be primaries and r1 and r2 replicas.
type scene struct {
	t     *testing.T
	table *Table
	start time.Time
}

func newScene(t *testing.T) *scene {
	s := &scene{t, NewTable(Member{Name: "n", Region: "fra"}), time.Unix(1000, 0)}
	for i, name := range []string{"p", "q", "r1", "r2"} {
		b := Backend{Name: name, Shard: "s", Region: "fra", Addr: name + ":1", SystemID: 7}
		s.table.Health().Announce(Announcement{Backend: b, Observer: "n", Stamp: Stamp{Seq: uint64(i + 1)}})
	}
	return s
}

func (s *scene) saw(backend string, role Role, timeline uint32, lsn uint64, at time.Duration) {
	s.table.Positions().Saw(Position{Backend: backend, Shard: "s", Addr: backend + ":1", Role: role, Timeline: timeline, LSN: lsn, Asked: s.start.Add(at)})
}

// covers checks up to when a backend has everything; -1: nothing is known.
func (s *scene) covers(when, backend string, want time.Duration) {
	s.t.Helper()
	got := time.Duration(-1)
	if seen := s.table.Health().gaugeOf(backend).Seen.Load(); seen != nil && !seen.Covers.IsZero() {
		got = seen.Covers.Sub(s.start)
	}
	if got != want {
		s.t.Errorf("%s: %s covers %v, want %v", when, backend, got, want)
	}
}

func TestPositions(t *testing.T) {
	const sec = time.Second
	s := newScene(t)
	s.saw("r1", Replica, 1, 100, 1*sec)
	s.covers("no primary was seen", "r1", -1)
	s.saw("p", Primary, 1, 100, 2*sec)
	s.covers("it stands where the primary stood later", "r1", 2*sec)
	s.saw("p", Primary, 1, 200, 3*sec)
	s.saw("r1", Replica, 1, 199, 4*sec)
	s.covers("one byte behind the second mark", "r1", 2*sec)
	s.saw("r1", Replica, 1, 200, 5*sec)
	s.covers("at the second mark", "r1", 3*sec)
	s.saw("p", Primary, 1, 200, 6*sec)
	s.covers("the primary is idle", "r1", 6*sec)
	s.saw("r1", Replica, 1, 150, 7*sec)
	s.covers("it crashed, and is consistent further back", "r1", 2*sec)
	s.saw("r1", Replica, 1, 0, 8*sec)
	s.covers("its position is unknown", "r1", -1)
	s.saw("r2", Replica, 2, 500, 8*sec)
	s.covers("on a timeline of which no primary was seen", "r2", -1)
	s.saw("r1", Replica, 1, 300, 9*sec)
	s.saw("q", Primary, 2, 250, 9*sec)
	s.covers("it follows the old primary", "r1", -1)
	s.covers("it follows the new one", "r2", 9*sec)
	s.saw("p", Primary, 1, 300, 10*sec)
	s.covers("the old primary's marks count for nobody", "r1", -1)
	s.saw("r1", Replica, 2, 260, 11*sec)
	s.covers("it has changed over", "r1", 9*sec)

	s.saw("p", Primary, 2, 240, 12*sec)
	s.covers("two primaries on one timeline", "r1", -1)
	s.saw("q", Primary, 2, 250, 13*sec)
	s.saw("r1", Replica, 2, 260, 14*sec)
	s.covers("which of them it follows cannot be told", "r1", -1)
	s.saw("q", Primary, 2, 260, 14*sec+rivals)
	s.covers("the other one has long not been seen", "r1", 14*sec+rivals)
	s.saw("q", Primary, 2, 100, 15*sec+rivals)
	s.covers("the primary went back: it is another server", "r1", -1)

	s.table.Positions().Saw(Position{Backend: "stranger", Shard: "s", Role: Primary, Timeline: 9, LSN: 1, Asked: s.start})
	s.saw("q", Primary, 2, 260, 16*sec+2*rivals)
	s.covers("nobody has announced the one with the timeline 9", "r1", 16*sec+2*rivals)
}

// However probes and writes are mixed, a replica is never said to have what it lacks; and one that has all is said to have all as
// soon as the primary was seen after the last write.
func TestPositionsNeverPromiseTooMuch(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		s := newScene(t)
		type write struct {
			end time.Duration // acknowledged
			lsn uint64
		}
		var writes []write
		var now time.Duration
		lsn, lag := uint64(1), map[string]uint64{"r1": 1, "r2": 1}
		check := func(why string) {
			for name, replayed := range lag {
				seen := s.table.Health().gaugeOf(name).Seen.Load()
				if seen == nil || seen.Covers.IsZero() {
					continue
				}
				for _, w := range writes {
					if s.start.Add(w.end).Compare(seen.Covers) <= 0 && w.lsn > replayed {
						t.Fatalf("seed %d, %s: %s is said to cover %v, but lacks the write at %d, acknowledged %v; it is at %d", seed, why, name, seen.Covers.Sub(s.start), w.lsn, w.end, replayed)
					}
				}
			}
		}
		for range 3 * maxMarks {
			now += time.Duration(rnd.IntN(1000)) * time.Millisecond
			name := fmt.Sprintf("r%d", 1+rnd.IntN(2))
			switch rnd.IntN(4) {
			case 0:
				lsn += uint64(rnd.IntN(50))
				writes = append(writes, write{now, lsn})
			case 1:
				s.saw("p", Primary, 1, lsn, now)
			case 2:
				lag[name] += rnd.Uint64N(lsn - lag[name] + 1)
			case 3:
				s.saw(name, Replica, 1, lag[name], now)
			}
			check("midway")
		}
		now += time.Second
		s.saw("p", Primary, 1, lsn, now)
		for name := range lag {
			lag[name] = lsn
			s.saw(name, Replica, 1, lsn, now)
			s.covers(fmt.Sprintf("seed %d, at the end", seed), name, now)
		}
		if n := len(s.table.Positions().shards["s"].marks); n > maxMarks {
			t.Fatalf("%d marks are kept", n)
		}
	}
}

func TestParseLSN(t *testing.T) {
	for in, want := range map[string]uint64{"0/0": 0, "16/B374D848": 0x16B374D848, "FFFFFFFF/FFFFFFFF": 1<<64 - 1, "": 1, "16": 1, "/": 1, "16/": 1, "x/1": 1, "1/1/1": 1, "100000000/0": 1, "-1/0": 1, "+1/0": 1} {
		got, err := ParseLSN(in)
		if want == 1 && err == nil || want != 1 && (err != nil || got != want) {
			t.Errorf("%q: %x, %v", in, got, err)
		}
	}
}

// A replica to which nothing comes any more calls itself up to date; how late it is the primary's marks tell.
func TestPositionsTellHowLateAReplicaIs(t *testing.T) {
	const sec = time.Second
	s := newScene(t)
	primary := func(flushed uint64, asked, took time.Duration) {
		s.table.Positions().Saw(Position{
			Backend: "p", Shard: "s", Addr: "p:1", Role: Primary, Timeline: 1, LSN: flushed + 50, Asked: s.start.Add(asked), Told: s.start.Add(asked + took), Flushed: flushed,
		})
	}
	behind := func(when string, timeline uint32, lsn uint64, at time.Duration, want Delay) {
		t.Helper()
		got := s.table.Positions().Saw(Position{Backend: "r1", Shard: "s", Addr: "r1:1", Role: Replica, Timeline: timeline, LSN: lsn, Asked: s.start.Add(at)})
		has := time.Duration(-1)
		if !got.Has.IsZero() {
			has = got.Has.Sub(s.start)
		}
		s.covers(when, "r1", has)
		if got.Has = (time.Time{}); got != want {
			t.Errorf("%s: behind %+v, want %+v", when, got, want)
		}
	}
	behind("no primary was seen", 1, 100, 0, Delay{})
	primary(100, 1*sec, 0)
	behind("it has all", 1, 100, 2*sec, Delay{})
	for i := range time.Duration(100) {
		primary(100, (3+i)*sec, 0)
	}
	behind("the primary was idle for long; the end of its log is on no disk yet", 1, 100, 110*sec, Delay{})
	primary(300, 111*sec, 2*sec)
	behind("asked before the primary's answer was there", 1, 100, 112*sec, Delay{})
	behind("asked after it: from the answer on", 1, 100, 114*sec, Delay{Time: 1 * sec, Bytes: 200})
	primary(900, 115*sec, 0)
	behind("since the first mark that it lacks, by as much as the last", 1, 100, 120*sec, Delay{Time: 7 * sec, Bytes: 800})
	behind("it goes on, some way", 1, 300, 121*sec, Delay{Time: 6 * sec, Bytes: 600})
	behind("of another timeline", 2, 100, 122*sec, Delay{})
	behind("its position is unknown", 1, 0, 123*sec, Delay{})
	for i := range time.Duration(10 * maxMarks) {
		primary(1000+uint64(i), (130+i)*sec, 0)
	}
	got := s.table.Positions().Saw(Position{Backend: "r1", Shard: "s", Addr: "r1:1", Role: Replica, Timeline: 1, LSN: 300, Asked: s.start.Add(1000 * sec)})
	if got.Time < 231*sec || got.Time > 885*sec || got.Bytes != 1000+10*maxMarks-1-300 {
		t.Errorf("most marks are forgotten: behind %+v, want up to 885 s", got)
	}
	s.saw("q", Primary, 1, 2000, 1001*sec)
	behind("two primaries: the marks are of either", 1, 300, 1002*sec, Delay{})
}

// owns says in the ledger which server is the shard's.
func (s *scene) owns(systemID uint64) {
	s.table.Owners().Set(&Ownership{Epoch: Epoch{Index: 1}, Shards: []Shard{{Name: "s", SystemID: systemID}}})
}

// A server of another cluster at the address of a backend says nothing of the shard, whatever timeline it is on.
func TestPositionsOfRefusedServersAreIgnored(t *testing.T) {
	const sec = time.Second
	for name, timeline := range map[string]uint32{"of the same timeline": 1, "of a later timeline": 3} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.owns(7)
			s.table.Health().Announce(Announcement{Backend: Backend{Name: "wrong", Shard: "s", Region: "fra", Addr: "wrong:1", SystemID: 99}, Observer: "n", Stamp: Stamp{Seq: 9}})
			for i := range time.Duration(3) {
				s.saw("wrong", Primary, timeline, 50, 10*i*sec)
				s.saw("p", Primary, 1, 200, (10*i+1)*sec)
				s.saw("r1", Replica, 1, 200, (10*i+2)*sec)
			}
			s.covers("beside a refused server", "r1", 21*sec)
			if v := s.table.Positions().FateSince("s", 1, s.start.Add(20*sec), true); v.Fate != FateKept {
				t.Errorf("what was written on timeline 1: %+v, want it kept", v)
			}
			if w, ok := s.table.Positions().After("s", s.start.Add(20*sec)); !ok || w.Timeline != 1 || w.LSN != 200 {
				t.Errorf("the position after a write: %+v, %v", w, ok)
			}
		})
	}
	s := newScene(t)
	s.owns(7)
	s.saw("p", Primary, 1, 200, 1*sec)
	s.saw("r1", Replica, 1, 200, 2*sec)
	s.table.Positions().Saw(Position{Backend: "r1", Shard: "s", Addr: "r1:1", SystemID: 99, Role: Replica, Timeline: 1, LSN: 900, Asked: s.start.Add(3 * sec)})
	s.covers("another server answers under the replica's name", "r1", -1)
}

// A promotion by mistake is over when the promoted server is no backend any more: the shard is on its timeline of before.
func TestPromotionThatWasTakenBack(t *testing.T) {
	const sec = time.Second
	gone := func(s *scene) {
		s.table.Health().Announce(Announcement{Backend: Backend{Name: "q", Shard: "s", Region: "fra", Addr: "q:1", SystemID: 7}, Observer: "n", Stamp: Stamp{Seq: 20}, Gone: true})
	}
	refused := func(s *scene) {
		s.owns(7)
		s.table.Health().Announce(Announcement{Backend: Backend{Name: "q", Shard: "s", Region: "fra", Addr: "q:1", SystemID: 8}, Observer: "n", Stamp: Stamp{Seq: 20}})
	}
	for name, end := range map[string]func(*scene){"taken out of the configuration": gone, "refused": refused} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.saw("p", Primary, 1, 100, 1*sec)
			s.saw("r1", Replica, 1, 100, 2*sec)
			s.saw("q", Primary, 2, 100, 3*sec)
			s.saw("p", Primary, 1, 200, 4*sec)
			s.saw("r1", Replica, 1, 200, 5*sec)
			s.covers("both are there: what p writes counts for nobody", "r1", -1)
			end(s)
			s.saw("q", Primary, 2, 150, 6*sec) // it is looked at once more
			s.saw("p", Primary, 1, 300, 7*sec)
			s.saw("r1", Replica, 1, 300, 8*sec)
			s.covers("q is no backend", "r1", 7*sec)
			if v := s.table.Positions().FateSince("s", 1, s.start.Add(6*sec), false); v.Fate != FateKept || v.Now != 1 {
				t.Errorf("what is written on timeline 1: %+v, want it kept", v)
			}
			s.saw("r2", Primary, 2, 310, 20*sec)
			if v := s.table.Positions().FateSince("s", 1, s.start.Add(6*sec), false); v.Now != 2 {
				t.Errorf("a promotion afterwards: %+v", v)
			}
		})
	}
}
