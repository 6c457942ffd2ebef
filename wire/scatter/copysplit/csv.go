package copysplit

import (
	"bytes"

	"rangefinder/wire/sqlkey"
)

func (s *Splitter) csv() bool { return s.copy.Format == sqlkey.CopyCSV }

// scanCSV is the scan for CSV. Quotes are counted wherever they stand, as PostgreSQL does.
func (s *Splitter) scanCSV(b []byte, row, at int, final bool) (end, next int, f found, err error) {
	quote, escape := s.copy.Quote, s.copy.Escape
	i := at
	if s.marker && at == row && s.shard < 0 && i < len(b) && b[i] == '\\' {
		n, f, err := s.maybeMarker(b, i, final)
		switch {
		case f == foundNothing || err != nil:
			return 0, i, foundNothing, err
		case f == foundEnd:
			return i, i + n, foundEnd, nil
		}
	}
	for s.eol == eolNL && escape == quote {
		stop := len(b)
		if n := bytes.IndexByte(b[i:], '\n'); n >= 0 {
			stop = i + n
		}
		line := b[i:stop]
		if bytes.IndexByte(line, '\r') >= 0 {
			break
		}
		if bytes.Count(line, s.quote)&1 == 1 {
			s.quoted = !s.quoted
		}
		switch i = stop; {
		case i == len(b) && final:
			return i, i, foundLine, nil
		case i == len(b):
			return 0, i, foundNothing, nil
		case !s.quoted:
			return i, i + 1, foundLine, nil
		}
		s.lines++
		i++
	}
	for i < len(b) {
		c := b[i]
		if s.quoted && c == escape && escape != quote {
			s.escaped = !s.escaped
		}
		if c == quote && !s.escaped {
			s.quoted = !s.quoted
		}
		if c != escape {
			s.escaped = false
		}
		if c != '\r' && c != '\n' {
			i++
			continue
		}
		if s.quoted {
			if (c == '\n') == (s.eol == eolNL) {
				s.lines++
			}
			i++
			continue
		}
		n, err := s.lineEnd(b, i, final)
		if n == 0 {
			return 0, i, foundNothing, err
		}
		return i, i + n, foundLine, nil
	}
	if final {
		return len(b), len(b), foundLine, nil
	}
	return 0, len(b), foundNothing, nil
}

// maybeMarker looks for the end marker at a line's beginning.
func (s *Splitter) maybeMarker(b []byte, i int, final bool) (n int, f found, err error) {
	switch {
	case i+1 == len(b) && !final:
		return 0, foundNothing, nil
	case i+1 == len(b) || b[i+1] != '.':
		return 0, foundLine, nil
	}
	return s.endMarker(b, i, final)
}

// fieldsCSV is the fields for CSV.
func (s *Splitter) fieldsCSV(line []byte, whole bool) (bool, error) {
	if bytes.IndexByte(line, s.copy.Quote) < 0 {
		return s.cut(line, whole, s.plainEnd)
	}
	return s.cut(line, whole, s.csvEnd)
}

// csvEnd is where the first column ends, -1 if with the line.
func (s *Splitter) csvEnd(b []byte) int {
	n, _ := s.column(b)
	return n
}

// openQuote tells whether quotes of a line do not end.
func (s *Splitter) openQuote(line []byte) bool {
	for {
		n, open := s.column(line)
		if n < 0 {
			return open
		}
		line = line[n+1:]
	}
}

// column is where the first column ends, -1 if with the line; open: within quotes.
func (s *Splitter) column(b []byte) (end int, open bool) {
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case !open && c == s.copy.Delimiter:
			return i, false
		case !open:
			open = c == s.copy.Quote
		case c == s.copy.Escape && i+1 < len(b) && (b[i+1] == s.copy.Escape || b[i+1] == s.copy.Quote):
			i++
		case c == s.copy.Quote:
			open = false
		}
	}
	return -1, open
}

// unquote appends what a column of CSV means.
func (s *Splitter) unquote(dst, raw []byte) []byte {
	quoted := false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case !quoted && c == s.copy.Quote:
			quoted = true
		case quoted && c == s.copy.Escape && i+1 < len(raw) && (raw[i+1] == s.copy.Escape || raw[i+1] == s.copy.Quote):
			i++
			dst = append(dst, raw[i])
		case quoted && c == s.copy.Quote:
			quoted = false
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
