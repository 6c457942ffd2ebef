package sqlkey

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/rib"
)

var rewrite = flag.Bool("rewrite", false, "write what the golden files should hold")

// testCatalog is what the golden files stand on; testdata/README.md tells it to readers.
func testCatalog(t testing.TB) *Catalog {
	t.Helper()
	keyspace := func(id rib.KeyspaceID, db, name, method string, types []rib.Type, tables ...rib.KeyedTable) rib.Keyspace {
		ks := rib.Keyspace{ID: id, Name: name, Database: db, Method: method, Types: types, Tables: tables,
			Ranges: []rib.Range{{Shard: "shard_1"}}}
		if method == "hash" {
			ks.Ranges = rib.EvenRanges([]string{"shard_1", "shard_2", "shard_3"})
		}
		if ks.BySchema() {
			values := []rib.ListedValue{{Key: schemaKey(t, "t1"), Shard: "shard_1"}, {Key: schemaKey(t, "t2"), Shard: "shard_2"}, {Key: schemaKey(t, "t3"), Shard: "shard_1"}}
			others := ""
			if db == "tenants2" {
				others = "shard_3"
			}
			ranges, err := rib.ListRanges(values, others)
			if err != nil {
				t.Fatal(err)
			}
			ks.Ranges = ranges
		}
		if ks.Reference() {
			ks.Ranges = rib.ReferenceRanges(map[string][]string{"app.world": {"shard_0", "shard_1", "shard_2", "shard_3"}, "app.fees": {"shard_2", "shard_3"}, "tenants.world": {"shard_0", "shard_1", "shard_2"}}[name])
		}
		if err := ks.Validate(); err != nil {
			t.Fatal(err)
		}
		return ks
	}
	table := func(schema, name string, columns ...string) rib.KeyedTable {
		return rib.KeyedTable{Schema: schema, Name: name, Columns: columns}
	}
	o := &rib.Ownership{
		Catalog: 7,
		Keyspaces: []rib.Keyspace{
			keyspace(1, "app", "app.orders", "hash", []rib.Type{rib.TypeBigint},
				table("app", "orders", "customer_id"), table("app", "items", "customer_id"), table("app", "notes", "cust"),
				table("App", "Orders", "Customer Id")),
			keyspace(2, "app", "app.users", "hash", []rib.Type{rib.TypeText}, table("app", "users", "name")),
			keyspace(3, "app", "app.devices", "hash", []rib.Type{rib.TypeUUID}, table("app", "devices", "id")),
			keyspace(4, "app", "app.days", "range", []rib.Type{rib.TypeInt}, table("app", "days", "day")),
			keyspace(5, "app", "app.stock", "range", []rib.Type{rib.TypeBigint, rib.TypeText}, table("app", "stock", "tenant", "sku")),
			keyspace(6, "app", "alt.orders", "hash", []rib.Type{rib.TypeBigint}, table("alt", "orders", "account")),
			keyspace(8, "app", "app.visits", "range", []rib.Type{rib.TypeDate}, table("app", "visits", "visited")),
			keyspace(9, "app", "app.beats", "hash", []rib.Type{rib.TypeTimestamptz}, table("app", "beats", "at")),
			keyspace(10, "app", "app.blobs", "range", []rib.Type{rib.TypeBytea}, table("app", "blobs", "digest")),
			keyspace(12, "app", "app.tiles", "hash", []rib.Type{rib.TypeInt, rib.TypeText}, table("app", "tiles", "zoom", "name")),
			keyspace(11, "app", "app.cells", "hash", []rib.Type{rib.TypeSmallint}, table("app", "cells", "cell")),
			keyspace(13, "app", "app.world", "reference", nil, table("app", "nations"), table("app", "areas", "id", "made")),
			keyspace(14, "app", "app.fees", "reference", nil, table("app", "fees")),
			keyspace(15, "tenants", "tenants", "schema", []rib.Type{rib.TypeText}),
			keyspace(16, "tenants2", "tenants2", "schema", []rib.Type{rib.TypeText}),
			keyspace(17, "tenants", "tenants.world", "reference", nil, table("public", "nations")),
			keyspace(7, "bare", "t", "hash", []rib.Type{rib.TypeBigint}, table("public", "t", "id")),
		},
		Shards: []rib.Shard{{Name: "shard_0"}, {Name: "shard_1"}, {Name: "shard_2"}, {Name: "shard_3"}},
	}
	return NewCatalog(o, map[string]DatabaseRule{"app": {Shard: "shard_0"}, "legacy": {Shard: "shard_9"}, "tenants": {Shard: "shard_0"}}, map[string][]Dependent{
		"app": {
			{"app", "open_orders", DependsView, "app", "orders"},
			{"public", "order_totals", DependsStored, "app", "orders"},
			{"app", "days_2024", DependsPartition, "app", "days"},
			{"app", "old_items", DependsChild, "app", "items"},
			{"app", "things", DependsParent, "app", "devices"},
			{"app", "users", DependsView, "app", "orders"},   // it is in a keyspace: its key decides
			{"public", "gone", DependsView, "app", "nosuch"}, // of a table that is in no keyspace any more
			{"app", "nations", DependsColumns, "", `["code", "name"]`},
			{"app", "areas", DependsColumns, "", `["id", "name", "made"]`},
			{"app", "fees", DependsColumns, "", `["id", "amount"]`},
		},
		"bare":   {{"public", "vt", DependsView, "public", "t"}},
		"legacy": {{"public", "vt", DependsView, "public", "t"}}, // has no keyspace
	})
}

