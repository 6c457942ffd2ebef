package wire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// rowsOf are the rows of one column that a simple Query is answered with.
func rowsOf(ctx context.Context, conn *pgx.Conn, sql string) (string, error) {
	rows, _ := conn.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return fmt.Sprint(all), err
}

// A server that says more than it was asked for, in the same breath or later, gives nobody what is not his: who asked gets his answer,
// the next ones theirs or an error, and other sessions go on.
func TestServerSaysMoreThanItWasAsked(t *testing.T) {
	alien := rowOf("alien", 'I')
	row := alien[bytes.IndexByte(alien, 'D') : bytes.IndexByte(alien, 'D')+16]
	for name, more := range map[string][]byte{
		"ready":          pg.AppendReady(nil, 'I'),
		"ready, open":    pg.AppendReady(nil, 'T'),
		"rows":           append(bytes.Clone(row), row...),
		"rows and ready": pg.AppendReady(pg.AppendCommandComplete(bytes.Clone(row), "SELECT 1"), 'I'),
		"complete":       pg.AppendCommandComplete(nil, "SELECT 1"),
		"error":          pg.AppendError(nil, pg.NewError("XX000", "alien")),
		"half a row":     row[:9],
		"half a header":  row[:3],
		"copy data":      {'d', 0, 0, 0, 6, 'x', '\n'},
		"notice":         pg.AppendNotice(nil, &pg.Error{Severity: "WARNING", Code: "01000", Message: "alien"}),
		"parameter":      pg.AppendParameterStatus(nil, "TimeZone", "Mars/Phobos"),
	} {
		t.Run(name, func(t *testing.T) {
			for _, later := range []bool{false, true} {
				bothAtOnce(t, func(t *testing.T, buffered bool) {
					said := make(chan struct{})
					fake := fakeServer(t, fakeSystemID, func(c *pgtest.FakeConn, sql string, status byte) error {
						answer := rowOf(sql, status)
						if sql == "SELECT odd" && !later {
							answer = append(answer, more...)
						}
						err := pgtest.SendBytes(answer)(c)
						if sql == "SELECT odd" && later {
							if err == nil {
								err = untilTaken(c)
							}
							if err == nil {
								err = pgtest.SendBytes(more)(c)
							}
							close(said)
						}
						return err
					})
					r := newRig(t, rigOptions{tls: buffered, poolSize: 1, backends: fakeAlone(fake)})
					odd, next, other := r.connect(pgx.QueryExecModeSimpleProtocol), r.connect(pgx.QueryExecModeSimpleProtocol), r.connect(pgx.QueryExecModeSimpleProtocol)
					if got, err := rowsOf(ctxOf(t), odd, "SELECT odd"); err != nil || got != "[SELECT odd]" {
						t.Errorf("later %v: its own answer: %s, %v", later, got, err)
					}
					if later {
						<-said
					}
					// The end of a statement without rows could be the end of this one: that it has none is all that can go wrong.
					if got, err := rowsOf(ctxOf(t), next, "SELECT next"); err == nil && got != "[SELECT next]" && (got != "[]" || name != "complete") {
						t.Errorf("later %v: the next one got %s", later, got)
					}
					for i, conn := range []*pgx.Conn{other, odd, next} {
						if conn.IsClosed() {
							t.Errorf("later %v: session %d was ended", later, i)
							continue
						}
						if got, err := rowsOf(ctxOf(t), conn, "SELECT last"); err != nil || got != "[SELECT last]" {
							t.Errorf("later %v: session %d, afterwards: %s, %v", later, i, got, err)
						}
					}
				})
			}
		})
	}
}

// A server that stops in the middle of anything at all, and closes, or says nothing more: its client has no answer, or waits until it
// has had enough. Nobody else's answer goes with it, and no connection is left in use.
func TestServerStopsInTheMiddleOfAnything(t *testing.T) {
	for name, last := range map[string]pgtest.Step{"closes": pgtest.Close(), "resets": pgtest.Reset(), "hangs": pgtest.Hang()} {
		t.Run(name, func(t *testing.T) {
			bothAtOnce(t, func(t *testing.T, buffered bool) {
				var stopped atomic.Int32
				fake := fakeServer(t, fakeSystemID, func(c *pgtest.FakeConn, sql string, status byte) error {
					at := 0
					if _, err := fmt.Sscanf(sql, "SELECT odd_%d", &at); err != nil {
						return answered(c, sql, status)
					}
					stopped.Add(1)
					if err := pgtest.SendBytes(rowOf(sql, status)[:at])(c); err != nil {
						return err
					}
					return errStop
				}, untilTaken, last)
				r := newRig(t, rigOptions{tls: buffered, poolSize: 100, backends: fakeAlone(fake)})
				other := r.connect(pgx.QueryExecModeSimpleProtocol)
				// Those whose servers hang wait until they have had enough.
				enough, leave := context.WithCancel(ctxOf(t))
				defer leave()
				var wg sync.WaitGroup
				asked := int32(0)
				for at := 1; at < len(rowOf("SELECT odd_10", 'I')); at += 2 {
					asked++
					odd := r.connect(pgx.QueryExecModeSimpleProtocol)
					wg.Go(func() {
						got, err := rowsOf(enough, odd, fmt.Sprintf("SELECT odd_%02d", at))
						if err == nil {
							t.Errorf("at %d: half an answer is one: %s", at, got)
						}
						if waits := errors.Is(err, context.Canceled); waits != (name == "hangs") {
							t.Errorf("at %d: it ends with %v", at, err)
						}
						odd.PgConn().Conn().Close()
					})
				}
				for range 20 {
					if got, err := rowsOf(ctxOf(t), other, "SELECT other"); err != nil || got != "[SELECT other]" {
						t.Errorf("another session: %s, %v", got, err)
					}
				}
				pgtest.Eventually(t, patience, func() error {
					if n := stopped.Load(); n < asked {
						return fmt.Errorf("%d of %d were asked", n, asked)
					}
					return nil
				})
				if name == "hangs" {
					leave()
				}
				wg.Wait()
				if got, err := rowsOf(ctxOf(t), other, "SELECT other"); err != nil || got != "[SELECT other]" {
					t.Errorf("another session, afterwards: %s, %v", got, err)
				}
				r.busy(t, 0)
			})
		})
	}
}
