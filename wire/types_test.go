package wire_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/oids"
	"rangefinder/wire/pg"
)

// typedSchema is what both shards have; the second has given it other numbers.
const typedSchema = `
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN grade AS int CHECK (VALUE > 0);
CREATE DOMAIN moods AS mood[];
CREATE TYPE pair AS (m mood, n int, list mood[]);
CREATE TYPE span AS RANGE (subtype = pair);
CREATE EXTENSION hstore; CREATE EXTENSION citext;
ALTER TABLE orders ADD m mood, ADD list mood[], ADD p pair, ADD ps pair[], ADD g grade, ADD ds moods, ADD h hstore, ADD c citext, ADD s span;
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1'`

// typed is a spread over two shards that have given other numbers to the types of their tables.
type typed struct {
	*spread
	conns []*pgx.Conn  // of the shards
	looks atomic.Int64 // how often the catalogs were to be read
	how   atomic.Int32 // a lookedUp
}

// lookedUp is what comes of reading the catalogs.
type lookedUp int32

const (
	asTheyAre    lookedUp = iota
	nothingFound          // what was made since is not seen
	unreadable
)

func newTyped(t *testing.T, o rigOptions) *typed {
	t.Helper()
	x := new(typed)
	o.learn = x.learn
	x.spread = newSpread(t, o)
	for i, s := range x.servers {
		conn, err := s.primary.ConnTo(x.ctx, "app", "postgres")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		x.conns = append(x.conns, conn)
		for range 60 * i {
			x.on(i, "CREATE TYPE dummy AS ENUM ('x'); DROP TYPE dummy")
		}
		x.on(i, typedSchema)
	}
	x.caughtUp()
	x.learn(x.ctx, "app")
	return x
}

func (x *typed) on(i int, sql string) {
	x.t.Helper()
	if _, err := x.conns[i].Exec(x.ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		x.t.Fatalf("%s: %v", sql, err)
	}
}

// learn is wire.Config.Learn.
func (x *typed) learn(ctx context.Context, database string) bool {
	x.looks.Add(1)
	if how := lookedUp(x.how.Load()); how != asTheyAre {
		return how == nothingFound
	}
	shards := make(map[string][]oids.Type)
	for i, s := range x.servers {
		conn, err := s.primary.ConnTo(ctx, database, "postgres")
		if err != nil {
			return false
		}
		list, err := oids.Read(ctx, func(ctx context.Context, sql string, args ...any) (oids.Rows, error) {
			return conn.Query(ctx, sql, args...)
		})
		conn.Close(ctx)
		if err != nil {
			return false
		}
		shards[fmt.Sprintf("shard_%d", i+1)] = list
	}
	x.server.SetTypes(map[string]*oids.Database{database: oids.Make(x.server.Catalog().CatalogShard(database), shards)})
	return true
}

// number is the number of a type on a shard.
func (x *typed) number(i int, name string) (oid uint32) {
	x.t.Helper()
	if err := x.conns[i].QueryRow(x.ctx, "SELECT $1::text::regtype::oid", name).Scan(&oid); err != nil {
		x.t.Fatal(err)
	}
	return oid
}

// loads has a connection know the types, as the router tells of them.
func (x *typed) loads(conn *pgx.Conn) {
	x.t.Helper()
	conn.TypeMap().RegisterType(&pgtype.Type{Name: "hstore", OID: x.number(0, "hstore"), Codec: pgtype.HstoreCodec{}})
	conn.TypeMap().RegisterType(&pgtype.Type{Name: "citext", OID: x.number(0, "citext"), Codec: pgtype.TextCodec{}})
	for _, name := range []string{"mood", "mood[]", "pair", "pair[]", "grade", "moods"} {
		of, err := conn.LoadType(x.ctx, name)
		if err != nil {
			x.t.Fatalf("%s: %v", name, err)
		}
		if want := x.number(0, name); of.OID != want {
			x.t.Fatalf("%s is %d to clients, not %d as on the reference", name, of.OID, want)
		}
		conn.TypeMap().RegisterType(of)
	}
}

type pairOf struct {
	M    string
	N    int32
	List []string
}

