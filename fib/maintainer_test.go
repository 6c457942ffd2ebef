package fib

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rangefinder/rib"
)

// source is a rib.Table with n ranges of one keyspace over two shards, each a primary and a replica.
type source struct {
	*rib.Table
	seq, epoch uint64
}

func newSource(n int) *source {
	s := &source{Table: rib.NewTable(rib.Member{Name: "me", Region: "fra"})}
	s.own(n)
	for _, shard := range []string{"shard_1", "shard_2"} {
		s.backend(shard+"_a", shard)
		s.backend(shard+"_b", shard)
		s.observe(shard+"_a", rib.Up, rib.Primary)
		s.observe(shard+"_b", rib.Up, rib.Replica)
	}
	return s
}

func (s *source) own(n int) {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("shard_%d", i%2+1)
	}
	s.set(rib.EvenRanges(names))
}

func (s *source) set(ranges []rib.Range) {
	s.epoch++
	s.Owners().Set(&rib.Ownership{
		Epoch:     rib.Epoch{Index: s.epoch},
		Keyspaces: []rib.Keyspace{{ID: 1, Name: "app.orders", Method: "hash", Types: []rib.Type{rib.TypeBigint}, Ranges: ranges}},
		Shards:    []rib.Shard{{Name: "shard_1", SystemID: 7}, {Name: "shard_2", SystemID: 7}},
	})
}

func (s *source) backend(name, shard string) {
	s.seq++
	s.Health().Announce(rib.Announcement{
		Observer: "me", Stamp: rib.Stamp{Incarnation: 1, Seq: s.seq},
		Backend: rib.Backend{Name: name, Shard: shard, Region: "fra", Addr: name, SystemID: 7},
	})
}

func (s *source) observe(backend string, state rib.State, role rib.Role) {
	s.tell(rib.Route{Backend: backend, State: state, Role: role, Timeline: 1})
}

func (s *source) tell(r rib.Route) {
	s.seq++
	r.Observer, r.Stamp = "me", rib.Stamp{Incarnation: 1, Seq: s.seq}
	s.Health().Observe(r)
}

// maintain opens a Maintainer and closes it at the end, when no goroutine may be left.
func maintain(t *testing.T, s *source, change func(*Maintainer)) (*Maintainer, *Handle, *journal) {
	t.Helper()
	log := new(journal)
	h := new(Handle)
	m := NewMaintainer(s.Table, h, slog.New(slog.NewTextHandler(log, nil)))
	if change != nil {
		change(m)
	}
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		m.Close()
		m.Close()
		goleak.VerifyNone(t, leaks)
	})
	m.Open()
	return m, h, log
}

// journal is a log that a test may read meanwhile.
type journal struct {
	mu    sync.Mutex
	b     bytes.Buffer
	first func(line string) // is called with each line before it is there; nil: nothing is
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.first != nil {
		j.first(string(p))
	}
	return j.b.Write(p)
}

// before calls f with each line before it is there.
func (j *journal) before(f func(line string)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.first = f
}

func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.b.String(), text)
}

// await waits for a condition, and fails if it does not come true.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick, late := time.NewTicker(200*time.Microsecond), time.After(10*time.Second)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("it never came true that %s", what)
		}
	}
}

// settled waits until the handle has all that the source has.
func settled(t *testing.T, s *source, h *Handle) {
	t.Helper()
	await(t, "the table is up to date", func() bool { return h.Load().Version() == s.Snapshot().Version })
}

func TestMaintainerFollows(t *testing.T) {
	s := newSource(4)
	m, h, _ := maintain(t, s, nil)
	first := h.Load() // Open itself has filled the handle
	if first.Ownership() != s.Owners().Get() || m.Alarm() != "" {
		t.Fatalf("alarm %q", m.Alarm())
	}
	one, two := first.Slot("shard_1").Candidates(), first.Slot("shard_2").Candidates()

	// A flip swaps the list of its shard: the table, its index and the other shard's list are the very same.
	s.observe("shard_1_b", rib.Down, rib.Replica)
	settled(t, s, h)
	if h.Load() != first || m.Stats().Compiles != 1 {
		t.Error("a flip made a table")
	}
	if c := first.Slot("shard_1").Candidates(); c == one || len(c.Reads) != 2 || c.Reads[0].Backend.Name != "shard_1_a" || c.Reads[1].Healthy {
		t.Errorf("after the flip: %+v", c)
	}
	if first.Slot("shard_2").Candidates() != two {
		t.Error("a list was swapped that did not change")
	}

	// News that changes no list swaps none.
	flips := m.Stats().Flips
	s.observe("shard_2_b", rib.Up, rib.Replica)
	settled(t, s, h)
	if m.Stats().Flips != flips || first.Slot("shard_2").Candidates() != two {
		t.Error("a list was swapped for nothing")
	}

	// A shard that only gossip names gets a slot, and the indexes stay.
	s.backend("x", "shard_x")
	settled(t, s, h)
	second := h.Load()
	if second.Slot("shard_x") == nil || second.dense[1] != first.dense[1] || m.Stats().Compiles != 1 {
		t.Error("a new shard's slot is missing, or cost an index")
	}

	// A new epoch makes a table, with the slots of before.
	s.own(7)
	settled(t, s, h)
	third := h.Load()
	if third == second || third.Ownership().Epoch.Index != 2 || len(third.dense[1].ranges) != 7 || m.Stats().Compiles != 2 {
		t.Error("a new epoch did not make its table")
	}
	if third.Slot("shard_1") != first.Slot("shard_1") {
		t.Error("a slot was made anew: who holds the old table would not see flips")
	}

	// An epoch that leaves a keyspace's ranges alone leaves its index alone.
	s.set(s.Owners().Get().Keyspaces[0].Ranges)
	settled(t, s, h)
	if x := h.Load().dense[1]; &x.numbers[0] != &third.dense[1].numbers[0] || h.Load() == third {
		t.Error("an index was built again for the same ranges")
	}
}

