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
