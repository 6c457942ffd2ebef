package copysplit

import (
	"fmt"
	"slices"

	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// Sink takes what a Splitter finds. Its errors end the splitting, and are the Splitter's.
type Sink interface {
	// Owner is the shard that owns a key, as a number of the sink's own. The key is good until Owner returns. A *pg.Error without a
	// CONTEXT gets that of the row.
	Owner(key rib.Key) (shard int, err error)
	// Row takes bytes of one of a shard's rows, good until Row returns. They are the row's last, with what ends it, if lines is not 0: then
	// line is the number of its last line in the whole input, from 1, and lines how many it has (in binary format, of tuples). A row
	// comes in several pieces, one right after the other, only if it is long.
	Row(shard int, b []byte, line uint64, lines int) error
}

// The bounds of what a Splitter keeps.
const (
	// DefaultMaxPrefix is the most bytes that a row may have before the end of its key, if Config does not say.
	DefaultMaxPrefix = 1 << 20
	// keep is from how many bytes on an incomplete row is passed on if its key is known.
	keep = 64 << 10
)

// Config is what a Splitter needs to know.
type Config struct {
	Copy *sqlkey.Copy
	// Columns are those of the data, in their order: Copy.Columns, or the table's if the statement names none.
	Columns []string
	// Given are columns that the data lack: behind its own values each row is given a number of Next's for each. They may be the key's.
	Given []string
	Next  func() (int64, error)
	// Times are columns whose texts must not tell now (see sqlkey.TellsNow), of data that are not split: Copy has no key then, and all rows are one shard's.
	Times []string
	// Values, in binary format, is given the values of each row, nil for NULL, and the shard that they are for, and may write in them. Rows are kept whole for
	// that, so they are bounded by MaxPrefix. nil: nothing needs to be written.
	Values func(shard int, values [][]byte) error
	// UTF8: the data are in UTF-8. Else keys beyond ASCII are refused.
	UTF8 bool
	// MarkerInCSV: a line with nothing but \. ends CSV data, as in servers before PostgreSQL 18.
	MarkerInCSV bool
	// MaxPrefix bounds what a row may have before the end of its key, and the header, in bytes. 0: DefaultMaxPrefix.
	MaxPrefix int
}

// column is one of the data's columns that are part of the key.
type column struct {
	index       int // among the data's columns, from 0
	given       int // among the given ones, from 1; 0: it is none of them
	part        int // of the key, from 0
	typ         rib.Type
	notNull     bool // FORCE_NOT_NULL
	nullIfEqual bool // FORCE_NULL
}

// Splitter splits one COPY's data. It is for one goroutine.
type Splitter struct {
	// constant
	copy    *sqlkey.Copy
	columns []string
	keyed   []column // in the data's order, and then the given ones
	read    []column // those of keyed that the data have
	given   []string
	times   bool // keyed are no key: see Config.Times
	next    func() (int64, error)
	utf8    bool
	marker  bool
	quote   []byte // CSV's
	prefix  int
	write   func(shard int, values [][]byte) error // Config.Values
	sink    Sink
	process func(b []byte, final bool) (used int, err error)

	// owned by the goroutine that uses it
	carry       []byte // what has come of a row that is not complete, but what was passed on of it
	scanned     int    // how much of carry was looked at
	shard       int    // whose row carry goes on with; -1: carry begins a row
	line        uint64 // lines before the row
	lines       int    // line ends within the row so far: those in quotes
	eol         eol
	quoted      bool // CSV: the scan is within quotes
	escaped     bool // CSV: the scan is behind an escape sign in quotes
	begun       bool // the header, if there is to be one, is complete
	done        bool // the data's own end has come: what follows is nothing
	header      []byte
	headerLines uint64
	trailer     []byte
	tuple       tuple
	fields      [][]byte // the raw values of keyed
	null        []bool   // binary: which of fields are NULL
	values      [][]byte // of a whole tuple: see Config.Values
	ends        []rib.Key
	numbers     []int64 // of the given columns, of the row in hand; empty: not made yet
	tail        []byte  // the given columns' values, as they stand in the data
	scratch     []byte  // a value without its escapes
	key         rib.Key // reused
}

// New makes a Splitter. Errors are *pg.Error: the columns do not hold the key, or the encoding hides where lines end.
func New(c Config, sink Sink) (*Splitter, error) {
	s := &Splitter{copy: c.Copy, columns: c.Columns, given: c.Given, next: c.Next, utf8: c.UTF8, marker: c.MarkerInCSV, prefix: c.MaxPrefix, write: c.Values,
		quote: []byte{c.Copy.Quote}, sink: sink, shard: -1}
	if s.prefix <= 0 {
		s.prefix = DefaultMaxPrefix
	}
	switch c.Copy.Format {
	case sqlkey.CopyCSV:
		s.process = func(b []byte, final bool) (int, error) { return s.split(b, final, s.scanCSV, s.fieldsCSV) }
	case sqlkey.CopyBinary:
		s.process = s.binary
	default:
		s.process = func(b []byte, final bool) (int, error) { return s.split(b, final, s.scanText, s.fieldsText) }
	}
	for part, name := range c.Copy.Key {
		index := slices.Index(c.Columns, name)
		if given := slices.Index(c.Given, name); given >= 0 && c.Copy.Types[part] == rib.TypeBigint {
			s.keyed = append(s.keyed, column{index: len(c.Columns) + given, given: given + 1, part: part, typ: rib.TypeBigint})
			continue
		}
		if index < 0 {
			return nil, pg.Errorf(pg.CodeFeatureNotSupported, "COPY must give the sharding key: column %q is not among its columns", name).
				WithDetail("What the column's default gives a row is known only on a shard, and which one that is depends on it.").
				WithHint("Add the column to COPY's list of columns, and to the data.")
		}
		s.keyed = append(s.keyed, column{
			index: index, part: part, typ: c.Copy.Types[part],
			notNull:     c.Copy.ForceNotNullAll || slices.Contains(c.Copy.ForceNotNull, name),
			nullIfEqual: c.Copy.ForceNullAll || slices.Contains(c.Copy.ForceNull, name),
		})
	}
	for _, name := range c.Times {
		if index := slices.Index(c.Columns, name); index >= 0 {
			s.keyed, s.times = append(s.keyed, column{index: index}), true
		}
	}
	slices.SortFunc(s.keyed, func(a, b column) int { return a.index - b.index })
	s.read = s.keyed
	for n := len(s.keyed); n > 0 && s.keyed[n-1].given > 0; n-- {
		s.read = s.keyed[:n-1]
	}
	if err := s.givable(); err != nil {
		return nil, err
	}
	s.fields, s.null = make([][]byte, len(s.keyed)), make([]bool, len(s.keyed))
	if len(s.keyed) > 1 {
		s.ends = make([]rib.Key, len(s.keyed))
	}
	return s, nil
}

// Header is what every shard's data must begin with, "" if nothing. It is complete before the first Row, and when Close has returned.
func (s *Splitter) Header() []byte { return s.header }

// HeaderLines is how many lines the header has; in binary format it has none.
func (s *Splitter) HeaderLines() uint64 { return s.headerLines }

// Trailer is what every shard's data must end with. It is known when Close has returned.
func (s *Splitter) Trailer() []byte { return s.trailer }

// Write takes the next bytes of the data. It keeps none of them. After an error nothing more may be written.
func (s *Splitter) Write(b []byte) error {
	if s.done {
		return s.afterEnd(b)
	}
	if len(s.carry) == 0 {
		used, err := s.process(b, false)
		if err == nil && !s.done {
			s.carry = append(s.carry[:0], b[used:]...)
		}
		return s.bounded(err)
	}
	s.carry = append(s.carry, b...)
	used, err := s.process(s.carry, false)
	s.carry = s.carry[:copy(s.carry, s.carry[used:])]
	return s.bounded(err)
}

// Close is the end of the data: what is left of them is the last row.
func (s *Splitter) Close() error {
	if s.done {
		return nil
	}
	_, err := s.process(s.carry, true)
	s.carry = nil
	return err
}

// Line is the number of the last line, or tuple, that was complete; 0 if none was.
func (s *Splitter) Line() uint64 { return s.line }

// bounded keeps an incomplete row from growing.
func (s *Splitter) bounded(err error) error {
	if err != nil || s.done || len(s.carry) <= s.prefix {
		return err
	}
	what, hint := "the row is longer than %d bytes before the end of its sharding key", "Put the key's columns first in COPY's list of columns."
	if s.write != nil {
		what, hint = "the row is longer than %d bytes, and holds numbers of types, which are others on each shard", "Copy in text or CSV format."
	}
	if !s.begun && (s.copy.Header || s.copy.Format == sqlkey.CopyBinary) {
		what, hint = "the header is longer than %d bytes", "Is this the format that the data are in?"
	}
	return s.at(pg.Errorf(pg.CodeProgramLimitExceeded, what, s.prefix).WithHint(hint), nil, -1)
}

// afterEnd is for what follows the data's own end.
func (s *Splitter) afterEnd(b []byte) error {
	if s.copy.Format != sqlkey.CopyBinary || len(b) == 0 {
		return nil // as PostgreSQL does
	}
	return s.at(malformed("received copy data after EOF marker"), nil, -1)
}

// advance is a row's end: line ends in quotes count as lines, too.
func (s *Splitter) advance() (line uint64, lines int) {
	lines = s.lines + 1
	s.line += uint64(lines)
	s.lines, s.scanned, s.shard, s.quoted, s.escaped, s.numbers = 0, 0, -1, false, false, s.numbers[:0]
	return s.line, lines
}

// owner finds the shard of the row whose key columns are in s.fields. row is for messages.
func (s *Splitter) owner(row []byte) (int, error) {
	if s.times {
		return 0, s.timely(row)
	}
	key := s.key[:0]
	if len(s.keyed) == 1 {
		var err error
		if key, err = s.appendPart(key, 0, row); err != nil {
			return 0, err
		}
	} else {
		for i := range s.keyed {
			part := s.keyed[i].part
			var err error
			if s.ends[part], err = s.appendPart(s.ends[part][:0], i, row); err != nil {
				return 0, err
			}
		}
		for _, part := range s.ends {
			key = append(key, part...)
		}
		key = s.copy.Method.Join(key, 0)
	}
	s.key = key
	shard, err := s.sink.Owner(key)
	if err != nil {
		if e, ok := err.(*pg.Error); ok && e.Where == "" {
			err = s.at(e, row, 0)
		}
		return 0, err
	}
	return shard, nil
}

// appendPart appends the key of the column keyed[i], whose raw value is in s.fields.
func (s *Splitter) appendPart(dst rib.Key, i int, row []byte) (rib.Key, error) {
	if given := s.keyed[i].given; given > 0 {
		if err := s.number(); err != nil {
			return dst, err
		}
		return s.copy.Method.AppendKey(dst, rib.Value{Type: rib.TypeBigint, Int: s.numbers[given-1]})
	}
	typ, raw, null := s.keyed[i].typ, s.fields[i], s.null[i]
	if s.copy.Format != sqlkey.CopyBinary {
		var err error
		if raw, null, err = s.value(i, row); err != nil {
			return dst, err
		}
	}
	if null {
		e := pg.Errorf(codeNotNullViolation, "null value in column %q of relation %q: it is a sharding key", s.columns[s.keyed[i].index], s.copy.Name).
			WithHint("Rows whose key is NULL belong to no shard: give the column a value.")
		return dst, s.at(e, row, i)
	}
	if typ == rib.TypeText && !s.utf8 && !isASCII(raw) {
		e := pg.NewError(pg.CodeFeatureNotSupported, "a sharding key beyond ASCII needs data in UTF-8").
			WithHint("Convert the data to UTF-8, and SET client_encoding = 'UTF8' or say ENCODING 'UTF8'.")
		return dst, s.at(e, row, i)
	}
	var v rib.Value
	var err error
	if s.copy.Format == sqlkey.CopyBinary {
		v, err = rib.ParseBinary(typ, raw)
	} else {
		v, err = rib.ParseText(typ, raw)
	}
	if err == nil {
		if dst, err = s.copy.Method.AppendKey(dst, v); err == nil {
			return dst, nil
		}
	}
	return dst, s.invalid(err, row, i)
}

// invalid is the error for a value that is no key.
func (s *Splitter) invalid(err error, row []byte, i int) error {
	code := sqlkey.CodeOf(err)
	if s.copy.Format == sqlkey.CopyBinary && code == pg.CodeInvalidTextRepresentation {
		code = pg.CodeInvalidBinaryRepresentation
	}
	e := pg.NewError(code, err.Error())
	if code == pg.CodeFeatureNotSupported {
		e = e.WithHint("Write the key so that it means the same under all settings.")
	}
	return s.at(e, row, i)
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// SQLSTATEs of data that are not what COPY expects.
const (
	codeBadCopy          = "22P04" // bad_copy_file_format
	codeNotNullViolation = "23502"
)

// malformed is an error of the data's format.
func malformed(format string, args ...any) *pg.Error { return pg.Errorf(codeBadCopy, format, args...) }

// at gives an error the CONTEXT that PostgreSQL would: the line, or the column keyed[i] with its value; i < 0: no column. row is nil
// if there is none to be shown.
func (s *Splitter) at(e *pg.Error, row []byte, i int) *pg.Error {
	c := *e
	if i >= 0 {
		if text := s.misshapen(row); text != "" {
			c, i = *malformed("%s", text), -1
		}
	}
	line := s.line + uint64(s.lines) + 1
	c.Where = fmt.Sprintf("COPY %s, line %d", s.copy.Name, line)
	switch {
	case i >= 0 && s.copy.Format == sqlkey.CopyBinary:
		c.Where += ", column " + s.columns[s.keyed[i].index]
	case i >= 0:
		c.Where += ", column " + s.columns[s.keyed[i].index]
		if value, null, err := s.value(i, row); err == nil && null {
			c.Where += ": null input"
		} else if err == nil {
			c.Where += fmt.Sprintf(": \"%s\"", clip(value))
		}
	case row != nil && s.copy.Format != sqlkey.CopyBinary:
		c.Where += fmt.Sprintf(": \"%s\"", clip(row))
	}
	return &c
}

// clip keeps data from filling a message, as PostgreSQL does.
func clip(b []byte) []byte {
	const most = 100
	if len(b) <= most {
		return b
	}
	n := most
	for n > most-4 && b[n]&0xc0 == 0x80 { // whole characters
		n--
	}
	return append(slices.Clip(b[:n]), "..."...)
}