// A compile that fails or panics leaves the last good table, raises the alarm, and does not stop flips; the next good
// epoch ends it.
func TestMaintainerKeepsTheLastGoodTable(t *testing.T) {
	for name, bad := range map[string]func(s *source){
		"error": func(s *source) { s.set(rib.EvenRanges([]string{"shard_1", "shard_2"})[1:]) },
		"panic": func(s *source) { s.own(13) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSource(4)
			builds := 0
			m, h, log := maintain(t, s, func(m *Maintainer) {
				m.build = func(x *rib.Snapshot, prev *Table) (*Table, error) {
					builds++
					if len(x.Ownership.Keyspaces[0].Ranges) == 13 {
						panic("thirteen")
					}
					return build(x, prev)
				}
			})
			good := h.Load()
			bad(s)
			await(t, "the alarm is raised", func() bool { return m.Alarm() != "" })
			want := map[string]string{"error": "cannot compile the ranges: epoch 0/2: invalid keyspace \"app.orders\": its first range", "panic": "cannot compile the ranges: panic: thirteen"}[name]
			if !strings.HasPrefix(m.Alarm(), want) {
				t.Errorf("alarm %q", m.Alarm())
			}
			for i := range 5 {
				s.observe("shard_1_b", rib.State(int(rib.Up)+(i+1)%2), rib.Replica)
				settled(t, s, h)
			}
			if h.Load() != good || good.Ownership().Epoch.Index != 1 {
				t.Error("the last good table is gone")
			}
			if c := good.Slot("shard_1").Candidates(); c.Reads[0].Backend.Name != "shard_1_a" {
				t.Errorf("flips stopped: %+v", c)
			}
			if n := log.count("not up to date"); n != 1 {
				t.Errorf("the alarm was logged %d times", n)
			}
			s.own(5)
			await(t, "the alarm is over", func() bool { return m.Alarm() == "" })
			if h.Load() == good || h.Load().Ownership().Epoch.Index != 3 || log.count("up to date again") != 1 {
				t.Error("the good epoch did not get in")
			}
			m.Close()
			if builds != 3 {
				t.Errorf("%d compiles for 3 epochs: a bad one was tried again and again", builds)
			}
		})
	}
}

// A compile that fails at the start leaves the empty table.
func TestMaintainerStartsBadly(t *testing.T) {
	s := newSource(4)
	fail := true
	m, h, _ := maintain(t, s, func(m *Maintainer) {
		m.build = func(x *rib.Snapshot, prev *Table) (*Table, error) {
			if fail {
				return nil, errors.New("no")
			}
			return build(x, prev)
		}
	})
	if h.Load() != emptyTable || m.Alarm() != "cannot compile the ranges: epoch 0/1: no" {
		t.Errorf("alarm %q", m.Alarm())
	}
	m.Close()
	fail = false
	if s.own(5); h.Load() != emptyTable {
		t.Error("it works after Close")
	}
}

func TestMaintainerClosedBeforeOpen(t *testing.T) {
	var h Handle
	m := NewMaintainer(newSource(1).Table, &h, nil)
	m.Close()
	m.Open()
	if h.Load() != emptyTable {
		t.Error("it opened after Close")
	}
}

func TestSplitBrainIsLogged(t *testing.T) {
	s := newSource(4)
	_, h, log := maintain(t, s, nil)
	log.before(func(line string) {
		if strings.Contains(line, "split brain") && h.Load().Slot("shard_1").Candidates().SplitBrain {
			t.Error("the split brain shows before the log tells of it")
		}
	})
	s.observe("shard_1_b", rib.Up, rib.Primary)
	settled(t, s, h)
	if c := h.Load().Slot("shard_1").Candidates(); !c.SplitBrain || len(c.Writes) != 0 || !strings.Contains(c.WritesReason, "TWO PRIMARIES of shard shard_1 on timeline 1: shard_1_a and shard_1_b") {
		t.Errorf("%+v", c)
	}
	if log.count("level=ERROR msg=\"split brain\" shard=shard_1") != 1 {
		t.Error("nobody shouted")
	}
}