func schemaKey(t testing.TB, name string) rib.Key {
	t.Helper()
	m, err := rib.MethodByName(rib.MethodSchema)
	if err != nil {
		t.Fatal(err)
	}
	k, err := m.AppendKey(nil, rib.Value{Type: rib.TypeText, Bytes: []byte(name)})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestGolden holds the planner against testdata/*.txt: a statement, "----", and its plan. Lines that begin with "@" set the
// environment of what follows.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	catalog, planner := testCatalog(t), NewPlanner(PlannerConfig{})
	total := 0
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			env := Env{Database: "app", SearchPath: "app, public", User: "alice"}
			var out bytes.Buffer
			for _, block := range strings.Split(strings.TrimRight(string(text), "\n"), "\n\n") {
				lines := strings.Split(block, "\n")
				for len(lines) > 0 && (strings.HasPrefix(lines[0], "#") || strings.HasPrefix(lines[0], "@")) {
					if strings.HasPrefix(lines[0], "@") {
						setEnv(t, &env, lines[0])
					}
					fmt.Fprintln(&out, lines[0])
					lines = lines[1:]
				}
				sql, want, ok := strings.Cut(strings.Join(lines, "\n"), "\n----")
				if strings.TrimSpace(sql) == "" && !ok {
					fmt.Fprintln(&out)
					continue
				}
				want = strings.TrimPrefix(want, "\n")
				e := env
				plan := planner.Plan(catalog, &e, sql)
				got := tell(plan)
				if !*rewrite && got != want {
					t.Errorf("%s\n got %s\nwant %s", sql, got, want)
				}
				if again := planner.compile(catalog.find(env.Database), &e, sql); true {
					again.SQL, again.usage = sql, plan.usage
					if !reflect.DeepEqual(plan, again) {
						t.Errorf("%s: planned twice, two plans:\n%+v\n%+v", sql, plan, again)
					}
				}
				checkPlan(t, plan)
				fmt.Fprintf(&out, "%s\n----\n%s\n\n", sql, got)
				total++
			}
			if *rewrite {
				if err := os.WriteFile(file, append(bytes.TrimRight(out.Bytes(), "\n"), '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	if total < 300 {
		t.Errorf("only %d statements", total)
	}
}

func setEnv(t *testing.T, env *Env, line string) {
	for _, f := range strings.Split(strings.TrimPrefix(line, "@"), ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(f), "=")
		switch name {
		case "database":
			env.Database = value
		case "path":
			env.SearchPath = value
		case "user":
			env.User = value
		case "encoding":
			env.Encoding = value
		case "backslashes":
			env.Backslashes = value == "on"
		case "shard":
			env.HintShard = value
		case "key":
			env.HintKey = value == "on"
		default:
			t.Fatalf("what is %q?", line)
		}
	}
}

// tell writes a plan for people, all of it that decides anything.
func tell(p *Plan) string {
	var b strings.Builder
	switch p.Target {
	case Any:
		b.WriteString("any")
	case Unsharded:
		b.WriteString("unsharded " + p.Shard)
	case Keyed:
		b.WriteString("keyed " + p.KeyspaceName)
		for i, k := range p.Keys {
			b.WriteString([]string{": ", "; "}[min(i, 1)] + k.Text)
		}
	case Many:
		b.WriteString("many " + p.KeyspaceName)
		if p.Fan.Everywhere {
			b.WriteString(", everywhere")
		}
	case None:
		fmt.Fprintf(&b, "none %s %s\n  %s\n  hint: %s", p.Err.Code, p.Err.Message, p.Err.Detail, p.Err.Hint)
		return b.String()
	}
	if p.Intent == Read {
		b.WriteString("\n  read")
	} else {
		b.WriteString("\n  write: " + p.WhyWrite)
	}
	note := func(on bool, format string, args ...any) {
		if on {
			fmt.Fprintf(&b, ", "+format, args...)
		}
	}
	note(p.Copies != nil, "copies on %s", strings.Join(p.Copies, " "))
	note(p.Statements != 1, "%d statements", p.Statements)
	note(p.Syntax, "syntax error")
	note(p.Tx != TxNone, "tx %s", []string{"none", "begin", "commit", "rollback", "savepoint", "release", "rollback to", "set", "prepare"}[p.Tx])
	note(p.Tag != "", "tag %s", p.Tag)
	note(p.TxReadOnly, "read only")
	note(p.TxReadWrite, "read write")
	note(p.Isolation != "", "%s", p.Isolation)
	note(p.Chain, "chain")
	note(p.Savepoint != "", "savepoint %s", p.Savepoint)
	note(p.MixedTx, "mixed transactions")
	note(p.Session != SessNone, "session %s", []string{"none", "set", "reset", "several", "pin"}[p.Session])
	note(p.Setting != "", "%s = %q", p.Setting, p.Value)
	note(p.Default, "default")
	for _, part := range p.Parts {
		note(part.Session == SessSet, "%s = %q by %q", part.Setting, part.Value, part.SQL)
	}
	note(p.NumParams > 0, "%d parameters", p.NumParams)
	note(p.Catalogs, "catalogs")
	for i := range p.Names {
		u := &p.Names[i]
		note(true, "%s %s", []string{"prepares", "executes", "deallocates"}[u.Op], orAll(p.SQL[u.Start:u.End]))
		for _, a := range u.Args {
			note(a.issue != nil, "an argument that is no constant")
			note(a.Null, "NULL")
			note(a.issue == nil && !a.Null, "%q", a.Text)
		}
		note(u.Op == NamePrepare, "%q with types %v", u.Inner, u.Types)
		note(u.Home != "", "at %s if anywhere", u.Home)
		note(u.Explained, "explained")
		note(u.Creates, "makes a table")
	}
	note(p.CopyIn, "copy in")
	note(p.CopyOut, "copy out")
	if p.Target != Keyed {
		b.WriteString("\n  " + p.Reason)
	}
	if x := p.Explains; x != nil {
		fmt.Fprintf(&b, "\n  each: %s%s", x.Prefix, x.SQL)
	}
	if f := p.Fan; f != nil {
		tellFan(&b, f)
	}
	return b.String()
}

// tellFan writes what several shards do.
func tellFan(b *strings.Builder, f *Fan) {
	for _, s := range f.Within {
		fmt.Fprintf(b, "\n  within: %s (%d keys, %d lists, %d bounds)", s.Text, len(s.Keys), len(s.Lists), len(s.Bounds))
	}
	if f.SQL != "" {
		b.WriteString("\n  shards: " + f.SQL)
	}
	if f.Hidden > 0 {
		fmt.Fprintf(b, "\n  hidden: %d", f.Hidden)
	}
	for i, o := range f.Order {
		b.WriteString([]string{"\n  order: ", ", "}[min(i, 1)])
		if o.Hidden {
			b.WriteString("hidden ")
		}
		fmt.Fprintf(b, "%d", o.Column+1)
		for _, n := range []struct {
			on   bool
			name string
		}{{o.Desc, " desc"}, {o.NullsFirst, " nulls first"}, {o.Bytes, " by bytes"}} {
			if n.on {
				b.WriteString(n.name)
			}
		}
	}
	count := func(what string, c FanCount) {
		if c.Param > 0 {
			fmt.Fprintf(b, "\n  %s: $%d", what, c.Param)
		} else if c.Set {
			fmt.Fprintf(b, "\n  %s: %d", what, c.Value)
		}
	}
	count("offset", f.Offset)
	count("limit", f.Limit)
	if f.Final != "" {
		b.WriteString("\n  final: " + f.Final)
	}
	if f.Writes {
		b.WriteString("\n  writes")
	}
	if u := f.Unnamed; u != nil {
		b.WriteString("\n  columns of " + qualified(u.Schema, u.Table))
	}
	for _, s := range f.Within {
		for i := 0; s.row > 0 && i < len(s.Keys); i++ {
			b.WriteString("\n  of rows: " + s.Keys[i].Text)
		}
	}
	if r := f.Rekey; r != nil {
		fmt.Fprintf(b, "\n  rows: %s\n  sets %q of %s AS %s,%s", r.SQL, r.Columns, r.Table, r.Alias, r.Returning)
		if r.New != nil {
			b.WriteString("\n  new key: " + r.New.Text)
		}
	}
	if f.Split != nil {
		for i := range f.Split.Rows {
			sql, params := f.Split.Part([]int{i})
			fmt.Fprintf(b, "\n  %s: %s %v", f.Split.Rows[i].Text, sql, params)
		}
	}
	if len(f.Keyspaces)+len(f.Copies) > 0 {
		fmt.Fprintf(b, "\n  everywhere: keyspaces %v, copies on %v", f.Keyspaces, f.Copies)
		if f.Steps {
			b.WriteString(", in steps")
		}
	}
	if c := f.Copy; c != nil {
		def := `""`
		if c.Default != nil {
			def = fmt.Sprintf("given as %q", *c.Default)
		}
		fmt.Fprintf(b, "\n  copy: %s by %s, columns %q, format %d, delimiter %q, null %q, default %s, header %t", qualified(c.Schema, c.Name), strings.Join(c.Key, ", "), c.Columns,
			c.Format, c.Delimiter, c.Null, def, c.Header)
		if c.Format == CopyCSV {
			fmt.Fprintf(b, ", quote %q, escape %q, null in quotes of %q %t, not null of %q %t", c.Quote, c.Escape, c.ForceNull, c.ForceNullAll, c.ForceNotNull, c.ForceNotNullAll)
		}
		if c.Encoding != "" {
			b.WriteString(", encoding " + c.Encoding)
		}
	}
}

func orAll(name string) string {
	if name == "" {
		return "ALL"
	}
	return name
}

// asWritten is Final with its marks as names.
func asWritten(final string) string {
	return regexp.MustCompile(`\{(rows|columns|(type|hidden) \d+)\}`).ReplaceAllString(final, `"$0"`)
}

// checkPlan holds what is true of every plan.
func checkPlan(t testing.TB, p *Plan) {
	t.Helper()
	bad := func(what string) { t.Errorf("%s: %s: %+v", p.SQL, what, p) }
	switch p.Target {
	case None:
		if p.Err == nil || p.Err.Code == "" || p.Err.Message == "" || p.Reason == "" {
			bad("a refusal without its error or reason")
		}
	case Keyed:
		if len(p.Keys) == 0 || p.Keyspace == 0 || p.method == nil {
			bad("keyed without a key")
		}
	case Unsharded:
		if p.Shard == "" {
			bad("unsharded without a shard")
		}
	case Many:
		if p.Fan == nil || p.Fan.Refusal == nil || p.Fan.Why == "" || (p.Keyspace == 0 || p.method == nil && !p.Fan.Everywhere) && !p.Fan.Apart {
			bad("many without a fan, or one without why")
			break
		}
		for _, text := range []string{p.Fan.SQL, asWritten(p.Fan.Final)} {
			if _, err := pgquery.Parse(text); err != nil {
				bad("a text that cannot be read: " + err.Error())
			}
		}
	}
	if (p.Fan != nil) != (p.Target == Many) {
		bad("a fan for another target")
	}
	if p.Target != None && p.Err != nil {
		bad("an error for a plan that can be routed")
	}
	if p.Target != Keyed && (len(p.Keys) > 0 && p.Target != None) {
		bad("keys for another target")
	}
	if (p.Intent == Write) != (p.WhyWrite != "") && p.Target != None {
		bad("a write without its reason, or a reason without a write")
	}
	for _, k := range p.Keys {
		if (k.Literal != nil) == (k.Param > 0 || k.Parts != nil || k.Session) || k.Text == "" {
			bad("a key that is neither a constant nor a parameter, or both")
		}
		if k.Param > p.NumParams {
			bad("a parameter beyond the last")
		}
	}
}
