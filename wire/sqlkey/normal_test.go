package sqlkey

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// form is a text's normal form for people: <i> stands for an integer. "" is doubt.
func form(env *Env, sql string) string {
	var n normal
	if !n.of(sql, env) {
		return ""
	}
	out := string(n.text)
	for _, c := range []class{classInt, classBig, classNumeric, classString} {
		out = strings.ReplaceAll(out, "\x00"+string(rune(c)), "<"+string(rune(c))+">")
	}
	return out
}

func TestNormalForm(t *testing.T) {
	for _, c := range []struct{ sql, want string }{
		{"select 1", "select <i>"},
		{"select 2147483647, 2147483648, 9223372036854775807", "select <i>, <l>, <l>"},
		{"select 99999999999999999999.", "select <n>"},
		{"select 9223372036854775808", ""}, // with a minus before it, it is a bigint
		{"select 007, 00000000000000000000000000000000000000042", "select <i>, <i>"},
		{"select 1.5, 1., 1e5, 1E+5, 1.5e-10, 1.e3", "select <n>, <n>, <n>, <n>, <n>, <n>"},
		{"select .5", ""},
		{"select x.5", ""},
		{"select 1..2", ""},
		{"select 1..x", ""},
		{"select 1.2.3", ""},
		{"select 1.2..3", ""},
		{"select 1e", ""},
		{"select 1e+", ""},
		{"select 1e5e", ""},
		{"select 1e5_0", ""},
		{"select 0x1f", ""},
		{"select 0o17", ""},
		{"select 0b11", ""},
		{"select 1_000", ""},
		{"select 12monkeys", ""},
		{"select 1é", ""},
		{"select 1.5x", ""},
		{"select 1$1", ""},
		{"select $1", ""},
		{"select $$x$$", ""},
		{"select $a$x$a$", ""},
		{"select a1, a$1, é1, _1", "select a1, a$1, é1, _1"},
		{`select "a 1 ' x", "a "" 2", 3`, `select "a 1 ' x", "a "" 2", <i>`},
		{`select "a`, ""},
		{`select U&"\0061"`, ""},
		{`select u&'\0061'`, ""},
		{`select u & '1'`, `select u & <s>`},
		{`select uu&'1'`, `select uu&<s>`},
		{"select 'a', '', 'O''Brien', ''''", "select <s>, <s>, <s>, <s>"},
		{`select 'a\', 'b'`, "select <s>, <s>"},
		{"select 'a", ""},
		{"select 'a''", ""},
		{"select 'a' 'b'", ""},
		{"select 'a'\n'b'", ""},
		{"select 'a' -- x\n 'b'", ""},
		{"select 'a' /* x\n */ 'b'", ""},
		{"select 'a' || 'b'", "select <s> || <s>"},
		{"select E'a'", ""},
		{"select e'a'", ""},
		{"select b'1'", ""},
		{"select X'1f'", ""},
		{"select n'a'", ""},
		{"select date'2020-01-01'", ""},
		{"select date '2020-01-01'", "select date <s>"},
		{"select 1'a'", "select <i><s>"},
		{"select -1, - 1, +1, a-1, a - -1", "select -<i>, - <i>, +<i>, a-<i>, a - -<i>"},
		{"select a=-1, a@-1, a*-1", "select a=-<i>, a@-<i>, a*-<i>"},
		{"select 1 -- 2 'x\n, 3", "select <i> -- 2 'x\n, <i>"},
		{"select 1 -- 2 'x\r, 3", "select <i> -- 2 'x\r, <i>"},
		{"select 1--2", "select <i>--2"},
		{"select 1+--2\n3", "select <i>+--2\n<i>"},
		{"select 1 /* 2 ' */, 3", "select <i> /* 2 ' */, <i>"},
		{"select 1 /* 2 /* 4 */ ' */, 3", "select <i> /* 2 /* 4 */ ' */, <i>"},
		{"select 1 /**/ , /*/*/**/*/*/ 3", "select <i> /**/ , /*/*/**/*/*/ <i>"},
		{"select 1 /*/ 3", ""},
		{"select 1 /* 2 /* */ 3", ""},
		{"select 1*/**/2", "select <i>*/**/<i>"},
		{"select 1 @/*x*/ 2", "select <i> @/*x*/ <i>"},
		{"select a[1], a[1:2], x::int4", "select a[<i>], a[<i>:<i>], x::int4"},
		{"select 1; select 2;", "select <i>; select <i>;"},
		{"select \\d 1", ""},
		{"select {1}", ""},
		{"select 1\x00", ""},
		{"select '\x00'", ""},
		{"select 1\x01", ""},
		{"select 'é', é", "select <s>, é"},
		{"select '\xff'", ""},
		{"select t.* from t where a=1and b=2", ""},
		{"select a.b", "select a.b"},
		{"", ""},
	} {
		if got := form(appEnv, c.sql); got != c.want {
			t.Errorf("%q: got %q, want %q", c.sql, got, c.want)
		}
	}
	backslashes, latin := &Env{Backslashes: true}, &Env{Encoding: "LATIN1"}
	for _, c := range []struct {
		env       *Env
		sql, want string
	}{
		{backslashes, `select 'a\', '`, ""},
		{backslashes, "select 'a'", "select <s>"},
		{latin, "select 'é'", ""},
		{latin, "select 'e'", "select <s>"},
		{&Env{Encoding: "UTF8"}, "select 'é'", "select <s>"},
		{appEnv, "select '" + strings.Repeat("x", maxNormalText) + "'", ""},
		{appEnv, "select '" + strings.Repeat("x", maxNormal) + "'", "select <s>"},
		{appEnv, "select 1, " + strings.Repeat("x", maxNormal), ""},
		{appEnv, "select 0" + strings.Repeat(",1", maxConstants), ""},
	} {
		if got := form(c.env, c.sql); got != c.want {
			t.Errorf("%+v %.60q: got %.60q, want %.60q", c.env, c.sql, got, c.want)
		}
	}
}

