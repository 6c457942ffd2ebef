package copysplit

import (
	"bytes"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// scanText is the scan for the text format.
func (s *Splitter) scanText(b []byte, _, at int, final bool) (end, next int, f found, err error) {
	if s.eol == eolNL {
		stop := len(b)
		if n := bytes.IndexByte(b[at:], '\n'); n >= 0 {
			stop = at + n
		}
		if bytes.IndexByte(b[at:stop], '\\') < 0 && bytes.IndexByte(b[at:stop], '\r') < 0 {
			switch {
			case stop < len(b):
				return stop, stop + 1, foundLine, nil
			case final:
				return stop, stop, foundLine, nil
			}
			return 0, stop, foundNothing, nil
		}
	}
	for i := at; i < len(b); {
		switch b[i] {
		case '\\':
			switch {
			case i+1 == len(b) && !final:
				return 0, i, foundNothing, nil
			case i+1 < len(b) && b[i+1] == '.':
				n, f, err := s.endMarker(b, i, final)
				if f == foundNothing {
					return 0, i, foundNothing, nil
				}
				return i, i + n, f, err
			}
			i += 2 // whatever it is, it ends no line
		case '\r', '\n':
			n, err := s.lineEnd(b, i, final)
			if n == 0 {
				return 0, i, foundNothing, err
			}
			return i, i + n, foundLine, nil
		default:
			i++
		}
	}
	if final {
		return len(b), len(b), foundLine, nil
	}
	return 0, len(b), foundNothing, nil
}

// fieldsText is the fields for the text format.
func (s *Splitter) fieldsText(line []byte, whole bool) (bool, error) {
	if bytes.IndexByte(line, '\\') < 0 {
		return s.cut(line, whole, s.plainEnd)
	}
	return s.cut(line, whole, s.textEnd)
}

// cut finds the values of the key's columns in a line. end tells where the first column of what it is given ends, -1 if with the line.
func (s *Splitter) cut(line []byte, whole bool, end func([]byte) int) (bool, error) {
	rest, more, index := line, true, 0
	for i := range s.read {
		for {
			if !more {
				return false, s.missing(line, i)
			}
			n := end(rest)
			if n < 0 && !whole {
				return false, nil
			}
			value := rest
			if n < 0 {
				rest, more = nil, false
			} else {
				value, rest = rest[:n], rest[n+1:]
			}
			if index++; index > s.keyed[i].index {
				s.fields[i] = value
				break
			}
		}
	}
	return true, nil
}

// plainEnd is where a column ends that nothing hides the delimiter in.
func (s *Splitter) plainEnd(b []byte) int { return bytes.IndexByte(b, s.copy.Delimiter) }

func (s *Splitter) textEnd(b []byte) int {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case s.copy.Delimiter:
			return i
		case '\\':
			i++
		}
	}
	return -1
}

// value is the value of the column keyed[i] as the type's input function gets it. It may be in s.scratch.
func (s *Splitter) value(i int, row []byte) (v []byte, null bool, err error) {
	raw, c := s.fields[i], &s.keyed[i]
	quoted := s.csv() && bytes.IndexByte(raw, s.copy.Quote) >= 0
	if !quoted && string(raw) == s.copy.Null {
		return raw, !c.notNull, nil
	}
	if s.times && s.copy.Default != nil && string(raw) == *s.copy.Default {
		return nil, true, nil
	}
	if s.copy.Default != nil && string(raw) == *s.copy.Default {
		return nil, false, s.at(pg.Errorf(pg.CodeFeatureNotSupported, "the sharding key's default is known only on a shard: column %q", s.columns[c.index]).
			WithHint("Give the column its value in the data."), row, -1)
	}
	switch {
	case quoted:
		s.scratch = s.unquote(s.scratch[:0], raw)
		return s.scratch, c.nullIfEqual && string(s.scratch) == s.copy.Null, nil
	case s.csv():
		return raw, false, nil
	case bytes.IndexByte(raw, '\\') < 0:
		return raw, false, nil
	}
	s.scratch = unescape(s.scratch[:0], raw)
	return s.scratch, false, nil
}

// unescape appends what a column of the text format means.
func unescape(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		c := raw[i]
		i++
		if c != '\\' {
			dst = append(dst, c)
			continue
		}
		if i == len(raw) {
			break
		}
		c = raw[i]
		i++
		switch c {
		case '0', '1', '2', '3', '4', '5', '6', '7':
			v := c - '0'
			for n := 0; n < 2 && i < len(raw) && '0' <= raw[i] && raw[i] <= '7'; n++ {
				v = v<<3 + raw[i] - '0'
				i++
			}
			c = v
		case 'x':
			v, n := byte(0), 0
			for ; n < 2 && i < len(raw); n++ {
				d, ok := rib.HexDigit(raw[i])
				if !ok {
					break
				}
				v = v<<4 | d
				i++
			}
			if n > 0 {
				c = v
			}
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'v':
			c = '\v'
		}
		dst = append(dst, c)
	}
	return dst
}
