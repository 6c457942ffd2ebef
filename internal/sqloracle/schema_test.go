package sqloracle

import (
	"fmt"
	"strings"
)

// shards is over how many servers the sharded tables are spread.
const shards = 3

// schema is on every server alike. Its texts are ordered as people order them (the database has an ICU locale), so no byte order passes
// for PostgreSQL's.
const schema = `
CREATE DOMAIN customer_no AS bigint CHECK (VALUE <> 13);
CREATE DOMAIN favored AS customer_no CHECK (VALUE > 0);
CREATE DOMAIN login AS text;
CREATE DOMAIN short_login AS varchar(3);
CREATE DOMAIN login_c AS text COLLATE "C";
CREATE TYPE tier AS ENUM ('bronze', 'silver', 'gold');
CREATE TABLE customers (
	customer_id bigint PRIMARY KEY, name text, tier tier, balance numeric(12,2), score float8, born date, active bool, tags text[], meta jsonb,
	ref uuid, seen timestamptz);
CREATE TABLE orders (
	customer_id bigint NOT NULL, id int NOT NULL, item text, qty int, price numeric(10,2), tier tier, placed timestamptz, paid bool,
	PRIMARY KEY (customer_id, id));
CREATE TABLE order_lines (
	customer_id bigint NOT NULL, order_id int NOT NULL, line int NOT NULL, sku text, amount numeric, weight float8, flags int[],
	PRIMARY KEY (customer_id, order_id, line));
CREATE TABLE readings (
	device int NOT NULL, n int NOT NULL, at timestamptz, value float8, ok bool, label text COLLATE "C",
	PRIMARY KEY (device, n));
CREATE TABLE stock (region text NOT NULL, sku text NOT NULL, qty int, price numeric(8,2), PRIMARY KEY (region, sku));
CREATE TABLE accounts (name text PRIMARY KEY, owner text, cents bigint, opened date);
CREATE TABLE tiles (zoom int NOT NULL, name text NOT NULL, n int, note text, PRIMARY KEY (zoom, name, n));
CREATE TABLE items (item text PRIMARY KEY, grams int, kind text);
CREATE TABLE tiers (tier tier PRIMARY KEY, discount numeric(4,2), label text);
CREATE TABLE notes (id int PRIMARY KEY, body text, n int);
CREATE TABLE settings (k text PRIMARY KEY, v text);
`

