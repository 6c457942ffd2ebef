package sqloracle

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// entry is a block of a file of testdata: statements that are asked one after the other, each ended by a semicolon at the end of its line
// but for the last. Lines before them that begin with -- say:
//
//	-- $1 bigint 42       a parameter of the statement, its type and value
//	-- refused: KIND      the router refuses the statement, or one of the statements; KIND is one of refusals. Written by -update
//	-- error CODE: why    the router gives this SQLSTATE where PostgreSQL does not, and why that is right
//	-- as text: why       its results are asked for as text alone
//	-- anything else      is for people
type entry struct {
	comments   []string // but for refused:
	statements []string
	args       []arg
	refused    string
	code       string // of error
	text       bool   // as text
}

func (e *entry) String() string {
	text := ""
	for _, c := range e.comments {
		text += c + "\n"
	}
	if e.refused != "" {
		text += "-- refused: " + e.refused + "\n"
	}
	return text + strings.Join(e.statements, ";\n")
}

// readEntries reads a file of testdata.
func readEntries(t testing.TB, file string) (all []*entry) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(strings.TrimSpace(string(content)), "\n\n") {
		all = append(all, readEntry(t, block))
	}
	return all
}

// readEntry reads an entry.
func readEntry(t testing.TB, block string) *entry {
	t.Helper()
	e := &entry{}
	for strings.HasPrefix(block, "--") {
		var line string
		line, block, _ = strings.Cut(block, "\n")
		words := strings.SplitN(line, " ", 4)
		switch {
		case strings.HasPrefix(line, "-- refused: "):
			e.refused = strings.TrimPrefix(line, "-- refused: ")
			continue
		case strings.HasPrefix(line, "-- $"):
			if len(words) < 4 || words[1] != fmt.Sprintf("$%d", len(e.args)+1) {
				t.Fatalf("%s: no parameter", line)
			}
			e.args = append(e.args, arg{oid: oids[words[2]], text: words[3]})
		case strings.HasPrefix(line, "-- error "):
			e.code = strings.TrimSuffix(words[2], ":")
		case strings.HasPrefix(line, "-- as text: "):
			e.text = true
		}
		e.comments = append(e.comments, line)
	}
	e.statements = strings.Split(block, ";\n")
	return e
}

func corpusFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal("no files in testdata", err)
	}
	return files
}

// orderOf says what of a statement's order is defined: those of testdata that have ORDER BY define all of it, and what an INSERT returns comes in the order
// of the rows that it is given, by which clients tell them apart, unless it reads them from tables.
func orderOf(sql string) order {
	tree, err := pgquery.Parse(sql)
	if err != nil || len(tree.GetStmts()) == 0 {
		return order{kind: exact}
	}
	s := tree.GetStmts()[0].GetStmt().GetSelectStmt()
	switch {
	case s == nil && (strings.HasPrefix(sql, "EXECUTE") || strings.HasPrefix(sql, "FETCH")), s != nil && len(s.GetSortClause()) == 0 && s.GetLimitCount() == nil && s.GetLimitOffset() == nil:
		return order{}
	case s != nil && len(s.GetSortClause()) == 0:
		return order{kind: counted}
	case given(tree.GetStmts()[0].GetStmt().GetInsertStmt()):
		return order{kind: exact}
	case s == nil && strings.Contains(sql, "RETURNING"):
		return order{}
	}
	return order{kind: exact}
}

// given tells whether a statement is an INSERT of rows in an order: a list of them, of functions, or sorted.
func given(s *pgquery.InsertStmt) bool {
	source := s.GetSelectStmt().GetSelectStmt()
	if source == nil || len(source.GetSortClause()) > 0 {
		return source != nil
	}
	for _, from := range source.GetFromClause() {
		if from.GetRangeFunction() == nil && from.GetRangeSubselect() == nil {
			return false
		}
	}
	return true
}

// stories are the ways in which an entry is told.
func (e *entry) stories() (all []*story) {
	protocols := []protocol{simple, extended, binaries, prepared}
	if e.text {
		protocols = protocols[:2]
	}
	if len(e.args) > 0 {
		protocols = protocols[1:]
	}
	for _, how := range protocols {
		s := &story{writes: e.changes()}
		for _, sql := range e.statements {
			if how != simple && strings.Contains(sql, "; ") {
				return all
			}
			s.add(&statement{sql: sql, args: e.args, how: how, order: orderOf(sql)})
		}
		all = append(all, s)
	}
	return all
}

// changes are the tables that the entry may change.
func (e *entry) changes() (names []string) {
	text := strings.Join(e.statements, "\n")
	if !writing.MatchString(text) {
		return nil
	}
	for _, t := range tables {
		if strings.Contains(text, t.name) {
			names = append(names, t.name)
		}
	}
	return names
}

var writing = regexp.MustCompile(`\b(INSERT|UPDATE|DELETE|MERGE|TRUNCATE)\b`)

// testCorpus asks what is written in testdata.
func testCorpus(t *testing.T, p *place) {
	total := 0
	for _, file := range corpusFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".sql"), func(t *testing.T) {
			c := newClients(t, p)
			all := readEntries(t, file)
			total += len(all)
			changed := false
			for _, e := range all {
				if was := e.refused; c.check(t, e) && e.refused != was {
					changed = true
					if !*update {
						t.Errorf("%s\nis refused: %q, and the file says %q: see -update", e.statements, e.refused, was)
					}
				}
			}
			if *update && changed {
				var texts []string
				for _, e := range all {
					texts = append(texts, e.String())
				}
				if err := os.WriteFile(file, []byte(strings.Join(texts, "\n\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	if total < 300 {
		t.Errorf("only %d entries", total)
	}
}

// check tells the entry in all ways, and what is refused. It is false if something differs.
func (c *clients) check(t *testing.T, e *entry) bool {
	t.Helper()
	refused, ok := "", true
	for i, s := range e.stories() {
		all := c.tell(s)
		last := all[len(all)-1]
		if e.code != "" {
			if last.answer.err == nil || last.answer.err.Code != e.code {
				t.Errorf("%s\n  does not give the error %s: %+v", last.statement, e.code, last.answer.err)
				ok = false
			}
			continue
		}
		switch {
		case last.problem != "":
			t.Errorf("%s\n  %s", last.statement, last.problem)
			return false
		case last.refused == "" && last.answer.err != nil: // what is an error anyhow may be one of either kind: Parse alone asks one shard
		case i > 0 && refused != last.refused:
			t.Errorf("%s\n  is refused as %q, and in another protocol as %q", last.statement, last.refused, refused)
			ok = false
		default:
			refused = last.refused
		}
	}
	e.refused = refused
	return ok
}
