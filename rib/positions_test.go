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
