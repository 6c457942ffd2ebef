package copysplit

import (
	"rangefinder/wire/sqlkey"
)

// eol is what ends the lines of the data: what ends the first one.
type eol uint8

const (
	eolUnknown eol = iota
	eolNL
	eolCR
	eolCRNL
)

// found is what a scan for a line's end has met.
type found uint8

const (
	foundNothing found = iota // more bytes are needed
	foundLine
	foundEnd // the marker of the data's end, before which the line may have something
)

// scan looks for the end of the line that begins at row in b, from the byte at on: behind [row, end) the next line begins at next. With
// foundNothing the next scan begins at next.
type scan func(b []byte, row, at int, final bool) (end, next int, f found, err error)

// fields finds the raw values of the key's columns in a line, for s.fields. whole: the line is complete; else ok tells whether they are all
// there.
type fields func(line []byte, whole bool) (ok bool, err error)

// split takes lines off b and returns how many bytes are done with.
func (s *Splitter) split(b []byte, final bool, scan scan, fields fields) (used int, err error) {
	row, at := 0, s.scanned
	for row < len(b) || s.shard >= 0 && final {
		end, next, f, err := scan(b, row, at, final)
		if err != nil {
			return row, err
		}
		if f == foundNothing {
			return s.incomplete(b, row, next, fields)
		}
		s.done = f == foundEnd
		if err := s.take(b[row:next], b[row:end], f, fields); err != nil {
			return row, err
		}
		if s.done {
			return len(b), nil
		}
		row, at = next, next
	}
	s.scanned = 0
	return row, nil
}

// take passes a whole line on. line is what it holds, without its end.
func (s *Splitter) take(whole, line []byte, f found, fields fields) error {
	shard := s.shard
	switch {
	case shard >= 0: // of which the beginning is already there
	case f == foundEnd && len(line) == 0:
		return nil
	case s.copy.Header && !s.begun:
		s.header, s.begun = append(append(append(s.header, line...), s.names()...), whole[len(line):]...), true
		s.headerLines, _ = s.advance()
		return nil
	default:
		if _, err := fields(line, true); err != nil {
			return err
		}
		var err error
		if shard, err = s.owner(line); err != nil {
			return err
		}
	}
	return s.pass(shard, whole, len(line), false)
}

// incomplete is the end of what has come, within a line that begins at row and was looked at up to next. If it is long and its key is
// known it goes on its way.
func (s *Splitter) incomplete(b []byte, row, next int, fields fields) (used int, err error) {
	s.scanned = next - row
	if s.shard < 0 {
		if next-row < keep || s.copy.Header && !s.begun {
			return row, nil
		}
		ok, err := fields(b[row:next], false)
		if err != nil || !ok {
			return row, err
		}
		if s.shard, err = s.owner(b[row:next]); err != nil {
			return row, err
		}
	}
	s.scanned = 0
	if next == row {
		return row, nil
	}
	return next, s.sink.Row(s.shard, b[row:next], 0, 0)
}

// missing is the error for a line that ends before the column keyed[i].
func (s *Splitter) missing(line []byte, i int) error {
	c := s.columns[s.keyed[i].index]
	return s.at(malformed("missing data for column %q", c), line, -1)
}

// carriage is the error for a CR that ends no line.
func (s *Splitter) carriage() error {
	if s.copy.Format == sqlkey.CopyCSV {
		return s.at(malformed("unquoted carriage return found in data").WithHint("Use quoted CSV field to represent carriage return."), nil, -1)
	}
	return s.at(malformed("literal carriage return found in data").WithHint("Use \"\\r\" to represent carriage return."), nil, -1)
}

// newline is the error for an NL that ends no line.
func (s *Splitter) newline() error {
	if s.copy.Format == sqlkey.CopyCSV {
		return s.at(malformed("unquoted newline found in data").WithHint("Use quoted CSV field to represent newline."), nil, -1)
	}
	return s.at(malformed("literal newline found in data").WithHint("Use \"\\n\" to represent newline."), nil, -1)
}

// lineEnd is for a CR or an NL at b[i] that may end a line. n is the number of bytes of the end; 0: the next byte is needed.
func (s *Splitter) lineEnd(b []byte, i int, final bool) (n int, err error) {
	if b[i] == '\n' {
		if s.eol == eolCR || s.eol == eolCRNL {
			return 0, s.newline()
		}
		s.eol = eolNL
		return 1, nil
	}
	switch s.eol {
	case eolNL:
		return 0, s.carriage()
	case eolCR:
		return 1, nil
	}
	switch {
	case i+1 == len(b) && !final:
		return 0, nil
	case i+1 < len(b) && b[i+1] == '\n':
		s.eol = eolCRNL
		return 2, nil
	case s.eol == eolCRNL:
		return 0, s.carriage()
	}
	s.eol = eolCR
	return 1, nil
}

// endMarker looks at the \. at b[i]. n is its length with the line end that belongs to it; 0 and foundNothing: more bytes are
// needed; foundLine: it is no marker, which is an error in text.
func (s *Splitter) endMarker(b []byte, i int, final bool) (n int, f found, err error) {
	csv := s.copy.Format == sqlkey.CopyCSV
	corrupt := func(text string) (int, found, error) {
		if csv {
			return 0, foundLine, nil
		}
		return 0, foundLine, s.at(malformed("%s", text), nil, -1)
	}
	const mismatch = "end-of-copy marker does not match previous newline style"
	j := i + 2
	if s.eol == eolCRNL {
		switch {
		case j >= len(b) && !final:
			return 0, foundNothing, nil
		case j < len(b) && b[j] == '\n':
			return corrupt(mismatch)
		case j >= len(b) || b[j] != '\r':
			return corrupt("end-of-copy marker corrupt")
		}
		j++
	}
	switch {
	case j >= len(b) && !final:
		return 0, foundNothing, nil
	case j >= len(b) || b[j] != '\r' && b[j] != '\n':
		return corrupt("end-of-copy marker corrupt")
	case (s.eol == eolCR) != (b[j] == '\r') && s.eol != eolUnknown:
		return 0, foundLine, s.at(malformed(mismatch), nil, -1)
	}
	return j + 1 - i, foundEnd, nil
}

// misshapen is what is wrong with a line as such, which PostgreSQL would say before it looks at any of its values; "" if nothing is.
func (s *Splitter) misshapen(line []byte) string {
	end := s.textEnd
	switch s.copy.Format {
	case sqlkey.CopyBinary:
		return ""
	case sqlkey.CopyCSV:
		end = s.csvEnd
		if s.openQuote(line) {
			return "unterminated CSV quoted field"
		}
	}
	count := 1
	for n := end(line); n >= 0; n = end(line) {
		line = line[n+1:]
		count++
	}
	if count > len(s.columns) {
		return "extra data after last expected column"
	}
	return ""
}
