package sqlkey

import (
	"errors"
	"testing"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// TestCopyIsNamed: the list of columns stands behind the table, and nothing else is touched.
func TestCopyIsNamed(t *testing.T) {
	columns := []string{"a", `B "c"`}
	for sql, want := range map[string]string{
		"COPY t FROM STDIN (FREEZE on)":                          `COPY t ("a", "B ""c""") FROM STDIN (FREEZE on)`,
		"/* t */ copy\n s . \"t.u\" /*x*/ to stdout csv header;": "/* t */ copy\n s . \"t.u\" (\"a\", \"B \"\"c\"\"\") /*x*/ to stdout csv header;",
		"COPY app.s.t TO STDOUT (DELIMITER '(')":                 `COPY app.s.t ("a", "B ""c""") TO STDOUT (DELIMITER '(')`,
		"COPY BINARY t FROM STDIN":                               `COPY BINARY t ("a", "B ""c""") FROM STDIN`,
		`COPY U&"d\0061t" TO STDOUT`:                             `COPY U&"d\0061t" ("a", "B ""c""") TO STDOUT`,
		"COPY (SELECT 1) TO STDOUT":                              "",
	} {
		text, err := NameCopied(sql, columns)
		if text != want || (want == "") != (err != nil) {
			t.Errorf("%s: %q, %v; want %q", sql, text, err, want)
		}
	}
}

// TestCopyIsWritten: what pg_query could not write of the options of a COPY without reading what is not there is not written.
func TestCopyIsWritten(t *testing.T) {
	columns := []string{"a"}
	for options, want := range map[string]string{
		"(NULL 0)":            "COPY t(a) TO STDOUT WITH (NULL '0')",
		"(DELIMITER -1.5)":    "COPY t(a) TO STDOUT WITH (DELIMITER '-1.5')",
		"(FORMAT csv)":        "COPY t(a) TO STDOUT CSV",
		"(HEADER 1, QUOTE 7)": "COPY t(a) TO STDOUT WITH (HEADER 1, QUOTE '7')",
		"(FORMAT)":            "",
		"(NULL)":              "",
		"(ENCODING)":          "",
		"(QUOTE *)":           "",
		"(FORCE_QUOTE)":       "",
		"(FORCE_QUOTE a)":     "",
		"(FORCE_NULL 1)":      "",
		"(HEADER (a))":        "",
		"(FREEZE *)":          "",
	} {
		tree, err := pgquery.Parse("COPY t TO STDOUT " + options)
		if err != nil {
			t.Fatal(err)
		}
		text, err := givenCopy(tree.GetStmts()[0].GetStmt().GetCopyStmt(), columns)
		if text != want || (want == "") != errors.Is(err, errOptions) {
			t.Errorf("%s: %q, %v; want %q", options, text, err, want)
		}
	}
}
