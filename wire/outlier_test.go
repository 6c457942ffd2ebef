package wire_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/rib"
)

// What reads wait for on the node, a RESUME here, does not make the backend slow that runs them then.
func TestWaitsAreNotTheBackends(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	const reads = 60 // more than it takes to judge
	admin := r.console(pgx.QueryExecModeExec)
	conns := make([]*pgx.Conn, reads)
	for i := range conns {
		conns[i] = r.connect(pgx.QueryExecModeExec)
	}
	judge, rules, began := rib.NewOutliers(), rib.OutlierRules{Slowness: 4, Base: time.Minute}, time.Now()
	judge.Judge(r.table.Snapshot(), rules, began)

	r.command(admin, "PAUSE app")
	done := make([]<-chan error, reads)
	for i, conn := range conns {
		done[i] = start(ctx, conn, "SELECT count(*) FROM notes")
	}
	r.waiting(reads)
	r.pass(t, time.Second)
	r.command(admin, "RESUME app")
	for _, d := range done {
		if err := <-d; err != nil {
			t.Fatal(err)
		}
	}
	s := r.table.Snapshot()
	for i := range s.Backends {
		b := &s.Backends[i]
		s.Distances[b.Backend.Region] = 0
		for range reads { // the others are quicker than a second, and have not run any of these
			if b.Backend.Name != "shard_1-replica" {
				b.Gauge.Read(50 * time.Millisecond)
			}
		}
	}
	if trial := judge.Judge(s, rules, began.Add(time.Second))["shard_1-replica"]; trial.Ejected != "" {
		t.Error(trial.Ejected)
	}
}
