package scatter

import (
	"bytes"
	"cmp"
)

// instant is a date or a time as PostgreSQL writes it in ISO 8601: 2024-12-31, 2024-12-31 23:59:59.25+01, 0044-03-15 BC, infinity.
type instant struct {
	class int8 // -1: -infinity, 1: infinity
	days  int64
	us    int64 // of the day, in UTC if an offset is told: it may be below 0, or beyond the day
}

// compareTimes compares dates and times as text.
func compareTimes(a, b []byte) int {
	x, ok := readInstant(a)
	y, okay := readInstant(b)
	if !ok || !okay {
		return bytes.Compare(a, b)
	}
	const day = 24 * 60 * 60 * 1_000_000
	for _, t := range [2]*instant{&x, &y} {
		for t.us < 0 {
			t.us, t.days = t.us+day, t.days-1
		}
		for t.us >= day {
			t.us, t.days = t.us-day, t.days+1
		}
	}
	return cmp.Or(cmp.Compare(x.class, y.class), cmp.Compare(x.days, y.days), cmp.Compare(x.us, y.us))
}

func readInstant(v []byte) (t instant, ok bool) {
	switch string(v) {
	case "infinity":
		return instant{class: 1}, true
	case "-infinity":
		return instant{class: -1}, true
	}
	rest, before := bytes.CutSuffix(v, []byte(" BC"))
	s := scan{rest: rest}
	year, month, day := s.number(), int64(0), int64(0)
	s.skip('-')
	month = s.number()
	s.skip('-')
	day = s.number()
	if before {
		year = 1 - year
	}
	t.days = daysOf(year, month, day)
	if len(s.rest) == 0 {
		return t, !s.bad
	}
	s.skip(' ')
	h := s.number()
	s.skip(':')
	m := s.number()
	s.skip(':')
	sec := s.number()
	t.us = ((h*60+m)*60 + sec) * 1_000_000
	if len(s.rest) > 0 && s.rest[0] == '.' {
		s.rest = s.rest[1:]
		unit := int64(100_000)
		for len(s.rest) > 0 && s.rest[0] >= '0' && s.rest[0] <= '9' && unit > 0 {
			t.us += int64(s.rest[0]-'0') * unit
			s.rest, unit = s.rest[1:], unit/10
		}
	}
	if len(s.rest) == 0 {
		return t, !s.bad
	}
	sign := int64(1) // east of Greenwich it is later
	if s.rest[0] == '-' {
		sign = -1
	} else if s.rest[0] != '+' {
		return t, false
	}
	s.rest = s.rest[1:]
	offset := s.number() * 3600
	for _, unit := range [2]int64{60, 1} {
		if len(s.rest) > 0 {
			s.skip(':')
			offset += s.number() * unit
		}
	}
	t.us -= sign * offset * 1_000_000
	return t, !s.bad && len(s.rest) == 0
}

type scan struct {
	rest []byte
	bad  bool
}

func (s *scan) number() (n int64) {
	i := 0
	for i < len(s.rest) && i < 9 && s.rest[i] >= '0' && s.rest[i] <= '9' {
		n = n*10 + int64(s.rest[i]-'0')
		i++
	}
	s.bad = s.bad || i == 0
	s.rest = s.rest[i:]
	return n
}

func (s *scan) skip(c byte) {
	if len(s.rest) == 0 || s.rest[0] != c {
		s.bad = true
		return
	}
	s.rest = s.rest[1:]
}

// daysOf numbers days by the Gregorian calendar.
func daysOf(year, month, day int64) int64 {
	if month <= 2 { // years that begin in March end with the day that may be missing
		year, month = year-1, month+12
	}
	era := year / 400
	if year < 0 {
		era = (year - 399) / 400
	}
	of := year - era*400
	return era*146097 + of*365 + of/4 - of/100 + (153*(month-3)+2)/5 + day
}