// Values of types that have other numbers on each shard go there and come back, in every format, from statements that go to the shards in turn, and
// that are prepared once.
func TestTypesOfShards(t *testing.T) {
	for _, o := range []rigOptions{{}, {buffered: true}, {poolSize: 1}} {
		t.Run(fmt.Sprintf("buffered=%v pool=%d", o.buffered, o.poolSize), func(t *testing.T) {
			x := newTyped(t, o)
			if x.number(0, "mood") == x.number(1, "mood") {
				t.Fatal("the numbers do not differ")
			}
			for name, mode := range map[string]pgx.QueryExecMode{"cache statement": pgx.QueryExecModeCacheStatement, "cache describe": pgx.QueryExecModeCacheDescribe, "describe exec": pgx.QueryExecModeDescribeExec} {
				t.Run(name, func(t *testing.T) { x.roundTrip(t, mode) })
			}
			x.busy(t, 0)
		})
	}
}

func (x *typed) roundTrip(t *testing.T, mode pgx.QueryExecMode) {
	conn := x.connect(mode)
	x.loads(conn)
	looks := x.looks.Load()
	p := pairOf{"happy", 7, []string{"sad", "ok"}}
	const columns = "m, list, p, ps, g, ds, h, c"
	for round := range 3 {
		for _, key := range []int64{x.one, x.two} {
			_, err := conn.Exec(x.ctx, "INSERT INTO orders (customer_id, id, "+columns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (customer_id, id) DO UPDATE SET m = excluded.m",
				key, round, "ok", []string{"happy", "sad"}, p, []pairOf{p, p}, 3, []string{"ok"}, map[string]string{"a": "b"}, "Text")
			if err != nil {
				t.Fatalf("key %d: %v", key, err)
			}
			var m, c string
			var list, ds []string
			var got pairOf
			var ps []pairOf
			var g int
			var h pgtype.Hstore
			rows, err := conn.Query(x.ctx, "SELECT "+columns+" FROM orders WHERE customer_id = $1 AND id = $2", key, round)
			if err != nil {
				t.Fatal(err)
			}
			var told []uint32
			for _, f := range rows.FieldDescriptions() {
				told = append(told, f.DataTypeOID)
			}
			if !rows.Next() {
				t.Fatalf("no row: %v", rows.Err())
			}
			if told == nil {
				for _, f := range rows.FieldDescriptions() {
					told = append(told, f.DataTypeOID)
				}
			}
			if err := rows.Scan(&m, &list, &got, &ps, &g, &ds, &h, &c); err != nil {
				t.Fatal(err)
			}
			rows.Close()
			if m != "ok" || !slices.Equal(list, []string{"happy", "sad"}) || !reflect.DeepEqual(got, p) || !reflect.DeepEqual(ps, []pairOf{p, p}) || g != 3 ||
				!slices.Equal(ds, []string{"ok"}) || *h["a"] != "b" || c != "Text" {
				t.Errorf("key %d: %v %v %v %v %v %v %v %v", key, m, list, got, ps, g, ds, h, c)
			}
			var want []uint32
			for _, name := range []string{"mood", "mood[]", "pair", "pair[]", "int", "mood[]", "hstore", "citext"} { // of a domain PostgreSQL tells what is below it
				want = append(want, x.number(0, name))
			}
			if !slices.Equal(told, want) {
				t.Errorf("key %d: columns of the types %v, want %v", key, told, want)
			}
		}
	}
	// Of all shards: as they come, in order, and put together.
	for _, sql := range []string{
		"SELECT m, list, p FROM orders WHERE id = 1", "SELECT m, list, p FROM orders WHERE id = 1 ORDER BY customer_id", "SELECT m, list, p FROM orders WHERE id = 1 ORDER BY m, customer_id",
		"SELECT m, array_agg(m), (array_agg(p ORDER BY id))[1] FROM orders WHERE id < 2 GROUP BY m HAVING count(*) > 1", "SELECT DISTINCT m, list, p FROM orders",
	} {
		rows, err := conn.Query(x.ctx, sql)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for rows.Next() {
			var m string
			var list []string
			var got pairOf
			if err := rows.Scan(&m, &list, &got); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			if m != "ok" || len(list) == 0 || !reflect.DeepEqual(got, p) {
				t.Errorf("%s: %v %v %v", sql, m, list, got)
			}
			n++
		}
		if rows.Err() != nil || n == 0 {
			t.Errorf("%s: %d rows, %v", sql, n, rows.Err())
		}
		fields := rows.FieldDescriptions()
		if fields[0].DataTypeOID != x.number(0, "mood") || fields[1].DataTypeOID != x.number(0, "mood[]") || fields[2].DataTypeOID != x.number(0, "pair") {
			t.Errorf("%s: %v", sql, fields)
		}
	}
	// Parameters of such types, over all shards, and in a transaction that goes from one to the other.
	var n int
	if err := conn.QueryRow(x.ctx, "SELECT count(*) FROM orders WHERE list = $1 AND m = $2 AND p = $3::pair", []string{"happy", "sad"}, "ok", p).Scan(&n); err != nil || n < 2 {
		t.Errorf("%d rows, %v", n, err)
	}
	tx, err := conn.Begin(x.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []int64{x.two, x.one, x.two} {
		var list []string
		if err := tx.QueryRow(x.ctx, "SELECT list FROM orders WHERE customer_id = $1 AND m = $2 AND list = $3 LIMIT 1", key, "ok", []string{"happy", "sad"}).Scan(&list); err != nil || len(list) != 2 {
			t.Errorf("%v %v", list, err)
		}
		if _, err := tx.Exec(x.ctx, "UPDATE orders SET p = $2, list = $3 WHERE customer_id = $1", key, p, []string{"happy", "sad"}); err != nil {
			t.Error(err)
		}
	}
	if err := tx.Commit(x.ctx); err != nil {
		t.Fatal(err)
	}
	if x.looks.Load() != looks {
		t.Errorf("the catalogs were read %d times", x.looks.Load()-looks)
	}
}

// In the simple protocol, and where a client declares types by itself.
func TestTypesByNumber(t *testing.T) {
	x := newTyped(t, rigOptions{})
	x.exec("INSERT INTO orders (customer_id, id, m, list, p) VALUES ($1, 1, 'ok', '{sad,happy}', '(sad,1,{ok})'), ($2, 2, 'ok', '{sad,happy}', '(sad,1,{ok})')", x.one, x.two)
	x.caughtUp()
	mood, list, pair := x.number(0, "mood"), x.number(0, "mood[]"), x.number(0, "pair")
	conn := x.pgConn(t)
	table := uint32(0)
	if err := x.conns[0].QueryRow(x.ctx, "SELECT 'orders'::regclass::oid").Scan(&table); err != nil {
		t.Fatal(err)
	}
	for _, key := range []int64{x.one, x.two} {
		simple, err := conn.Exec(x.ctx, fmt.Sprintf("SELECT m, list, p, orders FROM orders WHERE customer_id = %d; SELECT 1", key)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		f := simple[0].FieldDescriptions
		if f[0].DataTypeOID != mood || f[1].DataTypeOID != list || f[2].DataTypeOID != pair || f[3].DataTypeOID != x.number(0, "orders") || string(simple[0].Rows[0][2]) != "(sad,1,{ok})" {
			t.Errorf("key %d: %v %s", key, f, simple[0].Rows)
		}
		if f[0].TableOID != table || f[0].TableAttributeNumber == 0 {
			t.Errorf("key %d: of table %d, want %d", key, f[0].TableOID, table)
		}
		res := conn.ExecParams(x.ctx, "SELECT m, list, p, ROW(list, p), ARRAY[p], orders FROM orders WHERE customer_id = $1 AND m = $2 AND list = $3",
			[][]byte{[]byte(fmt.Sprint(key)), []byte("ok"), moodsIn(mood, "sad", "happy")}, []uint32{20, mood, list}, []int16{0, 1, 1}, []int16{1}).Read()
		if res.Err != nil || len(res.Rows) != 1 {
			t.Fatalf("key %d: %v, %d rows", key, res.Err, len(res.Rows))
		}
		row := res.Rows[0]
		p := composite([]uint32{mood, 23, list}, []byte("sad"), []byte{0, 0, 0, 1}, moodsIn(mood, "ok"))
		if !bytes.Equal(row[1], moodsIn(mood, "sad", "happy")) || !bytes.Equal(row[2], p) {
			t.Errorf("key %d: % x\n% x", key, row[1], row[2])
		}
		if want := composite([]uint32{list, pair}, moodsIn(mood, "sad", "happy"), p); !bytes.Equal(row[3], want) {
			t.Errorf("key %d:\n% x, want\n% x", key, row[3], want)
		}
		if want := arrayIn(pair, p); !bytes.Equal(row[4], want) {
			t.Errorf("key %d:\n% x, want\n% x", key, row[4], want)
		}
		if n := binary.BigEndian.Uint32(row[5]); n != 12 || !bytes.Contains(row[5], p) {
			t.Errorf("key %d: a row of %d columns: % x", key, n, row[5])
		}
		// A number that means nothing, and one that means something on the other shard alone.
		for _, oid := range []uint32{999_999, x.number(1, "mood")} {
			res := conn.ExecParams(x.ctx, "SELECT 1 FROM orders WHERE customer_id = $1 AND m = $2", [][]byte{[]byte(fmt.Sprint(key)), []byte("ok")}, []uint32{20, oid}, nil, nil).Read()
			var e *pgconn.PgError
			if !errors.As(res.Err, &e) || key == x.two && (e.Code != pg.CodeUndefinedObject || e.Hint == "") {
				t.Errorf("key %d, type %d: %v", key, oid, res.Err)
			}
		}
		res = conn.ExecParams(x.ctx, "SELECT 1 FROM orders WHERE customer_id = $1 AND list = $2", [][]byte{[]byte(fmt.Sprint(key)), {1, 2, 3}}, []uint32{20, list}, []int16{0, 1}, nil).Read()
		if key == x.two {
			wantCode(t, res.Err, pg.CodeInvalidBinaryRepresentation)
		} else if res.Err == nil {
			t.Error("a value that is none goes through")
		}
		res = conn.ExecParams(x.ctx, "SELECT 1 FROM orders WHERE customer_id = $1 AND list = $2", [][]byte{[]byte(fmt.Sprint(key)), moodsIn(mood, "sad", "happy")}, []uint32{20, list}, []int16{0, 1}, nil).Read()
		if res.Err != nil || len(res.Rows) != 1 {
			t.Errorf("after errors: %v", res.Err)
		}
	}
	// FETCH of a binary cursor in the simple protocol.
	for _, key := range []int64{x.one, x.two} {
		res, err := conn.Exec(x.ctx, fmt.Sprintf("BEGIN; DECLARE b BINARY CURSOR FOR SELECT id, list FROM orders WHERE customer_id = %d; FETCH b; SELECT 'x'; COMMIT", key)).ReadAll()
		if err != nil || !bytes.Equal(res[2].Rows[0][1], moodsIn(mood, "sad", "happy")) {
			t.Errorf("key %d: %v %v", key, err, res)
		}
	}
	// A function's number is that of the reference, and it is called there.
	var function [2]uint32
	for i := range function {
		if err := x.conns[i].QueryRow(x.ctx, "SELECT 'twice'::regproc::oid").Scan(&function[i]); err != nil {
			t.Fatal(err)
		}
	}
	call := func(oid uint32) []byte {
		b := binary.BigEndian.AppendUint32(nil, oid)
		b = append(b, 0, 1, 0, 1, 0, 1, 0, 0, 0, 4, 0, 0, 0, 21, 0, 1)
		return pg.AppendFrame(nil, pg.TypeFunction, b)
	}
	raw := x.hijacked()
	if got := raw.ask(t, call(function[0])); got != "V 00000004 0000002a;Z I" {
		t.Errorf("a function: %s", got)
	}
	raw.ask(t, pg.AppendQuery(nil, fmt.Sprintf("BEGIN; INSERT INTO orders (customer_id, id) VALUES (%d, 77)", x.two)))
	if got := raw.ask(t, call(function[0])); !strings.HasPrefix(got, "E 0A000") {
		t.Errorf("in a transaction elsewhere: %s", got)
	}
}

// arrayIn is a binary array of one dimension.
func arrayIn(oid uint32, elements ...[]byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 1, 0, 0, 0, 0}, oid)
	b = binary.BigEndian.AppendUint32(b, uint32(len(elements)))
	b = append(b, 0, 0, 0, 1)
	for _, e := range elements {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(e))), e...)
	}
	return b
}

