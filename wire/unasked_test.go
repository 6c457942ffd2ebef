package wire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"
	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// answerOf is how the servers of this file answer a statement: with itself.
func answerOf(sql string) []byte {
	value := []byte(sql)
	if bytes.Contains(value, []byte("pg_catalog.concat")) { // what a login asks
		value = []byte("6:public")
	}
	row, err := (&pgproto3.DataRow{Values: [][]byte{value}}).Encode(pg.AppendRowDescription(nil, []pg.Field{{Name: "x"}}))
	if err != nil {
		panic(err)
	}
	return pg.AppendReady(pg.AppendCommandComplete(row, "SELECT 1"), 'I')
}

// errStop ends eachQuery.
var errStop = errors.New("stop")

// eachQuery calls do with each Query that comes, until it returns errStop; then the script goes on. It ends with the connection.
func eachQuery(c *pgtest.FakeConn, do func(sql string) error) error {
	for {
		var sql string
		err := pgtest.ExpectThat(func(m pgproto3.FrontendMessage) error {
			if q, ok := m.(*pgproto3.Query); ok {
				sql = q.String
			}
			return nil
		})(c)
		if err == nil && sql != "" {
			err = do(sql)
		}
		switch {
		case err == errStop:
			return nil
		case err != nil:
			return pgtest.Close()(c)
		}
	}
}

// rowsOf are the rows of one column that a simple Query is answered with.
func rowsOf(ctx context.Context, conn *pgx.Conn, sql string) (string, error) {
	rows, _ := conn.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return fmt.Sprint(all), err
}

// A server that says more than it was asked for, in the same breath or later, gives nobody what is not his: who asked gets his answer,
// the next ones theirs or an error, and other sessions go on.
func TestServerSaysMoreThanItWasAsked(t *testing.T) {
	alien := answerOf("alien")
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
				bothTransports(t, func(t *testing.T, buffered bool) {
					said := make(chan struct{})
					serve := func(c *pgtest.FakeConn) error {
						return eachQuery(c, func(sql string) error {
							answer := answerOf(sql)
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
					}
					fake := pgtest.NewFake(t, pgtest.Script{pgtest.Login(), pgtest.Identify(fakeSystemID), serve})
					r := newRig(t, rigOptions{tls: buffered, poolSize: 1, backends: []rib.Backend{{Name: "b", Shard: "shard_1", Region: "fra", Addr: fake.Addr()}}})
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
			bothTransports(t, func(t *testing.T, buffered bool) {
				serve := func(c *pgtest.FakeConn) error {
					return eachQuery(c, func(sql string) error {
						answer, at := answerOf(sql), 0
						if _, err := fmt.Sscanf(sql, "SELECT odd %d", &at); err != nil {
							return pgtest.SendBytes(answer)(c)
						}
						if err := pgtest.SendBytes(answer[:at])(c); err != nil {
							return err
						}
						return errStop
					})
				}
				fake := pgtest.NewFake(t, pgtest.Script{pgtest.Login(), pgtest.Identify(fakeSystemID), serve, untilTaken, last})
				r := newRig(t, rigOptions{tls: buffered, poolSize: 100, backends: []rib.Backend{{Name: "b", Shard: "shard_1", Region: "fra", Addr: fake.Addr()}}})
				other := r.connect(pgx.QueryExecModeSimpleProtocol)
				var wg sync.WaitGroup
				for at := 1; at < len(answerOf("SELECT odd 10")); at += 2 {
					odd := r.connect(pgx.QueryExecModeSimpleProtocol)
					wg.Go(func() {
						ctx, cancel := context.WithTimeout(context.Background(), patience)
						if name == "hangs" {
							ctx, cancel = context.WithTimeout(context.Background(), time.Second)
						}
						defer cancel()
						got, err := rowsOf(ctx, odd, fmt.Sprintf("SELECT odd %2d", at))
						if err == nil {
							t.Errorf("at %d: half an answer is one: %s", at, got)
						}
						if waits := errors.Is(err, context.DeadlineExceeded); waits != (name == "hangs") {
							t.Errorf("at %d: it ends with %v", at, err)
						}
						odd.Close(context.Background())
					})
				}
				for range 20 {
					if got, err := rowsOf(ctxOf(t), other, "SELECT other"); err != nil || got != "[SELECT other]" {
						t.Errorf("another session: %s, %v", got, err)
					}
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
