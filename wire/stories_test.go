package wire_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// stories are sessions that the router must not be noticed in. customer is a key of shard_1.
func stories(customer int64) []story {
	key := fmt.Sprint(customer)
	return slicesOf(
		simpleStories(key), extendedStories(key), portalStories(key), transactionStories(key), settingStories(key),
		copyStories(key), namedStories(key), preparedStories(key), pipelineStories(key), undoneStories(), oddStories(key), flushStories(), failedStories(key),
	)
}

func slicesOf(lists ...[]story) (all []story) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

func simpleStories(key string) []story {
	return []story{
		{name: "queries", steps: each("SELECT 1, NULL, 'x'", "SELECT item FROM orders WHERE customer_id = "+key+" ORDER BY id", "SELECT body FROM notes ORDER BY id", "", ";", " -- nothing\n")},
		{name: "errors", steps: each("SELECT 1/0", "SELEC 1", "SELECT * FROM missing", "SELECT missing FROM notes", "INSERT INTO notes VALUES (1, 'twice')", "SELECT 'x", "SELECT 1")},
		{name: "several statements", steps: each("SELECT 1; SELECT 2", "SELECT 1; SELECT 1/0; SELECT 2", "INSERT INTO notes VALUES (100, 'x'); SELECT 1/0", "SELECT count(*) FROM notes", "SELECT 1;;SELECT 2;", ";;")},
		{name: "writes", steps: each("INSERT INTO notes VALUES (101, 'a') RETURNING id", "UPDATE notes SET body = 'b' WHERE id = 101", "DELETE FROM notes WHERE id > 100", "DELETE FROM notes WHERE id = 9999",
			"INSERT INTO orders (customer_id, id) VALUES ("+key+", 100)", "UPDATE orders SET item = 'b' WHERE customer_id = "+key)},
		{name: "notices", steps: each("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$", "DROP TABLE IF EXISTS missing", "COMMIT", "ROLLBACK")},
		{name: "pipelined queries", steps: []step{{msg(simple("SELECT 1"), simple("SELECT 1/0"), simple("BEGIN"), simple("SELECT body FROM notes WHERE id = 1"), simple("COMMIT"), simple("SELECT 3")), "ZZZZZZ"}}},
		{name: "large rows", steps: []step{{simple("SELECT repeat('x', 8000000), 1"), "Z"}, {msg(extended("SELECT length($1)", strings.Repeat("y", 8_000_000)), syncs()), "Z"}}},
		{name: "many rows", steps: each("SELECT i, repeat('z', 100) FROM generate_series(1, 20000) i")},
		{name: "explain", steps: each("EXPLAIN (COSTS OFF) SELECT * FROM notes WHERE id = 1", "VALUES (1), (2)", "TABLE notes")},
	}
}