func moodsIn(oid uint32, labels ...string) []byte {
	var elements [][]byte
	for _, l := range labels {
		elements = append(elements, []byte(l))
	}
	return arrayIn(oid, elements...)
}

func composite(types []uint32, fields ...[]byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(types)))
	for i, f := range fields {
		b = binary.BigEndian.AppendUint32(b, types[i])
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...)
	}
	return b
}

// hijacked is a connection on which a test speaks the protocol itself.
type hijacked struct{ net.Conn }

func (x *typed) hijacked() hijacked {
	x.t.Helper()
	return hijacked{pgtest.Hijack(x.ctx, x.t, x.pgConn(x.t))}
}

// ask sends frames and returns the answer up to its end, in words.
func (h hijacked) ask(t *testing.T, frames []byte) string {
	t.Helper()
	if _, err := h.Write(frames); err != nil {
		t.Fatal(err)
	}
	var words []string
	for {
		var header [pg.HeaderSize]byte
		if _, err := io.ReadFull(h, header[:]); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, binary.BigEndian.Uint32(header[1:])-4)
		if _, err := io.ReadFull(h, body); err != nil {
			t.Fatal(err)
		}
		switch header[0] {
		case pg.TypeReadyForQuery:
			return strings.Join(append(words, "Z "+string(body)), ";")
		case pg.TypeErrorResponse:
			e, _ := pg.DecodeError(body)
			words = append(words, "E "+e.Code+" "+e.Message)
		case pg.TypeDataRow, pg.TypeParameterDescription:
			words = append(words, fmt.Sprintf("%c %x", header[0], body))
		case 'V':
			words = append(words, fmt.Sprintf("V %x %x", body[:4], body[4:]))
		case pg.TypeCommandComplete:
			words = append(words, "C "+string(pg.CommandTag(body)))
		default:
			words = append(words, string(header[:1]))
		}
	}
}

