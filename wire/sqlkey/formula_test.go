package sqlkey

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// TestFormulas: what is computed of parameters is what PostgreSQL computes of them, whether their types are declared or left open, in text and in binary format;
// and open ones have the types that PostgreSQL finds for them.
func TestFormulas(t *testing.T) {
	ctx := context.Background()
	admin, err := pgtest.NewPrimary(t, pgtest.Options{}).Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close(ctx) }()
	conn := admin.PgConn()
	if _, err := conn.Exec(ctx, "SET plan_cache_mode = force_custom_plan").ReadAll(); err != nil {
		t.Fatal(err)
	}
	exprs := []string{
		"$1 + 1", "1 - $1", "$1 * 3000000000", "$1 / 2::int2", "$1 % 7", "mod($1, 7)", "-($1::int)", "abs($1::int2)", "abs($1::int) + 1", "$1::int8 + 1", "$1::int", "($1 + 1) + $2", "$1::int + $2::int8", "$1 + $2",
		"lower($1)", "upper($1)", "md5($1)", "md5($1)::uuid", "lower($1 || 'X')", "$1 || '-x'", "'x-' || $1", "$1 || $2", "$1 || 'x'::varchar", "'x'::text || $1", "lower($1::text)", "lower($1::varchar)", "$1::varchar || 'x'",
		"coalesce($1, 5)", "coalesce($1, 5::int8)", "coalesce($1::int8, 5)", "coalesce($1, $2)", "coalesce($1, 'x')", "coalesce($1, 'x'::text, $2)", "coalesce($1 + 1, $2, 7)", "coalesce($1, 'x') || '-y'", "coalesce($1::uuid, $2)",
		"coalesce($1, '2020-01-01'::date)", "$1::date + 1", "$1::date - 1", "$1::date - '2020-01-01'::date", "make_date($1::int, 1, 1)", "decode($1, 'hex')", "decode(md5($1), $2)", "$1::uuid", "$1::bytea", "($1::date + 1) - $2",
		"'2020-01-01'::date - $1", "'2020-01-01'::date + $1", "$1::text || $1", "$1 + $1::int", "($1 || 'a') || ($1 || 'b')", "coalesce(lower($1), $2)", "coalesce(abs($1::int), $2)", "($1::int)::text || $2", "abs($1)", "-$1", "$1 - 1 + $1",
	}
	g := &exprGen{rand.New(rand.NewPCG(*oracleSeed, 11))}
	for range 1500 {
		exprs = append(exprs, g.withParams(g.expr(2, g.IntN(3))))
	}
	values := []string{
		"6", "-3", " 12 ", "0", "32767", "2147483647", "-2147483648", "9223372036854775807", "7.5", "x", "", "ABC", "Ib i", "É", "00ff", `\x0a`, "2020-02-28", "0001-01-01", "9999-12-31", "infinity",
		"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "hex", "trailing  ", `q"'\`,
	}
	types := []uint32{oidInt2, oidInt4, oidInt8, oidText, oidVarchar, oidUUID, oidBytea, oidDate, pgtype.NumericOID, pgtype.BPCharOID}
	known := pgtype.NewMap()
	computed, inBinary, failed := 0, 0, 0
	for n, text := range exprs {
		if !strings.Contains(text, "$1") {
			text = strings.ReplaceAll(text, "$2", "$1")
		}
		e := expression(parsedExpr(t, text), &path{builtinsFirst: true})
		if e == nil || !e.reads || e.op == opParam {
			continue
		}
		sql := "SELECT (" + text + ")::text, pg_typeof(" + text + ")::text"
		for _, declared := range []bool{false, true, true} {
			var oids [2]uint32
			if declared {
				oids = [2]uint32{types[g.IntN(len(types))], types[g.IntN(len(types))]}
				if g.IntN(2) == 0 {
					oids[1] = 0
				}
			}
			f := formulaIn(t, sql, text)
			params := 1
			if strings.Contains(text, "$2") {
				params = 2
			}
			name := fmt.Sprintf("f%d", n)
			d, err := conn.Prepare(ctx, name, sql, oids[:params])
			for range 12 {
				if err != nil {
					failed++
					break
				}
				var a args
				var vals [][]byte
				var formats []int16
				for i := range params {
					one := arg{val: []byte(values[g.IntN(len(values))]), oid: oids[i]}
					if v, ok := binaryOf(known, d.ParamOIDs[i], string(one.val)); ok && g.IntN(2) == 0 {
						one.val, one.format = v, 1
					}
					if one.null = g.IntN(12) == 0; one.null {
						one.val = nil
					}
					a, vals, formats = append(a, one), append(vals, one.val), append(formats, one.format)
				}
				v, ok := f.value(a)
				if !ok {
					continue
				}
				for _, term := range f.terms {
					if oid := d.ParamOIDs[term.param-1]; oids[term.param-1] == 0 && exprTypeOf(oid) != term.typ {
						t.Errorf("%s with types %v: $%d is taken for %s, and PostgreSQL has %d", text, oids, term.param, computedTypes[term.typ], oid)
					}
				}
				got := conn.ExecPrepared(ctx, name, vals, formats, nil).Read()
				var pgErr *pgconn.PgError
				switch {
				case errors.As(got.Err, &pgErr):
					t.Errorf("%s with %q of %v: computed %q, and PostgreSQL says %v", text, vals, oids, v.text(), got.Err)
				case got.Err != nil || len(got.Rows) != 1:
					t.Fatal(got.Err)
				case v.null != (got.Rows[0][0] == nil) || v.kind != kindNone && computedTypes[v.kind] != string(got.Rows[0][1]) || !v.null && !sameComputed(v, string(got.Rows[0][0])):
					t.Errorf("%s with %q of %v: computed %s %q, PostgreSQL has %q", text, vals, oids, computedTypes[v.kind], v.text(), got.Rows[0])
				}
				computed++
				if formats[0] == 1 {
					inBinary++
				}
			}
			if err == nil {
				if err := conn.Deallocate(ctx, name); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if t.Logf("%d values computed, %d of binary parameters; %d times PostgreSQL did not prepare", computed, inBinary, failed); computed < 1500 || inBinary < 200 {
		t.Errorf("%d values were computed, %d of binary parameters", computed, inBinary)
	}
}

// withParams puts parameters in the place of some of an expression's constants, with a cast at times.
func (g *exprGen) withParams(text string) string {
	scan, err := pgquery.Scan(text)
	if err != nil {
		return text
	}
	var b strings.Builder
	at := 0
	for _, tok := range scan.GetTokens() {
		if tok.GetToken() != pgquery.Token_ICONST && tok.GetToken() != pgquery.Token_SCONST || g.IntN(3) == 0 {
			continue
		}
		b.WriteString(text[at:tok.GetStart()])
		b.WriteString(g.pick("$1", "$2", "$1::int", "$2::text", "$1::date"))
		at = int(tok.GetEnd())
	}
	return b.String() + text[at:]
}

// formulaIn is the formula of an expression that stands in a statement.
func formulaIn(t *testing.T, sql, text string) *formula {
	t.Helper()
	tree, err := pgquery.Parse(sql)
	if err != nil {
		t.Fatal(err)
	}
	p := &path{builtinsFirst: true, tree: tree}
	return p.formulaOf(expression(parsedExpr(t, text), p))
}

// binaryOf is a value in its type's binary format.
func binaryOf(known *pgtype.Map, oid uint32, text string) ([]byte, bool) {
	typ, ok := known.TypeForOID(oid)
	if !ok {
		return nil, false
	}
	v, err := typ.Codec.DecodeValue(known, oid, pgtype.TextFormatCode, []byte(text))
	if err != nil || v == nil {
		return nil, false
	}
	b, err := known.Encode(oid, pgtype.BinaryFormatCode, v, nil)
	return b, err == nil && b != nil
}

// TestOpenParametersElsewhere: the type of a parameter that is left open is known only if nothing else in the statement may say another.
func TestOpenParametersElsewhere(t *testing.T) {
	for sql, want := range map[string]exprType{
		"SELECT lower($1)": kindText,
		"SELECT lower($1), lower($1) WHERE x = lower($1)":     kindText,
		"SELECT lower($1), $1":                                kindNone,
		"SELECT lower($1), $2":                                kindText,
		"SELECT lower($1), upper($1)":                         kindNone, // it would be the same; that is not looked at
		"SELECT lower($1) WHERE x = $1":                       kindNone,
		"SELECT lower($1) FROM t WHERE y IN (SELECT $1)":      kindNone,
		"SELECT lower($1) FROM f($1)":                         kindNone,
		"SELECT lower($1) LIMIT $1":                           kindNone,
		"SELECT lower($1::text), $1::text":                    kindText,
		"SELECT lower($1::text), $1::text || 'x'":             kindText,
		"SELECT lower($1::text), $1::varchar":                 kindNone,
		"SELECT lower($1::text), $1::text[]":                  kindNone,
		"SELECT lower($1::text), $1":                          kindNone,
		"WITH w AS (SELECT $1 + 1) SELECT lower($1) FROM w":   kindNone,
		"INSERT INTO t SELECT lower($1) FROM t ORDER BY $1":   kindNone,
		"SELECT lower($1), count(*) FILTER (WHERE a = $1)":    kindNone,
		"SELECT lower($1), CASE $1 WHEN 'a' THEN 1 END":       kindNone,
		"SELECT lower($1), sum(x) OVER (ORDER BY $1)":         kindNone,
		"SELECT lower($1), row(1, $1), array['a', $1], b[$1]": kindNone,
	} {
		of := "lower($1)"
		if strings.Contains(sql, "lower($1::text)") {
			of = "lower($1::text)"
		}
		f := formulaIn(t, sql, of)
		if len(f.terms) != 1 || f.terms[0].typ != want {
			t.Errorf("%s: %v, want %v", sql, f.terms, computedTypes[want])
		}
		_, ok := f.value(args{text("ABC", 0)})
		if ok != (want != kindNone) {
			t.Errorf("%s: computed with an open parameter: %v", sql, ok)
		}
		if v, ok := f.value(args{text("ABC", oidText)}); !ok || v.str != "abc" {
			t.Errorf("%s: with a declared parameter: %v %v", sql, v, ok)
		}
	}
}

// found collects what Plan.Shards tells.
type found struct {
	keys []string
	all  bool
}

func (f *found) Begin() { *f = found{} }

func (f *found) Key(k rib.Key) error {
	f.keys = append(f.keys, string(k))
	return nil
}

func (f *found) Range(from, to rib.Key) error {
	f.all = f.all || from == nil && to == nil
	return nil
}

// TestKeysOfParameters: the shard of a computed key is asked; if it cannot be computed all are, or, where that cannot be, none.
func TestKeysOfParameters(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	keyOf := func(sql string) string {
		key, err := p.Plan(c, appEnv, sql).AppendKey(nil, 0, nil, true)
		if err != nil {
			t.Fatal(err)
		}
		return string(key)
	}
	seven, bob := keyOf("select * from app.orders where customer_id = 7"), keyOf("select * from app.users where name = 'bob'")
	for _, one := range []struct {
		sql  string
		arg  arg
		want string // a key; "": none, as it is NULL; "all": all shards
	}{
		{"select * from app.orders where customer_id = $1 + 1", text("6", 0), seven},
		{"select * from app.orders where customer_id = $1 + 1", text("6", oidInt8), seven},
		{"select * from app.orders where customer_id = $1 + 1", arg{be(4, 6), 1, 0, false}, seven},
		{"select * from app.orders where customer_id = $1 + 1", arg{be(8, 6), 1, 0, false}, "all"}, // it is an int
		{"select * from app.orders where customer_id = $1 + 1", text("2147483647", 0), "all"},
		{"select * from app.orders where customer_id = $1 + 1", text("6.5", 0), "all"},
		{"select * from app.orders where customer_id = $1 + 1", text("6", pgtype.NumericOID), "all"},
		{"select * from app.orders where customer_id = $1 + 1", arg{null: true}, ""},
		{"select * from app.orders where customer_id in ($1 + 1)", text("6", 0), seven},
		{"select * from app.orders where $1 + 1 = customer_id and id = 3", text("6", 0), seven},
		{"select * from app.orders where customer_id = coalesce($1, 7)", arg{null: true}, seven},
		{"update app.orders set note = 'x' where customer_id = $1 + 1", text("6", 0), seven},
		{"delete from app.orders where customer_id = $1 + 1", text("6", 0), seven},
		{"select * from app.users where name = lower($1)", text("BOB", 0), bob},
		{"select * from app.users where name = lower($1)", text("BOB", oidVarchar), "all"}, // there may be another function for these
		{"select * from app.users where name = lower($1::text)", text("BOB", oidVarchar), bob},
		{"select * from app.users where name = lower($1)", text("BÖB", 0), "all"},
		{"select * from app.users where name = lower($1)", text("I", 0), "all"},
		{"select * from app.users where name = $1 || 'ob'", text("b", oidVarchar), bob},
		{"select * from app.users where name = lower($1) and note = $1", text("BOB", 0), "all"},
		{"select * from app.users where name = lower($1) and note = $1", text("BOB", oidText), bob},
		{"select * from app.users where name = left($1, 3)", text("bob", 0), "all"},
		{"select * from app.users where name = $1 + 1", text("6", 0), "all"}, // an error, which PostgreSQL gives
	} {
		plan := p.Plan(c, appEnv, one.sql)
		if plan.Target != Many {
			t.Errorf("%s: %s", one.sql, tell(plan))
			continue
		}
		var f found
		if _, err := plan.Shards(&f, nil, args{one.arg}, true); err != nil {
			t.Fatal(err)
		}
		switch {
		case one.want == "all" && f.all, one.want == "" && len(f.keys) == 0 && !f.all, !f.all && slices.Equal(f.keys, []string{one.want}):
		default:
			t.Errorf("%s with %q of %d: keys %x, all %v; want %x", one.sql, one.arg.val, one.arg.oid, f.keys, f.all, one.want)
		}
		if _, err := p.Leave(c, appEnv, plan); err != nil && one.want != "all" {
			t.Errorf("%s: what shards are to leave out cannot be told: %v", one.sql, err)
		}
	}
	for sql, want := range map[string]string{
		"insert into app.orders (customer_id, id) values ($1 + 1, 1)":                                                              seven,
		"insert into app.orders (customer_id, id) select $1 + 1, 1":                                                                seven,
		"select * from app.orders where customer_id = $1 + 1 and id > (select max(id) from app.orders where customer_id = $1 + 1)": seven,
	} {
		plan := p.Plan(c, appEnv, sql)
		if plan.Target != Keyed {
			t.Errorf("%s: %s", sql, tell(plan))
			continue
		}
		if key, err := plan.AppendKey(nil, 0, args{text("6", 0)}, true); err != nil || string(key) != want {
			t.Errorf("%s: %x, %v", sql, key, err)
		}
		for val, code := range map[string]string{"2147483647": pg.CodeFeatureNotSupported, "x": pg.CodeFeatureNotSupported} {
			_, err := plan.AppendKey(nil, 0, args{text(val, 0)}, true)
			var e *pg.Error
			if !errors.As(err, &e) || e.Code != code || e.Hint == "" {
				t.Errorf("%s with %s: %v", sql, val, err)
			}
		}
		if _, err := plan.AppendKey(nil, 0, args{{null: true}}, true); err == nil || err.(*pg.Error).Code != pg.CodeNullValueNotAllowed {
			t.Errorf("%s with NULL: %v", sql, err)
		}
	}
}

// A key beyond ASCII that is computed depends on the client's encoding.
func TestComputedKeyInOtherEncodings(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	plan := p.Plan(c, appEnv, "insert into app.users (name) values ($1 || 'x')")
	if _, err := plan.AppendKey(nil, 0, args{text("é", 0)}, false); err == nil || !strings.Contains(err.Error(), "UTF8") {
		t.Error(err)
	}
	if _, err := plan.AppendKey(nil, 0, args{text("é", 0)}, true); err != nil {
		t.Error(err)
	}
}
