package wire_test

import (
	"strings"
	"testing"
)

// TestDumpThroughNode: what pg_dump asks is answered, and it has the rows of all shards.
func TestDumpThroughNode(t *testing.T) {
	r := newRig(t, rigOptions{})
	conn := r.connect(queryModes[0])
	for _, shard := range []string{"shard_1", "shard_2"} {
		if _, err := conn.Exec(ctxOf(t), "INSERT INTO orders (customer_id, id, item) SELECT $1, i, 'dumped' FROM generate_series(1, 10) i", r.keyOn(shard, 1)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := r.program(t, "", "pg_dump", "-d", r.dsn())
	if err != nil || strings.Count(out, "\tdumped\n") != 20 || !strings.Contains(out, "ADD CONSTRAINT orders_pkey") {
		t.Errorf("%v\n%s", err, out)
	}
	r.busy(t, 0)
}
