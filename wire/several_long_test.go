package wire_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/pg"
)

// A megabyte of keys is read once, whichever way it comes, and not once by each who has to do with it.
func TestLongListOverShards(t *testing.T) {
	s := newSpread(t, rigOptions{})
	s.exec("INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, 'a'), ($2, 2, 'b')", s.one, s.two)
	var list strings.Builder
	fmt.Fprint(&list, s.one)
	for i := int64(1_000_000); list.Len() < 1<<20-100; i++ {
		fmt.Fprintf(&list, ",%d", i)
	}
	sql := fmt.Sprintf("SELECT id FROM orders WHERE customer_id IN (%s,%d) ORDER BY id", list.String(), s.two)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec} {
		conn := s.connect(mode)
		before, began := s.planner.Stats().Misses, time.Now()
		rows, _ := conn.Query(s.ctx, sql)
		got, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil || fmt.Sprint(got) != "[1 2]" {
			t.Fatalf("%v, %v", got, err)
		}
		t.Logf("%v: %v", mode, time.Since(began))
		if n := s.planner.Stats().Misses - before; n > 1 {
			t.Errorf("%v: it was planned %d times", mode, n)
		}
	}
	_, err := s.conn.Exec(s.ctx, "SELECT id FROM orders WHERE customer_id = "+strings.Repeat("(", 10_000)+"1"+strings.Repeat(")", 10_000))
	if e := wantCode(t, err, pg.CodeStatementTooComplex); e.Hint == "" {
		t.Errorf("%+v", e)
	}
}

// Long statements of other kinds are what they are where they are short: rows to insert, each on the shard of its key, as constants and as parameters;
// arrays; conditions one after the other; and lists in what shards are asked otherwise than the client has. The log tells how long they take beside one
// server that is asked the same.
func TestLongStatementsOverShards(t *testing.T) {
	s := newSpread(t, rigOptions{across: true})
	direct, err := s.servers[0].primary.ConnTo(s.ctx, "app", "")
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close(s.ctx)
	if _, err := direct.Exec(s.ctx, "CREATE TEMPORARY TABLE orders_alone (LIKE orders INCLUDING ALL)"); err != nil {
		t.Fatal(err)
	}
	const most = 20_000
	var rows, params, list, or strings.Builder
	count, inserted, args := 0, 0, make([]any, 0, most)
	for ; rows.Len() < 200<<10; count++ {
		fmt.Fprintf(&rows, ", (%d, %d, 'it''s {%d}')", count, 1, count)
	}
	for ; len(args) < most; inserted++ {
		fmt.Fprintf(&params, ", ($%d, 2, $%d)", len(args)+1, len(args)+2)
		args = append(args, int64(inserted), "two")
	}
	keys := make([]int64, 20_000)
	for i := range keys {
		keys[i] = int64(i)
	}
	for i := 0; list.Len() < 200<<10; i++ {
		fmt.Fprintf(&list, ", %d", i)
	}
	for i := range 1000 {
		fmt.Fprintf(&or, " OR customer_id = %d", i)
	}
	in := "customer_id IN (" + list.String()[2:] + ")"
	for _, x := range []struct {
		name, sql string
		args      []any
		want      string
	}{
		{"rows of constants", "INSERT INTO orders (customer_id, id, item) VALUES " + rows.String()[2:], nil, fmt.Sprintf("INSERT 0 %d", count)},
		{"rows of parameters", "INSERT INTO orders (customer_id, id, item) VALUES " + params.String()[2:], args, fmt.Sprintf("INSERT 0 %d", inserted)},
		{"an array", "SELECT count(*), sum(customer_id) FROM orders WHERE customer_id = ANY ($1)", []any{keys}, ""},
		{"a list, grouped", "SELECT id, count(*), max(item) FROM orders WHERE " + in + " GROUP BY id ORDER BY id", nil, ""},
		{"a list, ordered", "SELECT customer_id, id, item FROM orders WHERE id = 1 AND " + in + " ORDER BY customer_id DESC LIMIT 5 OFFSET 7", nil, ""},
		{"an array that is written", "SELECT count(*) FROM orders WHERE customer_id = ANY (ARRAY[" + list.String()[2:] + "])", nil, ""},
		{"OR", "SELECT count(*), min(item) FROM orders WHERE (" + or.String()[4:] + ") AND id = 2", nil, ""},
		{"a list that is changed", "UPDATE orders SET item = 'new' WHERE id = 2 AND " + in, nil, fmt.Sprintf("UPDATE %d", inserted)},
		{"a list without", "DELETE FROM orders WHERE customer_id NOT IN (" + list.String()[2:] + ")", nil, "DELETE 0"},
		{"rows without names", "INSERT INTO orders VALUES " + strings.ReplaceAll(rows.String()[2:], ", 1, ", ", 3, "), nil, fmt.Sprintf("INSERT 0 %d", count)},
		{"rows that are there", "INSERT INTO orders (customer_id, id, item) VALUES " + rows.String()[2:] + " ON CONFLICT (customer_id, id) DO UPDATE SET item = excluded.item || '!' RETURNING customer_id", nil, ""},
	} {
		ask := func(conn *pgx.Conn, sql string) (string, time.Duration) {
			t.Helper()
			began := time.Now()
			got, err := conn.Query(s.ctx, sql, append([]any{pgx.QueryExecModeDescribeExec}, x.args...)...)
			if err != nil {
				t.Fatalf("%s: %v", x.name, err)
			}
			text, n, sum := "", 0, int64(0)
			for got.Next() {
				values, err := got.Values()
				if err != nil {
					t.Fatal(err)
				}
				if n++; n <= 10 && len(values) > 1 {
					text += fmt.Sprint(values)
				} else if id, ok := values[0].(int64); ok {
					sum += id
				}
			}
			if got.Err() != nil {
				t.Fatalf("%s: %v", x.name, got.Err())
			}
			return fmt.Sprint(text, n, sum, got.CommandTag()), time.Since(began)
		}
		answer, took := ask(s.conn, x.sql)
		want, alone := ask(direct, strings.Replace(strings.Replace(x.sql, "INTO orders ", "INTO orders_alone AS orders ", 1), "FROM orders ", "FROM orders_alone AS orders ", 1))
		if strings.HasPrefix(x.sql, "UPDATE") {
			want, alone = ask(direct, strings.Replace(x.sql, "UPDATE orders ", "UPDATE orders_alone AS orders ", 1))
		}
		if answer != want || !strings.HasSuffix(answer, x.want) {
			t.Errorf("%s: %.200s, alone %.200s", x.name, answer, want)
		}
		t.Logf("%s: %v, alone %v", x.name, took.Round(time.Millisecond), alone.Round(time.Millisecond))
	}
	for _, x := range []struct{ shard, other int }{{0, 1}, {1, 0}} {
		each, _ := s.onShards(t, "SELECT count(*) FROM orders")
		if each[x.shard] == 0 || each[x.shard] == each[x.other]*2 {
			t.Errorf("%v", each)
		}
	}
}
