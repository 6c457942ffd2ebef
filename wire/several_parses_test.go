package wire_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Statements over shards may be prepared together, and run in another order: every answer comes in its turn.
func TestParsesBeforeOthersAreRun(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	conn := r.connect(pgx.QueryExecModeExec)
	for i, shard := range []string{"shard_1", "shard_2"} {
		if _, err := conn.Exec(ctxOf(t), "INSERT INTO orders (customer_id, id, item) VALUES ($1, $2, 'x')", r.keyOn(shard, 1), int64(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	p := conn.PgConn().StartPipeline(ctxOf(t))
	p.SendPrepare("a", "SELECT count(*) FROM orders", nil)
	p.SendPrepare("b", "SELECT sum(id) FROM orders", nil)
	p.SendQueryPrepared("b", nil, nil, nil)
	p.SendPrepare("c", "SELECT max(id) FROM orders", nil)
	p.SendQueryPrepared("a", nil, nil, nil)
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	var got string
	for {
		res, err := p.GetResults()
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		if res == nil {
			break
		}
		if rows, ok := res.(*pgconn.ResultReader); ok {
			for rows.NextRow() {
				got += string(rows.Values()[0]) + " "
			}
			if _, err := rows.Close(); err != nil {
				t.Fatal(err)
			}
		}
		got += fmt.Sprintf("%T ", res)
		if fmt.Sprintf("%T", res) == "*pgconn.PipelineSync" {
			break
		}
	}
	if got != "*pgconn.StatementDescription *pgconn.StatementDescription 3 *pgconn.ResultReader *pgconn.StatementDescription 2 *pgconn.ResultReader *pgconn.PipelineSync " {
		t.Errorf("answers %s", got)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	r.busy(t, 0)
}
