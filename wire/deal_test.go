package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/pg"
)

// TestDealtRows: rows that only a server can make are inserted each where its key belongs; what goes wrong with one of them leaves nothing of the others.
func TestDealtRows(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	ctx := ctxOf(t)
	var keys []int64
	for _, shard := range []string{"shard_1", "shard_2", "shard_1", "shard_2", "shard_2"} {
		from := int64(1)
		if len(keys) > 1 {
			from = max(keys[len(keys)-1], keys[len(keys)-2]) + 1
		}
		keys = append(keys, r.keyOn(shard, from))
	}
	for name, mode := range allModes {
		conn := r.connect(mode)
		mustExec(t, conn, "DELETE FROM orders")
		for range 2 { // the second time as what is prepared
			tag, err := conn.Exec(ctx, "INSERT INTO orders (customer_id, id, item) SELECT k, coalesce((SELECT 1), 2), $2 || k FROM unnest($1::bigint[]) k ON CONFLICT (customer_id, id) DO UPDATE SET item = 'again'", keys, "item")
			if err != nil || tag.String() != "INSERT 0 5" {
				t.Errorf("%s: %v, %v", name, tag, err)
			}
		}
		for shard, want := range []int{2, 3} {
			if each, sum := r.onShards(t, "SELECT count(*) FROM orders WHERE item = 'again'"); each[shard] != want || sum != 5 {
				t.Errorf("%s: %v", name, each)
			}
		}
		_, err := conn.Exec(ctx, "INSERT INTO orders (customer_id, id) SELECT k, 7 / nullif(n - 5, 0) FROM unnest($1::bigint[]) WITH ORDINALITY AS u (k, n)", keys)
		if sqlstate(err) != "23502" { // id is NULL in the fifth row, which is not its shard's first
			t.Errorf("%s: %v", name, err)
		}
		if _, sum := r.onShards(t, "SELECT count(*) FROM orders"); sum != 5 {
			t.Errorf("%s: %d rows", name, sum)
		}
	}
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	mustExec(t, conn, "DELETE FROM orders")
	for i := range int64(3) { // texts that are alike but for their constants
		mustExec(t, conn, fmt.Sprintf("INSERT INTO orders (customer_id, id, item) VALUES (length('%s'), %d, 'x')", strings.Repeat("k", int(keys[i])), i),
			fmt.Sprintf("INSERT INTO orders (customer_id, id, item) SELECT k + %d, %d, 'y' FROM generate_series(0, 0) k", keys[i], 10+i))
	}
	if got, want := answerOf(t, conn, "SELECT customer_id, id FROM orders ORDER BY id"), answerOf(t, conn, fmt.Sprintf("VALUES (%d, 0), (%d, 1), (%d, 2), (%[1]d, 10), (%[2]d, 11), (%[3]d, 12) ORDER BY 2", keys[0], keys[1], keys[2])); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for shard := range 2 {
		r.onShard(shard, "CREATE DOMAIN large AS bigint", "ALTER TABLE orders ADD COLUMN span interval minute, ADD COLUMN wide large")
	}
	_, err := conn.Exec(ctx, "INSERT INTO orders (customer_id, id, span) SELECT k, 9, '5' FROM generate_series(1, 9) k") // five minutes, and not seconds
	if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Detail, `"span"`) {
		t.Errorf("%+v", e)
	}
	binary := conn.PgConn().ExecParams(ctx, "INSERT INTO orders (customer_id, id, wide) SELECT k, 9, $1 FROM generate_series(1, 9) k", [][]byte{[]byte("12345678")}, nil, []int16{pg.FormatBinary}, nil).Read()
	if e := wantCode(t, binary.Err, pg.CodeFeatureNotSupported); !strings.Contains(e.Detail, "$1") {
		t.Errorf("%+v", e)
	}
	r.live.QueryMemory = 100 << 10
	r.server.Reload(r.live)
	_, err = conn.Exec(ctx, "INSERT INTO orders (customer_id, id, item) SELECT k, 8, repeat('x', 1000) FROM generate_series(1, 100000) k")
	wantCode(t, err, pg.CodeOutOfMemory)
	if _, sum := r.onShards(t, "SELECT count(*) FROM orders"); sum != 6 {
		t.Errorf("%d rows", sum)
	}
	r.busy(t, 0)
}

// TestDealtRowsOnOneShard: without two-phase commit they may be inserted if they are all one shard's.
func TestDealtRowsOnOneShard(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	one, two := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	conn := r.connect(pgx.QueryExecModeExec)
	insert := "INSERT INTO orders (customer_id, id) SELECT k, $2 FROM unnest($1::bigint[]) k RETURNING customer_id"
	for i, keys := range [][]int64{{two}, {one, one}} {
		rows, err := conn.Query(ctx, strings.Replace(insert, "$2", fmt.Sprintf("10 * row_number() OVER () + %d", i), 1), keys)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil || fmt.Sprint(got) != fmt.Sprint(keys) {
			t.Errorf("%v: %v, %v", keys, got, err)
		}
	}
	_, err := conn.Exec(ctx, insert, []int64{one, two}, 5)
	if e := wantCode(t, err, pg.CodeFeatureNotSupported); !strings.Contains(e.Hint, "cross_shard_writes") {
		t.Errorf("%+v", e)
	}
	if each, _ := r.onShards(t, "SELECT count(*) FROM orders"); each[0] != 2 || each[1] != 1 {
		t.Errorf("%v rows", each)
	}
	r.busy(t, 0)
}