// rows fill the tables; {owner EXPR} is the condition that the shard owns the row.
var rows = []struct{ table, sql string }{
	{"customers", `SELECT k, (ARRAY['anna', 'Anna', 'Ärzte', 'bob', 'Zoe', 'zeta', 'émile', 'Bob', NULL])[1 + k % 9],
		(ARRAY['bronze', 'gold', NULL, 'silver'])[1 + k % 4]::tier, CASE WHEN k % 7 > 0 THEN (k * 37 % 101) - 20 + (k % 4) * 0.25 END,
		CASE WHEN k % 5 > 0 THEN k * 1.25 - 10 END, CASE WHEN k % 6 > 0 THEN '1970-01-01'::date + (k * 400 % 9000)::int END, CASE WHEN k % 3 > 0 THEN k % 2 = 0 END,
		CASE k % 4 WHEN 0 THEN NULL WHEN 1 THEN '{}' WHEN 2 THEN ARRAY['x', 'y'] ELSE ARRAY['a b', NULL, '"'] END::text[],
		CASE WHEN k % 3 > 0 THEN jsonb_build_object('n', k % 5, 'list', jsonb_build_array(k % 2, 'q')) END,
		CASE WHEN k % 8 > 0 THEN ('00000000-0000-0000-0000-' || lpad((k % 12)::text, 12, '0'))::uuid END,
		CASE WHEN k % 5 > 0 THEN '2024-01-01 00:00:00+00'::timestamptz + (k * 7919 % 20000) * interval '1 minute' END
		FROM generate_series(1, 30) k WHERE {hash k}`},
	{"orders", `SELECT k, i, (ARRAY['pen', 'Pen', 'ink', 'paper', NULL, 'Ölkreide'])[1 + (k + i) % 6], CASE WHEN (k + i) % 5 > 0 THEN (k * i % 9)::int END,
		CASE WHEN i % 4 > 0 THEN (k * 13 + i * 7) % 50 + 0.50 END, (ARRAY['gold', 'bronze', NULL, 'silver', 'gold'])[1 + (k * i) % 5]::tier,
		'2024-03-01 00:00:00+00'::timestamptz + ((k * 31 + i * 17) % 40) * interval '6 hours', CASE WHEN (k + i) % 4 > 0 THEN (k * i) % 3 = 0 END
		FROM generate_series(1, 30) k, generate_series(1, 4) i WHERE i <= k % 5 AND {hash k}`},
	{"order_lines", `SELECT k, i, l, 'sku' || (k + i * l) % 6, CASE WHEN (k + l) % 4 > 0 THEN (k + i + l) * 0.125 END, CASE WHEN (i + l) % 3 > 0 THEN (k * l) / 8.0 END,
		CASE WHEN (k + i) % 3 > 0 THEN ARRAY[k % 3, l]::int[] END
		FROM generate_series(1, 30) k, generate_series(1, 4) i, generate_series(1, 3) l WHERE i <= k % 5 AND l <= 1 + (k + i) % 3 AND {hash k}`},
	{"readings", `SELECT d, i, '2024-05-01 00:00:00+00'::timestamptz + (d * 3 + i) % 11 * interval '1 hour', CASE WHEN (d + i) % 5 > 0 THEN (d * i % 13) * 0.5 END,
		CASE WHEN i % 3 > 0 THEN (d + i) % 2 = 0 END, (ARRAY['a', 'B', 'b', 'A', NULL, 'é'])[1 + (d * i) % 6]
		FROM generate_series(0, 29) d, generate_series(1, 3) i WHERE {range d}`},
	{"stock", `SELECT r, 'sku' || s, CASE WHEN s > 1 THEN s * length(r) END, s * 1.5 + ascii(r) % 7
		FROM unnest(ARRAY['de', 'fr', 'us', 'at', 'jp', 'br']) r, generate_series(0, 4) s WHERE {list r}`},
	{"accounts", `SELECT a, upper(left(a, 1)), CASE WHEN length(a) > 3 THEN hashtext(a) % 1000 END, '2020-02-01'::date + length(a) * 31
		FROM unnest(ARRAY['ann', 'Ann', 'bob', 'carl', 'dora', 'émile', 'frank', 'gus', 'heidi', 'ida', 'O''Neil', 'back\slash', 'zed', '']) a WHERE {text a}`},
	{"tiles", `SELECT z, m, i, CASE WHEN i % 2 > 0 THEN m || z END FROM generate_series(1, 6) z, unnest(ARRAY['a', 'B', 'é']) m, generate_series(1, 2) i WHERE {row z, m}`},
	{"items", `SELECT i, CASE WHEN length(i) > 3 THEN length(i) * 10 END, upper(left(i, 1)) FROM unnest(ARRAY['pen', 'Pen', 'ink', 'paper', 'Ölkreide', 'sku1', 'sku3', 'chalk']) i WHERE {all}`},
	{"tiers", `SELECT t::tier, n * 1.25, CASE WHEN n > 0 THEN 'the ' || t END FROM unnest(ARRAY['gold', 'silver']) WITH ORDINALITY AS x (t, n) WHERE {all}`},
	{"notes", `SELECT i, 'note ' || i, CASE WHEN i % 3 > 0 THEN i % 4 END FROM generate_series(1, 12) i WHERE {first}`},
	{"settings", `SELECT 'k' || i, CASE WHEN i % 2 > 0 THEN 'v' || i END FROM generate_series(1, 6) i WHERE {first}`},
}