// A client that has described a statement once binds it without asking again, also by parts, on either shard.
func TestTypesDescribedOnce(t *testing.T) {
	x := newTyped(t, rigOptions{})
	x.exec("INSERT INTO orders (customer_id, id, m, list) VALUES ($1, 1, 'ok', '{sad}'), ($1, 2, 'ok', '{sad}'), ($2, 1, 'ok', '{sad}'), ($2, 2, 'ok', '{sad}')", x.one, x.two)
	x.caughtUp()
	mood, list := x.number(0, "mood"), x.number(0, "mood[]")
	for _, name := range []string{"", "s"} {
		raw := x.hijacked()
		parse := pg.AppendParse(nil, name, "SELECT list FROM orders WHERE customer_id = $1 AND list = $2", nil)
		described := raw.ask(t, pg.AppendSync(pg.AppendDescribe(append([]byte{}, parse...), pg.KindStatement, name)))
		if want := fmt.Sprintf("1;t 000200000014%08x;T;Z I", list); described != want {
			t.Fatalf("%s, want %s", described, want)
		}
		bind := func(key int64, portal string) []byte {
			b := append(append([]byte{}, portal+"\x00"+name+"\x00"...), 0, 1, 0, 1, 0, 2, 0, 0, 0, 8)
			b = binary.BigEndian.AppendUint64(b, uint64(key))
			v := moodsIn(mood, "sad")
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
			return pg.AppendFrame(nil, pg.TypeBind, append(b, 0, 1, 0, 1))
		}
		want := fmt.Sprintf("D 0001%08x%x", len(moodsIn(mood, "sad")), moodsIn(mood, "sad"))
		for _, key := range []int64{x.one, x.two, x.one, x.two} {
			if got := raw.ask(t, pg.AppendSync(pg.AppendExecute(bind(key, ""), "", 0))); got != "2;"+want+";"+want+";C SELECT 2;Z I" {
				t.Fatalf("%q, key %d: %s", name, key, got)
			}
			if name == "" {
				raw.ask(t, pg.AppendSync(append([]byte{}, parse...)))
			}
			// In parts, with something else between them.
			raw.ask(t, pg.AppendQuery(nil, "BEGIN"))
			if name == "" {
				raw.ask(t, pg.AppendSync(append([]byte{}, parse...)))
			}
			if got := raw.ask(t, pg.AppendSync(pg.AppendExecute(bind(key, "p"), "p", 1))); got != "2;"+want+";s;Z T" {
				t.Fatalf("%q, key %d: %s", name, key, got)
			}
			raw.ask(t, pg.AppendQuery(nil, fmt.Sprintf("SELECT p, h FROM orders WHERE customer_id = %d", key)))
			if got := raw.ask(t, pg.AppendSync(pg.AppendExecute(nil, "p", 0))); got != want+";C SELECT 1;Z T" {
				t.Fatalf("%q, key %d: %s", name, key, got)
			}
			raw.ask(t, pg.AppendQuery(nil, "ROLLBACK"))
			if name == "" {
				raw.ask(t, pg.AppendSync(append([]byte{}, parse...)))
			}
		}
		// Over all shards: described before anything is bound.
		all := pg.AppendParse(nil, name+"all", "SELECT list, m FROM orders WHERE list = $1 ORDER BY customer_id, id", nil)
		if got := raw.ask(t, pg.AppendSync(pg.AppendDescribe(all, pg.KindStatement, name+"all"))); got != fmt.Sprintf("1;t 0001%08x;T;Z I", list) {
			t.Errorf("%s", got)
		}
		v := moodsIn(mood, "sad")
		b := append(append([]byte{}, "\x00"+name+"all\x00"...), 0, 1, 0, 1, 0, 1)
		b = append(append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...), 0, 1, 0, 1)
		row := fmt.Sprintf("D 0002%08x%x00000002%x", len(v), v, "ok")
		if got := raw.ask(t, pg.AppendSync(pg.AppendExecute(pg.AppendFrame(nil, pg.TypeBind, b), "", 0))); got != "2;"+strings.Repeat(row+";", 4)+"C SELECT 4;Z I" {
			t.Errorf("over all shards: %s", got)
		}
	}
}

