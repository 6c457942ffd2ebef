package cluster

import (
	"slices"
	"strings"
	"testing"

	"rangefinder/rib"
)

// What tables are made of, and what stands on them, is compared between the shards; each difference is named once, with the way out, and what is
// alike, or of no concern to the keyspace, is not.
func TestInspectObjects(t *testing.T) {
	f := newFarm(t)
	f.everywhere(t,
		"CREATE TYPE mood AS ENUM ('sad', 'ok')", "CREATE TYPE pair AS (a int, b mood)", "CREATE TYPE span AS RANGE (subtype = int)",
		"CREATE DOMAIN small AS int DEFAULT 3 CHECK (VALUE < 10)",
		"CREATE TABLE orders (customer_id bigint PRIMARY KEY, feels mood, n small, number serial)",
		"CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2'",
		"CREATE FUNCTION twice(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1 || $1'",
		"CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')",
		"CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
		"CREATE TRIGGER stamps BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION stamp()",
		"CREATE VIEW few AS SELECT customer_id FROM orders", "CREATE VIEW fewer AS SELECT * FROM few",
		"CREATE POLICY own ON orders USING (n > 1)",
		"CREATE SCHEMA rangefinder", "CREATE TABLE plain (id int)", "CREATE VIEW apart AS SELECT * FROM plain")
	spec := keyedSpec("hash", []string{"bigint"}, "orders", "customer_id")
	ks, err := spec.Keyspace()
	if err != nil {
		t.Fatal(err)
	}
	ks.ID = 1
	o := &rib.Ownership{Keyspaces: []rib.Keyspace{*ks}}
	inspect := func() (list []string) {
		t.Helper()
		found, err := Inspect(t.Context(), o, ks, f.primary)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range found {
			if strings.Contains(x.Problem, "max_prepared_transactions") {
				continue
			}
			if x.Fix == "" || strings.Contains(x.Problem, " on shard_1") && !strings.Contains(x.Fix, "shard="+x.Shards[0]+" */") {
				t.Errorf("no way out: %+v", x)
			}
			list = append(list, x.Severity+" "+strings.Join(x.Shards, ",")+" "+x.Table+": "+x.Problem)
		}
		return list
	}
	const counts = `warning shard_1,shard_2,shard_3 "public"."orders": column number counts by itself, so the shards give the same numbers`
	const stamps = `warning shard_1,shard_2,shard_3 "public"."orders": trigger stamps calls public.stamp() before a row is stored: `
	if list := inspect(); len(list) != 2 || list[0] != counts || !strings.HasPrefix(list[1], stamps) {
		t.Fatalf("of shards that are alike: %q", list)
	}
	f.exec(t, "shard_2",
		"ALTER TYPE mood ADD VALUE 'happy'", "ALTER DOMAIN small DROP DEFAULT", "CREATE OR REPLACE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $1'",
		"DROP FUNCTION twice(text)", "ALTER TABLE orders DISABLE TRIGGER stamps", "CREATE OR REPLACE VIEW few AS SELECT customer_id FROM orders WHERE n > 1",
		"CREATE TYPE extra AS ENUM ()", "ALTER POLICY own ON orders USING (n > 2)", "ALTER TYPE pair ADD ATTRIBUTE c text", "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
		"CREATE OR REPLACE VIEW apart AS SELECT id FROM plain WHERE id > 1", "CREATE FUNCTION rangefinder.own() RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"ALTER SEQUENCE orders_number_seq INCREMENT BY 3 START 2")
	f.exec(t, "shard_1", "ALTER SEQUENCE orders_number_seq INCREMENT BY 3 START 1")
	f.exec(t, "shard_3", "ALTER SEQUENCE orders_number_seq INCREMENT BY 3 START 3", "DROP AGGREGATE total(int)", "ALTER TYPE mood RENAME VALUE 'ok' TO 'well'")
	list := inspect()
	for i, want := range []string{
		`error shard_2 : domain public.small is another one than on shard_1: here integer CHECK ((VALUE < 10)), there integer DEFAULT 3 CHECK ((VALUE < 10))`,
		`error shard_2 : function public.twice(integer) is another one than on shard_1: here the definition of md5 `,
		`error shard_2 : function public.twice(text) is not here, and is on shard_1`,
		`error shard_2 : type public.extra is here, and not on shard_1`,
		`error shard_2 : type public.mood is another one than on shard_1: here labels 'sad', 'ok', 'happy', there labels 'sad', 'ok'`,
		`error shard_2 : type public.pair is another one than on shard_1: here (a integer, b public.mood, c text), there (a integer, b public.mood)`,
		`error shard_2 "public"."orders": policy own is another one than on shard_1: here * USING`,
		`error shard_2 "public"."orders": row security of the table is another one than on shard_1`,
		`error shard_2 "public"."orders": trigger stamps is another one than on shard_1: here CREATE TRIGGER`,
		`error shard_2 "public"."orders": view public.few is another one than on shard_1`,
		`error shard_3 : aggregate public.total(integer) is not here, and is on shard_1`,
		`error shard_3 : type public.mood is another one than on shard_1: here labels 'sad', 'well', there labels 'sad', 'ok'`,
		`warning shard_1,shard_3 "public"."orders": trigger stamps calls public.stamp() before a row is stored: `,
	} {
		if at := slices.IndexFunc(list, func(s string) bool { return strings.HasPrefix(s, want) }); at < 0 || len(list) != 13 {
			t.Errorf("%d: %q is not among the %d: %s", i, want, len(list), strings.Join(list, "\n"))
		}
	}
	// The way out is one.
	f.exec(t, "shard_1", "ALTER TYPE mood ADD VALUE 'happy'")
	for _, s := range inspect() {
		if strings.HasPrefix(s, "error shard_2 : type public.mood") {
			t.Error(s)
		}
	}
}
