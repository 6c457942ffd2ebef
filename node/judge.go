package node

import (
	"context"
	"time"

	"rangefinder/rib"
)

const judgeTick = time.Second

// readPolicy is which backends reads may use, as the configuration says.
func (cfg *Config) readPolicy() *rib.Policy {
	p := &rib.Policy{MaxLag: cfg.Reads.MaxLag.Duration, MaxLagBytes: cfg.Reads.MaxLagBytes.Bytes, Databases: map[string]rib.Preference{}}
	for _, d := range cfg.Databases {
		if len(d.Regions) > 0 {
			p.Databases[d.Name] = rib.Preference{Regions: d.Regions, Pinned: d.Pinned}
		}
	}
	return p
}

// outlierRules are when a backend that answers is left out all the same.
func (cfg *Config) outlierRules() rib.OutlierRules {
	r := cfg.Reads
	return rib.OutlierRules{Errors: r.EjectErrors, Slowness: float64(r.EjectSlow), Base: r.EjectTime.Duration, Longest: r.EjectMax.Duration, WarmUp: r.WarmUp.Duration}
}

// judgeLoop judges backends by how they answer this node's statements.
func (n *Node) judgeLoop(ctx context.Context) {
	judge := rib.NewOutliers()
	last := map[string]rib.Trial{}
	for pause(ctx, judgeTick) {
		trials := judge.Judge(n.table.Snapshot(), n.cfg().outlierRules(), time.Now())
		for backend, t := range trials {
			if t.Ejected != "" && t.Ejected != last[backend].Ejected {
				n.log.Warn("a backend is ejected: it gets no reads from here", "backend", backend, "reason", t.Ejected)
				n.metrics.Ejected(backend)
			}
		}
		for backend, t := range last {
			if t.Ejected != "" && trials[backend].Ejected == "" {
				n.log.Info("an ejection is over", "backend", backend)
			}
		}
		n.table.Local().Try(trials)
		last = trials
	}
}
