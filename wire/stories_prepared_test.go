package wire_test

import "strings"

// preparedStories are of SQL's PREPARE, EXECUTE and DEALLOCATE. As in PostgreSQL they share their names with the protocol's
// statements.
//
// One difference is left out: when the table of a prepared statement is gone, an extended EXECUTE of it has no BindComplete
// before its error, because the statement is prepared anew in front of the Bind, and that is what fails.
func preparedStories(key string) []story {
	item := "SELECT item FROM orders WHERE customer_id = $1 AND id = $2"
	prepare := "PREPARE k (bigint, bigint) AS " + item
	long, umlauts := strings.Repeat("w", 70), strings.Repeat("ä", 40)
	both := func(name string, sql ...string) []story {
		return []story{{name: name, steps: each(sql...)}, {name: name + ", extended", steps: eachExtended(sql...)}}
	}
	changing := []string{"CREATE TABLE changing (a int)", "INSERT INTO changing VALUES (1)", "PREPARE p AS SELECT a FROM changing", "PREPARE q AS INSERT INTO changing VALUES ($1)", "EXECUTE p", "ALTER TABLE changing ADD COLUMN b text DEFAULT 'b'", "EXECUTE p", "EXECUTE q(2)"}
	return slicesOf(
		both("prepare, execute, deallocate", prepare, "EXECUTE k("+key+", 1)", "EXECUTE k('"+key+"', 2::int)", "execute K ( "+key+"::bigint, '3' )", "EXECUTE k("+key+", NULL)", "DEALLOCATE k", "EXECUTE k("+key+", 1)", "DEALLOCATE k", "DEALLOCATE PREPARE k"),
		both("names", `PREPARE "a b" AS SELECT 1`, `EXECUTE "a b"`, `EXECUTE"a b"`, `PREPARE "A" AS SELECT 2`, `PREPARE a AS SELECT 3`, `EXECUTE A`, `EXECUTE "A"`, `EXECUTE U&"\0061"`, `DEALLOCATE "A"`, `EXECUTE a`, `EXECUTE "A"`, "PREPARE prepare AS SELECT 4", "EXECUTE prepare", "DEALLOCATE prepare", "DEALLOCATE PREPARE ALL", "EXECUTE a"),
		both("errors of prepare", "PREPARE p AS SELECT * FROM missing", "PREPARE p AS SELECT missing FROM notes", "PREPARE p AS SELEC 1", "PREPARE p (nothing) AS SELECT $1", "PREPARE p (int) AS SELECT $1 || 'x' FROM notes WHERE $2", "PREPARE p AS SELECT $1", "PREPARE p AS SELECT 1", "PREPARE p AS SELECT 2", "PREPARE p AS SELECT * FROM missing", "EXECUTE p",
			"PREPARE q AS VACUUM", "PREPARE AS SELECT 1", "PREPARE r AS\n  SELECT id,\n  body, wrong FROM notes", "PREPARE s AS SELECT $2", "PREPARE s AS SELECT $1::int; SELECT 1/0", "EXECUTE s(5)"),
		both("errors of execute", "PREPARE p (int, text) AS SELECT $1, $2", "EXECUTE p", "EXECUTE p(1)", "EXECUTE p(1, 2, 3)", "EXECUTE p('x', 'y')", "EXECUTE p(1, 'y')", "EXECUTE p(1 + 1, 'a' || 'b')", "EXECUTE p(missing, 'y')", "EXECUTE p((SELECT 1), 'y')", "EXECUTE p(1/0, 'y')", "EXECUTE missing", "EXECUTE missing(1)", "EXECUTE p(NULL, NULL)", "EXECUTE p(3000000000, 'y')", "EXECUTE p(date '2020-01-01', 'y')",
			"PREPARE d AS SELECT 1/$1::int", "EXECUTE d(0)", "EXECUTE d(1)"),
		both("arguments that nothing takes", "PREPARE p AS SELECT count(*) FROM notes", "EXECUTE p(4)", "EXECUTE p('x', 5)", "EXPLAIN (COSTS OFF) EXECUTE p(1)"),
		both("errors behind the name of a statement that is there", "PREPARE p AS SELECT 1", "PREPARE p AS SELECT wrong FROM notes", `PREPARE "p" AS SELECT  wrong FROM notes`, "PREPARE p AS SELECT * FROM missing", "BEGIN", "SELECT count(*) FROM notes", "PREPARE p AS SELECT wrong FROM notes", "ROLLBACK"),
		both("a name that is there, of a statement that has lost its table", "PREPARE p AS SELECT id + 1 FROM notes", "EXECUTE p", "SET search_path = nowhere", "PREPARE p AS SELECT id FROM notes", "PREPARE p AS SELECT 1", "RESET search_path", "EXECUTE p", "BEGIN", "SELECT count(*) FROM notes", "SET LOCAL search_path = nowhere", "PREPARE p AS SELECT id FROM notes", "ROLLBACK", "EXECUTE p"),
		both("long names", "SET client_min_messages = warning", "PREPARE "+long+" AS SELECT 1", "EXECUTE "+long, "EXECUTE "+long[:63], "DEALLOCATE "+long[:65], "EXECUTE "+long, `PREPARE "`+umlauts+`" AS SELECT 2`, "EXECUTE "+umlauts, "EXECUTE "+umlauts[:62], "DEALLOCATE "+umlauts+"x"),
		[]story{{name: "long names of the protocol", steps: []step{{simple("SET client_min_messages = warning"), "Z"},
			{msg(parse(long, "SELECT 3"), syncs()), "Z"}, {simple("EXECUTE " + long), "Z"}, {simple("EXECUTE " + long[:63]), "Z"}, {msg(bind("", long[:63]), run("", 0), syncs()), "Z"}, {msg(bind("", long[:62]), run("", 0), syncs()), "Z"},
			{msg(parse(long+"x", "SELECT 4"), syncs()), "Z"}, {simple("DEALLOCATE " + long), "Z"}, {msg(bind("", long), run("", 0), syncs()), "Z"}, {simple("PREPARE " + long + " AS SELECT 5"), "Z"}, {msg(bind("", long+"y"), run("", 0), syncs()), "Z"}, {msg(describe('S', long), closing('S', long[:64]), describe('S', long), syncs()), "Z"},
			{msg(parse("", "SELECT 6 FROM notes"), bind(long, ""), run(long[:63], 1), run(long+"z", 1), describe('P', long), closing('P', long[:64]), run(long, 1), syncs()), "Z"},
			{msg(parse(umlauts, "SELECT 7"), syncs()), "Z"}, {simple("EXECUTE " + umlauts), "Z"}, {msg(bind("", umlauts), run("", 0), syncs()), "Z"}, {msg(bind("", umlauts[:62]), run("", 0), syncs()), "Z"},
		}}},
		both("writes", "PREPARE w AS INSERT INTO notes VALUES ($1, $2) RETURNING id", "EXECUTE w(700, 'x')", "EXECUTE w(700, 'x')", "PREPARE u (text, int) AS UPDATE notes SET body = $1 WHERE id = $2", "EXECUTE u('z', 700)", "SELECT body FROM notes WHERE id = 700", "PREPARE i (bigint, bigint) AS INSERT INTO orders (customer_id, id) VALUES ($1, $2)", "EXECUTE i("+key+", 700)", "SELECT count(*) FROM orders WHERE customer_id = "+key, "PREPARE l AS SELECT id FROM notes WHERE id = $1 FOR UPDATE", "EXECUTE l(1)"),
		both("prepared in a block", "BEGIN", prepare, "EXECUTE k("+key+", 1)", "ROLLBACK", "EXECUTE k("+key+", 2)", "BEGIN", "DEALLOCATE k", "ROLLBACK", "EXECUTE k("+key+", 2)"),
		both("prepared in a block with settings", "BEGIN ISOLATION LEVEL REPEATABLE READ", "SET LOCAL transform_null_equals = on", "PREPARE d AS SELECT count(*) FROM notes WHERE NULL = NULL", "EXECUTE d", "SET LOCAL search_path = nowhere", "PREPARE e AS SELECT * FROM notes", "EXECUTE e", "COMMIT", "BEGIN READ ONLY", "PREPARE w AS INSERT INTO notes VALUES ($1)", "EXECUTE w(1)", "ROLLBACK"),
		both("prepared in a block that fails", "BEGIN", "PREPARE p AS SELECT 1", "PREPARE q AS SELECT * FROM missing", "PREPARE r AS SELECT 1", "EXECUTE p", "DEALLOCATE p", "ROLLBACK", "EXECUTE p", "EXECUTE r", "BEGIN", "INSERT INTO notes VALUES (710)", "EXECUTE p", "EXECUTE missing", "EXECUTE p", "COMMIT", "SELECT count(*) FROM notes"),
		both("savepoints", "BEGIN", "INSERT INTO notes VALUES (720)", "SAVEPOINT a", "PREPARE p AS SELECT 1", "SELECT 1/0", "ROLLBACK TO a", "EXECUTE p", "COMMIT"),
		both("explain execute", "SET enable_seqscan = off", prepare, "EXPLAIN (COSTS OFF) EXECUTE k("+key+", 1)", "EXPLAIN (COSTS OFF) EXECUTE k(1)", "EXPLAIN EXECUTE missing", "PREPARE w AS INSERT INTO notes VALUES ($1, 'x')", "EXPLAIN (COSTS OFF) EXECUTE w(730)", "EXPLAIN (COSTS OFF, ANALYZE, TIMING OFF, SUMMARY OFF) EXECUTE w(730)", "SELECT count(*) FROM notes"),
		both("create table as execute", "PREPARE p AS SELECT generate_series(1, $1) AS i", "CREATE TABLE changing AS EXECUTE p(3)", "SELECT * FROM changing", "DROP TABLE changing", "CREATE TEMP TABLE scratch AS EXECUTE p(2)", "SELECT * FROM scratch", "EXECUTE p(1)", "DEALLOCATE p", "EXECUTE p(1)"),
		both("discard all", "PREPARE p AS SELECT 1", "DISCARD ALL", "EXECUTE p", "PREPARE p AS SELECT 2", "EXECUTE p", "DEALLOCATE ALL", "EXECUTE p"),
		both("a change of table", append(changing[:len(changing):len(changing)], "DROP TABLE changing")...),
		[]story{{name: "a table that is gone", steps: each(append(changing[:len(changing):len(changing)], "DROP TABLE changing", "EXECUTE p", "EXECUTE q(3)", "PREPARE r AS SELECT a FROM changing", "CREATE TABLE changing (a int)", "EXECUTE p", "EXECUTE r", "DROP TABLE changing")...)}},
		[]story{
			{name: "several statements in one text", steps: each(
				"PREPARE p AS SELECT 1; EXECUTE p; DEALLOCATE p", "EXECUTE p",
				"PREPARE p AS SELECT 1; SELECT 1/0; PREPARE q AS SELECT 2", "EXECUTE p", "EXECUTE q",
				"EXECUTE p; DEALLOCATE p; PREPARE p AS SELECT 1; EXECUTE p", "EXECUTE p",
				"DEALLOCATE p; PREPARE p AS SELECT 3; EXECUTE p; EXECUTE missing; EXECUTE p", "EXECUTE p",
				"PREPARE a AS SELECT 1; PREPARE b AS SELECT 1; EXECUTE a; DEALLOCATE a; EXECUTE b; EXECUTE a", "EXECUTE b",
				"DEALLOCATE ALL; PREPARE p AS SELECT 5; EXECUTE p; EXECUTE b", "EXECUTE p", "EXECUTE b",
				"SELECT 1; PREPARE p AS SELECT 6", "EXECUTE p", "SELECT 1; DEALLOCATE missing; SELECT 2", "PREPARE e AS SELECT body FROM notes WHERE id = $1; EXECUTE e(1); EXECUTE e(2)",
				"SELECT 'ä'; EXECUTE e(wrong)", "PREPARE f AS SELECT wrong; EXECUTE e(1)", "EXECUTE e(1); PREPARE \"a name that is longer than ours are, and wider: ä\" AS SELECT wrong",
				"BEGIN; PREPARE g AS SELECT 7; EXECUTE g; ROLLBACK; EXECUTE g", "EXECUTE g", "BEGIN; EXECUTE g", "COMMIT", "DEALLOCATE g; BEGIN; EXECUTE g; COMMIT", "ROLLBACK", "PREPARE h AS INSERT INTO notes VALUES ($1); EXECUTE h(740); SELECT 1/0", "SELECT count(*) FROM notes", "EXECUTE h(740)",
			)},
			{name: "one set of names", steps: []step{
				{simple(prepare), "Z"}, {msg(bind("", "k", key, "1"), describe('P', ""), run("", 0), syncs()), "Z"}, {msg(describe('S', "k"), syncs()), "Z"}, {msg(parse("k", "SELECT 1"), syncs()), "Z"},
				{msg(closing('S', "k"), syncs()), "Z"}, {simple("EXECUTE k(" + key + ", 1)"), "Z"},
				{msg(parse("m", item), syncs()), "Z"}, {simple("EXECUTE m(" + key + ", 1)"), "Z"}, {simple("PREPARE m AS SELECT 1"), "Z"}, {simple("EXECUTE m(1)"), "Z"}, {simple("DEALLOCATE m; EXECUTE m(" + key + ", 1)"), "Z"}, {msg(bind("", "m", key, "1"), syncs()), "Z"},
				{msg(parse("a", "SELECT 1"), parse("b", "SELECT 1"), syncs()), "Z"}, {simple("SELECT 2; DEALLOCATE a; EXECUTE b; EXECUTE a"), "Z"}, {simple("EXECUTE b"), "Z"}, {msg(bind("", "b"), run("", 0), syncs()), "Z"},
			}},
			{name: "prepare in a pipeline", steps: []step{
				{msg(extended("PREPARE p AS SELECT $1::int"), extended("EXECUTE p(1)"), bind("", "p", "2"), run("", 0), extended("DEALLOCATE p"), extended("EXECUTE p(3)"), syncs()), "Z"},
				{msg(extended("PREPARE p AS SELECT $1::int"), extended("SELECT 1/0"), extended("PREPARE q AS SELECT 1"), syncs()), "Z"}, {simple("EXECUTE p(1)"), "Z"}, {simple("EXECUTE q"), "Z"},
				{msg(extended("PREPARE p AS SELECT 1"), extended("SELECT 1"), syncs()), "Z"}, {msg(extended("EXECUTE p(1)"), flush()), "C"}, {msg(extended("PREPARE s AS SELECT 8"), flush()), "C"}, {msg(extended("EXECUTE s"), flush()), "C"}, {syncs(), "Z"},
				{msg(extended("EXECUTE p(1)", "1"), syncs()), "Z"}, {msg(extended("EXECUTE p($1)", "1"), syncs()), "Z"}, {simple("EXECUTE s"), "Z"},
			}},
			{name: "prepared execute", steps: []step{
				{simple(prepare), "Z"}, {msg(parse("e", "EXECUTE k("+key+", 1)"), describe('S', "e"), syncs()), "Z"}, {msg(bind("", "e"), describe('P', ""), run("", 0), syncs()), "Z"}, {msg(bind("", "e"), run("", 0), syncs()), "Z"},
				{msg(parse("d", "DEALLOCATE k"), describe('S', "d"), syncs()), "Z"}, {msg(bind("", "d"), describe('P', ""), run("", 0), syncs()), "Z"}, {msg(bind("", "e"), run("", 0), syncs()), "Z"},
				{msg(parse("p", "PREPARE k AS SELECT 1"), describe('S', "p"), syncs()), "Z"}, {msg(bind("", "p"), describe('P', ""), run("", 0), syncs()), "Z"}, {msg(bind("", "p"), run("", 0), syncs()), "Z"}, {simple("EXECUTE k"), "Z"},
			}},
			{name: "portals of execute", steps: []step{
				{simple("BEGIN"), "Z"}, {simple("PREPARE g AS SELECT generate_series(1, $1)"), "Z"}, {msg(parse("", "EXECUTE g(5)"), bind("x", ""), run("x", 2), syncs()), "Z"}, {msg(parse("", "SELECT 1"), bind("", ""), run("", 0), run("x", 2), syncs()), "Z"}, {msg(run("x", 0), syncs()), "Z"}, {simple("COMMIT"), "Z"},
			}},
			{name: "the unnamed portal outlives a prepare", steps: []step{
				{simple("PREPARE p AS SELECT 9"), "Z"}, {simple("BEGIN"), "Z"}, {simple("SELECT count(*) FROM notes"), "Z"}, {msg(parse("", "SELECT generate_series(1, 5)"), bind("", ""), run("", 2), bind("y", "p"), run("y", 0), run("", 2), syncs()), "Z"}, {simple("COMMIT"), "Z"},
			}},
		},
	)
}
