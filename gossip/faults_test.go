package gossip

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"rangefinder/gossip/memnet"
	"rangefinder/rib"
)

// counted tells how many observers' words on the backend count at n.
func (n *node) counted(backend string) int {
	for _, v := range n.table.Snapshot().Backends {
		if v.Backend.Name == backend {
			return len(v.Routes)
		}
	}
	return 0
}

func TestTheDeadAndTheGoneStopCounting(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 3)
		defer w.close()
		w.form(5)
		for _, n := range w.nodes {
			n.lists("shared")
		}
		everywhere := func(nodes []*node, want int) func() bool {
			return func() bool {
				for _, n := range nodes {
					if n.counted("shared") != want || !agree(nodes, 1) {
						return false
					}
				}
				return true
			}
		}
		w.until(5*time.Second, "five observers count", everywhere(w.nodes, 5))

		if err := w.nodes[4].Close(); err != nil {
			t.Fatal(err)
		}
		if took := w.until(time.Second, "who left no longer counts", everywhere(w.nodes[:4], 4)); took > time.Second {
			t.Errorf("a leave took %v", took)
		}

		w.nodes[3].host.Close()
		_ = w.nodes[3].Kill()
		took := w.until(30*time.Second, "the dead no longer counts", everywhere(w.nodes[:3], 3))
		t.Logf("a death took %v", took)

		// What the backend is outlives those who announced it.
		if err := w.nodes[2].Close(); err != nil {
			t.Fatal(err)
		}
		w.nodes[1].Withdraw("shared")
		w.until(5*time.Second, "one observer", func() bool { return w.nodes[0].verdict("shared") == rib.Up })
		if b := w.nodes[0].table.Snapshot().Backends; len(b) != 1 || b[0].Backend.Addr != "10.9.9.9:5432" {
			t.Errorf("backends: %+v", b)
		}
	})
}

// When a whole cluster is stopped at once, there may be nobody left to hear the last goodbye: that is no error.
func TestGoodbyeThatNobodyHears(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 3)
		defer w.close()
		w.form(3)
		errs := make(chan error, len(w.nodes))
		for _, n := range w.nodes {
			go func() { errs <- n.Close() }()
		}
		for range w.nodes {
			if err := <-errs; err != nil {
				t.Errorf("Close: %v", err)
			}
		}
	})
}

func TestWithdrawnBackendGoesEverywhere(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 4)
		defer w.close()
		w.form(3)
		w.nodes[0].lists("a")
		w.nodes[1].lists("b")
		w.until(5*time.Second, "two backends", func() bool { return agree(w.nodes, 2) })
		w.nodes[0].Withdraw("a")
		w.until(5*time.Second, "a has no observer", func() bool {
			for _, n := range w.nodes {
				if n.verdict("a") == rib.Up {
					return false
				}
			}
			return true
		})
	})
}

func TestCutRegionGoesOnAndConverges(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 5)
		defer w.close()
		w.form(16)
		for _, n := range w.nodes {
			n.lists("b-" + n.self.Name)
		}
		w.until(15*time.Second, "one table", func() bool { return agree(w.nodes, 16) })
		var inside, outside []*node
		for _, n := range w.nodes {
			if n.self.Region == "syd" {
				inside = append(inside, n)
			} else {
				outside = append(outside, n)
			}
		}
		w.net.Isolate("syd")
		w.until(2*time.Minute, "both sides see who is left", func() bool {
			return len(inside[0].Members()) == len(inside) && len(outside[0].Members()) == len(outside)
		})
		// Longer than memberlist gossips to the dead and than tombstones live: each side has forgotten the other.
		wait(3 * time.Minute)
		for _, n := range inside {
			if got := len(n.table.Snapshot().Backends); got != 16 {
				t.Errorf("%s knows %d backends in the cut, want all 16", n.self.Name, got)
			}
			if v := n.verdict("b-" + n.self.Name); v != rib.Up {
				t.Errorf("%s: its own backend is %v", n.self.Name, v)
			}
		}
		down := up("b-" + inside[0].self.Name)
		down.State = rib.Down
		inside[0].Observe(down)
		w.until(2*time.Second, "the flip inside the cut", func() bool { return inside[1].verdict(down.Backend) == rib.Down })
		if v := outside[0].verdict(down.Backend); v != rib.StateUnknown {
			t.Errorf("outside, the cut-off backend is %v: no observer is left", v)
		}

		w.net.HealAll()
		took := w.until(time.Minute, "one table after the heal", func() bool {
			return len(w.nodes[0].Members()) == 16 && agree(w.nodes, 16) && w.nodes[0].verdict(down.Backend) == rib.Down
		})
		t.Logf("one table %v after the heal", took)
	})
}