// checkScan holds the constants that were found against the tokens of PostgreSQL's scanner.
func checkScan(t testing.TB, sql string, n *normal) {
	t.Helper()
	scan, err := pgquery.Scan(sql)
	if err != nil {
		return // nor can it be parsed
	}
	var want, got []string
	for _, k := range scan.GetTokens() {
		text := sql[k.GetStart():k.GetEnd()]
		switch k.GetToken() {
		case pgquery.Token_ICONST:
			want = append(want, fmt.Sprintf("%d i %s", k.GetStart(), text))
		case pgquery.Token_FCONST:
			c := classNumeric
			if strings.Trim(text, "0123456789") == "" {
				c = classBig
			}
			want = append(want, fmt.Sprintf("%d %c %s", k.GetStart(), c, text))
		case pgquery.Token_SCONST, pgquery.Token_USCONST, pgquery.Token_BCONST, pgquery.Token_XCONST:
			want = append(want, fmt.Sprintf("%d s %s", k.GetStart(), text))
		case pgquery.Token_PARAM:
			t.Errorf("%q: a parameter was not noticed", sql)
		}
	}
	for _, c := range n.constants {
		got = append(got, fmt.Sprintf("%d %c %s", c.start, c.class, sql[c.start:c.end]))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q:\n got %q\nwant %q", sql, got, want)
	}
}

// wideCorpus is the golden files' statements, what psql's own commands send, and what internal/sqloracle asks of real servers.
func wideCorpus(t testing.TB) []string {
	psql, err := os.ReadFile("testdata/psql15.sql")
	if err != nil {
		t.Fatal(err)
	}
	all := append(corpus(t), strings.Split(string(psql), ";\n")...)
	files, err := filepath.Glob("../../internal/sqloracle/testdata/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal("no statements of the oracle", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range strings.FieldsFunc(string(text), func(r rune) bool { return r == ';' }) {
			for block := range strings.SplitSeq(sql, "\n\n") {
				all = append(all, strings.TrimSpace(block))
			}
		}
	}
	return all
}

func TestConstantsAreThoseOfPostgresScanner(t *testing.T) {
	sure := 0
	for _, sql := range wideCorpus(t) {
		var n normal
		if n.of(sql, appEnv) {
			sure++
			checkScan(t, sql, &n)
		}
	}
	if sure < 800 {
		t.Errorf("only %d statements were read without doubt", sure)
	}
}

