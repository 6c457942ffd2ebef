package wire_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/pg"
)

// What tables are made of is on all shards of the database, all or none; what is bound to a table of one shard stays there.
func TestDefinitionsOfShards(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	for _, s := range r.servers {
		if err := s.primary.ExecIn(ctxOf(t), "app", "GRANT CREATE ON DATABASE app TO app", "ALTER ROLE app CREATEROLE", "DROP TABLE orders", "DROP ROLE IF EXISTS clerk"); err != nil {
			t.Fatal(err)
		}
	}
	conn := r.connect(pgx.QueryExecModeSimpleProtocol)
	run := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(ctxOf(t), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	t.Cleanup(func() {
		for _, s := range r.servers {
			if err := s.primary.ExecIn(ctxOf(t), "app", "DROP ROLE IF EXISTS clerk", "ALTER ROLE app NOCREATEROLE"); err != nil {
				t.Error(err)
			}
		}
	})
	run("CREATE TABLE orders (customer_id bigint, id bigint, item text, PRIMARY KEY (customer_id, id))")
	const (
		class = "SELECT count(*) FROM pg_class WHERE relname = "
		types = "SELECT count(*) FROM pg_type WHERE typname = "
		procs = "SELECT count(*) FROM pg_proc WHERE proname = "
		pubs  = "SELECT count(*) FROM pg_publication WHERE pubname = "
		stats = "SELECT count(*) FROM pg_statistic_ext WHERE stxname = "
	)
	for _, one := range []struct {
		sql, look   string
		first, last int // what look finds on the shards
	}{
		{"CREATE TYPE mood AS ENUM ('sad', 'ok')", types + "'mood'", 1, 1},
		{"ALTER TYPE mood ADD VALUE 'happy'", "SELECT count(*) FROM pg_enum WHERE enumlabel = 'happy'", 1, 1},
		{"CREATE TYPE pair AS (a int, b mood)", types + "'pair'", 1, 1},
		{"ALTER TYPE pair ADD ATTRIBUTE c text", "SELECT count(*) FROM pg_attribute WHERE attrelid = 'pair'::regclass", 3, 3},
		{"CREATE DOMAIN small AS int CHECK (VALUE < 10)", types + "'small'", 1, 1},
		{"ALTER DOMAIN small SET DEFAULT 3", "SELECT count(*) FROM pg_type WHERE typname = 'small' AND typdefault = '3'", 1, 1},
		{"CREATE SCHEMA extra", "SELECT count(*) FROM pg_namespace WHERE nspname = 'extra'", 1, 1},
		{"CREATE EXTENSION hstore SCHEMA extra", "SELECT count(*) FROM pg_extension WHERE extname = 'hstore'", 1, 1},
		{"CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2'", procs + "'twice'", 1, 1},
		{"CREATE PROCEDURE idle() LANGUAGE plpgsql AS 'BEGIN NULL; END'", procs + "'idle'", 1, 1},
		{"CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')", procs + "'total'", 1, 1},
		{"CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'", procs + "'stamp'", 1, 1},
		{"CREATE TRIGGER stamps BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION stamp()", "SELECT count(*) FROM pg_trigger WHERE tgname = 'stamps'", 1, 1},
		{"CREATE SEQUENCE numbers", class + "'numbers'", 1, 1},
		{"ALTER SEQUENCE numbers INCREMENT BY 5", "SELECT count(*) FROM pg_sequence WHERE seqincrement = 5", 1, 1},
		{"ALTER SEQUENCE numbers OWNED BY orders.id", "SELECT count(*) FROM pg_depend WHERE objid = 'numbers'::regclass AND deptype = 'a'", 1, 1},
		{"CREATE INDEX by_item ON orders (item)", class + "'by_item'", 1, 1},
		{"ALTER INDEX by_item SET (fillfactor = 70)", class + "'by_item' AND reloptions::text = '{fillfactor=70}'", 1, 1},
		{"REINDEX INDEX by_item", class + "'by_item'", 1, 1},
		{"COMMENT ON INDEX by_item IS 'of items'", "SELECT count(*) FROM pg_description WHERE objoid = 'by_item'::regclass", 1, 1},
		{"ALTER INDEX by_item RENAME TO of_item", class + "'of_item'", 1, 1},
		{"DROP INDEX of_item", class + "'of_item'", 0, 0},
		{"CREATE VIEW open_orders AS SELECT customer_id FROM orders", class + "'open_orders'", 1, 1},
		{"COMMENT ON VIEW open_orders IS 'x'", "SELECT count(*) FROM pg_description WHERE objoid = 'open_orders'::regclass", 1, 1},
		{"ALTER TABLE open_orders RENAME TO few_orders", class + "'few_orders'", 1, 1},
		{"DROP VIEW few_orders", class + "'few_orders'", 0, 0},
		{"CREATE MATERIALIZED VIEW kept AS SELECT customer_id, count(*) AS n FROM orders GROUP BY 1", class + "'kept'", 1, 1},
		{"REFRESH MATERIALIZED VIEW kept", class + "'kept'", 1, 1},
		{"DROP MATERIALIZED VIEW kept", class + "'kept'", 0, 0},
		{"CREATE ROLE clerk LOGIN PASSWORD 'secret'", "SELECT count(*) FROM pg_authid WHERE rolname = 'clerk'", 1, 1},
		{"ALTER ROLE clerk SET work_mem = '5MB'", "SELECT count(*) FROM pg_db_role_setting WHERE setrole = 'clerk'::regrole", 1, 1},
		{"GRANT USAGE ON SCHEMA extra TO clerk", "SELECT count(*) FROM pg_namespace WHERE nspacl::text LIKE '%clerk%'", 1, 1},
		{"GRANT SELECT ON ALL TABLES IN SCHEMA public TO clerk", class + "'orders' AND relacl::text LIKE '%clerk%'", 1, 1},
		{"GRANT USAGE ON TYPE mood TO clerk", "SELECT count(*) FROM pg_type WHERE typacl::text LIKE '%clerk%'", 1, 1},
		{"GRANT EXECUTE ON FUNCTION twice(int) TO clerk", "SELECT count(*) FROM pg_proc WHERE proacl::text LIKE '%clerk%'", 1, 1},
		{"GRANT USAGE ON SEQUENCE numbers TO clerk", class + "'numbers' AND relacl::text LIKE '%clerk%'", 1, 1},
		{"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO clerk", "SELECT count(*) FROM pg_default_acl", 1, 1},
		{"ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM clerk", "SELECT count(*) FROM pg_default_acl", 0, 0},
		{"GRANT clerk TO app", "SELECT count(*) FROM pg_auth_members WHERE roleid = 'clerk'::regrole", 1, 1},
		{"DROP OWNED BY clerk", class + "'orders' AND relacl::text LIKE '%clerk%'", 0, 0},
		{"DROP ROLE clerk", "SELECT count(*) FROM pg_authid WHERE rolname = 'clerk'", 0, 0},
		{"CREATE PUBLICATION told FOR TABLE orders", pubs + "'told'", 1, 1},
		{"ALTER PUBLICATION told SET (publish = 'insert')", pubs + "'told' AND NOT pubdelete", 1, 1},
		{"COMMENT ON PUBLICATION told IS 'p'", "SELECT count(*) FROM pg_description WHERE description = 'p'", 1, 1},
		{"ALTER PUBLICATION told RENAME TO named", pubs + "'named'", 1, 1},
		{"ALTER PUBLICATION named OWNER TO app", pubs + "'named'", 1, 1},
		{"DROP PUBLICATION named", pubs + "'named'", 0, 0},
		{"CREATE PUBLICATION bare", pubs + "'bare'", 1, 1},
		{"DROP PUBLICATION IF EXISTS bare, nosuch", pubs + "'bare'", 0, 0},
		{"CREATE STATISTICS both_of ON id, item FROM orders", stats + "'both_of'", 1, 1},
		{"ALTER STATISTICS both_of SET STATISTICS 7", stats + "'both_of' AND stxstattarget = 7", 1, 1},
		{"COMMENT ON STATISTICS public.both_of IS 's'", "SELECT count(*) FROM pg_description WHERE description = 's'", 1, 1},
		{"ALTER STATISTICS both_of RENAME TO two_of", stats + "'two_of'", 1, 1},
		{"ALTER STATISTICS two_of OWNER TO app", stats + "'two_of'", 1, 1},
		{"ALTER STATISTICS two_of SET SCHEMA extra", stats + "'two_of' AND stxnamespace = 'extra'::regnamespace", 1, 1},
		{"DROP STATISTICS extra.two_of", stats + "'two_of'", 0, 0},
		{"DROP SEQUENCE numbers", class + "'numbers'", 0, 0},
		{"DROP FUNCTION twice(int)", procs + "'twice'", 0, 0},
		{"DROP SCHEMA extra CASCADE", "SELECT count(*) FROM pg_extension WHERE extname = 'hstore'", 0, 0},
		{"ANALYZE", "SELECT 1", 1, 1},
		{"VACUUM", "SELECT 1", 1, 1},

		// Tables of no keyspace, and what is bound to them, stay on their shard.
		{"CREATE TABLE slips (id int PRIMARY KEY, body text)", class + "'slips'", 1, 0},
		{"CREATE INDEX by_body ON slips (body)", class + "'by_body'", 1, 0},
		{"CREATE SEQUENCE slip_ids OWNED BY slips.id", class + "'slip_ids'", 1, 0},
		{"CREATE SEQUENCE more_ids", class + "'more_ids'", 1, 1},
		{"ALTER SEQUENCE more_ids OWNED BY slips.id", "SELECT count(*) FROM pg_depend WHERE objid = 'more_ids'::regclass AND deptype = 'a'", 1, 0},
		{"CREATE TRIGGER slips BEFORE INSERT ON slips FOR EACH ROW EXECUTE FUNCTION stamp()", "SELECT count(*) FROM pg_trigger WHERE tgname = 'slips'", 1, 0},
		{"CREATE VIEW few AS SELECT id FROM slips", class + "'few'", 1, 0},
		{"ALTER TABLE slips ADD COLUMN n int", "SELECT count(*) FROM pg_attribute WHERE attname = 'n' AND attrelid = to_regclass('slips')", 1, 0},
		{"COMMENT ON TABLE slips IS 'y'", "SELECT count(*) FROM pg_description WHERE description = 'y'", 1, 0},
		{"GRANT SELECT ON slips TO public", class + "'slips' AND relacl IS NOT NULL", 1, 0},
		{"CREATE PUBLICATION of_slips FOR TABLE slips", pubs + "'of_slips'", 1, 0},
		{"ALTER PUBLICATION of_slips SET (publish = 'insert')", pubs + "'of_slips' AND NOT pubdelete", 1, 0},
		{"DROP PUBLICATION of_slips", pubs + "'of_slips'", 0, 0},
		{"CREATE STATISTICS slips_of ON id, body FROM slips", stats + "'slips_of'", 1, 0},
		{"ALTER STATISTICS slips_of SET STATISTICS 7", stats + "'slips_of' AND stxstattarget = 7", 1, 0},
		{"DROP STATISTICS slips_of", stats + "'slips_of'", 0, 0},
		{"DROP INDEX by_body", class + "'by_body'", 0, 0},
		{"DROP VIEW few", class + "'few'", 0, 0},
		{"DROP SEQUENCE slip_ids", class + "'slip_ids'", 0, 0},
		{"DROP TABLE slips", class + "'slips'", 0, 0},
		{"DROP INDEX IF EXISTS nosuch", "SELECT 1", 1, 1},
		// So it does if a comment says so, and what differs between the shards can be brought to the same.
		{"/* rangefinder: shard=shard_2 */ CREATE TYPE lone AS (a int)", types + "'lone'", 0, 1},
		{"DROP TYPE lone", types + "'lone'", 0, 0},
	} {
		run(one.sql)
		if each, _ := r.onShards(t, one.look); each[0] != one.first || each[1] != one.last {
			t.Fatalf("%s: %v, want %d and %d", one.sql, each, one.first, one.last)
		}
	}
	// All or none.
	if err := r.servers[1].primary.ExecIn(ctxOf(t), "app", "CREATE TYPE taken AS ENUM ()", "ALTER TYPE taken OWNER TO app"); err != nil {
		t.Fatal(err)
	}
	_, err := conn.Exec(ctxOf(t), "CREATE TYPE taken AS ENUM ('a')")
	wantCode(t, err, "42710")
	if each, _ := r.onShards(t, types+"'taken'"); each[0] != 0 {
		t.Fatalf("%v", each)
	}
	_, err = conn.Exec(ctxOf(t), "DROP TYPE taken, mood")
	wantCode(t, err, pg.CodeFeatureNotSupported)
	run("DROP TYPE taken")
	_, err = conn.Exec(ctxOf(t), "DROP TYPE taken")
	wantCode(t, err, "42704")
	// In a transaction, with what it has made itself.
	for _, sql := range []string{"BEGIN", "CREATE TYPE brief AS ENUM ('a')", "ALTER TABLE orders ADD COLUMN b brief", "CREATE INDEX brief_b ON orders (b)", "DROP INDEX brief_b", "ROLLBACK"} {
		run(sql)
	}
	if _, sum := r.onShards(t, types+"'brief'"); sum != 0 {
		t.Fatal("a type is left")
	}
	// A session that is tied to a connection means a table of its own.
	run("CREATE TEMPORARY TABLE mine (a int)")
	run("ALTER TABLE mine ADD COLUMN b int")
	run("COMMENT ON TABLE mine IS 'mine'")
	run("DROP TABLE mine")
	r.busy(t, 0)
}

// One password opens all shards: they keep the same of it.
func TestRoleOfShards(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	for _, s := range r.servers {
		if err := s.primary.ExecIn(ctxOf(t), "app", "ALTER ROLE app CREATEROLE", "DROP ROLE IF EXISTS teller"); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, s := range r.servers {
			if err := s.primary.ExecIn(ctxOf(t), "app", "DROP ROLE IF EXISTS teller", "ALTER ROLE app NOCREATEROLE"); err != nil {
				t.Error(err)
			}
		}
	})
	conn := r.connect(pgx.QueryExecModeExec)
	for _, sql := range []string{"CREATE ROLE teller LOGIN PASSWORD 'it''s one'", "ALTER ROLE teller PASSWORD 'another'"} {
		if _, err := conn.Exec(ctxOf(t), sql); err != nil {
			t.Fatal(err)
		}
		var kept []string
		for _, s := range r.servers {
			one, err := s.primary.ConnTo(ctxOf(t), "app", "")
			if err != nil {
				t.Fatal(err)
			}
			var stored string
			err = one.QueryRow(ctxOf(t), "SELECT rolpassword FROM pg_authid WHERE rolname = 'teller'").Scan(&stored)
			one.Close(ctxOf(t))
			if err != nil {
				t.Fatal(err)
			}
			kept = append(kept, stored)
		}
		v, err := pg.ParseVerifier(kept[0])
		if err != nil || kept[0] != kept[1] {
			t.Fatalf("%v: the shards keep different things: %t", err, kept[0] != kept[1])
		}
		if want := map[bool]string{true: "it's one", false: "another"}[sql[0] == 'C']; !v.Check(want) {
			t.Fatal("the password does not fit")
		}
	}
}
