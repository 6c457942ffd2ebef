package cluster

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// Everything that is wrong with a keyspace on its shards is found, named with a way out, and nothing else is.
func TestInspect(t *testing.T) {
	f := newFarm(t)
	f.everywhere(t,
		"CREATE TABLE customers (customer_id bigint PRIMARY KEY, mail text)",
		"CREATE TABLE orders (customer_id bigint REFERENCES customers, id bigint, n int CHECK (n > 0), PRIMARY KEY (customer_id, id))",
		"CREATE INDEX by_n ON orders (n)",
		"CREATE TABLE items (customer_id bigint, id bigint, item bigint, PRIMARY KEY (customer_id, item), FOREIGN KEY (customer_id, id) REFERENCES orders)",
		"CREATE TABLE countries (code text PRIMARY KEY)", "ALTER TABLE customers ADD COLUMN country text REFERENCES countries")
	o := &rib.Ownership{}
	add := func(spec KeyspaceSpec) *rib.Keyspace {
		ks, err := spec.Keyspace()
		if err != nil {
			t.Fatal(err)
		}
		ks.ID = rib.KeyspaceID(len(o.Keyspaces) + 1)
		o.Keyspaces = append(o.Keyspaces, *ks)
		return &o.Keyspaces[len(o.Keyspaces)-1]
	}
	spec := keyedSpec("hash", []string{"bigint"}, "customers", "customer_id")
	spec.Tables = append(spec.Tables, TableSpec{"public", "orders", []string{"customer_id"}}, TableSpec{"public", "items", []string{"customer_id"}})
	add(spec)
	add(referenceSpec("countries"))
	inspect := func(at int) (list []string) {
		t.Helper()
		found, err := Inspect(t.Context(), o, &o.Keyspaces[at], f.primary)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range found {
			if x.Fix == "" || len(x.Shards) == 0 {
				t.Errorf("without a fix or shards: %+v", x)
			}
			if !strings.Contains(x.Problem, "max_prepared_transactions") {
				list = append(list, x.Severity+" "+strings.Join(x.Shards, ",")+" "+x.Table+": "+x.Problem)
			}
		}
		return list
	}
	for at := range o.Keyspaces {
		if list := inspect(at); len(list) > 0 {
			t.Errorf("of a good keyspace: %q", list)
		}
	}
	f.everywhere(t,
		"CREATE TABLE plain (id bigint PRIMARY KEY)",
		"ALTER TABLE customers ADD CONSTRAINT one_mail UNIQUE (mail)",
		"ALTER TABLE customers ADD COLUMN number serial",
		"ALTER TABLE orders ADD COLUMN plain bigint REFERENCES plain",
		"ALTER TABLE items ADD COLUMN elsewhere bigint, ADD FOREIGN KEY (elsewhere) REFERENCES customers",
		"CREATE TABLE notes (customer_id bigint REFERENCES customers)",
		"ALTER TABLE countries ADD COLUMN at timestamptz DEFAULT now()")
	f.exec(t, "shard_2", "ALTER TABLE orders ALTER COLUMN n TYPE bigint", "DROP INDEX by_n", "ALTER TABLE orders DROP CONSTRAINT orders_n_check")
	f.exec(t, "shard_3", "INSERT INTO customers (customer_id, mail) SELECT i, i FROM generate_series(1, 20) i")
	for at, want := range [][]string{{
		"error shard_1,shard_2,shard_3 \"public\".\"customers\": unique index one_mail is without the key, customer_id",
		"warning shard_1,shard_2,shard_3 \"public\".\"customers\": column number counts by itself",
		"error shard_1,shard_2,shard_3 \"public\".\"orders\": foreign key orders_plain_fkey to \"public\".\"plain\" leaves the keyspace",
		"error shard_1,shard_2,shard_3 \"public\".\"items\": foreign key items_elsewhere_fkey to \"public\".\"customers\" does not hold the key",
		"error shard_1,shard_2,shard_3 \"public\".\"customers\": foreign key notes_customer_id_fkey of \"public\".\"notes\" to it leaves the keyspace",
		"error shard_2 \"public\".\"orders\": its columns differ from those on shard_1: only here n bigint; only there n integer",
		"warning shard_2 \"public\".\"orders\": its indexes differ from those on shard_1: only here nothing more; only there CREATE INDEX by_n",
		"error shard_2 \"public\".\"orders\": its constraints differ from those on shard_1: only here nothing more; only there orders_n_check",
		"error shard_3 \"public\".\"customers\": ", // rows that would belong to another shard
	}, {
		"error shard_1 \"public\".\"countries\": the columns whose defaults each server computes for itself are at, and were none",
	}} {
		list := inspect(at)
		for _, w := range want {
			if !slices.ContainsFunc(list, func(s string) bool { return strings.HasPrefix(s, w) }) {
				t.Errorf("%q is not among %q", w, list)
			}
		}
		if len(list) != len(want) {
			t.Errorf("%d findings, want %d: %q", len(list), len(want), list)
		}
		if !slices.IsSortedFunc(list, func(a, b string) int { return strings.Compare(a[:5], b[:5]) }) {
			t.Error("warnings before errors")
		}
	}
}

// A shard that cannot be asked is named once, with what to do about that.
func TestInspectAShardThatIsAway(t *testing.T) {
	spec := keyedSpec("hash", []string{"bigint"}, "orders", "customer_id")
	ks, err := spec.Keyspace()
	if err != nil {
		t.Fatal(err)
	}
	found, err := Inspect(t.Context(), &rib.Ownership{Keyspaces: []rib.Keyspace{*ks}}, ks, func(context.Context, string) (*pgx.Conn, error) { return nil, errors.New("connection refused") })
	if err != nil || len(found) != 1 || !slices.Equal(found[0].Shards, ks.Shards()) || found[0].Problem != "its primary cannot be asked: connection refused" || !strings.Contains(found[0].Fix, "rangefinder status") {
		t.Errorf("%+v, %v", found, err)
	}
}

