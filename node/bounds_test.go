package node

import (
	"testing"
	"time"

	"rangefinder/rib"
)

// The configuration's bounds are those by which a node tells what it sees: at once what crosses them, also after a reload has brought others.
func TestConfiguredBoundsAreToldBy(t *testing.T) {
	cfg := testConfig(t, "fra")
	cfg.Reads.MaxLag = Duration{20 * time.Second}
	next := cfg
	n := newNodeWith(t, cfg, Options{Load: func() (Config, error) { return next, nil }}).open(t)
	n.speaker().Announce(rib.Backend{Name: "b", Shard: "shard_1", Region: "fra", Addr: "127.0.0.1:1", SystemID: 7})
	seen := func(lag time.Duration, bytes int64) (told rib.Route) {
		t.Helper()
		n.speaker().Observe(rib.Route{Backend: "b", State: rib.Up, Role: rib.Replica, Timeline: 1, Lag: lag, LagBytes: bytes})
		for _, v := range n.table.Snapshot().Backends {
			for _, r := range v.Routes {
				if r.Backend == "b" && r.State == rib.Up {
					told = r
				}
			}
		}
		return told
	}
	reload := func(lag time.Duration, bytes int64) {
		t.Helper()
		next.Reads.MaxLag, next.Reads.MaxLagBytes = Duration{lag}, Size{Bytes: bytes}
		if _, err := n.Reload("a test"); err != nil {
			t.Fatal(err)
		}
	}
	first := seen(9*time.Second, 0)
	if r := seen(12*time.Second, 0); r != first {
		t.Errorf("within the bound %+v is told after %+v", r, first)
	}
	if r := seen(20001*time.Millisecond, 0); r.Lag <= 20*time.Second {
		t.Errorf("beyond the bound %+v is told", r)
	}
	reload(10*time.Hour, 64<<20)
	second := seen(20001*time.Millisecond, 60<<20)
	if r := seen(20001*time.Millisecond, 65<<20); second.LagBytes > 64<<20 || r.LagBytes <= 64<<20 {
		t.Errorf("beyond the new bound %+v is told after %+v", r, second)
	}
}
