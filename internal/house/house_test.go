package house_test

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "rangefinder"

// folders are the top-level folders. A new one needs a reason that these cannot hold. docs and examples have no Go code.
var folders = []string{"bench", "cluster", "docs", "examples", "fib", "gossip", "internal", "node", "rib", "wire"}

// file is one Go file of the tree.
type file struct {
	path    string // slashes, from the repository's root
	pkg     string // folder; "." is the root
	test    bool
	tool    bool // a program of its own (go:build ignore), run by go generate
	lines   int
	source  []byte
	syntax  *ast.File
	imports []string // as they stand in the file
}

// root returns the repository's root.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// tree parses every Go file.
func tree(t *testing.T) []file {
	t.Helper()
	base := root(t)
	var files []file
	err := filepath.WalkDir(base, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); name != base && (strings.HasPrefix(n, ".") || n == "testdata" || n == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		rel, err := filepath.Rel(base, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		source, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		syntax, err := parser.ParseFile(token.NewFileSet(), rel, source, parser.ParseComments)
		if err != nil {
			return err
		}
		f := file{
			path: rel, pkg: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go"),
			tool:  bytes.Contains(source, []byte("\n//go:build ignore\n")) || bytes.HasPrefix(source, []byte("//go:build ignore\n")),
			lines: bytes.Count(source, []byte("\n")), source: source, syntax: syntax,
		}
		for _, spec := range syntax.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, p)
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("only %d Go files found below %s", len(files), base)
	}
	return files
}

// layers are the order of imports: a package may import those of lower layers, and of its own folder.
var layers = map[string]int{"rib": 0, "fib": 1, "wire": 2, "gossip": 3, "cluster": 3, "node": 4, "bench": 5}

// top returns the first element of a package's folder.
func top(pkg string) string {
	first, _, _ := strings.Cut(pkg, "/")
	return first
}

// within tells whether pkg is folder or below it.
func within(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }

// verdict says why the package in folder from may not import the one in folder to, "" if it may.
func verdict(from, to string, test bool) string {
	switch {
	case from == to:
		return ""
	case from == ".":
		if to != "node" {
			return "main hands os.Args to node and does nothing else"
		}
		return ""
	case within(to, "internal"):
		switch {
		case test, top(from) == "bench", within(from, "node/demo"), within(from, "internal"):
			return ""
		case to == "internal/lab" && from == "node":
			return "" // the configuration's [[lab]]
		}
		return "internal packages are for tests, the demo and the benchmarks"
	case within(from, "internal"):
		return "internal packages know nothing of Rangefinder, so that every package's tests may use them"
	case top(to) == "bench":
		return "nobody imports bench"
	case test && to == "gossip/memnet":
		return "" // a network for tests, which happens to live with its first user
	case from == "wire/pg":
		return "wire/pg speaks the protocol and knows nothing else"
	case from == "wire/sqlkey" && to != "rib" && to != "wire/pg":
		return "wire/sqlkey may import rib and wire/pg only"
	case to == "node" && top(from) != "bench":
		return "only main and bench import node"
	case top(from) == top(to):
		if within(from, to) {
			return "a package does not import the one it is part of"
		}
		return ""
	}
	a, ok := layers[top(from)]
	b, ok2 := layers[top(to)]
	if !ok || !ok2 {
		return "unknown folder"
	}
	if b >= a {
		return "imports go one way: rib < fib < wire < {gossip, cluster} < node < bench"
	}
	return ""
}

// owners are the packages that alone may know a dependency; tests may know any.
var owners = map[string][]string{
	"github.com/jackc/pgproto3":         {"wire/pg", "internal/pgtest"},
	"github.com/pganalyze/pg_query_go":  {"wire/sqlkey"},
	"github.com/hashicorp/memberlist":   {"gossip", "node/port", "bench"},
	"github.com/hashicorp/raft":         {"cluster", "node/port", "bench"},
	"github.com/alecthomas/kong":        {"node", "bench"},
	"github.com/tidwall/btree":          {"bench"},
	"github.com/anishathalye/porcupine": {"bench"},
	"github.com/pelletier/go-toml":      {"node"},
	"github.com/prometheus":             {"node", "wire"},
	"github.com/xdg-go/scram":           {"wire/pg"},
	"github.com/jackc/pgx":              {"gossip/probe", "cluster", "node", "bench", "internal/pgtest", "wire/twophase"},
	"github.com/hashicorp/raft-boltdb/": {"cluster"},
}

func TestImportsGoOneWay(t *testing.T) {
	for _, f := range tree(t) {
		for _, imported := range f.imports {
			if to, ours := strings.CutPrefix(imported, module+"/"); ours {
				if why := verdict(f.pkg, to, f.test); why != "" {
					t.Errorf("%s imports %s: %s", f.path, imported, why)
				}
				continue
			}
			if f.test || f.tool {
				continue
			}
			if f.pkg == "rib" && strings.Contains(imported, ".") {
				t.Errorf("%s imports %s: rib is standard library only", f.path, imported)
			}
			for dep, allowed := range owners {
				if strings.HasPrefix(imported, dep) && !slices.ContainsFunc(allowed, func(a string) bool { return within(f.pkg, a) }) {
					t.Errorf("%s imports %s: only %s may", f.path, imported, strings.Join(allowed, ", "))
				}
			}
		}
	}
}

