package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

// TestTypesOnRealPostgreSQL: three shards give other numbers to the types that are made through nodes; clients of every node see those of one, as soon as
// they are made, after they are dropped and made anew, and after a node was restarted.
func TestTypesOnRealPostgreSQL(t *testing.T) {
	c := startCluster(t)
	for i, s := range c.servers {
		for range i {
			if err := s.ExecIn(t.Context(), "app", "CREATE TYPE other AS ENUM ('x')", "DROP TYPE other"); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.everywhere(t, "GRANT CREATE ON SCHEMA public TO app", "ALTER TABLE orders OWNER TO app")
	n := c.follower(t)
	n.mustAdmin(t, "keyspace", "create", "app.orders", "--key", "customer_id", "--type", "bigint", "--shards", "shard_1,shard_2,shard_3")
	conns := make([]*pgx.Conn, 0, len(c.nodes))
	for _, m := range c.nodes {
		m.sees(t, "app.orders")
		conns = append(conns, m.connect(t))
	}
	home := -1
	must := func(conn *pgx.Conn, sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	must(conns[0], "SET rangefinder.cross_shard_writes = '2pc'")
	for round := range 3 {
		if round > 0 {
			must(conns[0], "ALTER TABLE orders DROP COLUMN m, DROP COLUMN l")
			must(conns[0], "DROP TYPE mood")
		}
		must(conns[0], "CREATE TYPE mood AS ENUM ('sad', 'happy')")
		must(conns[0], "ALTER TABLE orders ADD m mood, ADD l mood[]")
		var numbers []uint32
		for _, s := range c.servers {
			admin, err := s.ConnTo(t.Context(), "app", "")
			if err != nil {
				t.Fatal(err)
			}
			var oid uint32
			if err := admin.QueryRow(t.Context(), "SELECT 'mood'::regtype::oid").Scan(&oid); err != nil {
				t.Fatal(err)
			}
			_ = admin.Close(context.WithoutCancel(t.Context()))
			if slices.Contains(numbers, oid) {
				t.Fatalf("two shards give the same number: %v and %d", numbers, oid)
			}
			numbers = append(numbers, oid)
		}
		for i, conn := range conns {
			_ = conn.DeallocateAll(t.Context()) // what pgx keeps of statements is of columns that are gone
			mood, err := conn.LoadType(t.Context(), "mood")
			if err != nil {
				t.Fatal(err)
			}
			conn.TypeMap().RegisterType(mood)
			array, err := conn.LoadType(t.Context(), "mood[]")
			if err != nil {
				t.Fatal(err)
			}
			conn.TypeMap().RegisterType(array)
			at := slices.Index(numbers, mood.OID)
			if home < 0 {
				home = at
			}
			if at < 0 || at != home {
				t.Fatalf("mood is %d at %s, of %v; before it was the number of shard %d", mood.OID, c.nodes[i].cfg.Name, numbers, home+1)
			}
			for k := int64(100 * i); k < int64(100*i+12); k++ {
				must(conn, "INSERT INTO orders (customer_id, id, m, l) VALUES ($1, $2, $3, $4)", k, round, "happy", []string{"sad", "happy"})
				rows, err := conn.Query(t.Context(), "SELECT m, l FROM orders WHERE customer_id = $1 AND id = $2 AND l = $3", k, round, []string{"sad", "happy"})
				if err != nil {
					t.Fatal(err)
				}
				type row struct {
					M string
					L []string
				}
				got, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[row])
				if err != nil || got.M != "happy" || !slices.Equal(got.L, []string{"sad", "happy"}) {
					t.Fatalf("%d: %v %v", k, got, err)
				}
				if f := rows.FieldDescriptions(); f[0].DataTypeOID != mood.OID || f[1].DataTypeOID != array.OID {
					t.Fatalf("%d: %v", k, f)
				}
			}
		}
	}
	// What is alike by name is alike.
	if out := n.mustAdmin(t, "keyspace", "check", "app.orders"); strings.Contains(out, "mood") {
		t.Error(out)
	}
}

// TestTypesOfAShardThatIsDown: a node that cannot read a shard's types says so, keeps what it knew, and says so no longer than it is true. That a client
// has not waited for them is no reason to.
func TestTypesOfAShardThatIsDown(t *testing.T) {
	c := startCluster(t)
	c.everywhere(t, "CREATE TYPE mood AS ENUM ('sad', 'happy')", "ALTER TABLE orders ADD m mood DEFAULT 'sad'")
	n := c.follower(t)
	n.mustAdmin(t, "keyspace", "create", "app.orders", "--key", "customer_id", "--type", "bigint", "--shards", "shard_1,shard_2,shard_3")
	n.sees(t, "app.orders")
	pgtest.Eventually(t, 20*time.Second, func() error {
		if n.types.get()["app"] == nil {
			return errors.New("nothing has been read")
		}
		return nil
	})
	ctx := t.Context()
	left, leave := context.WithCancel(ctx)
	leave()
	if n.learnTypes(left, "app") {
		t.Fatal("a look that nobody waits for has seen all")
	}
	if alarms := n.types.alarms(); len(alarms) > 0 {
		t.Errorf("alarms because a client has left: %q", alarms)
	}
	if err := c.servers[2].Kill(); err != nil {
		t.Fatal(err)
	}
	if n.learnTypes(ctx, "app") {
		t.Fatal("a look at a shard that is down has seen all")
	}
	if alarms := strings.Join(n.View().Alarms, "\n"); !strings.Contains(alarms, "types in database app are those last seen") {
		t.Errorf("alarms: %s", alarms)
	}
	if n.types.get()["app"] == nil {
		t.Error("what was known is lost")
	}
	if err := c.servers[2].Start(ctx); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, typesEvery/2, func() error {
		if list := n.types.alarms(); len(list) > 0 {
			return fmt.Errorf("still %v", list)
		}
		return nil
	})
}
