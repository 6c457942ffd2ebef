package rib_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rangefinder/rib"
)

var outlierRules = rib.OutlierRules{Errors: 5, Slowness: 4, Base: 30 * time.Second, Longest: 75 * time.Second, WarmUp: 30 * time.Second}

// court is a shard of replicas b0, b1, ... in the node's region, and its judge.
type court struct {
	t     *testing.T
	table *rib.Table
	judge *rib.Outliers
	rules rib.OutlierRules
	now   time.Time
	seq   uint64
}

func newCourt(t *testing.T, backends int) *court {
	c := &court{t: t, table: rib.NewTable(rib.Member{Name: "me", Region: "fra"}), judge: rib.NewOutliers(), rules: outlierRules, now: epoch0}
	c.table.Owners().Set(&rib.Ownership{Epoch: rib.Epoch{Index: 1}, Shards: []rib.Shard{{Name: "shard_1", SystemID: 11}}})
	for i := range backends {
		c.seq++
		c.table.Health().Announce(rib.Announcement{
			Observer: "me", Stamp: rib.Stamp{Incarnation: 1, Seq: c.seq},
			Backend: rib.Backend{Name: fmt.Sprint("b", i), Shard: "shard_1", Region: "fra", Addr: "10.0.0.1:5432", SystemID: 11},
		})
		c.says(i, rib.Up)
	}
	c.second()
	return c
}

func (c *court) says(backend int, state rib.State) {
	c.seq++
	c.table.Health().Observe(rib.Route{Backend: fmt.Sprint("b", backend), Observer: "me", Stamp: rib.Stamp{Incarnation: 1, Seq: c.seq}, State: state, Role: rib.Replica})
}

// reads counts n answers of a backend.
func (c *court) reads(backend, n int, took time.Duration) {
	for range n {
		c.table.Snapshot().Backends[backend].Gauge.Read(took)
	}
}

func (c *court) errors(backend, n int) {
	for range n {
		c.table.Snapshot().Backends[backend].Gauge.Failed()
	}
}

// second is one look at all.
func (c *court) second() {
	c.now = c.now.Add(time.Second)
	c.table.Local().Try(c.judge.Judge(c.table.Snapshot(), c.rules, c.now))
}

func (c *court) seconds(n int) {
	for range n {
		c.second()
	}
}

func (c *court) trial(backend int) rib.Trial { return c.table.Snapshot().Backends[backend].Trial }

func (c *court) ejected(backend int, want string) {
	c.t.Helper()
	if got := c.trial(backend).Ejected; got != want {
		c.t.Errorf("after %v: b%d: ejected %q, want %q", c.now.Sub(epoch0), backend, got, want)
	}
}

func TestErrorsEject(t *testing.T) {
	c := newCourt(t, 2)
	for range 3 {
		c.ejected(0, "")
		c.errors(0, 3)
		c.reads(0, 2, time.Millisecond)
		c.second()
	}
	c.ejected(0, "ejected for 30s: 9 of its last 15 answers were errors of the server")
	c.ejected(1, "")
	c.seconds(29)
	c.ejected(0, "ejected for 30s: 9 of its last 15 answers were errors of the server")
	c.second()
	c.ejected(0, "")
}

// It is the last ten seconds that count, whenever they began: five good seconds and five bad ones are enough, and errors that ten seconds
// have gone by since are none.
func TestAnyTenSecondsEject(t *testing.T) {
	for good := range 25 {
		t.Run(fmt.Sprint(good, " good seconds before"), func(t *testing.T) {
			c := newCourt(t, 2)
			for range good {
				c.reads(0, 3, time.Millisecond)
				c.second()
			}
			answers := 0
			for bad := 1; ; bad++ {
				c.errors(0, 3)
				c.second()
				answers = 3*min(good, 10-bad) + 3*bad
				if bad >= 3 && 2*3*bad >= answers {
					c.ejected(0, fmt.Sprintf("ejected for 30s: %d of its last %d answers were errors of the server", 3*bad, answers))
					break
				}
				c.ejected(0, "")
			}
		})
	}
	for gap, want := range map[int]string{6: "ejected for 30s: 6 of its last 6 answers were errors of the server", 7: ""} {
		c := newCourt(t, 2)
		for range 2 {
			c.errors(0, 2)
			c.second()
		}
		c.seconds(gap + 1) // with the next error it is gap+4 seconds since the first
		c.errors(0, 2)
		c.second()
		c.ejected(0, want)
	}
}

