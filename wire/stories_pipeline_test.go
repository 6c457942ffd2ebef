package wire_test

import (
	"encoding/binary"
)

// pipelineStories are of messages in orders that drivers seldom send and a router easily gets wrong.
func pipelineStories(key string) []story {
	one := extended("SELECT $1::int + 1", "41")
	bad := extended("SELECT 1/$1::int", "0")
	item := "SELECT item FROM orders WHERE customer_id = $1 AND id = $2"
	return []story{
		{name: "errors in the middle", steps: []step{
			{msg(one, parse("x", "SELECT 1"), bad, parse("y", "SELECT 2"), closing('S', "x"), syncs(), bind("", "x"), run("", 0), syncs(), bind("", "y"), run("", 0), syncs(), one, syncs()), "ZZZZ"},
			{msg(bind("", "missing"), one, flush(), one, syncs(), one, syncs()), "ZZ"},
			{msg(parse("x", "SELECT 3"), parse("z", "SELECT 4"), syncs(), bind("", "z"), run("", 0), syncs()), "ZZ"},
		}},
		{name: "syncs and flushes", steps: []step{{msg(syncs(), syncs(), one, syncs(), syncs(), flush(), flush(), one, flush(), flush(), syncs(), syncs()), "ZZZZZZ"}, {msg(bad, syncs(), syncs(), one, syncs()), "ZZZ"}, {msg(bad, flush(), flush()), "E"}, {msg(flush(), syncs(), one, syncs()), "ZZ"}}},
		{name: "queries in a pipeline", steps: []step{
			{msg(one, simple("SELECT 2"), one, syncs()), "ZZ"}, {msg(simple("SELECT 2"), one, simple("SELECT 3"), syncs(), simple("SELECT 4")), "ZZZZ"},
			{msg(extended("INSERT INTO notes VALUES (800, 'x')"), simple("SELECT 1/0"), one, syncs()), "ZZ"}, {simple("SELECT count(*) FROM notes WHERE id = 800"), "Z"},
			{msg(extended("INSERT INTO notes VALUES (801, 'x')"), flush()), "C"}, {simple("SELECT 1/0"), "Z"}, {simple("SELECT count(*) FROM notes WHERE id = 801"), "Z"},
			{msg(parse("a", "SELECT 1"), flush()), "1"}, {simple("SELECT 2"), "Z"}, {msg(bind("", "a"), run("", 0), syncs()), "Z"},
		}},
		{name: "flush without sync in a transaction", steps: []step{
			{simple("BEGIN"), "Z"}, {msg(extended(item, key, "1"), flush()), "C"}, {msg(extended(item, key, "2"), flush()), "C"}, {msg(bad, flush()), "E"}, {msg(one, flush(), syncs()), "Z"}, {msg(one, syncs()), "Z"}, {simple("ROLLBACK"), "Z"}, {msg(one, syncs()), "Z"},
		}},
		{name: "a missing statement in a transaction", steps: []step{{simple("BEGIN"), "Z"}, {msg(bind("", "missing"), syncs()), "Z"}, {simple("SELECT 1"), "Z"}, {simple("COMMIT"), "Z"}, {simple("BEGIN"), "Z"}, {simple("INSERT INTO notes VALUES (810, 'x')"), "Z"}, {msg(describe('S', "missing"), one, syncs()), "Z"}, {msg(one, syncs()), "Z"}, {simple("ROLLBACK"), "Z"}}},
		{name: "row limits in a transaction", steps: []step{
			{simple("BEGIN"), "Z"}, {msg(parse("s", "SELECT id, body FROM notes ORDER BY id"), bind("p", "s"), bind("q", "s"), describe('P', "p"), run("p", 1), run("q", 3), run("p", 1), syncs()), "Z"},
			{msg(run("p", 0), flush()), "C"}, {msg(run("p", 1), run("q", 1), bad, run("q", 1), syncs()), "Z"}, {msg(run("q", 1), syncs()), "Z"}, {simple("ROLLBACK"), "Z"}, {msg(run("q", 1), syncs()), "Z"},
			{msg(parse("", "INSERT INTO notes SELECT i, 'x' FROM generate_series(820, 825) i RETURNING id"), bind("", ""), run("", 2), run("", 2), run("", 0), syncs()), "Z"}, {simple("SELECT count(*) FROM notes WHERE id >= 820"), "Z"},
		}},
		{name: "what PostgreSQL asks of a portal, of statements that the node answers", steps: []step{
			{simple("BEGIN"), "Z"}, {simple("INSERT INTO notes VALUES (815, 'x')"), "Z"}, {simple("ROLLBACK"), "Z"}, {simple("BEGIN"), "Z"}, {msg(parse("", "COMMIT"), bind("", "", "1"), run("", 0), syncs()), "Z"}, {simple("SELECT 1"), "Z"}, {simple("COMMIT"), "Z"},
			{msg(parse("c", "COMMIT", 25), syncs()), "Z"}, {simple("BEGIN"), "Z"}, {msg(bind("", "c"), run("", 0), syncs()), "Z"}, {msg(bind("", "c", "1", "2"), syncs()), "Z"}, {simple("ROLLBACK"), "Z"}, {simple("BEGIN"), "Z"}, {msg(bind("", "c", "1"), run("", 0), syncs()), "Z"},
			{msg(parse("b", "BEGIN"), bind("p", "b", "1"), run("p", 0), syncs()), "Z"}, {msg(bind("p", "b"), run("p", 0), run("p", 0), syncs()), "Z"}, {simple("SELECT 1"), "Z"}, {simple("ROLLBACK"), "Z"},
			{msg(bind("p", "b"), run("p", 0), syncs()), "Z"}, {msg(run("p", 0), syncs()), "Z"}, {simple("ROLLBACK"), "Z"}, {msg(bind("", "b"), run("", 0), bind("", "b"), run("", 0), run("", 0), syncs()), "Z"}, {simple("ROLLBACK"), "Z"},
			{simple("BEGIN"), "Z"}, {msg(parse("", "SAVEPOINT a"), bind("s", ""), run("s", 0), run("s", 0), syncs()), "Z"}, {simple("ROLLBACK TO a"), "Z"}, {simple("COMMIT"), "Z"},
			{msg(parse("l", "LISTEN ch"), bind("", "l", "1"), run("", 0), syncs()), "Z"}, {msg(bind("", "l"), run("", 0), run("", 0), syncs()), "Z"}, {msg(parse("x", "SELECT 1"), parse("d", "DEALLOCATE x"), bind("", "d", "1"), syncs()), "Z"}, {msg(bind("", "d"), run("", 0), run("", 0), syncs()), "Z"}, {msg(bind("", "x"), run("", 0), syncs()), "Z"},
		}},
		{name: "closing", steps: []step{
			{msg(parse("a", "SELECT 1"), bind("p", "a"), closing('S', "a"), run("p", 0), closing('P', "p"), closing('P', "p"), closing('S', "a"), closing('S', ""), closing('P', ""), syncs()), "Z"}, {msg(bind("", "a"), syncs()), "Z"},
			{msg(parse("", "SELECT 1"), closing('S', ""), bind("", ""), syncs()), "Z"}, {msg(parse("a", "SELECT 2"), closing('S', "a"), parse("a", "SELECT 3"), bind("", "a"), run("", 0), syncs()), "Z"},
		}},
		{name: "describing", steps: []step{
			{msg(parse("a", "INSERT INTO notes VALUES ($1, $2)"), describe('S', "a"), parse("b", "UPDATE notes SET body = $1 RETURNING *"), describe('S', "b"), parse("c", "BEGIN"), describe('S', "c"), parse("d", "SHOW work_mem"), describe('S', "d"), parse("e", "SET work_mem = '5MB'"), describe('S', "e"), parse("f", ""), describe('S', "f"), parse("g", "EXPLAIN SELECT 1"), describe('S', "g"), parse("h", item), describe('S', "h"), parse("i", "SELECT $1::text", 23), syncs()), "Z"},
			{msg(bind("p", "d"), describe('P', "p"), bind("q", "e"), describe('P', "q"), bind("r", "f"), describe('P', "r"), bind("s", "g"), describe('P', "s"), syncs()), "Z"}, {msg(bind("t", "h", key, "1"), describe('P', "t"), describe('S', "h"), syncs()), "Z"},
			{msg(parse("j", "SELECT $1", 0), describe('S', "j"), parse("k", "SELECT $1 + $2", 23, 23), describe('S', "k"), syncs()), "Z"}, {msg(parse("l", "SELECT $3::int"), syncs()), "Z"},
		}},
		{name: "binary formats", steps: []step{
			{msg(parse("b", "SELECT $1::int8, $2::text, $3::bytea"), binaryBind("b", []int16{1, 1, 1}, []int16{1}, binary.BigEndian.AppendUint64(nil, 42), []byte("text"), []byte{0, 1, 255}), describe('P', ""), run("", 0), syncs()), "Z"},
			{msg(binaryBind("b", []int16{1}, []int16{1, 0, 1}, binary.BigEndian.AppendUint64(nil, 42), []byte("text"), nil), describe('P', ""), run("", 0), syncs()), "Z"}, {msg(binaryBind("b", []int16{1}, nil, []byte("short"), nil, nil), syncs()), "Z"},
			{msg(binaryBind("b", []int16{1, 1}, nil, nil, nil, nil), syncs()), "Z"}, {msg(binaryBind("b", []int16{7}, nil, []byte("x"), nil, nil), syncs()), "Z"}, {msg(binaryBind("b", nil, []int16{9}, []byte("1"), nil, nil), run("", 0), syncs()), "Z"},
			{msg(parse("o", "SELECT item FROM orders WHERE customer_id = $1 AND id = 1", 20), binaryBind("o", []int16{1}, []int16{1}, binary.BigEndian.AppendUint64(nil, number(key))), run("", 0), syncs()), "Z"},
		}},
		{name: "notices and parameters in a pipeline", steps: []step{
			{msg(extended("DO $$ BEGIN RAISE NOTICE 'one'; END $$"), extended("SET application_name = 'piped'"), one, extended("DO $$ BEGIN RAISE WARNING 'two'; END $$"), bad, syncs()), "Z"}, {simple("SHOW application_name"), "Z"},
			{msg(extended("SET application_name = 'piped'"), one, syncs(), extended("SHOW application_name"), syncs(), extended("RESET application_name"), syncs()), "ZZZ"},
		}},
		{name: "malformed", steps: []step{
			{message('Q', []byte("SELECT 1")), "Z"}, {message('Q', nil), "Z"}, {message('Q', []byte("SELECT 1\x00\x00")), "Z"}, {message('S', []byte("x")), "Z"}, {message('H', []byte("x")), "E"}, {msg(one, message('H', []byte("x")), syncs()), "Z"}, {msg(one, syncs()), "Z"},
			{msg(extended("INSERT INTO notes VALUES (840, 'x')"), message('S', []byte("x"))), "Z"}, {msg(extended("INSERT INTO notes VALUES (840, 'x')"), message('H', []byte("x"))), "E"}, {msg(one, simple("SELECT 2"), message('H', []byte("x")), message('S', []byte("x"))), "Z"},
			{msg(extended("INSERT INTO notes VALUES (840, 'x')"), flush()), "C"}, {message('Q', []byte("SELECT 1")), "Z"}, {msg(extended("INSERT INTO notes VALUES (840, 'x')"), flush()), "C"}, {msg(message('H', []byte("x")), one, syncs()), "Z"},
			{msg(extended("INSERT INTO notes VALUES (840, 'x')"), flush()), "C"}, {message('S', []byte("x")), "Z"}, {msg(extended("INSERT INTO notes VALUES (840, 'x')"), message('Q', []byte("SELECT 1"))), "Z"}, {msg(bad, flush()), "E"}, {msg(message('Q', []byte("no")), message('S', []byte("x"))), "Z"},
			{simple("SELECT count(*) FROM notes WHERE id = 840"), "Z"}, {simple("BEGIN"), "Z"}, {message('S', []byte("x")), "Z"}, {simple("SELECT 1"), "Z"}, {simple("ROLLBACK"), "Z"}, {simple("BEGIN"), "Z"}, {message('Q', []byte("x")), "Z"}, {simple("COMMIT"), "Z"},
			{simple("BEGIN"), "Z"}, {simple("INSERT INTO notes VALUES (840, 'x')"), "Z"}, {msg(one, message('S', []byte("x"))), "Z"}, {simple("COMMIT"), "Z"}, {simple("SELECT count(*) FROM notes WHERE id = 840"), "Z"},
		}},
		{name: "function calls in a pipeline", steps: []step{{msg(one, callFunction(1317, "hello"), one, syncs()), "ZZ"}, {msg(bad, callFunction(1317, "hello"), syncs(), callFunction(1317, "hello")), "ZZ"}, {msg(extended("BEGIN"), callFunction(1317, "hello"), callFunction(999999), callFunction(1317, "hello"), syncs()), "ZZZZ"}, {simple("ROLLBACK"), "Z"}}},
		{name: "copy in a pipeline", steps: []step{
			{msg(one, extended("COPY notes TO STDOUT"), one, syncs()), "Z"}, {msg(extended("COPY notes FROM STDIN"), copyData("830\tx\n"), copyDone(), one, syncs()), "Z"}, {msg(extended("COPY notes FROM STDIN"), copyData("no\n"), copyDone(), one, syncs(), one, syncs()), "ZZ"},
			{simple("SELECT count(*) FROM notes WHERE id = 830"), "Z"},
		}},
	}
}

// binaryBind binds arguments as they are, with format codes; nil is NULL.
func binaryBind(statement string, formats, results []int16, args ...[]byte) []byte {
	b := append([]byte("\x00"+statement), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(formats)))
	for _, f := range formats {
		b = binary.BigEndian.AppendUint16(b, uint16(f))
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(args)))
	for _, a := range args {
		if a == nil {
			b = binary.BigEndian.AppendUint32(b, 0xffffffff)
			continue
		}
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(a))), a...)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(results)))
	for _, f := range results {
		b = binary.BigEndian.AppendUint16(b, uint16(f))
	}
	return message('B', b)
}

func number(digits string) (n uint64) {
	for _, d := range digits {
		n = n*10 + uint64(d-'0')
	}
	return n
}