func TestStrangersAreRefused(t *testing.T) {
	for what, tweak := range map[string]func(*Config){
		"another key":        func(c *Config) { c.Key = []byte("ffffffffffffffffffffffffffffffff") },
		"no key":             func(c *Config) { c.Key = nil },
		"another cluster id": func(c *Config) { c.ClusterID = "other-cluster" },
	} {
		t.Run(what, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				w := newWorld(t, 6)
				defer w.close()
				w.form(3)
				stranger := w.add("stranger", "fra", tweak)
				stranger.lists("evil")
				if n, err := stranger.Join([]string{w.nodes[0].addr}); err == nil {
					t.Errorf("joined %d", n)
				}
				if _, err := w.nodes[1].Join([]string{stranger.addr}); err == nil {
					t.Error("a member joined the stranger")
				}
				wait(10 * time.Second)
				for _, n := range w.nodes[:3] {
					if len(n.Members()) != 3 || n.verdict("evil") != rib.StateUnknown {
						t.Errorf("%s: %v", n.self.Name, n.Members())
					}
				}
				if len(stranger.Members()) != 1 {
					t.Errorf("the stranger sees %v", stranger.Members())
				}
				if w.nodes[0].Stats().Refused == 0 {
					t.Error("nothing was counted as refused")
				}
			})
		})
	}
}

// TestNodeOfAnotherClusterIsRefusedByItsMetadata covers what the label cannot: a node that speaks under our label.
func TestNodeOfAnotherClusterIsRefusedByItsMetadata(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 6)
		defer w.close()
		w.form(2)
		liar := &node{world: w, self: rib.Member{Name: "liar", Region: "fra"}, host: w.net.Host("liar", "fra")}
		tr, err := liar.host.Transport(7946)
		if err != nil {
			t.Fatal(err)
		}
		cfg := w.nodes[0].cfg
		cfg.Self, cfg.Transport = liar.self, tr
		cfg.Health = rib.NewTable(liar.self).Health()
		liar.table, liar.cfg, liar.Speaker = rib.NewTable(liar.self), cfg, New(cfg)
		liar.Speaker.meta = appendMeta(nil, &liar.self, idOf("other"), 1)
		liar.Speaker.cluster = idOf("other")
		if err := liar.Open(); err != nil {
			t.Fatal(err)
		}
		w.nodes = append(w.nodes, liar)
		if _, err := liar.Join([]string{w.nodes[0].addr}); err == nil {
			t.Error("the liar's own side let the others in")
		}
		wait(5 * time.Second)
		if n := len(w.nodes[0].Members()); n != 2 {
			t.Errorf("%d members", n)
		}
	})
}