// A type that was made a moment ago, past this node, is looked for before anybody is told of it; one that nobody else can see is told as unknown.
func TestNewTypes(t *testing.T) {
	x := newTyped(t, rigOptions{})
	x.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 1), ($2, 2)", x.one, x.two)
	for i := range x.conns {
		x.on(i, "CREATE TYPE late AS ENUM ('a', 'b'); ALTER TABLE orders ADD l late DEFAULT 'b'")
	}
	x.caughtUp()
	late := x.number(0, "late")
	if late == x.number(1, "late") {
		t.Fatal("the numbers do not differ")
	}
	looks := x.looks.Load()
	conn := x.pgConn(t)
	for range 2 {
		res, err := conn.Exec(x.ctx, fmt.Sprintf("SELECT l FROM orders WHERE customer_id = %d", x.two)).ReadAll()
		if err != nil || res[0].FieldDescriptions[0].DataTypeOID != late || string(res[0].Rows[0][0]) != "b" {
			t.Errorf("%v %v", res, err)
		}
	}
	if x.looks.Load() != looks+1 {
		t.Errorf("the catalogs were read %d times", x.looks.Load()-looks)
	}
	// What a client declares.
	for i := range x.conns {
		x.on(i, "CREATE TYPE later AS ENUM ('a', 'b'); ALTER TABLE orders ADD l2 later DEFAULT 'b'")
	}
	x.caughtUp()
	later := x.number(0, "later")
	res := conn.ExecParams(x.ctx, "SELECT l2 FROM orders WHERE customer_id = $1 AND l2 = $2", [][]byte{[]byte(fmt.Sprint(x.two)), []byte("b")}, []uint32{20, later}, nil, nil).Read()
	if res.Err != nil || len(res.Rows) != 1 || res.FieldDescriptions[0].DataTypeOID != later {
		t.Errorf("%v %v", res.Rows, res.Err)
	}
	// Over all shards.
	for i := range x.conns {
		x.on(i, "CREATE TYPE latest AS ENUM ('a', 'b'); ALTER TABLE orders ADD l3 latest DEFAULT 'b'")
	}
	x.caughtUp()
	all, err := conn.Exec(x.ctx, "SELECT l3 FROM orders").ReadAll()
	if err != nil || len(all[0].Rows) != 2 || all[0].FieldDescriptions[0].DataTypeOID != x.number(0, "latest") {
		t.Errorf("%v %v", all, err)
	}
	// One that no catalog has yet: it was made in this transaction.
	own := x.connect(pgx.QueryExecModeSimpleProtocol)
	for _, sql := range []string{"SET rangefinder.cross_shard_writes = '2pc'", "BEGIN", "CREATE TYPE hidden AS ENUM ('a')"} {
		if _, err := own.Exec(x.ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	for where, want := range map[string]bool{fmt.Sprintf("WHERE customer_id = %d", x.one): true, fmt.Sprintf("WHERE customer_id = %d", x.two): false, "": true} {
		rows, err := own.Query(x.ctx, "SELECT 'a'::hidden::text, 'a'::hidden FROM orders "+where)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			if v := rows.RawValues(); string(v[1]) != "a" {
				t.Errorf("%q", v)
			}
		}
		if oid := rows.FieldDescriptions()[1].DataTypeOID; rows.Err() != nil || want != (oid >= oids.First) || !want && oid != oids.Unknown {
			t.Errorf("%s: type %d, %v", where, oid, rows.Err())
		}
	}
	if _, err := own.Exec(x.ctx, "COMMIT"); err != nil {
		t.Fatal(err)
	}
}

