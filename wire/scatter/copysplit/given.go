package copysplit

import (
	"encoding/binary"
	"strconv"
	"strings"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// givable tells what is in the way of giving rows more columns; nil: nothing is.
func (s *Splitter) givable() error {
	if len(s.given) == 0 || s.copy.Format == sqlkey.CopyBinary {
		return nil
	}
	signs := string([]byte{s.copy.Delimiter, s.copy.Quote, s.copy.Escape})
	if !s.csv() {
		signs = string([]byte{s.copy.Delimiter})
	}
	if strings.ContainsAny(signs, "0123456789") {
		return pg.NewError(pg.CodeFeatureNotSupported, "COPY cannot give rows numbers where a digit is a delimiter, a quote or an escape").
			WithHint("Use other signs, or add the columns to COPY's list of columns, and to the data.")
	}
	for _, name := range s.given {
		odd := func(r rune) bool { return r < ' ' || r > '~' || r == '\\' || strings.ContainsRune(signs, r) }
		if s.copy.Header && strings.ContainsFunc(name, odd) {
			return pg.Errorf(pg.CodeFeatureNotSupported, "COPY cannot write the name of column %q into the header", name).
				WithHint("Leave HEADER out, or add the column to COPY's list of columns, and to the data.")
		}
	}
	return nil
}

// number makes the numbers of the row in hand, unless they are made. None looks like NULL or a default.
func (s *Splitter) number() error {
	for len(s.numbers) < len(s.given) {
		n, err := s.next()
		if err != nil {
			return err
		}
		if text := strconv.FormatInt(n, 10); s.copy.Format != sqlkey.CopyBinary && (text == s.copy.Null || s.copy.Default != nil && text == *s.copy.Default) {
			continue
		}
		s.numbers = append(s.numbers, n)
	}
	return nil
}

// names are the given columns' names as they stand at the end of a header.
func (s *Splitter) names() (b []byte) {
	for _, name := range s.given {
		b = append(append(b, s.copy.Delimiter), name...)
	}
	return b
}

// pass passes on the end of a row, or all of it: whole, of which the given columns' values follow end bytes. first: it begins with a count of columns.
func (s *Splitter) pass(shard int, whole []byte, end int, first bool) error {
	if len(s.given) == 0 {
		line, lines := s.advance()
		return s.sink.Row(shard, whole, line, lines)
	}
	if err := s.number(); err != nil {
		return err
	}
	if err := s.begins(shard, whole[:end], first); err != nil {
		return err
	}
	s.tail = s.tail[:0]
	for _, n := range s.numbers {
		switch s.copy.Format {
		case sqlkey.CopyBinary:
			s.tail = binary.BigEndian.AppendUint64(append(s.tail, 0, 0, 0, 8), uint64(n))
		case sqlkey.CopyCSV: // in quotes it is no NULL
			s.tail = append(strconv.AppendInt(append(s.tail, s.copy.Delimiter, s.copy.Quote), n, 10), s.copy.Quote)
		default:
			s.tail = strconv.AppendInt(append(s.tail, s.copy.Delimiter), n, 10)
		}
	}
	s.tail = append(s.tail, whole[end:]...)
	line, lines := s.advance()
	return s.sink.Row(shard, s.tail, line, lines)
}

// begins passes on a part of a row that is not its end. first: it begins with the count of its columns, which are more for the shard.
func (s *Splitter) begins(shard int, b []byte, first bool) error {
	if first && len(s.given) > 0 {
		count := binary.BigEndian.AppendUint16(nil, uint16(len(s.columns)+len(s.given)))
		if err := s.sink.Row(shard, count, 0, 0); err != nil {
			return err
		}
		b = b[len(count):]
	}
	return s.sink.Row(shard, b, 0, 0)
}

// timely refuses a row in which a text is another time on each server.
func (s *Splitter) timely(row []byte) error {
	for i := range s.read {
		v, null, err := s.value(i, row)
		if err != nil {
			return err
		}
		if !null && sqlkey.TellsNow(string(v)) {
			e := pg.Errorf(pg.CodeFeatureNotSupported, "a value of column %q would be another time on each shard", s.columns[s.keyed[i].index]).
				WithDetail("All copies of a reference table get the same data, and each server takes now, today, tomorrow and yesterday for its own.").
				WithHint("Write the time itself.")
			return s.at(e, row, i)
		}
	}
	return nil
}
