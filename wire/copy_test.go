package wire_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// copyOut is what COPY TO STDOUT gives.
func copyOut(t *testing.T, conn *pgx.Conn, sql string) (string, pgconn.CommandTag) {
	t.Helper()
	var b bytes.Buffer
	tag, err := conn.PgConn().CopyTo(ctxOf(t), &b, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return b.String(), tag
}

func copyIn(t *testing.T, conn *pgx.Conn, sql, data string) (pgconn.CommandTag, error) {
	t.Helper()
	return conn.PgConn().CopyFrom(ctxOf(t), strings.NewReader(data), sql)
}

// sorted are the lines of a text in order.
func sorted(text string) string {
	lines := strings.SplitAfter(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// onShards asks each shard itself, and adds the numbers up.
func (r *rig) onShards(t *testing.T, sql string) (each []int, sum int) {
	t.Helper()
	for _, s := range r.servers {
		conn, err := s.primary.ConnTo(ctxOf(t), "app", "")
		if err != nil {
			t.Fatal(err)
		}
		var n int
		err = conn.QueryRow(ctxOf(t), sql).Scan(&n)
		conn.Close(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		each = append(each, n)
		sum += n
	}
	return each, sum
}

// COPY TO STDOUT of a sharded table is one stream, in each format, in a transaction and out of one.
func TestCopyOutOfShards(t *testing.T) {
	for _, buffered := range []bool{false, true} {
		t.Run(fmt.Sprintf("buffered=%v", buffered), func(t *testing.T) {
			r := newRig(t, rigOptions{buffered: buffered})
			conn := r.connect(pgx.QueryExecModeSimpleProtocol)
			var want, values strings.Builder
			for i := range 200 {
				fmt.Fprintf(&want, "%d\t%d\titem, \"%d\"\n", i, i, i)
				values.Reset()
				fmt.Fprintf(&values, "INSERT INTO orders VALUES (%d, %d, 'item, \"%d\"')", i, i, i)
				if _, err := conn.Exec(ctxOf(t), strings.Replace(values.String(), "orders", "orders (customer_id, id, item)", 1)); err != nil {
					t.Fatal(err)
				}
			}
			for _, begin := range []string{"", "BEGIN READ ONLY", "BEGIN"} {
				if begin != "" {
					if _, err := conn.Exec(ctxOf(t), begin); err != nil {
						t.Fatal(err)
					}
				}
				got, tag := copyOut(t, conn, "COPY orders TO STDOUT")
				if sorted(got) != sorted(want.String()) || tag.String() != "COPY 200" {
					t.Fatalf("%s: %s, %.300s", begin, tag, got)
				}
				got, tag = copyOut(t, conn, "COPY orders (id, customer_id) TO STDOUT (FORMAT csv, HEADER)")
				if !strings.HasPrefix(got, "id,customer_id\n") || strings.Count(got, "id,") != 1 || strings.Count(got, "\n") != 201 || tag.RowsAffected() != 200 {
					t.Fatalf("%s: %s, %.300s", begin, tag, got)
				}
				got, tag = copyOut(t, conn, "COPY (SELECT id FROM orders WHERE item <> '') TO STDOUT")
				if strings.Count(got, "\n") != 200 || tag.RowsAffected() != 200 {
					t.Fatalf("%s: %s, %.300s", begin, tag, got)
				}
				got, tag = copyOut(t, conn, "COPY orders TO STDOUT (FORMAT binary)")
				if strings.Count(got, "PGCOPY\n\xff\r\n\x00") != 1 || !strings.HasPrefix(got, "PGCOPY") || !strings.HasSuffix(got, "\xff\xff") || tag.RowsAffected() != 200 {
					t.Fatalf("%s: %s, %.100q", begin, tag, got)
				}
				// PostgreSQL itself can read what was put together.
				whole, err := r.servers[0].primary.ConnTo(ctxOf(t), "app", "")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := whole.Exec(ctxOf(t), "CREATE TEMP TABLE o (customer_id bigint, id bigint, item text)"); err != nil {
					t.Fatal(err)
				}
				if tag, err := copyIn(t, whole, "COPY o FROM STDIN (FORMAT binary)", got); err != nil || tag.RowsAffected() != 200 {
					t.Fatal(tag, err)
				}
				again, _ := copyOut(t, whole, "COPY o TO STDOUT")
				whole.Close(context.Background())
				if sorted(again) != sorted(want.String()) {
					t.Fatalf("in binary: %.300s", again)
				}
				if begin != "" {
					if _, err := conn.Exec(ctxOf(t), "COMMIT"); err != nil {
						t.Fatal(err)
					}
				}
				r.busy(t, 0)
			}
			if _, err := conn.Exec(ctxOf(t), "DELETE FROM orders WHERE customer_id = 1"); err != nil {
				t.Fatal(err)
			}
			// What cannot be copied is an error, and the session goes on.
			_, err := conn.PgConn().CopyTo(ctxOf(t), io.Discard, "COPY orders (nothing) TO STDOUT")
			wantCode(t, err, pg.CodeUndefinedColumn)
			_, err = conn.PgConn().CopyTo(ctxOf(t), io.Discard, "COPY (SELECT 1 / (id - 7) FROM orders) TO STDOUT")
			wantCode(t, err, "22012")
			if got, _ := copyOut(t, conn, "COPY orders TO STDOUT"); strings.Count(got, "\n") != 199 {
				t.Fatalf("%.300s", got)
			}
			r.busy(t, 0)
		})
	}
}

// Without two-phase commit COPY into several shards is refused before any data.
func TestCopyInNeedsTwoPhase(t *testing.T) {
	r := newRig(t, rigOptions{})
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	_, err := copyIn(t, conn, "COPY orders FROM STDIN", "1\t1\tone\n")
	if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Hint, "cross_shard_writes") {
		t.Fatal(e.Hint)
	}
	if _, n := r.onShards(t, "SELECT count(*) FROM orders"); n != 0 {
		t.Fatalf("%d rows", n)
	}
	r.busy(t, 0)
}

// COPY FROM STDIN puts each row on the shard that owns its key, in each format, in a transaction and out of one; all or nothing.
func TestCopyIntoShards(t *testing.T) {
	for _, buffered := range []bool{false, true} {
		t.Run(fmt.Sprintf("buffered=%v", buffered), func(t *testing.T) {
			r := newRig(t, rigOptions{buffered: buffered, across: true})
			conn := r.connect(pgx.QueryExecModeSimpleProtocol)
			exec := func(sql string) {
				t.Helper()
				if _, err := conn.Exec(ctxOf(t), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			// count is how many rows there are, if they are where they belong.
			count := func() int {
				t.Helper()
				half := "(hashint8extended(customer_id, 0) # '-9223372036854775808'::bigint) >= 0"
				wrong, _ := r.onShards(t, "SELECT count(*) FROM orders WHERE "+half)
				right, _ := r.onShards(t, "SELECT count(*) FROM orders WHERE NOT "+half)
				if wrong[0] != 0 || right[1] != 0 {
					t.Fatalf("rows lie wrong: %d on shard_1, %d on shard_2", wrong[0], right[1])
				}
				return right[0] + wrong[1]
			}
			var text, csv strings.Builder
			csv.WriteString("item,id,customer_id\n")
			const rows = 5000
			for i := range rows {
				fmt.Fprintf(&text, "%d\t%d\titem %d\\n\n", i, i, i)
				fmt.Fprintf(&csv, "\"item\n%d\",%d,%d\n", i, i, i+rows)
			}
			tag, err := copyIn(t, conn, "COPY orders FROM STDIN", text.String())
			if err != nil || tag.String() != "COPY 5000" {
				t.Fatal(tag, err)
			}
			if n := count(); n != rows {
				t.Fatalf("%d rows", n)
			}
			exec("BEGIN")
			if tag, err = copyIn(t, conn, "COPY orders (item, id, customer_id) FROM STDIN (FORMAT csv, HEADER match)", csv.String()); err != nil || tag.RowsAffected() != rows {
				t.Fatal(tag, err)
			}
			exec("ROLLBACK")
			if n := count(); n != rows {
				t.Fatalf("%d rows after a rollback", n)
			}
			exec("BEGIN")
			if tag, err = copyIn(t, conn, "COPY orders (item, id, customer_id) FROM STDIN (FORMAT csv, HEADER match)", csv.String()); err != nil || tag.RowsAffected() != rows {
				t.Fatal(tag, err)
			}
			exec("INSERT INTO orders (customer_id, id, item) VALUES (-1, 1, 'x')")
			exec("COMMIT")
			if n := count(); n != 2*rows+1 {
				t.Fatalf("%d rows", n)
			}
			binary, _ := copyOut(t, conn, "COPY orders TO STDOUT (FORMAT binary)")
			exec("BEGIN")
			for _, s := range r.servers {
				if err := s.primary.ExecIn(ctxOf(t), "app", "TRUNCATE orders"); err != nil {
					t.Fatal(err)
				}
			}
			exec("COMMIT")
			if tag, err = copyIn(t, conn, "COPY orders FROM STDIN (FORMAT binary)", binary); err != nil || tag.RowsAffected() != 2*rows+1 {
				t.Fatal(tag, err)
			}
			if n := count(); n != 2*rows+1 {
				t.Fatalf("%d rows in binary", n)
			}
			// The extended protocol, as pgx's own COPY.
			n, err := r.connect(pgx.QueryExecModeCacheStatement).CopyFrom(ctxOf(t), pgx.Identifier{"orders"}, []string{"customer_id", "id", "item"},
				pgx.CopyFromSlice(100, func(i int) ([]any, error) { return []any{int64(-i - 2), int64(i), "pgx"}, nil }))
			if err != nil || n != 100 {
				t.Fatal(n, err)
			}
			if tag, err = copyIn(t, conn, "COPY orders FROM STDIN", ""); err != nil || tag.String() != "COPY 0" {
				t.Fatal(tag, err)
			}
			before := count()
			if before != 2*rows+101 {
				t.Fatalf("%d rows", before)
			}
			for _, c := range []struct{ sql, data, code, where string }{
				{"COPY orders FROM STDIN", text.String() + "x\t1\ty\n", "22P02", `COPY orders, line 5001, column customer_id: "x"`},
				{"COPY orders FROM STDIN", strings.ReplaceAll(text.String(), "\t", "\t9") + "7\t\\N\ty\n", "23502", `COPY orders, line 5001: "7	\N	y"`},
				{"COPY orders (item, id, customer_id) FROM STDIN (FORMAT csv, HEADER)", "item,id,customer_id\nx,-1,-1\n\"x\n\",-2,-2\nx,y,-3\nx,-4,-4\n", "22P02", `COPY orders, line 5, column id: "y"`},
				{"COPY orders (item, id, customer_id) FROM STDIN (FORMAT csv, HEADER match)", "item,id,customer\n", "22P04", `COPY orders, line 1: "item,id,customer"`},
				{"COPY orders FROM STDIN", "\\N\t1\ty\n", "23502", `COPY orders, line 1, column customer_id: null input`},
				{"COPY orders FROM STDIN", "-1000\t1\n", "22P04", `COPY orders, line 1: "-1000	1"`},
				{"COPY orders FROM STDIN", "-1001\t1\tx\n-1001\t1\tx\n", "23505", "COPY orders, line 2"},
				{"COPY orders (id, item) FROM STDIN", "1\tx\n", "0A000", ""},
				{"COPY orders (nothing, customer_id) FROM STDIN", "1\tx\n", "42703", ""},
				{"COPY orders FROM STDIN (ENCODING 'SJIS')", "1\tx\n", "0A000", ""},
				{"COPY orders FROM STDIN (FORMAT binary)", "1\tx\n", "22P04", "COPY orders, line 1"},
			} {
				for _, block := range []bool{false, true} {
					if block {
						exec("BEGIN")
					}
					_, err := copyIn(t, conn, c.sql, c.data)
					if e := wantCode(t, err, c.code); e.Where != c.where {
						t.Errorf("%s: CONTEXT %q, want %q", c.sql, e.Where, c.where)
					}
					if block {
						_, err := conn.Exec(ctxOf(t), "SELECT 1")
						if codeOf(err) != pg.CodeInFailedTransaction {
							t.Fatalf("after %s: %v", c.sql, err)
						}
						exec("ROLLBACK")
					}
					if n := count(); n != before {
						t.Fatalf("%s: %d rows, there were %d", c.sql, n, before)
					}
					r.busy(t, 0)
				}
			}
			exec("SELECT 1")
			r.busy(t, 0)
		})
	}
}

// gatedReader gives its pieces one by one, each when it is let.
type gatedReader struct {
	pieces chan string
	rest   string
}

func (g *gatedReader) Read(p []byte) (int, error) {
	if g.rest == "" {
		piece, ok := <-g.pieces
		if !ok {
			return 0, io.EOF
		}
		g.rest = piece
	}
	n := copy(p, g.rest)
	g.rest = g.rest[n:]
	return n, nil
}

// rowsToCopy are n rows for orders, on both shards, from one key on.
func rowsToCopy(from, n int) string {
	var b strings.Builder
	for i := from; i < from+n; i++ {
		fmt.Fprintf(&b, "%d\t%d\t%s\n", i, i, strings.Repeat("x", 200))
	}
	return b.String()
}

// takes waits until a COPY runs on all shards.
func (r *rig) takes(t *testing.T) {
	t.Helper()
	pgtest.Eventually(t, patience, func() error {
		if each, _ := r.onShards(t, "SELECT count(*) FROM pg_stat_progress_copy WHERE relid = 'orders'::regclass"); slices.Contains(each, 0) {
			return fmt.Errorf("COPYs that run: %v", each)
		}
		return nil
	})
}

// A COPY that is cut off in the middle leaves nothing: whether its client goes, its shard dies, or somebody cancels it.
func TestCopyIntoShardsIsCutOff(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	quiet := func(what string) {
		t.Helper()
		r.busy(t, 0)
		pgtest.Eventually(t, patience, func() error {
			if each, n := r.onShards(t, "SELECT count(*) FROM pg_stat_activity WHERE datname = 'app' AND state <> 'idle' AND pid <> pg_backend_pid() AND backend_type = 'client backend'"); n != 0 {
				return fmt.Errorf("%s: %v at work", what, each)
			}
			return nil
		})
		if _, n := r.onShards(t, "SELECT count(*) FROM orders"); n != 0 {
			t.Fatalf("%s: %d rows", what, n)
		}
		if _, n := r.onShards(t, "SELECT count(*) FROM pg_prepared_xacts"); n != 0 {
			t.Fatalf("%s: %d prepared", what, n)
		}
	}
	start := func(conn *pgx.Conn, sql string) (*gatedReader, chan error) {
		g, done := &gatedReader{pieces: make(chan string)}, make(chan error, 1)
		go func() {
			_, err := conn.PgConn().CopyFrom(context.Background(), g, sql)
			done <- err
		}()
		g.pieces <- rowsToCopy(0, 2000)
		r.takes(t)
		return g, done
	}
	t.Run("client gone", func(*testing.T) {
		conn := r.connect(pgx.QueryExecModeSimpleProtocol)
		g, done := start(conn, "COPY orders FROM STDIN")
		conn.PgConn().Conn().Close()
		close(g.pieces)
		<-done
		quiet("client gone")
	})
	t.Run("backend ended", func(t *testing.T) {
		conn := r.connect(pgx.QueryExecModeSimpleProtocol)
		g, done := start(conn, "COPY orders FROM STDIN")
		if err := r.servers[1].primary.ExecIn(ctxOf(t), "app", "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_copy"); err != nil {
			t.Fatal(err)
		}
		quiet("backend ended") // also on the other shard, and while the client says nothing
		close(g.pieces)
		wantCode(t, <-done, pg.CodeConnectionFailure)
	})
	t.Run("client gives up", func(t *testing.T) {
		conn := r.connect(pgx.QueryExecModeSimpleProtocol)
		g, done := start(conn, "COPY orders FROM STDIN")
		cancel := conn.PgConn()
		if err := cancel.CancelRequest(ctxOf(t)); err != nil {
			t.Fatal(err)
		}
		for at := 2000; at > 0; at += 2000 {
			select {
			case g.pieces <- rowsToCopy(at, 2000): // PostgreSQL looks for a cancel request when more data come
			case err := <-done:
				wantCode(t, err, pg.CodeQueryCanceled)
				at = -2000
			}
		}
		close(g.pieces)
		quiet("client gives up")
	})
	t.Run("shard refuses in the middle", func(t *testing.T) {
		conn := r.connect(pgx.QueryExecModeSimpleProtocol)
		g, done := start(conn, "COPY orders FROM STDIN")
		bad := r.keyOn("shard_2", 1)
		g.pieces <- fmt.Sprintf("%d\tno number\tx\n", bad)
		for at := 2000; at > 0; at += 2000 { // the client hears of it while it still sends
			select {
			case g.pieces <- rowsToCopy(at, 2000):
			case err := <-done:
				if e := wantCode(t, err, "22P02"); e.Where != `COPY orders, line 2001, column id: "no number"` {
					t.Fatal(e.Where)
				}
				at = -2000
			}
		}
		close(g.pieces)
		quiet("shard refuses")
	})
	t.Run("lock on one shard", func(t *testing.T) {
		hold, err := r.servers[0].primary.ConnTo(ctxOf(t), "app", "")
		if err != nil {
			t.Fatal(err)
		}
		defer hold.Close(context.Background())
		if _, err := hold.Exec(ctxOf(t), "BEGIN; LOCK TABLE orders"); err != nil {
			t.Fatal(err)
		}
		conn := r.connect(pgx.QueryExecModeSimpleProtocol)
		result := make(chan error, 1)
		go func() {
			_, err := conn.PgConn().CopyFrom(context.Background(), strings.NewReader(rowsToCopy(0, 20_000)), "COPY orders FROM STDIN")
			result <- err
		}()
		pgtest.Eventually(t, patience, func() error {
			if _, n := r.onShards(t, "SELECT count(*) FROM pg_locks WHERE NOT granted"); n == 0 {
				return errors.New("nobody waits")
			}
			return nil
		})
		if _, err := hold.Exec(ctxOf(t), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		if _, n := r.onShards(t, "SELECT count(*) FROM orders"); n != 20_000 {
			t.Fatalf("%d rows", n)
		}
		for _, s := range r.servers {
			if err := s.primary.ExecIn(ctxOf(t), "app", "TRUNCATE orders"); err != nil {
				t.Fatal(err)
			}
		}
		quiet("lock on one shard")
	})
}

// The size of rows and of messages is no matter.
func TestCopyIntoShardsInAnyPieces(t *testing.T) {
	r := newRig(t, rigOptions{across: true, maxFrame: 64 << 10})
	large := strings.Repeat("large ", 1<<20)
	data := fmt.Sprintf("1\t1\t%s\n2\t2\tsmall\n3\t3\t%s\n", large, large)
	for _, size := range []int{1 << 30, 100_000, 4096} {
		var b []byte
		for rest := data; len(rest) > 0; {
			n := min(size, len(rest))
			b = append(b, 'd')
			b = binary.BigEndian.AppendUint32(b, uint32(4+n))
			b = append(b, rest[:n]...)
			rest = rest[n:]
		}
		socket := pgtest.Hijack(ctxOf(t), t, r.connect(pgx.QueryExecModeSimpleProtocol).PgConn())
		answers := pgproto3.NewFrontend(socket, socket)
		go socket.Write(append(append(pg.AppendQuery(nil, "COPY orders FROM STDIN"), b...), pg.AppendCopyDone(nil)...))
		for {
			m, err := answers.Receive()
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := m.(*pgproto3.ErrorResponse); ok {
				t.Fatalf("%+v", e)
			}
			if done, ok := m.(*pgproto3.CommandComplete); ok && string(done.CommandTag) != "COPY 3" {
				t.Fatal(string(done.CommandTag))
			}
			if _, ok := m.(*pgproto3.ReadyForQuery); ok {
				break
			}
		}
		socket.Close()
		_, rows := r.onShards(t, "SELECT count(*) FROM orders")
		if _, size := r.onShards(t, "SELECT coalesce(sum(length(item)), 0) FROM orders"); rows != 3 || size != 2*len(large)+5 {
			t.Fatalf("%d rows, %d bytes", rows, size)
		}
		for _, s := range r.servers {
			if err := s.primary.ExecIn(ctxOf(t), "app", "TRUNCATE orders"); err != nil {
				t.Fatal(err)
			}
		}
		r.busy(t, 0)
	}
}