// The rule itself, on imports that must and must not be.
func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		from, to string
		test     bool
		ok       bool
	}{
		{".", "node", false, true},
		{".", "rib", false, false},
		{"fib", "rib", false, true},
		{"rib", "fib", false, false},
		{"rib", "fib", true, false},
		{"rib", "internal/pgtest", false, false},
		{"rib", "internal/pgtest", true, true},
		{"wire", "wire/pool", false, true},
		{"wire/pool", "wire", false, false},
		{"wire/pg", "rib", false, false},
		{"wire/sqlkey", "rib", false, true},
		{"wire/sqlkey", "fib", false, false},
		{"gossip", "cluster", false, false},
		{"cluster", "gossip/memnet", false, false},
		{"cluster", "gossip/memnet", true, true},
		{"gossip/probe", "rib", false, true},
		{"node", "cluster", false, true},
		{"node", "internal/lab", false, true},
		{"node", "internal/pgtest", false, false},
		{"node/demo", "internal/pgtest", false, true},
		{"node/demo", "node", false, false},
		{"bench", "node", false, true},
		{"node", "bench", false, false},
		{"internal/pgtest", "rib", true, false},
		{"elsewhere", "rib", false, false},
	} {
		if why := verdict(c.from, c.to, c.test); (why == "") != c.ok {
			t.Errorf("%s -> %s (test %v): %q", c.from, c.to, c.test, why)
		}
	}
}

func TestTopLevelFolders(t *testing.T) {
	entries, err := os.ReadDir(root(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); e.IsDir() && !strings.HasPrefix(name, ".") && name != "bin" && !slices.Contains(folders, name) {
			t.Errorf("new top-level folder %s: see ARCHITECTURE.md for where things belong", name)
		}
	}
}

func TestOnePackageCommentInDocGo(t *testing.T) {
	comments := map[string][]string{} // files with a package comment, by package
	for _, f := range tree(t) {
		if f.test || f.tool {
			continue
		}
		comments[f.pkg] = append(comments[f.pkg], "")
		if f.syntax.Doc != nil {
			comments[f.pkg] = append(comments[f.pkg], f.path)
			want := "Package " + f.syntax.Name.Name + " "
			if f.syntax.Name.Name != "main" && !strings.HasPrefix(f.syntax.Doc.Text(), want) {
				t.Errorf("%s: the package comment begins with %q", f.path, want)
			}
		}
	}
	for pkg, found := range comments {
		found = slices.DeleteFunc(found, func(s string) bool { return s == "" })
		want := path.Join(pkg, "doc.go")
		if pkg == "." {
			want = "main.go"
		}
		if len(found) != 1 || found[0] != want {
			t.Errorf("package %s: package comments in %v, want one, in %s", pkg, found, want)
		}
	}
}

// A test that sleeps is slow when the machine is fast and fails when it is slow.
func TestNoSleepInTests(t *testing.T) {
	sleep := []byte("time" + ".Sleep")
	for _, f := range tree(t) {
		if f.test && bytes.Contains(f.source, sleep) {
			t.Errorf("%s: %s: wait for a condition (pgtest.Eventually, a channel) or use virtual time (testing/synctest)", f.path, sleep)
		}
	}
}

// A machine's clock may be set, by an hour or by years. How long ago something was is told by the monotonic clock, which a time.Time
// holds and a number since 1970 does not, nor what Round(0) makes of it. Who takes the clock's own time is listed.
func TestNobodyReckonsByTheWallClock(t *testing.T) {
	reckons := regexp.MustCompile(`\.Unix(Nano|Micro|Milli)?\(\)|\.Round\(0\)`)
	may := map[string]string{ // number of uses, and what for
		"node/drain_api.go":       "2: an end that people give is a time, by which each node goes by its own clock",
		"node/drain_ask.go":       "2: the same, as it is handed on",
		"rib/drain.go":            "1: the same",
		"gossip/log.go":           "1: how many lines a second go into the log",
		"cluster/codec_move.go":   "1: when something was, for people",
		"rib/value_time.go":       "1: a date as a value of SQL",
		"wire/sqlkey/computed.go": "4: the same",
	}
	for _, f := range tree(t) {
		top, _, _ := strings.Cut(f.path, "/")
		if f.test || !slices.Contains([]string{"rib", "fib", "wire", "gossip", "cluster", "node"}, top) {
			continue
		}
		found := reckons.FindAll(f.source, -1)
		many, _, _ := strings.Cut(may[f.path], ":")
		if allowed, _ := strconv.Atoi(many); len(found) != allowed {
			t.Errorf("%s: %q: keep a time.Time, or in an atomic the time since one that was made at the start", f.path, found)
		}
	}
}

// go test does not look at the format, and what no test looks at is not kept.
func TestFilesAreFormatted(t *testing.T) {
	for _, f := range tree(t) {
		if formatted, err := format.Source(f.source); err != nil || !bytes.Equal(formatted, f.source) {
			t.Errorf("%s: gofmt -w would change it (%v)", f.path, err)
		}
	}
}

func TestFilesCanBeRead(t *testing.T) {
	const ask, refuse = 500, 700
	for _, f := range tree(t) {
		switch {
		case f.lines > refuse:
			t.Errorf("%s has %d lines: split it by noun", f.path, f.lines)
		case f.lines > ask:
			t.Logf("%s has %d lines and is asking to be split", f.path, f.lines)
		}
		if f.path == "main.go" && f.lines >= 40 {
			t.Errorf("main.go has %d lines: it hands os.Args to node", f.lines)
		}
	}
}