func TestNoiseIsSurvived(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 8)
		defer w.close()
		w.form(3)
		w.nodes[0].lists("a")
		w.until(5*time.Second, "one backend", func() bool { return agree(w.nodes, 1) })

		// From a stranger: noise in packets and streams.
		tr, err := w.net.Host("stranger", "fra").Transport(0)
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		for range 500 {
			b := make([]byte, rng.IntN(1500))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			if _, err := tr.WriteTo(b, w.nodes[1].addr); err != nil {
				t.Fatal(err)
			}
		}
		for range 20 {
			c, err := tr.DialTimeout(w.nodes[1].addr, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 4000)
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			_, _ = c.Write(b)
			_ = c.Close()
		}
		// From one who holds the key: noise inside good packets, versions to come, and half messages.
		list := w.nodes[2].list.Load()
		to, _, ok := w.nodes[2].peerNode(w.nodes[1].self.Name)
		if !ok {
			t.Fatal("no peer")
		}
		good := appendAnnouncement(nil, &rib.Announcement{Backend: rib.Backend{Name: "x", Shard: "s", Region: "r"}, Observer: "o"})
		for i := range 500 {
			b := make([]byte, rng.IntN(300))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			if len(b) > 2 {
				b[0], b[1] = byte(i%12), byte(i%3)
			}
			_ = list.SendBestEffort(&to, b)
			_ = list.SendBestEffort(&to, good[:rng.IntN(len(good))])
		}
		wait(5 * time.Second)
		st := w.nodes[1].Stats()
		if st.Refused < 500 || st.Unknown == 0 || st.Malformed == 0 {
			t.Errorf("counted %+v", st)
		}
		if st.Backends > 2 {
			t.Errorf("noise made %d backends", st.Backends)
		}
		if len(w.nodes[1].Members()) != 3 || !agree(w.nodes, 1) {
			t.Errorf("members %v", w.nodes[1].Members())
		}
		down := up("a")
		down.State = rib.Down
		w.nodes[0].Observe(down)
		w.until(2*time.Second, "a flip after the noise", func() bool { return w.nodes[1].verdict("a") == rib.Down })
	})
}

func TestLiesAreBounded(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 9)
		defer w.close()
		w.form(2)
		to, _, ok := w.nodes[1].peerNode(w.nodes[0].self.Name)
		if !ok {
			t.Fatal("no peer")
		}
		list := w.nodes[1].list.Load()
		var batch []byte
		send := func() {
			if err := list.SendReliable(&to, batch); err != nil {
				t.Fatal(err)
			}
			batch = nil
		}
		for i := range 3 * maxBackends {
			name := fmt.Sprintf("made-up-%d", i)
			a := rib.Announcement{Backend: rib.Backend{Name: name, Shard: "s", Region: "r"}, Observer: "liar", Stamp: rib.Stamp{Incarnation: 1, Seq: uint64(i)}}
			batch = appendBatched(batch, appendAnnouncement(nil, &a))
			r := up(name)
			batch = appendBatched(batch, appendObservation(nil, observationVersion, id(i), id(i), &r)) // names that nobody has
			if len(batch) > 100<<10 {
				send()
			}
		}
		send()
		wait(5 * time.Second)
		st := w.nodes[0].Stats()
		if st.Backends != maxBackends || st.Pending > maxPending || st.Records > maxRecords || st.OverBound == 0 {
			t.Errorf("held %+v", st)
		}
		wait(2 * time.Minute)
		if st := w.nodes[0].Stats(); st.Pending != 0 {
			t.Errorf("%d observations still wait for names", st.Pending)
		}
	})
}

func TestEpochIsHeardAndAsked(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 11)
		defer w.close()
		type call struct {
			node int
			from string
			e    rib.Epoch
		}
		calls := make(chan call, 1000)
		const nodes = 20
		for i := range nodes {
			nd := w.add(fmt.Sprintf("%s-%d", regions[i%8], i), regions[i%8], func(c *Config) {
				c.OnEpoch = func(from rib.Member, e rib.Epoch) { calls <- call{i, from.Name, e} }
			})
			if i > 0 {
				w.join(nd, w.nodes[0])
			}
		}
		wait(5 * time.Second)
		w.net.SetLoss(memnet.Everyone, memnet.Everyone, 0.25)
		e := rib.Epoch{Generation: 1, Index: 42}
		start := time.Now()
		w.nodes[3].SetEpoch(e)
		heard := make(map[int]bool)
		for len(heard) < nodes-1 {
			c := <-calls
			if c.e != e || c.from != w.nodes[3].self.Name {
				t.Fatalf("heard %+v", c)
			}
			heard[c.node] = true
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("the epoch took %v", took)
		} else {
			t.Logf("the epoch took %v", took)
		}
		// Who could not follow is told again, also of other nodes that hold it by now.
		for _, n := range w.nodes[:nodes-1] {
			n.SetEpoch(e)
		}
		for len(calls) > 0 {
			<-calls
		}
		others := make(map[string]bool)
		for len(others) < 2 {
			c := <-calls
			if c.node == nodes-1 {
				others[c.from] = true
			}
		}
		// A claim that nobody can fulfil does not hide what is really new.
		next := rib.Epoch{Generation: 1, Index: 43}
		w.nodes[0].flush(w.nodes[0].tell("lie", appendEpoch(nil, epochNews{rib.Epoch{Generation: 99}, w.nodes[0].self.Name}), true))
		wait(2 * time.Second)
		for _, n := range w.nodes[:nodes-1] {
			n.SetEpoch(next)
		}
		for c := range calls {
			if c.node == nodes-1 && c.e == next {
				break
			}
		}
		w.nodes[nodes-1].SetEpoch(rib.Epoch{Generation: 99})
		wait(time.Second)
		for len(calls) > 0 {
			<-calls
		}
		wait(10 * time.Second)
		for len(calls) > 0 {
			if c := <-calls; c.node == nodes-1 {
				t.Errorf("told of an epoch that it has: %+v", c)
			}
		}
	})
}