// A judge that was held up, as by a node that was stopped, takes what came meanwhile for one second's, and what was long before for nothing.
func TestLateJudge(t *testing.T) {
	c := newCourt(t, 2)
	for range 2 {
		c.errors(0, 5)
		c.second()
	}
	c.errors(0, 5)
	c.now = c.now.Add(time.Minute)
	c.second()
	c.ejected(0, "")
	c.errors(0, 1)
	c.second()
	c.ejected(0, "")
}

// Slowness too is that of the last ten seconds.
func TestAnyTenSecondsAreSlow(t *testing.T) {
	c := newCourt(t, 2)
	for range 7 {
		c.reads(0, 20, time.Millisecond)
		c.reads(1, 20, time.Millisecond)
		c.second()
	}
	for bad := 1; bad <= 6; bad++ {
		c.ejected(0, "")
		c.reads(0, 20, 40*time.Millisecond)
		c.reads(1, 20, time.Millisecond)
		c.second()
	}
	c.ejected(0, "ejected for 30s: its reads take over 33ms, those of the shard's others under 1ms")
	c.ejected(1, "")
}

func TestWhatDoesNotEject(t *testing.T) {
	for name, do := range map[string]func(c *court, second int){
		"few errors":                  func(c *court, second int) { c.errors(0, max(1-second%3, 0)) }, // four in any ten seconds
		"more good answers":           func(c *court, _ int) { c.errors(0, 4); c.reads(0, 5, time.Millisecond) },
		"one stroke, as at a restart": func(c *court, second int) { c.errors(0, 100*(1-min(second, 1))) },
		"all are slow":                func(c *court, _ int) { c.reads(0, 100, time.Second); c.reads(1, 100, time.Second) },
		"a little slower":             func(c *court, _ int) { c.reads(0, 100, 30*time.Millisecond); c.reads(1, 100, 10*time.Millisecond) },
		"much slower, but still fast": func(c *court, _ int) { c.reads(0, 100, 5*time.Millisecond); c.reads(1, 100, 100*time.Microsecond) },
		"a third of its reads are slow": func(c *court, _ int) {
			c.reads(0, 40, time.Second)
			c.reads(0, 80, time.Millisecond)
			c.reads(1, 100, time.Millisecond)
		},
		"nobody to compare with": func(c *court, _ int) { c.reads(0, 100, time.Second) },
		"few slow reads":         func(c *court, _ int) { c.reads(0, 4, time.Second); c.reads(1, 100, time.Millisecond) },
		"rules of zero": func(c *court, _ int) {
			c.rules = rib.OutlierRules{Base: time.Second}
			c.errors(0, 100)
			c.reads(0, 100, time.Second)
			c.reads(1, 100, time.Millisecond)
		},
		"no time to be ejected for": func(c *court, _ int) {
			c.rules.Base = 0
			c.errors(0, 100)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCourt(t, 2)
			for second := range 25 {
				do(c, second)
				c.second()
				c.ejected(0, "")
				c.ejected(1, "")
			}
		})
	}
}

func TestSlownessEjects(t *testing.T) {
	c := newCourt(t, 3)
	for i, took := range []time.Duration{40 * time.Millisecond, 3 * time.Millisecond, 2 * time.Millisecond} {
		c.reads(i, 60, took)
	}
	c.second()
	c.ejected(0, "ejected for 30s: its reads take over 33ms, those of the shard's others under 2ms")
	c.ejected(1, "")
	c.ejected(2, "")
}

