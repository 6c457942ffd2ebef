package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// readFrames reads up to the next ReadyForQuery and returns the frames' types, without notices and parameters, and the error
// among them.
func readFrames(conn net.Conn) (string, *pg.Error, error) {
	var types []byte
	var failure *pg.Error
	var head [pg.HeaderSize]byte
	for {
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return string(types), failure, err
		}
		n := int(head[1])<<24 | int(head[2])<<16 | int(head[3])<<8 | int(head[4])
		body := make([]byte, n-4)
		if _, err := io.ReadFull(conn, body); err != nil {
			return string(types), failure, err
		}
		if head[0] == 'E' {
			var err error
			if failure, err = pg.DecodeError(body); err != nil {
				return string(types), failure, err
			}
		}
		if head[0] != 'S' && head[0] != 'N' {
			types = append(types, head[0])
		}
		if head[0] == 'Z' {
			return string(types), failure, nil
		}
	}
}

// Whatever happens to the replica that is read from, each request has exactly one answer: its frames, or an error.
func TestEveryRequestHasOneAnswer(t *testing.T) {
	shards := ownShards(t, 1)
	r := newRig(t, rigOptions{shards: shards})
	load, err := pgconn.Connect(ctxOf(t), r.dsn())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := load.Exec(ctxOf(t), "INSERT INTO orders (customer_id, id) VALUES (1, 1)").ReadAll(); err != nil {
		t.Fatal(err)
	}
	load.Close(ctxOf(t))
	if err := shards[0].replica.CaughtUp(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	prepared := pg.AppendParse(nil, "s", "SELECT id FROM orders WHERE customer_id = $1", nil)
	var bind []byte
	body := "\x00s\x00\x00\x00\x00\x01\x00\x00\x00\x011\x00\x00"
	bind = append(bind, 'B', 0, 0, 0, byte(len(body)+4))
	bind = append(bind, body...)
	execute := pg.AppendSync(pg.AppendExecute(pg.AppendDescribe(bind, 'P', ""), "", 0))

	var answers, failed atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range 8 {
		pc, err := pgconn.Connect(ctxOf(t), r.dsn()+fmt.Sprintf(" application_name=client%d", i)) // so that settings are replayed
		if err != nil {
			t.Fatal(err)
		}
		conn := pgtest.Hijack(ctxOf(t), t, pc)
		wg.Go(func() {
			defer conn.Close()
			ask := func(request []byte) string {
				conn.SetDeadline(time.Now().Add(patience))
				if _, err := conn.Write(request); err != nil {
					return err.Error()
				}
				types, failure, err := readFrames(conn)
				if err != nil {
					return types + " " + err.Error()
				}
				if failure != nil {
					t.Logf("%s: %s (%s)", failure.Code, failure.Message, failure.Detail)
				}
				return types
			}
			if got := ask(pg.AppendSync(bytes.Clone(prepared))); got != "1Z" {
				t.Errorf("Parse is answered by %q", got)
				return
			}
			for !stop.Load() {
				switch got := ask(execute); got {
				case "2TDCZ":
					answers.Add(1)
				case "EZ":
					failed.Add(1)
				default:
					t.Errorf("a request is answered by %q", got)
					return
				}
			}
		})
	}
	for round := range 6 {
		from := answers.Load()
		pgtest.Eventually(t, patience, func() error {
			if answers.Load()-from < 300 {
				return errors.New("no answers")
			}
			return nil
		})
		if round%2 == 0 {
			err = shards[0].replica.Kill()
		} else {
			err = shards[0].replica.Start(ctxOf(t))
			r.table.Health().Evidence("shard_1-replica", false, "")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	wg.Wait()
	if failed.Load() != 0 {
		t.Errorf("%d of %d reads failed, although the primary was there", failed.Load(), answers.Load())
	}
}