func extendedStories(key string) []story {
	one := extended("SELECT $1::int + 1", "41")
	bad := extended("SELECT 1/$1::int", "0")
	return []story{
		{name: "one statement", steps: []step{{msg(one, syncs()), "Z"}, {msg(extended("SELECT item FROM orders WHERE customer_id = $1 AND id < 3 ORDER BY id", key), syncs()), "Z"}}},
		{name: "empty query", steps: []step{{msg(extended(""), syncs()), "Z"}, {msg(extended("-- c"), syncs()), "Z"}, {msg(parse("e", ""), describe('S', "e"), syncs()), "Z"}, {msg(bind("", "e"), run("", 0), syncs()), "Z"}}},
		{name: "nothing but syncs", steps: []step{{msg(syncs(), syncs(), flush(), syncs()), "ZZZ"}}},
		{name: "pipeline", steps: []step{{msg(one, one, syncs(), one, syncs(), syncs(), one, one, one, syncs()), "ZZZZ"}}},
		{name: "pipeline with errors", steps: []step{{msg(one, bad, one, syncs(), one, syncs(), bad, syncs(), one, syncs()), "ZZZZ"}}},
		{name: "pipeline is one transaction", steps: append([]step{
			{msg(extended("INSERT INTO notes VALUES (200, 'x')"), bad, syncs()), "Z"},
			{msg(extended("INSERT INTO notes VALUES (201, 'x')"), one, syncs()), "Z"},
		}, each("SELECT id FROM notes WHERE id >= 200")...)},
		{name: "flush", steps: []step{
			{msg(one, flush()), "C"}, {msg(one, flush()), "C"}, {syncs(), "Z"},
			{msg(parse("f", "SELECT $1::text"), flush()), "1"}, {msg(describe('S', "f"), flush()), "T"},
			{msg(bind("", "f", "v"), flush()), "2"}, {msg(run("", 0), flush()), "C"}, {syncs(), "Z"},
		}},
		{name: "flush, then a write", steps: []step{
			{msg(extended("SELECT body FROM notes WHERE id = 1"), flush()), "C"}, {msg(extended("INSERT INTO notes VALUES (300, 'x')"), flush()), "C"}, {syncs(), "Z"},
			{simple("SELECT count(*) FROM notes"), "Z"},
		}},
		{name: "error after flush", steps: []step{{msg(one, flush()), "C"}, {msg(bad, flush(), one, flush()), "E"}, {msg(one, syncs()), "Z"}, {msg(one, syncs()), "Z"}}},
		{name: "parse errors", steps: []step{
			{msg(parse("a", "SELEC"), bind("", "a"), run("", 0), syncs()), "Z"}, {msg(parse("a", "SELECT * FROM missing"), syncs()), "Z"},
			{msg(parse("a", "SELECT 1; SELECT 2"), syncs()), "Z"}, {msg(parse("a", "SELECT 1"), syncs()), "Z"}, {msg(parse("a", "SELECT 2"), syncs()), "Z"},
			{msg(bind("", "a"), run("", 0), syncs()), "Z"},
		}},
		{name: "what is parsed stays after a bind of too few", steps: []step{
			{msg(parse("c", "SELECT $1::int"), bind("", "c"), run("", 0), syncs()), "Z"}, {msg(bind("", "c", "7"), run("", 0), syncs()), "Z"},
			{msg(parse("d", "SELECT item FROM orders WHERE customer_id = $1 AND id = 1"), bind("", "d"), run("", 0), syncs()), "Z"}, {msg(bind("", "d", key), run("", 0), syncs()), "Z"},
			{msg(extended("BEGIN"), parse("e", "UPDATE orders SET item = 'x' WHERE customer_id = $1"), bind("", "e"), syncs()), "Z"}, {simple("ROLLBACK"), "Z"}, {msg(bind("", "e", key), run("", 0), syncs()), "Z"},
			{msg(parse("", "SELECT item FROM orders WHERE customer_id = $1 AND id = 2"), bind("", "", key, key), syncs()), "Z"}, {msg(bind("", "", key), run("", 0), syncs()), "Z"},
			{msg(parse("f", "SELECT body FROM notes WHERE id = $1"), bind("", "f", "1"), run("", 0), bind("", "f"), syncs()), "Z"}, {msg(bind("", "f", "2"), run("", 0), syncs()), "Z"},
		}},
		{name: "bind errors", steps: []step{
			{msg(parse("b", "SELECT $1::int, $2::int"), syncs()), "Z"}, {msg(bind("", "b", "1"), syncs()), "Z"}, {msg(bind("", "b", "1", "2", "3"), run("", 0), syncs()), "Z"},
			{msg(bind("", "b", "1", "no"), syncs()), "Z"}, {msg(bind("", "missing"), syncs()), "Z"}, {msg(bind("", "b", "1", "NULL"), run("", 0), syncs()), "Z"},
			{msg(parse("k", "SELECT item FROM orders WHERE customer_id = $1 AND id = $2::int"), bind("", "k", key, "no"), syncs()), "Z"}, {msg(bind("", "k", key, "2"), run("", 0), syncs()), "Z"},
		}},
		{name: "unknown names", steps: []step{
			{msg(describe('S', "missing"), syncs()), "Z"}, {msg(describe('P', "missing"), syncs()), "Z"}, {msg(run("missing", 0), syncs()), "Z"}, {msg(describe('S', ""), syncs()), "Z"},
			{msg(closing('S', "missing"), closing('P', "missing"), syncs()), "Z"}, {msg(bind("", ""), syncs()), "Z"}, {msg(run("", 0), syncs()), "Z"},
		}},
		{name: "query between", steps: []step{{msg(parse("", "SELECT 1"), bind("", ""), run("", 0), simple("SELECT 2"), syncs()), "ZZ"}, {msg(parse("q", "SELECT 3"), simple("SELECT 4"), syncs()), "ZZ"}, {msg(bind("", "q"), run("", 0), syncs()), "Z"}}},
		{name: "query after an error", steps: []step{{msg(bad, simple("SELECT 2"), syncs(), simple("SELECT 3")), "ZZ"}}},
		{name: "a query forgets the unnamed statement", steps: []step{{msg(parse("", "SELECT 1"), syncs(), simple("SELECT 2"), bind("", ""), syncs()), "ZZZ"}}},
	}
}

func portalStories(key string) []story {
	rows := "SELECT item FROM orders WHERE customer_id = " + key + " ORDER BY id"
	part := func(sql string) []step {
		return []step{
			{simple("BEGIN"), "Z"},
			{msg(parse("", sql), bind("p", ""), describe('P', "p"), run("p", 2), syncs()), "Z"},
			{msg(run("p", 2), flush()), "s"}, {msg(run("p", 3), syncs()), "Z"},
			{msg(describe('P', "p"), run("p", 0), run("p", 0), syncs()), "Z"}, {msg(closing('P', "p"), syncs()), "Z"}, {msg(run("p", 0), syncs()), "Z"},
			{simple("ROLLBACK"), "Z"},
		}
	}
	return []story{
		{name: "row limit", steps: []step{{msg(parse("", rows), bind("", ""), run("", 2), run("", 3), syncs()), "Z"}, {msg(run("", 1), syncs()), "Z"}}},
		{name: "portal in a transaction", steps: part(rows)},
		{name: "portal of a plain table", steps: part("SELECT body FROM notes ORDER BY id")},
		{name: "portal without a table", steps: part("SELECT generate_series(1, 20)")},
		{name: "portal of the catalog", steps: part("SELECT oid FROM pg_type WHERE oid < 30 ORDER BY oid")},
		{name: "portal in a block with an isolation level", steps: append(each("BEGIN ISOLATION LEVEL REPEATABLE READ"), part("SELECT generate_series(1, 20)")[1:]...)},
		{name: "portal in a read-only block", steps: append(each("BEGIN READ ONLY"), part(rows)[1:]...)},
		{name: "portal bound first", steps: []step{
			{msg(extended("BEGIN"), syncs()), "Z"}, {msg(parse("", "SELECT 5"), bind("", ""), syncs()), "Z"}, {msg(describe('P', ""), syncs()), "Z"}, {msg(run("", 0), syncs()), "Z"}, {msg(extended("COMMIT"), syncs()), "Z"},
		}},
		{name: "portal bound twice", steps: []step{{simple("BEGIN"), "Z"}, {msg(parse("", "SELECT 5"), bind("p", ""), syncs()), "Z"}, {msg(bind("p", ""), syncs()), "Z"}, {simple("COMMIT"), "Z"}}},
		{name: "portals at once", steps: []step{{simple("BEGIN"), "Z"}, {msg(parse("a", "SELECT generate_series(1, 3)"), parse("b", rows), bind("x", "a"), bind("y", "b"), run("x", 1), run("y", 1), run("x", 1), run("y", 1), syncs()), "Z"},
			{msg(run("y", 1), run("x", 1), syncs()), "Z"}, {simple("COMMIT"), "Z"}, {msg(run("x", 1), syncs()), "Z"}}},
		{name: "cursor", steps: each("BEGIN", "DECLARE c CURSOR FOR "+rows, "FETCH 2 FROM c", "MOVE 3 IN c", "FETCH ALL FROM c", "CLOSE c", "FETCH c", "ROLLBACK")},
		{name: "cursor without a table", steps: each("BEGIN", "DECLARE c CURSOR FOR SELECT generate_series(1, 5)", "FETCH 2 FROM c", "CLOSE c", "COMMIT", "FETCH c")},
		{name: "cursor outside a transaction", steps: each("DECLARE c CURSOR FOR SELECT 1", "DECLARE h CURSOR WITH HOLD FOR SELECT generate_series(1, 5)", "FETCH 2 FROM h", "CLOSE h")},
	}
}