// Servers that cannot prepare transactions are named.
func TestInspectPrepared(t *testing.T) {
	for setting, want := range map[string]string{"0": "error max_prepared_transactions is 0", "50": "warning max_prepared_transactions is 50, less than max_connections"} {
		p := pgtest.NewPrimary(t, pgtest.Options{Params: map[string]string{"max_prepared_transactions": setting, "max_connections": "60"}})
		if err := p.Exec(t.Context(), "CREATE TABLE countries (code text)"); err != nil {
			t.Fatal(err)
		}
		spec := referenceSpec("countries")
		ks, err := spec.Keyspace()
		if err != nil {
			t.Fatal(err)
		}
		found, err := Inspect(t.Context(), &rib.Ownership{Keyspaces: []rib.Keyspace{*ks}}, ks, func(ctx context.Context, _ string) (*pgx.Conn, error) { return p.Conn(ctx) })
		if err != nil || len(found) != 1 || len(found[0].Shards) != 3 || !strings.HasPrefix(found[0].Severity+" "+found[0].Problem, want) {
			t.Errorf("%s: %+v, %v", setting, found, err)
		}
	}
}

// What runs on a shard where no node sees it is named: triggers, rules, functions.
func TestInspectCode(t *testing.T) {
	f := newFarm(t)
	f.everywhere(t,
		"CREATE TABLE orders (customer_id bigint, id bigint)", "CREATE TABLE log (customer_id bigint)", "CREATE TABLE countries (code text PRIMARY KEY)", "CREATE TABLE plain (id bigint)",
		"CREATE SCHEMA rangefinder",
		"CREATE FUNCTION rangefinder.fence() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
		"CREATE FUNCTION changes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
		"CREATE TRIGGER fence BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION rangefinder.fence()",
		"CREATE FUNCTION harmless() RETURNS bigint LANGUAGE sql AS 'SELECT id FROM plain WHERE id > 5 -- orders_x'")
	o := &rib.Ownership{}
	for i, spec := range []KeyspaceSpec{keyedSpec("hash", []string{"bigint"}, "orders", "customer_id"), referenceSpec("countries")} {
		ks, err := spec.Keyspace()
		if err != nil {
			t.Fatal(err)
		}
		ks.ID = rib.KeyspaceID(i + 1)
		o.Keyspaces = append(o.Keyspaces, *ks)
	}
	inspect := func(at int) (list []string) {
		for _, x := range InspectTables(t.Context(), o, &o.Keyspaces[at], f.primary) {
			if !strings.Contains(x.Problem, "max_prepared_transactions") {
				list = append(list, x.Severity+" "+strings.Join(x.Shards, ",")+" "+x.Table+": "+x.Problem)
			}
			if x.Fix == "" {
				t.Errorf("without a fix: %+v", x)
			}
		}
		return list
	}
	for at := range o.Keyspaces {
		if list := inspect(at); len(list) > 0 {
			t.Errorf("of a good keyspace: %q", list)
		}
	}
	f.everywhere(t,
		"CREATE TRIGGER gives_key BEFORE INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION changes()",
		"CREATE TRIGGER follows AFTER DELETE ON orders FOR EACH ROW EXECUTE FUNCTION changes()",
		"CREATE TRIGGER off AFTER DELETE ON orders FOR EACH ROW EXECUTE FUNCTION changes()", "ALTER TABLE orders DISABLE TRIGGER off",
		"CREATE TRIGGER on_copy AFTER INSERT ON countries FOR EACH ROW EXECUTE FUNCTION changes()",
		"CREATE RULE logs AS ON INSERT TO orders DO ALSO INSERT INTO log VALUES (1)",
		"CREATE RULE reaches AS ON DELETE TO plain DO ALSO DELETE FROM orders WHERE id = OLD.id",
		"CREATE FUNCTION total() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM orders; END",
		"CREATE FUNCTION spoken(k int) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM public.Orders); END'",
		"CREATE FUNCTION of_row(o orders) RETURNS bigint LANGUAGE sql AS 'SELECT 1'")
	f.exec(t, "shard_2", "DROP TRIGGER follows ON orders")
	for at, want := range [][]string{{
		"warning shard_1,shard_2,shard_3 \"public\".\"orders\": trigger gives_key calls public.changes() before a row is stored",
		"warning shard_1,shard_3 \"public\".\"orders\": trigger follows calls public.changes() on the row's shard",
		"warning shard_1,shard_2,shard_3 \"public\".\"orders\": rule logs of public.orders: ",
		"warning shard_1,shard_2,shard_3 \"public\".\"orders\": rule reaches of public.plain: ",
		"warning shard_1,shard_2,shard_3 \"public\".\"orders\": function public.total() names the table",
		"warning shard_1,shard_2,shard_3 \"public\".\"orders\": function public.spoken(integer) has the table's name in its text",
	}, {
		"warning shard_1,shard_2,shard_3 \"public\".\"countries\": trigger on_copy calls public.changes() on each copy",
	}} {
		list := inspect(at)
		list = slices.DeleteFunc(list, func(s string) bool { return strings.Contains(s, "is not here") }) // which TestInspect is about
		for _, w := range want {
			if !slices.ContainsFunc(list, func(s string) bool { return strings.HasPrefix(s, w) }) {
				t.Errorf("%q is missing in %q", w, list)
			}
		}
		if len(list) != len(want) {
			t.Errorf("%d findings, want %d: %q", len(list), len(want), list)
		}
	}
}
