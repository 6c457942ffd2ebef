package wire_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

const (
	// streamed is how much data goes through the node, in bytes.
	streamed = 64 << 20
	// streamMost is how much more memory the process may have in use at any time meanwhile: the node's, the client's that counts
	// what comes, and what the collector has not found yet.
	streamMost = 16 << 20
)

// highWater calls do, and returns by how much the memory of the process's objects has exceeded what it was before, at its highest.
func highWater(do func()) int64 {
	objects := func() int64 {
		s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(s)
		return int64(s[0].Value.Uint64())
	}
	inUse() // with a collection
	before, most := objects(), int64(0)
	done, looked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(looked)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			most = max(most, objects()-before)
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	}()
	do()
	close(done)
	<-looked
	return max(most, objects()-before)
}

// skim reads frames without keeping them up to the next one of that type, and returns how many bytes frames of the counted type had.
func skim(r *bufio.Reader, until, counted byte) (total int64, err error) {
	for {
		head, err := r.Peek(pg.HeaderSize)
		if err != nil {
			return total, err
		}
		typ, size := head[0], int(binary.BigEndian.Uint32(head[1:]))+1
		if typ == 'E' {
			all, _ := r.Peek(min(size, r.Buffered()))
			return total, fmt.Errorf("error: %q", all)
		}
		if _, err := r.Discard(size); err != nil {
			return total, err
		}
		if typ == counted {
			total += int64(size)
		}
		if typ == until {
			return total, nil
		}
	}
}

// stalls waits until a count of bytes has begun to rise and stands still.
func stalls(t *testing.T, from uint64, count func() uint64) {
	t.Helper()
	last, still := count(), 0
	pgtest.Eventually(t, patience, func() error {
		now := count()
		if still++; now != last || now == from {
			last, still = now, 0
		}
		if still < 20 {
			return fmt.Errorf("it goes on, at %d bytes", now)
		}
		return nil
	})
}

// What is large goes through a node in pieces, each way, on both transports: the memory that this takes does not grow with the data,
// also if whoever is to take it does not.
func TestLargeDataTakesLittleMemory(t *testing.T) {
	for name, o := range map[string]rigOptions{"raw": {}, "tls": {tls: true}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, o)
			primary := servers(t)[0].primary
			if err := primary.ExecIn(ctxOf(t), "app",
				"CREATE UNLOGGED TABLE sink (body text)", "ALTER TABLE sink ALTER body SET STORAGE EXTERNAL", "GRANT ALL ON sink TO app",
				"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$",
				"CREATE TRIGGER slow BEFORE INSERT ON sink FOR EACH ROW WHEN (NEW.body = 'wait') EXECUTE FUNCTION slow()"); err != nil {
				t.Fatal(err)
			}
			admin, err := primary.ConnTo(ctxOf(t), "app", "postgres")
			if err != nil {
				t.Fatal(err)
			}
			defer admin.Close(context.Background())
			conn := pgtest.Hijack(ctxOf(t), t, r.connect(pgx.QueryExecModeExec).PgConn())
			below := conn
			if t, ok := conn.(*tls.Conn); ok {
				below = t.NetConn()
			}
			if err := below.(*net.TCPConn).SetReadBuffer(256 << 10); err != nil { // else Linux lets it grow to half of the data
				t.Fatal(err)
			}
			in := bufio.NewReaderSize(conn, 32<<10)
			send := func(b []byte) {
				t.Helper()
				conn.SetDeadline(time.Now().Add(patience))
				if _, err := conn.Write(b); err != nil {
					t.Error(err)
				}
			}
			answer := func(until, counted byte) (n int64) {
				t.Helper()
				n, err := skim(in, until, counted)
				if err != nil {
					t.Error(err)
				}
				return n
			}
			totals := func() (sent, received uint64) {
				for _, d := range r.server.Snapshot().Databases {
					if d.Name == "app" {
						return d.Totals.Sent, d.Totals.Received
					}
				}
				return 0, 0
			}
			// reads asks, reads nothing until the node has stopped, and then all.
			reads := func(request []byte, counted byte) func() {
				return func() {
					from, _ := totals()
					send(request)
					stalls(t, from, func() uint64 { sent, _ := totals(); return sent })
					if now, _ := totals(); now-from > streamed/2 {
						t.Errorf("%d bytes were written to a client that does not read", now-from)
					}
					if n := answer('Z', counted); n < streamed || n > streamed+streamed/10 {
						t.Errorf("%d bytes", n)
					}
				}
			}
			// writes sends a first row that the server stops at, then the head and the piece so many times, and the tail.
			writes := func(head, piece []byte, times int, tail []byte, rows, length int) func() {
				return func() {
					if _, err := admin.Exec(ctxOf(t), "TRUNCATE sink; SELECT pg_advisory_lock(1)"); err != nil {
						t.Fatal(err)
					}
					send(pg.AppendQuery(nil, "COPY sink FROM STDIN"))
					answer('G', 0)
					_, from := totals()
					sent := make(chan struct{})
					go func() {
						defer close(sent)
						send(append(copyData("wait\n"), head...))
						for range times {
							send(piece)
						}
						send(append(tail, copyDone()...))
					}()
					stalls(t, from, func() uint64 { _, received := totals(); return received })
					if _, now := totals(); now-from > streamed/2 {
						t.Errorf("%d bytes were taken for a server that does not read", now-from)
					}
					if _, err := admin.Exec(ctxOf(t), "SELECT pg_advisory_unlock(1)"); err != nil {
						t.Error(err)
					}
					<-sent
					answer('Z', 0)
					var n, bytes int
					if err := admin.QueryRow(ctxOf(t), "SELECT count(*), sum(octet_length(body)) FROM sink").Scan(&n, &bytes); err != nil || n != rows || bytes != rows*length {
						t.Errorf("%d rows with %d bytes are stored, want %d with %d: %v", n, bytes, rows, rows*length, err)
					}
				}
			}
			one := fmt.Sprintf("SELECT repeat('x', %d)", streamed)
			many := fmt.Sprintf("SELECT repeat('x', 1000) FROM generate_series(1, %d)", streamed/1000)
			extended := pg.AppendBindText(pg.AppendParse(nil, "", many, nil))
			extended = pg.AppendSync(pg.AppendExecute(pg.AppendDescribe(extended, 'P', ""), "", 0))
			part, line := bytes.Repeat([]byte{'x'}, 1<<16), append(bytes.Repeat([]byte{'x'}, 1<<10-1), '\n')
			frame := binary.BigEndian.AppendUint32([]byte{'d'}, streamed+1+4)
			for name, do := range map[string]func(){
				"one value":           reads(pg.AppendQuery(nil, one), 'D'),
				"many rows":           reads(extended, 'D'),
				"COPY out, many rows": reads(pg.AppendQuery(nil, "COPY ("+many+") TO STDOUT"), 'd'),
				"COPY in, one value":  writes(frame, part, streamed>>16, []byte{'\n'}, 1, streamed),
				"COPY in, many rows":  writes(nil, copyData(string(line)), streamed>>10, nil, streamed>>10, 1<<10-1),
			} {
				t.Run(name, func(t *testing.T) {
					began := time.Now()
					most := highWater(do)
					t.Logf("%.1f MiB at most, %v", float64(most)/(1<<20), time.Since(began))
					if most > streamMost {
						t.Errorf("%.1f MiB of memory for %d MiB of data", float64(most)/(1<<20), streamed>>20)
					}
				})
			}
		})
	}
}