// owner is what says for a table on which shard a row has to be: SQL over its columns that gives the shard's number; 0: on each. It is PostgreSQL's
// own reckoning; nothing of the node's is asked.
var owner = map[string]string{
	"customers": "{hash customer_id}", "orders": "{hash customer_id}", "order_lines": "{hash customer_id}",
	"readings": "{range device}", "stock": "{list region}", "accounts": "{text name}", "tiles": "{row zoom, name}", "items": "{all}", "tiers": "{all}", "notes": "{first}", "settings": "{first}",
}

// functions tell the owning shard of a key.
const functions = `
CREATE SCHEMA base;
CREATE FUNCTION base.third(h bigint) RETURNS int LANGUAGE sql IMMUTABLE AS
	$$ SELECT 1 + floor((h::numeric + CASE WHEN h < 0 THEN 18446744073709551616 ELSE 0 END) * 3 / 18446744073709551616)::int $$;
`

// owning puts SQL for the shard's number in place of {hash k} and its like.
func owning(sql string) string {
	for _, r := range []struct{ word, to string }{
		{"{hash ", "base.third(hashint8extended(%s, 0))"}, {"{text ", "base.third(hashtextextended(%s, 0))"},
		{"{row ", "base.third(hash_record_extended(ROW(%s), 0))"},
		{"{range ", "CASE WHEN %[1]s < 10 THEN 1 WHEN %[1]s < 20 THEN 2 ELSE 3 END"},
		{"{list ", "CASE WHEN %[1]s IN ('de', 'fr') THEN 1 WHEN %[1]s = 'us' THEN 2 ELSE 3 END"},
	} {
		for {
			before, rest, ok := strings.Cut(sql, r.word)
			if !ok {
				break
			}
			key, after, _ := strings.Cut(rest, "}")
			sql = before + "(" + fmt.Sprintf(r.to, key) + ")" + after
		}
	}
	return strings.ReplaceAll(strings.ReplaceAll(sql, "{first}", "1"), "{all}", "0")
}

// filled is the SQL that makes base.TABLE with the rows of shard n; 0: all of them.
func filled(table, sql string, n int) string {
	if n == 0 || strings.HasSuffix(sql, "{all}") {
		at := strings.LastIndex(sql, "{")
		sql = sql[:at] + "true"
	} else {
		sql = owning(sql) + fmt.Sprintf(" = %d", n)
	}
	return fmt.Sprintf("CREATE TABLE base.%[1]s (LIKE public.%[1]s); INSERT INTO base.%[1]s %[2]s; INSERT INTO public.%[1]s SELECT * FROM base.%[1]s;", table, sql)
}

// keyspaces are made by the admin API, in this order.
var keyspaces = []string{
	`{"name": "app.customers", "key": ["customer_id"], "types": ["bigint"], "method": "hash", "shards": ["shard_1", "shard_2", "shard_3"], "also": ["app.orders", "app.order_lines"]}`,
	`{"name": "app.readings", "key": ["device"], "types": ["int"], "method": "range", "ranges": [{"bounds": "..10", "shard": "shard_1"}, {"bounds": "10..20", "shard": "shard_2"}, {"bounds": "20..", "shard": "shard_3"}]}`,
	`{"name": "app.stock", "key": ["region"], "types": ["text"], "method": "list", "values": [{"value": "de", "shard": "shard_1"}, {"value": "fr", "shard": "shard_1"}, {"value": "us", "shard": "shard_2"}], "default": "shard_3"}`,
	`{"name": "app.items", "method": "reference", "shards": ["shard_1", "shard_2", "shard_3"], "also": ["app.tiers"]}`,
	`{"name": "app.tiles", "key": ["zoom", "name"], "types": ["int", "text"], "method": "hash", "shards": ["shard_1", "shard_2", "shard_3"]}`,
	`{"name": "app.accounts", "key": ["name"], "types": ["text"], "method": "hash", "shards": ["shard_1", "shard_2", "shard_3"]}`,
}