func transactionStories(key string) []story {
	insert := "INSERT INTO orders (customer_id, id) VALUES (" + key + ", 500)"
	count := "SELECT count(*) FROM orders WHERE customer_id = " + key
	both := func(name string, sql ...string) []story {
		return []story{{name: name, steps: each(sql...)}, {name: name + ", extended", steps: eachExtended(sql...)}}
	}
	return slicesOf(
		both("commit", "BEGIN", insert, "COMMIT", count),
		both("rollback", "START TRANSACTION ISOLATION LEVEL SERIALIZABLE", insert, "ABORT", count),
		both("empty block", "BEGIN", "COMMIT", "BEGIN WORK", "END", "START TRANSACTION", "ROLLBACK"),
		both("variants", "BEGIN TRANSACTION READ WRITE, ISOLATION LEVEL READ COMMITTED", "SHOW transaction_isolation", "SELECT 1", "END TRANSACTION", "BEGIN READ ONLY", "SHOW transaction_read_only", insert, "COMMIT",
			"BEGIN ISOLATION LEVEL REPEATABLE READ", "SHOW transaction_isolation", count, "COMMIT AND NO CHAIN", "BEGIN READ WRITE", "SELECT 1", count, "COMMIT"),
		both("failed block", "BEGIN", insert, "SELECT 1/0", count, "SELECT 1", "COMMIT", count),
		both("failed at once", "BEGIN", "SELECT 1/0", "SELECT 1", insert, "COMMIT", count),
		both("syntax error in a block", "BEGIN", "SELEC", "SELECT 1", "ROLLBACK", "BEGIN", insert, "SELEC", "END", count),
		both("begin twice", "BEGIN", "BEGIN", insert, "BEGIN", "COMMIT", "COMMIT"),
		both("savepoints", "BEGIN", "SAVEPOINT a", insert, "SAVEPOINT b", insert, "ROLLBACK TO b", count, "RELEASE a", "COMMIT", count),
		both("savepoints before anything", "BEGIN", "SAVEPOINT a", "SELECT 1/0", "ROLLBACK TO SAVEPOINT a", insert, "COMMIT", count),
		both("savepoints and nothing else", "BEGIN", "SAVEPOINT a", "SELECT 1", "RELEASE a", "SAVEPOINT b", "ROLLBACK TO b", "ROLLBACK TO a", "SELECT 1", "ROLLBACK TO b", "SELECT 1", "COMMIT"),
		both("savepoints that are not there", "SAVEPOINT x", "RELEASE x", "ROLLBACK TO x", "BEGIN", "RELEASE x", "ROLLBACK TO x", "COMMIT"),
		both("chain", "BEGIN ISOLATION LEVEL SERIALIZABLE", insert, "COMMIT AND CHAIN", "SHOW transaction_isolation", count, "ROLLBACK AND CHAIN", "SELECT 1", "COMMIT"),
		both("chain outside a block", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "SELECT 1"),
		both("chain of nothing", "BEGIN READ ONLY", "COMMIT AND CHAIN", "SHOW transaction_read_only", insert, "ROLLBACK"),
		both("settings and chain", "BEGIN", "SET work_mem = '5MB'", insert, "ROLLBACK AND CHAIN", "SHOW work_mem", "COMMIT", "SHOW work_mem",
			"BEGIN", "SET work_mem = '6MB'", count, "COMMIT AND CHAIN", "SET work_mem = '7MB'", count, "ROLLBACK", "SHOW work_mem"),
		both("set transaction", "BEGIN", "SET TRANSACTION READ ONLY", "SHOW transaction_read_only", insert, "ROLLBACK", "BEGIN", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", count, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "COMMIT"),
		both("outside a block", "SET LOCAL work_mem = '5MB'", "SET TRANSACTION READ ONLY", "SET CONSTRAINTS ALL DEFERRED", "SHOW work_mem"),
		[]story{
			{name: "block in one text", steps: each("BEGIN; "+insert+"; COMMIT", count, "BEGIN; "+insert+"; SELECT 1/0; COMMIT", "SELECT 1", "ROLLBACK", "BEGIN; "+insert, "ROLLBACK", count, insert+"; COMMIT; SELECT 1/0", "SELECT 1; BEGIN", "COMMIT", "COMMIT; SELECT 1")},
			{name: "block in a pipeline", steps: []step{
				{msg(extended("BEGIN"), extended(insert), extended("COMMIT"), syncs()), "Z"}, {msg(extended("BEGIN"), extended(insert), extended("SELECT 1"), syncs()), "Z"}, {simple("ROLLBACK"), "Z"},
				{msg(extended(insert), extended("BEGIN"), extended("SELECT 1"), syncs()), "Z"}, {simple("COMMIT"), "Z"},
				{msg(extended("BEGIN"), syncs(), extended(insert), syncs(), extended("COMMIT"), syncs()), "ZZZ"}, {simple(count), "Z"},
				{msg(extended("BEGIN"), extended("SELECT 1/0"), extended("COMMIT"), syncs()), "Z"}, {simple("ROLLBACK"), "Z"},
			}},
			{name: "failed pipeline", steps: append([]step{{msg(extended("SET work_mem = '5MB'"), extended("SELECT 1/0"), syncs()), "Z"}}, each("SHOW work_mem", "INSERT INTO notes VALUES (600, current_setting('work_mem'))", "SELECT body FROM notes WHERE id = 600")...)},
			{name: "pipeline that begins and sets", steps: append([]step{{msg(extended("BEGIN"), extended(insert), extended("SET work_mem = '5MB'"), syncs()), "Z"}}, each("SHOW work_mem", "ROLLBACK", "SHOW work_mem", "INSERT INTO notes VALUES (600, current_setting('work_mem'))", "SELECT body FROM notes WHERE id = 600")...)},
			{name: "commit that fails", steps: each("BEGIN", "SET work_mem = '5MB'", "INSERT INTO notes VALUES (601, 'x')", "CREATE TEMP TABLE d (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)", "INSERT INTO d VALUES (1), (1)", "COMMIT", "SHOW work_mem", "SELECT count(*) FROM notes")},
		},
	)
}

// localEncoding writes letters in encodings that hold for a transaction alone: which a client does once it is told of them, and as long.
func localEncoding(each func(...string) []step) []step {
	note := "SELECT body, chr(1078) FROM notes WHERE id = 1"
	return each("BEGIN", "SET LOCAL client_encoding = 'iso-8859-5'", note, "COMMIT", note,
		"BEGIN", "SET LOCAL NAMES 'koi8'", "SHOW client_encoding", "SELECT chr(1078)", "ROLLBACK", "SELECT chr(1078)",
		"BEGIN", "SET LOCAL client_encoding = 'win'", "COMMIT", note,
		"BEGIN", "SAVEPOINT a", "SET LOCAL client_encoding = 'alt'", "SAVEPOINT b", "SET LOCAL client_encoding TO DEFAULT", "ROLLBACK TO b", "SELECT chr(1078)", "ROLLBACK TO a", note, "COMMIT",
		"BEGIN", "SAVEPOINT a", "SET client_encoding = 'koi8'", "ROLLBACK TO a", note, "COMMIT",
		"BEGIN", "SET client_encoding = 'koi8'", note, "ROLLBACK", note,
		"BEGIN", "SET LOCAL client_encoding = 'koi8'", "SET client_encoding = 'utf8'", "SELECT chr(1078)", "COMMIT",
		"BEGIN", "SET client_encoding = 'koi8'", "SET LOCAL client_encoding = 'utf8'", "COMMIT", note,
		"BEGIN", "SET LOCAL client_encoding = 'win1251'", "RESET client_encoding", note, "COMMIT", note,
		"BEGIN", "SET LOCAL client_encoding = 'gbk'", "RESET ALL", note, "ROLLBACK", note)
}

func localEncodingOfOrders(each func(...string) []step) []step {
	order := "SELECT item || chr(1078) FROM orders WHERE id = 1"
	return each("BEGIN", "SET LOCAL client_encoding = 'koi8'", order, "COMMIT", order, "BEGIN", "SET LOCAL client_encoding = 'koi8'", order, "ROLLBACK", order,
		"BEGIN", "SET client_encoding = 'koi8'", order, "ROLLBACK", order, "BEGIN", "SET LOCAL client_encoding = 'koi8'", "RESET ALL", order, "COMMIT", order)
}

// localReports does so with all else that servers report.
func localReports(each func(...string) []step) []step {
	date := "SELECT '2020-01-02'::date, '2020-01-02 00:00Z'::timestamptz, '1 day 2 hours'::interval FROM notes WHERE id = 1"
	return each("BEGIN", "SET LOCAL datestyle = 'German'", "SET LOCAL timezone = 'Asia/Tokyo'", "SET LOCAL intervalstyle = 'ISO_8601'", date, "COMMIT", date,
		"BEGIN", "SET LOCAL datestyle TO sql, euro", "SAVEPOINT a", "SET LOCAL datestyle TO ymd", "ROLLBACK TO a", date, "SET LOCAL datestyle TO DEFAULT", date, "ROLLBACK",
		"BEGIN", "SET LOCAL TIME ZONE 'UTC'", date, "COMMIT",
		"BEGIN", "SET LOCAL standard_conforming_strings = 0", "SHOW standard_conforming_strings", "COMMIT", "SHOW standard_conforming_strings",
		"BEGIN", "SET LOCAL application_name = 'me'", "SHOW application_name", "COMMIT", "SHOW application_name",
		"BEGIN", "SET LOCAL default_transaction_read_only = yes", "SHOW default_transaction_read_only", "COMMIT")
}

func settingStories(key string) []story {
	return []story{
		{name: "set and reset", steps: each("SET work_mem = '5MB'", "SHOW work_mem", "SET work_mem TO DEFAULT", "SHOW work_mem", "SET TIME ZONE 'UTC'", "SHOW TimeZone", "SET TIME ZONE 'Asia/Tokyo'", "SELECT '2020-01-01 00:00Z'::timestamptz", "RESET ALL", "SHOW work_mem", "SET datestyle = 'German'", "SELECT '2020-01-02'::date", "DISCARD ALL", "SHOW datestyle")},
		{name: "set errors", steps: each("SET work_mem = 'x'", "SET missing = 1", "SHOW transaction_read_only", "SET a.b = 'c'", "SHOW a.b", "SHOW missing", "RESET missing", "SET ROLE missing")},
		{name: "reported parameters", steps: each("SET client_encoding = 'LATIN1'", "SET application_name = 'me'", "SET standard_conforming_strings = off", "RESET ALL", "BEGIN", "UPDATE notes SET body = 'x'", "SET application_name = 'you'", "ROLLBACK", "SHOW application_name")},
		{name: "settings in a block", steps: each("BEGIN", "SET work_mem = '5MB'", "SHOW work_mem", "ROLLBACK", "SHOW work_mem", "BEGIN", "SET work_mem = '5MB'", "SAVEPOINT a", "SET work_mem = '6MB'", "ROLLBACK TO a", "SHOW work_mem", "COMMIT", "SHOW work_mem")},
		{name: "local settings", steps: each("BEGIN", "SET LOCAL work_mem = '5MB'", "SHOW work_mem", "SELECT count(*) FROM notes", "SHOW work_mem", "COMMIT", "SHOW work_mem")},
		{name: "local encoding", steps: localEncoding(each)},
		{name: "local encoding, extended", steps: localEncoding(eachExtended)},
		{name: "local encoding of parameters", steps: []step{
			{msg(extended("BEGIN"), extended("SET LOCAL client_encoding = 'LATIN1'"), syncs()), "Z"}, {msg(extended("SELECT body FROM notes WHERE id = 1"), extended("SELECT $1 || chr(233)", "\xe9"), syncs()), "Z"},
			{msg(extended("INSERT INTO notes VALUES (99, $1)", "\xe9"), syncs()), "Z"}, {msg(extended("COMMIT"), syncs()), "Z"}, {msg(extended("SELECT body || $1 FROM notes WHERE id = 99", "é"), syncs()), "Z"},
			{msg(extended("BEGIN"), extended("SET LOCAL client_encoding = 'LATIN1'"), extended("INSERT INTO notes VALUES (98, $1)", "\xe9"), syncs()), "Z"}, {msg(extended("ROLLBACK"), syncs()), "Z"},
			{msg(extended("BEGIN"), extended("SAVEPOINT a"), extended("SET client_encoding = 'LATIN1'"), syncs()), "Z"}, {msg(extended("ROLLBACK TO a"), syncs()), "Z"}, {msg(extended("INSERT INTO notes VALUES (97, $1)", "é"), syncs()), "Z"},
			{msg(extended("COMMIT"), syncs()), "Z"}, {msg(extended("BEGIN"), extended("SET LOCAL client_encoding = 'LATIN1'"), extended("ROLLBACK"), syncs()), "Z"}, {msg(extended("SELECT body || $1 FROM notes WHERE id = 97", "é"), syncs()), "Z"},
		}},
		{name: "local encoding over shards", steps: localEncodingOfOrders(each)},
		{name: "local encoding over shards, extended", steps: localEncodingOfOrders(eachExtended)},
		{name: "local encoding over shards in a pipeline", steps: []step{
			{msg(extended("BEGIN"), extended("SET LOCAL client_encoding = 'koi8'"), syncs()), "Z"}, {msg(extended("SELECT item || chr(1078) FROM orders WHERE id = 1"), extended("COMMIT"), syncs()), "Z"},
			{msg(extended("SELECT item || chr(1078) FROM orders WHERE id = 1"), syncs()), "Z"},
			{msg(extended("BEGIN"), extended("SET LOCAL client_encoding = 'koi8'"), syncs()), "Z"}, {msg(extended("SELECT item || chr(1078) FROM orders WHERE id = 1 AND customer_id = "+key), extended("COMMIT"), syncs()), "Z"},
			{msg(extended("SELECT item || chr(1078) FROM orders WHERE id = 1 AND customer_id = "+key), syncs()), "Z"},
		}},
		{name: "local reported parameters", steps: localReports(each)},
		{name: "local reported parameters, extended", steps: localReports(eachExtended)},
		{name: "local reported parameters in a pipeline", steps: []step{
			{msg(extended("BEGIN"), extended("SET LOCAL datestyle = 'German'"), syncs()), "Z"}, {msg(extended("SET LOCAL datestyle TO DEFAULT"), extended("SELECT '2020-01-02'::date"), extended("COMMIT"), syncs()), "Z"},
		}},
		{name: "set_config", steps: each("SELECT set_config('work_mem', '5MB', false)", "SHOW work_mem", "BEGIN", "SELECT set_config('work_mem', '6MB', true)", "SHOW work_mem", "COMMIT", "SHOW work_mem")},
		{name: "discard", steps: each("DISCARD PLANS", "DISCARD SEQUENCES", "DISCARD TEMP", "BEGIN", "DISCARD ALL", "ROLLBACK")},
		{name: "temporary tables", steps: each("CREATE TEMP TABLE tt (a int)", "INSERT INTO tt VALUES (1)", "SELECT * FROM tt", "DISCARD ALL", "SELECT * FROM tt")},
		{name: "notifications", steps: []step{{simple("LISTEN x"), "Z"}, {simple("NOTIFY x, 'hello'"), "AZ"}, {simple("SELECT pg_notify('x', 'later')"), "AZ"}, {simple("UNLISTEN x"), "Z"}, {simple("NOTIFY x, 'hello'"), "Z"}}},
	}
}

func copyStories(key string) []story {
	in := "COPY notes FROM STDIN"
	return []story{
		{name: "copy in", steps: []step{{simple(in), "G"}, {msg(copyData("400\tx\n40"), copyData("1\ty\n"), copyDone()), "Z"}, {simple("SELECT * FROM notes WHERE id >= 400"), "Z"}}},
		{name: "copy in at once", steps: []step{{msg(simple(in), copyData("400\tx\n"), copyDone(), simple("SELECT 1")), "ZZ"}}},
		{name: "copy fails", steps: []step{{simple(in), "G"}, {msg(copyData("400\tx\n"), copyFail("changed my mind")), "Z"}, {simple("SELECT count(*) FROM notes"), "Z"}}},
		{name: "copy of bad rows", steps: []step{{simple(in), "G"}, {msg(copyData("1\tx\n"), copyDone()), "Z"}, {simple(in), "G"}, {msg(copyData("no\tx\n"), copyDone()), "Z"}, {simple("SELECT 1"), "Z"}}},
		{name: "copy is told of an error at once", steps: []step{{simple(in), "G"}, {copyData("no\tx\n" + strings.Repeat("1000\tx\n", 20_000)), "EZ"}, {msg(copyData("2\n"), copyDone(), simple("SELECT 1")), "Z"}}},
		{name: "copy is told of an error at once, in a transaction", steps: []step{{simple("BEGIN"), "Z"}, {simple(in), "G"}, {msg(copyData("no\tx\n"), copyData(strings.Repeat("1000\tx\n", 20_000))), "EZ"}, {msg(copyDone(), simple("SELECT 1"), simple("ROLLBACK")), "ZZ"}}},
		{name: "copy is told of an error at once, extended", steps: []step{{msg(extended(in), syncs()), "G"}, {copyData("no\tx\n" + strings.Repeat("1000\tx\n", 20_000)), "E"}, {msg(copyData("2\n"), copyDone(), syncs(), simple("SELECT 1")), "ZZ"}}},
		{name: "copy with many notices", steps: []step{
			{simple("CREATE OR REPLACE FUNCTION pg_temp.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '%', repeat('x', 16000); RETURN NULL; END $$; CREATE TEMP TABLE told (a text); CREATE TRIGGER t BEFORE INSERT ON told FOR EACH ROW EXECUTE FUNCTION pg_temp.tell()"), "Z"},
			// 32 MB each way: more than the sockets take if one side is not heard.
			{simple("COPY told FROM STDIN"), "G"}, {msg(bytes.Repeat(copyData(strings.Repeat("y", 15_999)+"\n"), 2000), copyDone()), "Z"},
		}},
		{name: "copy fails before its data", steps: []step{
			{simple("CREATE OR REPLACE FUNCTION pg_temp.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$; CREATE TEMP TABLE told (a int); CREATE TRIGGER t BEFORE INSERT ON told EXECUTE FUNCTION pg_temp.no()"), "Z"},
			{simple("COPY told FROM STDIN"), "GEZ"}, {msg(extended("COPY told FROM STDIN"), syncs()), "GEZ"}, {simple("SELECT 1"), "Z"},
		}},
		{name: "copy out", steps: each("COPY notes TO STDOUT", "COPY (SELECT item FROM orders WHERE customer_id = "+key+" ORDER BY id) TO STDOUT", "COPY (SELECT 1/0) TO STDOUT", "COPY missing TO STDOUT")},
		{name: "copy among others", steps: []step{{simple("SELECT 1; COPY notes FROM STDIN; SELECT 2"), "G"}, {msg(copyData("400\tx\n"), copyDone()), "Z"}}},
		{name: "copy twice in one text", steps: []step{{simple("COPY notes FROM STDIN; COPY notes FROM STDIN"), "G"}, {msg(copyData("400\tx\n"), copyDone()), "G"}, {msg(copyData("401\tx\n"), copyDone()), "Z"}}},
		{name: "copy in a transaction", steps: []step{{simple("BEGIN"), "Z"}, {simple(in), "G"}, {msg(copyData("400\tx\n"), copyDone()), "Z"}, {simple(in), "G"}, {msg(copyData("400\tx\n"), copyDone()), "Z"}, {simple("SELECT 1"), "Z"}, {simple("COMMIT"), "Z"}}},
		{name: "copy in, extended", steps: []step{{msg(extended(in), syncs()), "G"}, {msg(copyData("400\tx\n"), copyDone(), syncs()), "Z"}, {msg(extended("SELECT count(*) FROM notes"), syncs()), "Z"}}},
		{name: "copy in, extended, flushed", steps: []step{{msg(extended(in), flush()), "G"}, {msg(copyData("400\tx\n"), copyDone(), syncs()), "Z"}, {msg(extended("SELECT count(*) FROM notes"), syncs()), "Z"}}},
		{name: "copy fails, extended", steps: []step{{msg(extended(in), syncs()), "G"}, {msg(copyFail("no"), syncs()), "Z"}, {msg(extended("SELECT count(*) FROM notes"), syncs()), "Z"}}},
		{name: "copy of bad rows, extended", steps: []step{{msg(extended(in), syncs()), "G"}, {msg(copyData("no\tx\n"), copyDone(), syncs()), "Z"}, {msg(extended("SELECT 1"), syncs()), "Z"}}},
		{name: "copy out, extended", steps: []step{{msg(extended("COPY notes TO STDOUT"), syncs()), "Z"}, {msg(extended("COPY (SELECT 1/0) TO STDOUT"), syncs()), "Z"}}},
		{name: "copy with other messages", steps: []step{{simple(in), "G"}, {msg(copyData("400\tx\n"), flush(), syncs(), copyData("401\tx\n"), copyDone()), "Z"}}},
	}
}

func namedStories(key string) []story {
	item := "SELECT item FROM orders WHERE customer_id = $1 AND id = $2"
	return []story{
		{name: "named statements", steps: []step{
			{msg(parse("a", item), describe('S', "a"), syncs()), "Z"}, {msg(bind("", "a", key, "1"), run("", 0), syncs()), "Z"}, {msg(bind("", "a", key, "2"), describe('P', ""), run("", 0), syncs()), "Z"},
			{msg(closing('S', "a"), syncs()), "Z"}, {msg(bind("", "a", key, "2"), run("", 0), syncs()), "Z"}, {msg(parse("a", "SELECT 1"), bind("", "a"), run("", 0), syncs()), "Z"},
		}},
		{name: "a failed pipeline prepares nothing", steps: []step{
			{msg(parse("x", "SELECT 1"), syncs()), "Z"},
			{msg(parse("a", "SELEC"), parse("b", "SELECT 1"), closing('S', "x"), syncs()), "Z"}, {msg(parse("b", "SELECT 2"), bind("", "b"), run("", 0), bind("", "x"), run("", 0), syncs()), "Z"},
			{msg(parse("c", "SELECT 3"), extended("SELECT 1/0"), parse("d", "SELECT 3"), syncs()), "Z"}, {msg(bind("", "c"), run("", 0), syncs()), "Z"}, {msg(bind("", "d"), run("", 0), syncs()), "Z"},
		}},
		{name: "deallocate", steps: []step{{msg(parse("a", "SELECT 1"), syncs()), "Z"}, {simple("DEALLOCATE a"), "Z"}, {msg(bind("", "a"), syncs()), "Z"}, {msg(parse("a", "SELECT 2"), parse("b", "SELECT 2"), syncs()), "Z"}, {simple("DEALLOCATE ALL"), "Z"}, {msg(bind("", "a"), syncs()), "Z"}, {msg(bind("", "b"), syncs()), "Z"}, {simple("DEALLOCATE missing"), "Z"}}},
		{name: "discard all forgets statements", steps: []step{{msg(parse("a", "SELECT 1"), syncs()), "Z"}, {simple("DISCARD ALL"), "Z"}, {msg(bind("", "a"), syncs()), "Z"}, {msg(parse("a", "SELECT 1"), bind("", "a"), run("", 0), syncs()), "Z"}}},
		{name: "prepare and execute", steps: each("PREPARE s AS SELECT body FROM notes WHERE id = $1", "EXECUTE s(1)", "EXECUTE s(2)", "PREPARE s AS SELECT 1", "DEALLOCATE s", "EXECUTE s(1)")},
		{name: "statements after a change of table", steps: []step{
			{simple("CREATE TABLE IF NOT EXISTS changing (a int)"), "Z"}, {simple("TRUNCATE changing; INSERT INTO changing VALUES (1)"), "Z"},
			{msg(parse("a", "SELECT * FROM changing"), bind("", "a"), run("", 0), syncs()), "Z"}, {simple("ALTER TABLE changing ADD COLUMN b int DEFAULT 2"), "Z"},
			{msg(bind("", "a"), run("", 0), syncs()), "Z"}, {msg(closing('S', "a"), parse("a", "SELECT * FROM changing"), describe('S', "a"), bind("", "a"), run("", 0), syncs()), "Z"},
			{simple("DROP TABLE changing"), "Z"}, {msg(bind("", "a"), run("", 0), syncs()), "Z"},
		}},
		{name: "statements of another setting", steps: []step{
			{msg(parse("a", "SELECT '01/02/2020'::date"), bind("", "a"), run("", 0), syncs()), "Z"}, {simple("SET datestyle = 'ISO, DMY'"), "Z"},
			{msg(parse("b", "SELECT '01/02/2020'::date"), bind("", "b"), run("", 0), syncs()), "Z"},
		}},
		{name: "a block that fails keeps its statements", steps: []step{{simple("BEGIN"), "Z"}, {msg(parse("a", item), syncs()), "Z"}, {simple("SELECT 1/0"), "Z"}, {simple("ROLLBACK"), "Z"}, {msg(bind("", "a", key, "1"), run("", 0), syncs()), "Z"}}},
	}
}

func oddStories(string) []story {
	return []story{
		{name: "function call", steps: []step{{callFunction(1317, "hello"), "Z"}, {callFunction(999999), "Z"}, {simple("BEGIN"), "Z"}, {callFunction(1317, "hello"), "Z"}, {simple("COMMIT"), "Z"}}},
		{name: "stray copy messages", steps: []step{{msg(copyData("x"), copyDone(), copyFail("x"), simple("SELECT 1")), "Z"}}},
		{name: "unknown message", steps: []step{{message('y', nil), "Z"}}},
		{name: "terminate", steps: []step{{msg(simple("SELECT 1"), message('X', nil)), "ZZ"}}},
		{name: "an encoding's text", steps: each("SELECT 'äöü€'", "SELECT U&'\\00e4'", "SELECT E'\\x41'", "SELECT chr(0)")},
		{name: "locks", steps: each("BEGIN", "LOCK TABLE notes", "COMMIT", "LOCK TABLE notes")},
		// The error takes the setting back, so that nothing else has to be that fast.
		{name: "statement timeout", steps: each("BEGIN", "SET statement_timeout = '1s'", "SELECT pg_sleep(60)", "ROLLBACK", "SHOW statement_timeout", "SELECT 1")},
		{name: "statement timeout of a session", only: "p", steps: each("SET statement_timeout = '2s'", "SELECT pg_sleep(60)", "RESET statement_timeout", "SELECT 1")},
	}
}

// flushStories end a transaction, and do other things to it, behind a Flush: no server has said by then that it is in one.
func flushStories() (all []story) {
	flushed := func(sql string) step { return step{msg(extended(sql), flush()), "C"} }
	synced := func(sql string) step { return step{msg(extended(sql), syncs()), "Z"} }
	insert := func(id int) string { return fmt.Sprintf("INSERT INTO notes VALUES (%d, 'x')", id) }
	begins := []struct {
		name  string
		steps []step
	}{
		{"a query", []step{{simple("BEGIN"), "Z"}, flushed(insert(901))}},
		{"a message", []step{flushed("BEGIN"), flushed(insert(901))}},
		{"a message with a Sync", []step{synced("BEGIN"), flushed(insert(901))}},
		{"a message behind a write", []step{flushed(insert(900)), flushed("BEGIN"), flushed(insert(901))}},
		{"nothing", []step{flushed(insert(901))}},
	}
	ends := []struct {
		name  string
		steps []step
	}{
		{"COMMIT", []step{synced("COMMIT")}},
		{"ROLLBACK", []step{synced("ROLLBACK")}},
		{"END in a query", []step{{simple("END"), "Z"}}},
		{"ABORT in a query", []step{{simple("ABORT"), "Z"}}},
		{"COMMIT in a text", []step{{simple(insert(905) + "; COMMIT; SELECT 1"), "Z"}}},
		{"flushed COMMIT", []step{flushed("COMMIT"), flushed("SELECT 1"), {syncs(), "Z"}}},
		{"flushed ROLLBACK, and a write", []step{flushed("ROLLBACK"), flushed(insert(902)), {syncs(), "Z"}}},
		{"COMMIT AND CHAIN", []step{{msg(extended("COMMIT AND CHAIN"), syncs()), "Z"}, synced(insert(903)), synced("ROLLBACK")}},
		{"BEGIN again", []step{synced("BEGIN"), synced("COMMIT")}},
		{"SET TRANSACTION", []step{{msg(extended("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"), syncs()), "Z"}, synced("COMMIT")}},
		{"SET LOCAL", []step{flushed("SET LOCAL extra_float_digits = 0"), flushed("SHOW extra_float_digits"), synced("COMMIT"), synced("SHOW extra_float_digits")}},
		{"savepoints", []step{{msg(extended("SAVEPOINT a"), syncs()), "Z"}, flushed(insert(902)), {msg(extended("ROLLBACK TO a"), syncs()), "Z"}, {msg(extended("RELEASE a"), syncs()), "Z"}, synced("COMMIT")}},
	}
	for _, b := range begins {
		for _, e := range ends {
			steps := slices.Concat(b.steps, e.steps, each("SELECT id FROM notes WHERE id >= 900 ORDER BY id", "ROLLBACK", "SELECT id FROM notes WHERE id >= 900 ORDER BY id"))
			all = append(all, story{name: "begun by " + b.name + ", flushed, " + e.name, steps: steps})
		}
		if b.name != "nothing" {
			all = append(all, story{name: "begun by " + b.name + ", all flushed, savepoints", steps: slices.Concat(b.steps, []step{
				flushed("SAVEPOINT a"), flushed(insert(902)), flushed("ROLLBACK TO a"), flushed(insert(903)), flushed("RELEASE a"), flushed("COMMIT"), {syncs(), "Z"},
			}, each("SELECT id FROM notes WHERE id >= 900 ORDER BY id", "ROLLBACK", "SELECT id FROM notes WHERE id >= 900 ORDER BY id"))})
		}
	}
	return all
}

// failedStories go on in a block that has failed, with more than one statement at once.
func failedStories(key string) (all []story) {
	insert := func(id int) string { return fmt.Sprintf("INSERT INTO notes VALUES (%d, 'x')", id) }
	pipeline := func(sql ...string) step {
		var b []byte
		for _, q := range sql {
			b = append(b, extended(q)...)
		}
		return step{msg(b, syncs()), "Z"}
	}
	order := "INSERT INTO orders VALUES (" + key + ", 900, 'x')"
	fails := []struct {
		name  string
		steps []step
	}{
		{"on a server", each("BEGIN", insert(901), "SAVEPOINT a", "SELECT 1/0")},
		{"in a pipeline", []step{{simple("BEGIN"), "Z"}, pipeline(insert(901), "SAVEPOINT a", "SELECT 1/0")}},
		{"on no server", each("BEGIN", "SAVEPOINT a", "SELEC")},
		{"on no server, a savepoint in front of it", each("BEGIN", "SET LOCAL extra_float_digits = 0", "SAVEPOINT a", "SELECT * FROM", insert(901))},
	}
	goesOn := []struct {
		name string
		step step
	}{
		{"a pipeline behind ROLLBACK TO", pipeline("ROLLBACK TO a", insert(902), "COMMIT")},
		{"an order behind ROLLBACK TO", pipeline("ROLLBACK TO a", order, "COMMIT")},
		{"a pipeline behind ROLLBACK TO that fails again", pipeline("ROLLBACK TO a", insert(902), "SELECT 1/0", "COMMIT")},
		{"Parse and Describe behind ROLLBACK TO", step{msg(extended("ROLLBACK TO a"), parse("q", "SELECT 1"), describe('S', "q"), syncs()), "Z"}},
		{"a text behind ROLLBACK TO", step{simple("ROLLBACK TO a; RELEASE a"), "Z"}},
		{"writes in a text behind ROLLBACK TO", step{simple("ROLLBACK TO a; " + insert(902) + "; COMMIT"), "Z"}},
		{"ROLLBACK TO what is not there", pipeline("ROLLBACK TO b", insert(902), "COMMIT")},
		{"what is no statement", step{simple("SELEC"), "Z"}},
		{"what is no statement, extended", pipeline("SELEC")},
		{"a text that is none behind its end", step{simple("ROLLBACK; SELEC"), "Z"}},
		{"a text of ROLLBACK TO what is not there", step{simple("ROLLBACK TO b; COMMIT"), "Z"}},
		{"a block behind ROLLBACK", step{simple("ROLLBACK; BEGIN"), "Z"}},
		{"a write behind ROLLBACK", step{simple("ROLLBACK; " + insert(902)), "Z"}},
		{"a read behind COMMIT and BEGIN", step{simple("COMMIT; BEGIN; SELECT 5"), "Z"}},
		{"a pipeline behind ROLLBACK", pipeline("ROLLBACK", insert(902), "BEGIN", insert(903))},
		{"nothing", step{simple(""), "Z"}},
		{"a comment", step{simple("-- ping"), "Z"}},
		{"an error behind letters of two bytes", step{simple("/* \u00e9\u00e8 */ ROLLBACK; SELECT missing FROM notes"), "Z"}},
		{"nothing in a message", pipeline("")},
	}
	for _, f := range fails {
		for _, g := range goesOn {
			only := ""
			if strings.HasPrefix(f.name, "on no server") && (g.name == "ROLLBACK TO what is not there" || g.name == "writes in a text behind ROLLBACK TO") {
				only = "po" // else the node says so with the first message, and refuses what may belong to a shard of its own
			}
			all = append(all, story{only: only, name: "failed " + f.name + ", " + g.name, steps: slices.Concat(f.steps, []step{g.step},
				each("SELECT id FROM notes WHERE id >= 900 ORDER BY id", "COMMIT", "SELECT id FROM notes WHERE id >= 900 ORDER BY id"))})
		}
	}
	return all
}
