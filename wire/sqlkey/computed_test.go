package sqlkey

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// TestComputed: what is computed of constants is what PostgreSQL computes, value and type; what is an error there is not computed. The generated
// expressions go past the bounds of their types. One of the databases has a locale in which I has another small letter.
func TestComputed(t *testing.T) {
	ctx := context.Background()
	server := pgtest.NewPrimary(t, pgtest.Options{})
	exprs := []string{
		"3+4", "-(-2147483648)", "2147483647+1", "2147483648-1", "9223372036854775807+1", "9223372036854775807*2", "-9223372036854775808/(-1)", "-7/2", "-7%3", "7%0",
		"abs(-500)", "abs(-32768::int2)", "abs((-32768)::int2)", "abs(-2147483648)", "mod(-7,3)", "mod(7::int2,3)", "32767::int2+1::int2", "32767::int2+1", "501::numeric", "(501::numeric)::int2", "70000::numeric::int2",
		"lower('DE')", "upper('de')", "lower('BRI')", "upper('bri')", "lower('É')", "lower('X'::varchar)", "'d'||'e'", "'d'||'é'", "'d'||5", "'d'||5::text", "('5'||'6')::int", "' 7 '::text::int8", "md5('x')", "md5('x')::uuid",
		"md5('é')", "decode('00','hex')", "decode('0','hex')", "decode('0 0','HEX')", "decode('0G','hex')", "'abc'::bytea", `'\xAb'::bytea`, `'\x0'::bytea`, "'ab'::text::bytea",
		"make_date(2020,1,1)", "make_date(2020,2,30)", "make_date(0,1,1)", "make_date(-1,1,1)", "make_date(2020::int8,1,1)", "'2020-01-01'::date+5", "5+'2020-01-01'::date", "'2020-03-01'::date-1", "'2020-03-01'::date-'2020-02-01'::date",
		"'2020-01-01'::date+5::int8", "'2020-01-01'::date+5::int2", "'9999-12-31'::date+1", "'0001-01-01'::date-1", "'2020-01-01'::date::text", "'infinity'::date+1", "'2020-1-1'::date+1", "pg_catalog.lower('DE')", "lower(lower('DE')||'F')", "lower('A','B')", "abs('5')",
		"3 operator(pg_catalog.+) 4", "1.5+1", "true::int", "null+1", "'x'::uuid", "lower(null)", "abs(1.5)", "+5", "-'5'", "lower(5)", "md5(5)", "'3'+4", "''||''", "lower('')", "1+'2020-01-01'::date+'1'::int",
	}
	g := &exprGen{rand.New(rand.NewPCG(*oracleSeed, 7))}
	for range 3000 {
		exprs = append(exprs, g.expr(3, rand.New(rand.NewPCG(g.Uint64(), 1)).IntN(4)))
	}
	for _, database := range []string{"postgres", "turkish"} {
		t.Run(database, func(t *testing.T) {
			admin, err := server.Conn(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = admin.Close(ctx) }()
			if database == "turkish" {
				if _, err := admin.Exec(ctx, "CREATE DATABASE turkish TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR' LOCALE 'C.UTF-8'"); err != nil {
					t.Fatal(err)
				}
			}
			config := admin.Config().Copy()
			config.Database = database
			conn, err := pgx.ConnectConfig(ctx, config)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(ctx) }()
			if _, err := conn.Exec(ctx, `CREATE FUNCTION pg_temp.try(expr text, OUT typ text, OUT val text) LANGUAGE plpgsql AS
				$$ BEGIN EXECUTE format('SELECT pg_typeof(%1$s)::text, (%1$s)::text', expr) INTO typ, val; EXCEPTION WHEN others THEN typ := SQLERRM; END $$`); err != nil {
				t.Fatal(err)
			}
			rows, err := conn.Query(ctx, "SELECT e, t.typ, coalesce(t.val, 'NULL') FROM unnest($1::text[]) WITH ORDINALITY AS x (e, n), LATERAL pg_temp.try(e) t ORDER BY n", exprs)
			if err != nil {
				t.Fatal(err)
			}
			seen := make(map[string]int)
			var e, typ, val string
			_, err = pgx.ForEachRow(rows, []any{&e, &typ, &val}, func() error {
				v, ok := computeText(t, e)
				if !ok {
					return nil
				}
				seen[typ]++
				if name := computedTypes[v.kind]; name != typ || !sameComputed(v, val) {
					t.Errorf("%s: computed %s %q, PostgreSQL has %s %q", e, name, v.text(), typ, val)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range computedTypes[2:] {
				if seen[name] < 5 {
					t.Errorf("only %d expressions of type %s were computed", seen[name], name)
				}
			}
		})
	}
	for _, e := range []string{"3+4", "abs(-500)", "lower('DE')", "'d'||'e'", "md5('x')::uuid", "decode('00','hex')", "make_date(2020,1,1)", "'2020-01-01'::date+5", "501::numeric"} {
		if _, ok := computeText(t, e); !ok {
			t.Errorf("%s is not computed", e)
		}
	}
	for _, e := range []string{"lower('I')", "upper('i')", "lower('É')", "md5('é')", "public.lower('DE')", "lower('DE' COLLATE \"C\")", "lower(now()::text)", "random()+1", "x+1", "lower($1)"} {
		if v, ok := computeText(t, e); ok {
			t.Errorf("%s is computed: %s", e, v.text())
		}
	}
}

// TestComputedBehindOthers: where another schema comes before pg_catalog, a function may be another one.
func TestComputedBehindOthers(t *testing.T) {
	for e, want := range map[string]bool{"lower('DE')": false, "3+4": false, "pg_catalog.lower('DE')": true, "3 operator(pg_catalog.+) 4": true, "5::int8": false} {
		if x := expression(parsedExpr(t, e), &path{}); (x != nil) != want {
			t.Errorf("%s: computed: %v", e, x)
		}
	}
}

var computedTypes = [...]string{
	kindNone: "none", kindLiteral: "unknown", kindInt2: "smallint", kindInt4: "integer", kindInt8: "bigint", kindNumeric: "numeric", kindText: "text",
	kindVarchar: "character varying", kindUUID: "uuid", kindBytea: "bytea", kindDate: "date",
}

func parsedExpr(t *testing.T, e string) *pgquery.Node {
	t.Helper()
	tree, err := pgquery.Parse("SELECT " + e)
	if err != nil {
		t.Fatalf("%s: %v", e, err)
	}
	return tree.GetStmts()[0].GetStmt().GetSelectStmt().GetTargetList()[0].GetResTarget().GetVal()
}

func computeText(t *testing.T, text string) (v computed, ok bool) {
	e := expression(parsedExpr(t, text), &path{builtinsFirst: true})
	if e == nil {
		return v, false
	}
	return e.compute(nil)
}

// sameComputed tells whether a value is what PostgreSQL writes.
func sameComputed(v computed, written string) bool {
	typ := rib.TypeUUID
	if v.kind == kindBytea {
		typ = rib.TypeBytea
	} else if v.kind != kindUUID {
		return v.text() == written
	}
	m, err := rib.MethodByName("range")
	if err != nil {
		return false
	}
	var keys [2]rib.Key
	for i, text := range []string{v.text(), written} {
		read, err := rib.ParseText(typ, []byte(text))
		if err == nil {
			keys[i], err = m.AppendKey(nil, read)
		}
		if err != nil {
			return false
		}
	}
	return bytes.Equal(keys[0], keys[1])
}

// exprGen makes expressions, most of them of a type that fits.
type exprGen struct{ *rand.Rand }

func (g *exprGen) pick(list ...string) string { return list[g.IntN(len(list))] }

// expr makes an expression of integers (0), texts (1), dates (2) or others (3).
func (g *exprGen) expr(depth, what int) string {
	sub := func(what int) string { return g.expr(depth-1, what) }
	if g.IntN(25) == 0 {
		what = g.IntN(4)
	}
	if depth == 0 {
		switch what {
		case 0:
			return g.pick("0", "1", "7", "-3", "32767", "(-32768)::int2", "2147483647", "-2147483648", "2147483648", "9223372036854775807", "'12'::int2", "4::int8", "1000000", "3037000500", "(-9223372036854775807-1)")
		case 1:
			return g.pick("'a'", "'De'", "'I'", "'i'", "'é'", "''", "'x y'::text", "'12'", "'q'::varchar", "E'\\t'", "'00ff'")
		case 2:
			return g.pick("'2020-01-31'::date", "make_date(2024,2,29)", "'0001-01-01'::date", "'9999-12-31'::date", "make_date(1969,12,31)", "'2021-02-30'::date")
		}
		return g.pick("'00ff'::bytea", `'\x0aFF'::bytea`, "decode('0aFF', 'hex')", "md5('x')::uuid", "5::numeric", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid")
	}
	switch what {
	case 0:
		switch g.IntN(6) {
		case 0:
			return fmt.Sprintf("abs(%s)", sub(0))
		case 1:
			return fmt.Sprintf("(%s)::%s", sub(g.IntN(2)), g.pick("int2", "int4", "int8", "int", "smallint", "bigint"))
		case 2:
			return fmt.Sprintf("(%s)-(%s)", sub(2), sub(2))
		case 3:
			return fmt.Sprintf("%s(%s)", g.pick("-", "+"), sub(0))
		}
		return fmt.Sprintf("(%s)%s(%s)", sub(0), g.pick("+", "-", "*", "/", "%"), sub(0))
	case 1:
		switch g.IntN(4) {
		case 0:
			return fmt.Sprintf("%s(%s)", g.pick("lower", "upper", "md5"), sub(1))
		case 1:
			return fmt.Sprintf("(%s)::%s", sub(g.IntN(2)), g.pick("text", "varchar"))
		}
		return fmt.Sprintf("(%s)||(%s)", sub(1), sub(1))
	case 2:
		switch g.IntN(4) {
		case 0:
			return fmt.Sprintf("make_date(%d,%s,%d)", 1900+g.IntN(200), g.pick("1", "2", "12", "13", "3::int2"), 26+g.IntN(7))
		case 1:
			return fmt.Sprintf("(%s)+(%s)", sub(0), sub(2))
		}
		return fmt.Sprintf("(%s)%s%d", sub(2), g.pick("+", "-"), g.IntN(100000))
	}
	switch g.IntN(4) {
	case 0:
		return fmt.Sprintf("(%s)::uuid", strings.Replace("md5(X)", "X", sub(1), 1))
	case 1:
		return fmt.Sprintf("decode(md5(%s), '%s')", sub(1), g.pick("hex", "HEX", "base64"))
	case 2:
		return fmt.Sprintf("(%s)::numeric", sub(0))
	}
	return fmt.Sprintf("((%s)::numeric)::%s", sub(0), g.pick("int2", "int4", "int8"))
}