// An old primary that is still up gets nothing, and somebody has to hear of it: once, not with every flip.
func TestPrimaryOfThePastIsLogged(t *testing.T) {
	s := newSource(4)
	_, h, log := maintain(t, s, nil)
	log.before(func(line string) {
		if strings.Contains(line, "two primaries") && h.Load().Slot("shard_1").Candidates().Past != "" {
			t.Error("the primary of the past shows before the log tells of it")
		}
	})
	s.tell(rib.Route{Backend: "shard_1_b", State: rib.Up, Role: rib.Primary, Timeline: 2})
	settled(t, s, h)
	want := "backend shard_1_a still calls itself the primary of shard shard_1, on timeline 1, though shard_1_b was promoted after it, on timeline 2"
	if c := h.Load().Slot("shard_1").Candidates(); c.SplitBrain || len(c.Writes) != 1 || !strings.HasPrefix(c.Past, want) {
		t.Errorf("%+v", c)
	}
	s.observe("shard_2_b", rib.Down, rib.Replica)
	settled(t, s, h)
	if log.count("two primaries") != 1 {
		t.Error("nobody shouted, or too often")
	}
	// A dead one is what a failover leaves behind.
	s.tell(rib.Route{Backend: "shard_1_a", State: rib.Down, Role: rib.Primary, Timeline: 1})
	settled(t, s, h)
	if c := h.Load().Slot("shard_1").Candidates(); c.Past != "" {
		t.Errorf("%+v", c)
	}
}

// Lookups see a whole table and whole lists while epochs and flips go on: under the race detector, and by what they find.
func TestLookupsDuringFlips(t *testing.T) {
	s := newSource(100)
	_, h, _ := maintain(t, s, nil)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for r := range 4 {
		readers.Go(func() {
			for i := uint64(r); ; i += 4 {
				select {
				case <-stop:
					return
				default:
				}
				table := h.Load()
				key := rib.Key(number(i * 0x9e3779b97f4a7c15))
				o, ok := table.Lookup(1, key)
				k := &table.Ownership().Keyspaces[0]
				if want := &k.Ranges[k.Owner(key)]; !ok || o.Range != want || o.Slot.Shard() != want.Shard {
					t.Errorf("key %x: %+v, want %+v", key, o, want)
					return
				}
				c := o.Slot.Candidates()
				if i := c.PickRead(uint32(i)); i < 0 || c.Reads[i].Backend.Shard != o.Slot.Shard() {
					t.Errorf("read %d of %+v", i, c)
					return
				}
				if i%64 == 0 {
					table.ExplainShard(o.Slot.Shard(), "", i%128 == 0)
				}
			}
		})
	}
	for i := range 400 {
		s.observe(fmt.Sprintf("shard_%d_%c", i%2+1, 'a'+i/2%2), rib.State(int(rib.Up)+i/4%2), rib.Role(1+i/2%2))
		if i%20 == 0 {
			s.own(1 + i)
		}
		if i%10 == 0 {
			settled(t, s, h)
		}
	}
	settled(t, s, h)
	close(stop)
	readers.Wait()
}

// A list names the backends that are down for this node, whether they are tried all the same or not. One that is behind, or unknown,
// is not among them.
func TestDownAreNamed(t *testing.T) {
	s := newSource(2)
	_, h, _ := maintain(t, s, nil)
	for _, step := range []struct {
		what string
		do   func()
		want string
	}{
		{"all is well", func() {}, ""},
		{"its only replica, which is spared", func() { s.observe("shard_1_b", rib.Down, rib.Replica) }, "shard_1_b"},
		{"it is back, far behind", func() {
			s.tell(rib.Route{Backend: "shard_1_b", State: rib.Up, Role: rib.Replica, Timeline: 1, Lag: time.Hour})
		}, ""},
		{"own evidence", func() { s.Health().Evidence("shard_1_a", true, "refused") }, "shard_1_a"},
		{"both", func() { s.observe("shard_1_b", rib.Down, rib.Replica) }, "shard_1_a shard_1_b"},
		{"one is unknown", func() { s.observe("shard_1_b", rib.StateUnknown, rib.Replica) }, "shard_1_a"},
		{"it has moved", func() { s.backend("shard_1_a", "shard_1"); s.backend("shard_1_a", "shard_2") }, ""},
		{"the evidence is taken back", func() { s.Health().Evidence("shard_1_a", false, "") }, ""},
	} {
		step.do()
		settled(t, s, h)
		var names []string
		for _, b := range h.Load().Slot("shard_1").Candidates().Down {
			names = append(names, b.Name)
		}
		if got := strings.Join(names, " "); got != step.want {
			t.Errorf("%s: down are %q, want %q", step.what, got, step.want)
		}
	}
}
