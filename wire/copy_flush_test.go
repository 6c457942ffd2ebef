package wire_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"rangefinder/wire/pg"
)

// A COPY FROM STDIN whose Execute came with a Flush, or with nothing before its data, ends at the Sync behind these; one that came with a Sync has
// another one behind its data. Nothing hangs, and what is told as copied is there.
func TestCopyIntoShardsEndsAtItsSync(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	begin := slices.Concat(pg.AppendParse(nil, "", "COPY orders (customer_id, id) FROM STDIN", nil), pg.AppendBindText(nil), pg.AppendExecute(nil, "", 0))
	flush, sync := pg.AppendFlush(nil), pg.AppendSync(nil)
	done := slices.Concat(pg.AppendFrame(nil, pg.TypeCopyData, []byte("1\t1\n2\t1\n3\t1\n4\t1\n")), pg.AppendCopyDone(nil))
	fails := pg.AppendCopyFail(nil, "no more")
	for i, way := range []struct {
		messages [][]byte
		rows     int
	}{
		{[][]byte{begin, done, sync}, 4},
		{[][]byte{begin, flush, done, sync}, 4},
		{[][]byte{begin, flush, done, flush, sync}, 4},
		{[][]byte{begin, sync, done, sync}, 4},
		{[][]byte{begin, flush, fails, sync}, 0},
		{[][]byte{begin, sync, fails, sync}, 0},
		{[][]byte{pg.AppendQuery(nil, "BEGIN"), begin, done, sync, pg.AppendQuery(nil, "COMMIT")}, 4},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			h, err := r.connect(pgx.QueryExecModeSimpleProtocol).PgConn().Hijack()
			if err != nil {
				t.Fatal(err)
			}
			defer h.Conn.Close()
			_ = h.Conn.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := h.Conn.Write(append(bytes.Join(way.messages, nil), pg.AppendQuery(nil, "SELECT 'the end'")...)); err != nil {
				t.Fatal(err)
			}
			for ended := false; !ended; {
				m, err := h.Frontend.Receive()
				if err != nil {
					t.Fatal(err)
				}
				tag, ok := m.(*pgproto3.CommandComplete)
				ended = ok && string(tag.CommandTag) == "SELECT 1"
			}
			if _, n := r.onShards(t, "SELECT count(*) FROM orders"); n != way.rows {
				t.Fatalf("%d rows, not %d", n, way.rows)
			}
			for _, s := range r.servers {
				if err := s.primary.ExecIn(ctxOf(t), "app", "TRUNCATE orders"); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	r.busy(t, 0)
}