func TestRoundTripsAreMeasuredAndTold(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 12)
		defer w.close()
		w.form(8)
		wait(90 * time.Second)
		for _, n := range w.nodes {
			m := n.RTTs()
			for _, from := range regions {
				for _, to := range regions {
					got, want := m[from][to], memnet.Between(from, to)
					if from == to {
						want = 0 // each is alone in its region
					}
					if (got - want).Abs() > want/10+2*time.Millisecond {
						t.Errorf("%s: %s to %s is %v, want %v", n.self.Name, from, to, got, want)
					}
				}
			}
			d := n.table.Snapshot().Distances
			if len(d) != 8 || d[n.self.Region] != 0 {
				t.Errorf("%s: distances %v", n.self.Name, d)
			}
		}
	})
}

func TestSmallChangesAreHeldBack(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 13)
		defer w.close()
		w.form(2)
		n := w.nodes[0]
		n.lists("a")
		told := n.Stats().Told
		r := up("a")
		for i := range 100 {
			r.Latency = 730*time.Microsecond + time.Duration(i%7)*30*time.Microsecond
			n.Observe(r)
			wait(time.Second)
		}
		if got := n.Stats().Told - told; got != 0 {
			t.Errorf("%d records for a latency that trembles", got)
		}
		for i := range 100 {
			r.Latency = time.Duration(1+20*(i%2)) * time.Millisecond
			n.Observe(r)
			wait(time.Second)
		}
		if got := n.Stats().Told - told; got < 10 || got > 20 {
			t.Errorf("%d records in 100 s for a latency that jumps each second, want one in 5 s or a little more", got)
		}
		w.until(5*time.Second, "equal tables", func() bool { return agree(w.nodes, 1) })
	})
}

func TestConfigurationIsChecked(t *testing.T) {
	good := Config{
		Self: rib.Member{Name: "n", Region: "fra"}, ClusterID: "c", Transport: new(memnet.Transport), Health: rib.NewTable(rib.Member{Name: "n"}).Health(),
		Logger: slog.New(slog.DiscardHandler),
	}
	for what, spoil := range map[string]func(*Config){
		"node name":   func(c *Config) { c.Self.Name = "" },
		"region":      func(c *Config) { c.Self.Region = strings.Repeat("r", maxName+1) },
		"cluster id":  func(c *Config) { c.ClusterID = strings.Repeat("c", 256) },
		"cluster key": func(c *Config) { c.Key = []byte("short") },
		"incarnation": func(c *Config) { c.Self.Incarnation = maxIncarnation + 1 },
		"Transport":   func(c *Config) { c.Transport = nil },
	} {
		cfg := good
		spoil(&cfg)
		if err := New(cfg).Open(); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s := New(good)
	if _, err := s.Join([]string{"10.0.0.1:7946"}); err == nil {
		t.Error("Join before Open")
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close without Open: %v", err)
	}
	s.Announce(rib.Backend{Name: "b", Shard: "s", Region: "r", Addr: strings.Repeat("a", 2000)})
	if s.Stats().TooBig != 1 {
		t.Error("a backend that is too big was not counted")
	}
}
