package sqlkey

import (
	"errors"
	"testing"
)

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
		text, err := NameCopied("COPY t TO STDOUT "+options, columns)
		if text != want || (want == "") != errors.Is(err, errOptions) {
			t.Errorf("%s: %q, %v; want %q", options, text, err, want)
		}
	}
}