// What cannot go in pieces, because it must be understood first, is bounded by limits.frame, takes a few times its size, and leaves nothing
// in a session that waits for its next request.
func TestLargeMessagesLeaveNothing(t *testing.T) {
	const (
		size  = 16 << 20
		times = 10 // once or twice in each buffer that it goes through, until the collector comes
	)
	for name, o := range map[string]rigOptions{"raw": {}, "tls": {tls: true}} {
		t.Run(name, func(t *testing.T) {
			o.maxFrame = size + 1<<10
			o.sleepAfter = time.Hour // sleep would hide it
			r := newRig(t, o)
			conn := pgtest.Hijack(ctxOf(t), t, r.connect(pgx.QueryExecModeExec).PgConn())
			in := bufio.NewReaderSize(conn, 32<<10)
			value := strings.Repeat("x", size)
			for name, message := range map[string]func() []byte{
				"query":     func() []byte { return simple("SELECT length('" + value + "')") },
				"parameter": func() []byte { return msg(extended("SELECT length($1)", value), syncs()) },
				"write": func() []byte {
					return msg(extended("INSERT INTO notes VALUES (1, left($1, 10)) ON CONFLICT DO NOTHING", value), syncs())
				},
			} {
				t.Run(name, func(t *testing.T) {
					sent := message()
					before := inUse()
					most := highWater(func() {
						conn.SetDeadline(time.Now().Add(patience))
						if _, err := conn.Write(sent); err != nil {
							t.Fatal(err)
						}
						if _, err := skim(in, 'Z', 0); err != nil {
							t.Fatal(err)
						}
					})
					if most > times*size {
						t.Errorf("%.1f times the size of the message", float64(most)/size)
					}
					pgtest.Eventually(t, patience, func() error {
						if left := inUse() - before; left > 2<<20 { // what is made once is among it
							return fmt.Errorf("%d bytes are left of a message of %d", left, size)
						}
						return nil
					})
					runtime.KeepAlive(sent)
					t.Logf("%.1f times the size of the message", float64(most)/size)
				})
			}
		})
	}
}