// A type that is not found is told as unknown, and not looked for again; if the catalogs cannot be read it is, the next time.
func TestTypesThatAreNotFound(t *testing.T) {
	x := newTyped(t, rigOptions{})
	x.exec("INSERT INTO orders (customer_id, id) VALUES ($1, 2)", x.two)
	for i := range x.conns {
		x.on(i, "CREATE TYPE late AS ENUM ('a', 'b'); ALTER TABLE orders ADD l late DEFAULT 'b', ADD ls late[] DEFAULT '{a}'")
	}
	x.caughtUp()
	late := x.number(0, "late")
	ask := func(conn *pgconn.PgConn) uint32 {
		t.Helper()
		res := conn.ExecParams(x.ctx, "SELECT l FROM orders WHERE customer_id = $1", [][]byte{fmt.Append(nil, x.two)}, []uint32{20}, nil, nil).Read()
		if res.Err != nil || len(res.Rows) != 1 || string(res.Rows[0][0]) != "b" {
			t.Fatalf("%v %v", res.Rows, res.Err)
		}
		return res.FieldDescriptions[0].DataTypeOID
	}
	for _, how := range []lookedUp{nothingFound, unreadable} {
		x.how.Store(int32(how))
		conn, looks := x.pgConn(t), x.looks.Load()
		for range 3 {
			if got := ask(conn); got != oids.Unknown {
				t.Errorf("it is told as %d", got)
			}
		}
		if n := x.looks.Load() - looks; how == nothingFound && n != 1 || how == unreadable && n != 3 {
			t.Errorf("looked for %d times", n)
		}
		res := conn.ExecParams(x.ctx, "SELECT 1 FROM orders WHERE customer_id = $1 AND l = $2", [][]byte{fmt.Append(nil, x.two), []byte("b")}, []uint32{20, late}, nil, nil).Read()
		wantCode(t, res.Err, pg.CodeUndefinedObject)
		row := conn.ExecParams(x.ctx, "SELECT ls FROM orders WHERE customer_id = $1", [][]byte{fmt.Append(nil, x.two)}, []uint32{20}, nil, []int16{1}).Read()
		if row.Err != nil || row.FieldDescriptions[0].DataTypeOID != oids.Unknown {
			t.Errorf("%v %v", row.FieldDescriptions, row.Err)
		}
		if how == unreadable {
			x.how.Store(int32(asTheyAre))
			if got := ask(conn); got != late {
				t.Errorf("once they can be read it is %d, want %d", got, late)
			}
		}
	}
	x.busy(t, 0)
}

