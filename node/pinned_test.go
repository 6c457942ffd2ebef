package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
)

// Reads that are pinned to where nothing is, or nothing is any more, are errors that say so, and all that fails: who comes then to write finds
// the primary, also by statements that are prepared first.
func TestPinnedToWhereNothingIs(t *testing.T) {
	for what, region := range map[string]string{"its backend is down": "fra", "it has no backend": "ams"} {
		t.Run(what, func(t *testing.T) {
			f := startFollowed(t, nil)
			f.next.Databases = []Listing{{Name: "app", Shard: "shard_1", Regions: []string{region}, Pinned: true}}
			if _, err := f.Reload("a test"); err != nil {
				t.Fatal(err)
			}
			if region == "fra" {
				if err := f.replica.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			pgtest.Eventually(t, 30*time.Second, func() error {
				if c := f.fib.Load().Slot("shard_1").For("app"); len(c.Reads) > 0 && c.Reads[0].Healthy {
					return errors.New("reads have somewhere to go")
				}
				return nil
			})
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeCacheStatement} {
				if _, err := f.connect(t).Exec(t.Context(), "UPDATE counter SET n = $1", mode, 1); err != nil {
					t.Errorf("a write, %v: %v", mode, err)
				}
			}
			conn := f.connect(t) // has written nothing
			for _, sql := range []string{"SELECT 1", "SELECT n FROM counter", "SELECT count(*) FROM pg_class"} {
				_, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeExec)
				var pe *pgconn.PgError
				if !errors.As(err, &pe) || pe.Code != "57P03" || !strings.Contains(pe.Hint, "pinned to its regions") {
					t.Errorf("%s: %+v", sql, err)
				}
			}
		})
	}
}