// replaced is a text with the same normal form: the constants are others.
func replaced(r *rand.Rand, sql string, n *normal) string {
	values := map[class][]string{
		classInt:     {"0", "1", "42", "43", "007", "2147483647", fmt.Sprint(r.Int32()), fmt.Sprint(r.IntN(100_000))},
		classBig:     {"2147483648", "4294967296", "9223372036854775807", "0017777777777", fmt.Sprint(1<<31 + r.Int64N(1<<62))},
		classNumeric: {"1.5", "0.0", "1.", "1e5", "1.5E-3", "99999999999999999999.", "2.e+7"},
		classString: {"''", "'a'", "'42'", "' 43 '", "'-1'", "'99999999999999999999'", "'O''Brien'", "''''", "'é'", "'--'", "'/*'", "'*/'", "';'", "'$$'", `'"'`, `'\'`,
			"'search_path'", "'orders'", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'{A0EEBC999C0B4EF8BB6D6BB9BD380A11}'", "'\n'", fmt.Sprintf("'%d'", r.Int32()),
			"'" + strings.Repeat("x", r.IntN(1100)) + "'"},
	}
	var b strings.Builder
	from := 0
	for _, c := range n.constants {
		b.WriteString(sql[from:c.start])
		if list := values[c.class]; r.IntN(4) > 0 {
			b.WriteString(list[r.IntN(len(list))])
		} else {
			b.WriteString(sql[c.start:c.end])
		}
		from = c.end
	}
	return b.String() + sql[from:]
}

// checkTrees holds the promise that shared plans stand on: if the constants can be taken out of the tree of one text, they
// can be taken out of those of others with the same normal form, and what remains is the same.
func checkTrees(t testing.TB, sql string, others ...string) {
	t.Helper()
	want, ok := withoutConstants(t, sql)
	if !ok {
		return
	}
	for _, other := range others {
		if other == sql {
			continue
		}
		if got, ok := withoutConstants(t, other); !ok || !proto.Equal(want, got) {
			t.Errorf("of one normal form, but of different trees:\n%q\n%q", sql, other)
		}
	}
}

func withoutConstants(t testing.TB, sql string) (*pgquery.ParseResult, bool) {
	var n normal
	if !n.of(sql, appEnv) {
		t.Fatalf("%q: doubt", sql)
	}
	if tooDeep(sql) {
		return nil, false
	}
	tree, err := pgquery.Parse(sql)
	if err != nil || !onlyQueries(tree) {
		return nil, false
	}
	b := blanker{sql: sql, normal: &n, found: make([]bool, len(n.constants))}
	if !b.blank(tree) {
		return nil, false
	}
	forget(tree.ProtoReflect())
	return tree, true
}

// forget clears where in the text the nodes stand.
func forget(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Name() == "location" || f.Name() == "stmt_location" || f.Name() == "stmt_len" || f.Name() == "name_location":
			m.Clear(f)
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			for i := range v.List().Len() {
				forget(v.List().Get(i).Message())
			}
		case f.Kind() == protoreflect.MessageKind && !f.IsMap():
			forget(v.Message())
		}
		return true
	})
}

// FuzzNormal: texts of one normal form have trees that differ in constants only, tokens as PostgreSQL's scanner finds them,
// and plans that are those of each text by itself.
func FuzzNormal(f *testing.F) {
	for i, sql := range wideCorpus(f) {
		f.Add(sql, uint64(i))
	}
	c, p := testCatalog(f), NewPlanner(PlannerConfig{MaxBytes: 1 << 20})
	f.Fuzz(func(t *testing.T, sql string, seed uint64) {
		var n, m normal
		if !n.of(sql, appEnv) {
			return
		}
		checkScan(t, sql, &n)
		checkShared(t, p, c, appEnv, sql)
		r := rand.New(rand.NewPCG(seed, 0))
		for range 4 {
			other := replaced(r, sql, &n)
			if !m.of(other, appEnv) {
				t.Fatalf("%q is certain, %q is not", sql, other)
			}
			if string(m.text) != string(n.text) {
				t.Fatalf("%q and %q have different normal forms", sql, other)
			}
			if manySigns(sql) || manySigns(other) { // the guard takes strings for operators
				continue
			}
			checkTrees(t, sql, other)
			checkShared(t, p, c, appEnv, other)
		}
	})
}
