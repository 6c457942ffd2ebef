package sqlkey

import (
	"strings"

	"rangefinder/rib"
)

// CopyFormat is how the data of a COPY are written.
type CopyFormat uint8

// The formats of COPY.
const (
	CopyText CopyFormat = iota
	CopyCSV
	CopyBinary
)

// Copy is what a COPY between a client and a sharded table says: what the package copysplit needs to find each row's key. Of options
// that are wrong the shards say so, before any data.
type Copy struct {
	From         bool // COPY FROM STDIN, else TO STDOUT
	Schema, Name string
	// Columns are the statement's list of columns; nil: all of the table's that are not generated, in its order.
	Columns []string
	// Key are the key's columns, in the keyspace's order.
	Key    []string
	Types  []rib.Type // of Key
	Method rib.Method

	Format    CopyFormat
	Delimiter byte   // text, CSV
	Null      string // text, CSV: as it stands in the data
	Default   string // text, CSV: what stands for a column's default; "" if nothing does
	Header    bool   // text, CSV: the first line is a header
	Quote     byte   // CSV
	Escape    byte   // CSV
	// ForceNull and ForceNotNull are CSV's columns of that option. All: of *, that is, of every column.
	ForceNull, ForceNotNull       []string
	ForceNullAll, ForceNotNullAll bool
	// Encoding is the one that the statement gives the data; "": client_encoding.
	Encoding string
}

// Splits tells whether data of an encoding can be taken apart without decoding them: no byte of a character beyond ASCII looks like an
// ASCII one. "" is UTF-8.
func Splits(encoding string) bool {
	switch plainEncoding(encoding) {
	case "big5", "win950", "windows950", "gb18030", "gbk", "win936", "windows936", "johab", "sjis", "mskanji", "shiftjis", "win932",
		"windows932", "shiftjis2004", "uhc", "win949", "windows949":
		return false
	}
	return true
}

// plainEncoding is an encoding's name as PostgreSQL looks it up: its letters, in lower case, and digits alone.
func plainEncoding(name string) string {
	return strings.ToLower(strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return -1
	}, name))
}