// Whoever looks up a type does so where the numbers are those that clients see, also in a transaction that is open elsewhere.
func TestTypesLookedUp(t *testing.T) {
	x := newTyped(t, rigOptions{})
	mood := x.number(0, "mood")
	for _, mode := range queryModes {
		conn := x.connect(mode)
		for _, key := range []int64{x.one, x.two} {
			for _, sql := range []string{"SELECT oid FROM pg_type WHERE typname = 'mood'", "SELECT 'mood'::regtype::oid", "SELECT to_regtype('mood')::oid"} {
				var oid uint32
				if err := conn.QueryRow(x.ctx, sql).Scan(&oid); err != nil || oid != mood {
					t.Errorf("%v, %s: %d %v, want %d", mode, sql, oid, err, mood)
				}
				tx, err := conn.Begin(x.ctx)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := tx.Exec(x.ctx, "UPDATE orders SET item = 'x' WHERE customer_id = $1", key); err != nil {
					t.Fatal(err)
				}
				var name string
				if err := tx.QueryRow(x.ctx, sql).Scan(&oid); err != nil || oid != mood {
					t.Errorf("%v, %s in a transaction: %d %v, want %d", mode, sql, oid, err, mood)
				}
				if err := tx.QueryRow(x.ctx, "SELECT typname FROM pg_type WHERE oid = "+fmt.Sprint(mood)).Scan(&name); err != nil || name != "mood" {
					t.Errorf("%v: %q %v", mode, name, err)
				}
				if err := tx.Commit(x.ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	x.busy(t, 0)
}