// The way to another region is no fault of the server.
func TestTheWayIsNotSlowness(t *testing.T) {
	c := newCourt(t, 1)
	c.table.Health().Distance("syd", 280*time.Millisecond, c.now)
	c.seq++
	c.table.Health().Announce(rib.Announcement{
		Observer: "me", Stamp: rib.Stamp{Incarnation: 1, Seq: c.seq},
		Backend: rib.Backend{Name: "b1", Shard: "shard_1", Region: "syd", Addr: "10.0.0.2:5432", SystemID: 11},
	})
	c.says(1, rib.Up)
	c.second()
	c.reads(0, 100, 30*time.Millisecond)
	c.reads(1, 100, 285*time.Millisecond)
	c.second()
	c.ejected(1, "")
	c.ejected(0, "")
}

// Each ejection lasts longer than the one before, up to a bound; what behaves is forgiven bit by bit.
func TestEjectionsGrowAndAreForgotten(t *testing.T) {
	c := newCourt(t, 2)
	eject := func(want string) (lasted int) {
		t.Helper()
		for range 3 {
			c.errors(0, 5)
			c.second()
		}
		if got, _, _ := strings.Cut(c.trial(0).Ejected, ":"); got != "ejected for "+want {
			t.Fatalf("%q, want ejected for %s", c.trial(0).Ejected, want)
		}
		for c.trial(0).Ejected != "" {
			c.second()
			lasted++
		}
		return lasted
	}
	for _, want := range []struct {
		text    string
		seconds int
	}{{"30s", 30}, {"1m0s", 60}, {"1m15s", 75}, {"1m15s", 75}} {
		if got := eject(want.text); got != want.seconds {
			t.Errorf("ejected for %d s, want %d", got, want.seconds)
		}
	}
	c.seconds(31) // one of the two that count is forgotten
	eject("1m0s")
	c.seconds(120)
	eject("30s")
}

func TestSlowStart(t *testing.T) {
	c := newCourt(t, 2)
	held := func(want ...uint8) {
		t.Helper()
		var got []uint8
		for i := range 35 {
			if h := c.trial(0).Held; i == 0 || h != got[len(got)-1] {
				got = append(got, h)
			}
			c.second()
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("it leaves %v %% of its turns to others, want %v", got, want)
		}
		if h := c.trial(1).Held; h != 0 {
			t.Errorf("the other is held back by %d %%", h)
		}
	}
	held(0) // at the start of the node nobody is
	c.says(0, rib.Down)
	c.second()
	held(90) // so that it does not get everything before the next look
	c.says(0, rib.Up)
	c.second()
	held(90, 75, 60, 45, 30, 15, 0)

	c.table.Health().Evidence("b0", true, "refused")
	c.second()
	c.table.Health().Evidence("b0", false, "")
	c.second()
	held(90, 75, 60, 45, 30, 15, 0)

	for range 3 { // and after an ejection
		c.errors(0, 5)
		c.second()
	}
	c.seconds(30)
	c.ejected(0, "")
	held(90, 75, 60, 45, 30, 15, 0)

	c.rules.WarmUp = 0
	c.says(0, rib.Down)
	c.second()
	held(0)
}

// A server that was restarted has lost its connections; that is over when it is back.
func TestWhatWasBeforeTheReturnDoesNotCount(t *testing.T) {
	c := newCourt(t, 2)
	for range 2 {
		c.errors(0, 5)
		c.second()
	}
	c.says(0, rib.Down)
	c.errors(0, 5)
	c.second()
	c.says(0, rib.Up)
	c.second()
	c.errors(0, 1)
	c.second()
	c.ejected(0, "")
}

func TestGaugeSortsByTime(t *testing.T) {
	// What a gauge holds shows in what Judge says: half of the times are at most what was counted.
	for _, took := range []time.Duration{20 * time.Millisecond, 50 * time.Millisecond, time.Second, time.Minute, time.Hour} {
		c := newCourt(t, 2)
		c.reads(0, 60, took)
		c.reads(1, 60, -time.Second) // a clock that is not to be trusted
		c.second()
		var least time.Duration
		text := c.trial(0).Ejected
		if _, after, ok := strings.Cut(text, "take over "); ok {
			word, _, _ := strings.Cut(after, ",")
			least, _ = time.ParseDuration(word)
		}
		if least > took || least < min(took*6/10, time.Minute) {
			t.Errorf("reads of %v: %q", took, text)
		}
	}
}
