package wire_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
)

// When connections that a pool keeps have been ended meanwhile, a read of several shards gets others.
func TestReadsOfSeveralShardsOutliveConnections(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	conn := r.connect(pgx.QueryExecModeExec)
	for i := range 5 {
		var n int
		if err := conn.QueryRow(ctx, fmt.Sprintf("SELECT count(*) FROM orders WHERE id <> %d", -i)).Scan(&n); err != nil || n != 0 {
			t.Fatalf("%d: %d rows, %v", i, n, err)
		}
		for _, s := range r.servers {
			if err := s.replica.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.busy(t, 0)
}
