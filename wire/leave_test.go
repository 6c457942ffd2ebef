package wire_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

// The sessions that there are when a node is drained end as soon as they have no transaction open, also one that sleeps; those that come
// later stay, and so does one in a transaction for which the drain is over by then.
func TestSessionsLeaveADrainedNode(t *testing.T) {
	bothTransports(t, func(t *testing.T, buffered bool) {
		r := newRig(t, rigOptions{buffered: buffered, sleepAfter: 20 * time.Millisecond})
		ctx := ctxOf(t)
		const idle, inBlock, kept = 0, 1, 2
		var conns [3]*pgx.Conn
		for i := range conns {
			conns[i] = r.connect(pgx.QueryExecModeExec)
		}
		begin := func(conn *pgx.Conn) {
			t.Helper()
			if _, err := conn.Exec(ctx, "BEGIN; SELECT count(*) FROM notes"); err != nil {
				t.Fatal(err)
			}
		}
		begin(conns[inBlock])
		begin(conns[kept])
		if _, err := conns[idle].Exec(ctx, "SELECT 1"); err != nil {
			t.Fatal(err)
		}
		gone := func(conn *pgx.Conn) {
			t.Helper()
			pgtest.Eventually(t, 10*time.Second, func() error {
				_, err := conn.Exec(ctx, "SELECT 1")
				if err == nil {
					return errors.New("the session lives")
				}
				if code := codeOf(err); len(code) == 5 && code != "57P01" {
					t.Fatalf("it ends with %v", err)
				}
				return nil
			})
		}
		are := func(leaving, others int) {
			t.Helper()
			pgtest.Eventually(t, 10*time.Second, func() error {
				if l, o := r.server.Leaving(); l != leaving || o != others {
					return fmt.Errorf("%d sessions are to go and %d are not, want %d and %d", l, o, leaving, others)
				}
				return nil
			})
		}
		are(0, 3)
		r.server.Leave(true)
		gone(conns[idle])
		are(2, 0)
		late := r.connect(pgx.QueryExecModeExec)
		are(2, 1)
		if _, err := conns[inBlock].Exec(ctx, "SELECT 2"); err != nil {
			t.Errorf("in a transaction: %v", err)
		}
		if _, err := conns[inBlock].Exec(ctx, "COMMIT"); err != nil {
			t.Errorf("its end: %v", err)
		}
		gone(conns[inBlock])
		are(1, 1)
		r.server.Leave(false)
		are(0, 2)
		for _, conn := range []*pgx.Conn{conns[kept], late} {
			if _, err := conn.Exec(ctx, "COMMIT; SELECT 1"); err != nil {
				t.Errorf("one that may stay: %v", err)
			}
		}
	})
}
