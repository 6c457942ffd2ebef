package rib

import (
	"bytes"
	"fmt"
	"math"
	"time"
)

// What PostgreSQL's types can hold, as Value.Int has it: from 4714-11-24 BC up to the first day of 5874898, and up to the first
// microsecond of 294277. The extremes of the numbers are the infinities.
const (
	minDate    = -2451545
	endDate    = 2147483494 - 2451545
	minInstant = -211813488000000000
	endInstant = 9223371331200000000

	microsecondsPerDay = 86400 * 1000 * 1000
	epochSeconds       = 946684800 // of 2000-01-01 in Unix time
)

func validDate(n int64) bool {
	return minDate <= n && n < endDate || n == math.MinInt32 || n == math.MaxInt32
}

func validInstant(n int64) bool {
	return minInstant <= n && n < endInstant || n == math.MinInt64 || n == math.MaxInt64
}

// parseDate reads a date where it means the same under every setting: ISO 8601's YYYY-MM-DD, the year with four digits or more, with
// BC or not; and the infinities. A time and an offset behind it, as drivers
// send them, mean nothing.
func parseDate(s []byte) (Value, error) {
	v := Value{Type: TypeDate}
	b := trimSpace(s)
	if infinite(b, &v, math.MinInt32, math.MaxInt32) {
		return v, nil
	}
	c, rest, ok := scanCalendar(b)
	if ok && len(rest) > 3 && (rest[0] == ' ' || rest[0] == 'T') && rest[3] == ':' {
		_, rest, ok = scanClock(rest[1:])
	}
	if after, isBC := cutBC(rest); isBC {
		c.bc, rest = true, after
	} else if ok && len(rest) > 0 {
		_, rest, ok = scanOffset(bytes.TrimPrefix(rest, []byte(" ")))
	}
	if !ok || len(rest) > 0 {
		return Value{}, unclearTime(TypeDate, s, "Only YYYY-MM-DD, as in 2024-12-31, is read the same under every DateStyle")
	}
	days, ok := c.days()
	if v.Int = days; !ok || days < minDate || days >= endDate {
		return Value{}, timeError(TypeDate, s)
	}
	return v, nil
}

// parseInstant reads a timestamptz where it means the same under every setting: ISO 8601's date, a T or a blank, the time of day and
// its offset from UTC; and the infinities.
func parseInstant(s []byte) (Value, error) {
	v := Value{Type: TypeTimestamptz}
	b := trimSpace(s)
	if infinite(b, &v, math.MinInt64, math.MaxInt64) {
		return v, nil
	}
	const how = "Only YYYY-MM-DD HH:MM:SS.ffffff with an offset such as +02 or Z is read the same under every DateStyle and TimeZone"
	c, rest, ok := scanCalendar(b)
	if !ok || len(rest) == 0 || rest[0] != ' ' && rest[0] != 'T' {
		return Value{}, unclearTime(TypeTimestamptz, s, how)
	}
	var clock, offset int64
	clock, rest, ok = scanClock(rest[1:])
	if ok {
		offset, rest, ok = scanOffset(rest)
	}
	if after, isBC := cutBC(rest); isBC {
		c.bc, rest = true, after
	}
	if !ok || len(rest) > 0 {
		return Value{}, unclearTime(TypeTimestamptz, s, how)
	}
	days, ok := c.days()
	if !ok || days < minDate-1 || days > endInstant/microsecondsPerDay+1 {
		return Value{}, timeError(TypeTimestamptz, s)
	}
	v.Int = days*microsecondsPerDay + clock - offset
	if v.Int < minInstant || v.Int >= endInstant {
		return Value{}, timeError(TypeTimestamptz, s)
	}
	return v, nil
}

func unclearTime(t Type, s []byte, how string) error {
	return fmt.Errorf("%w: type %s: %q may mean several things. %s", ErrKeyUnclear, t, clip(s), how)
}

func timeError(t Type, s []byte) error {
	return fmt.Errorf("%w: type %s: %q", ErrKeyTime, t, clip(s))
}

// infinite reads the two infinities, which PostgreSQL holds as least and most, and reports whether it is one.
func infinite(b []byte, v *Value, least, most int64) bool {
	switch {
	case bytes.EqualFold(b, []byte("infinity")):
		v.Int = most
	case bytes.EqualFold(b, []byte("-infinity")):
		v.Int = least
	default:
		return false
	}
	return true
}

// calendar is a day as it is written.
type calendar struct {
	year, month, day int
	bc               bool
}

// scanCalendar reads YYYY-MM-DD, with up to seven digits of the year.
func scanCalendar(b []byte) (c calendar, rest []byte, ok bool) {
	n := 0
	for n < len(b) && isDigit(b[n]) {
		n++
	}
	if n < 4 || n > 7 || len(b) < n+6 || b[n] != '-' || b[n+3] != '-' {
		return c, b, false
	}
	for _, d := range b[:n] {
		c.year = c.year*10 + int(d-'0')
	}
	var ok1, ok2 bool
	c.month, ok1 = twoDigits(b[n+1:])
	c.day, ok2 = twoDigits(b[n+4:])
	rest = b[n+6:]
	return c, rest, ok1 && ok2 && (len(rest) == 0 || !isDigit(rest[0]))
}

// days since 2000-01-01; ok is false for a day that is in no calendar.
func (c calendar) days() (days int64, ok bool) {
	year := c.year
	if c.bc {
		year = 1 - year
	}
	if c.year == 0 || c.month < 1 || c.month > 12 || c.day < 1 {
		return 0, false
	}
	t := time.Date(year, time.Month(c.month), c.day, 0, 0, 0, 0, time.UTC)
	if t.Day() != c.day { // the month is shorter, and Go has gone on to the next
		return 0, false
	}
	return (t.Unix() - epochSeconds) / 86400, true
}

// cutBC cuts off the era.
func cutBC(b []byte) (rest []byte, ok bool) {
	if len(b) >= 3 && b[0] == ' ' && bytes.EqualFold(b[1:3], []byte("BC")) {
		return b[3:], true
	}
	return b, false
}

// scanClock reads HH:MM, HH:MM:SS or HH:MM:SS.ffffff, in microseconds. 24:00 and leap seconds are not read.
func scanClock(b []byte) (us int64, rest []byte, ok bool) {
	hour, ok1 := twoDigits(b)
	if !ok1 || len(b) < 5 || b[2] != ':' || hour > 23 {
		return 0, b, false
	}
	minute, ok2 := twoDigits(b[3:])
	if !ok2 || minute > 59 {
		return 0, b, false
	}
	us, rest = int64(hour*60+minute)*60e6, b[5:]
	if len(rest) == 0 || rest[0] != ':' {
		return us, rest, true
	}
	second, ok3 := twoDigits(rest[1:])
	if !ok3 || second > 59 {
		return 0, b, false
	}
	us, rest = us+int64(second)*1e6, rest[3:]
	if len(rest) == 0 || rest[0] != '.' {
		return us, rest, true
	}
	n, scale := 1, int64(100_000)
	for ; n < len(rest) && isDigit(rest[n]); n++ {
		us += int64(rest[n]-'0') * scale // what is beyond a microsecond would be rounded
		scale /= 10
	}
	return us, rest[n:], n > 1 && n <= 7
}

// scanOffset reads Z, +HH, +HHMM, +HH:MM or +HH:MM:SS, in microseconds. (The abbreviation Z is UTC in all files of
// timezone_abbreviations that PostgreSQL has.)
func scanOffset(b []byte) (us int64, rest []byte, ok bool) {
	if len(b) > 0 && b[0]|0x20 == 'z' {
		return 0, b[1:], true
	}
	if len(b) < 3 || b[0] != '+' && b[0] != '-' {
		return 0, b, false
	}
	var parts [3]int
	rest = b[1:]
	colon := false
	for i := range parts {
		if i > 0 {
			next := rest
			if len(rest) > 0 && rest[0] == ':' && (i == 1 || colon) {
				next, colon = rest[1:], true
			} else if i == 2 || colon || len(rest) == 0 || !isDigit(rest[0]) {
				break
			}
			rest = next
		}
		n, ok := twoDigits(rest)
		if !ok || i == 0 && n > 15 || n > 59 {
			return 0, b, false
		}
		parts[i], rest = n, rest[2:]
	}
	us = int64(parts[0]*3600+parts[1]*60+parts[2]) * 1e6
	if b[0] == '-' {
		us = -us
	}
	return us, rest, len(rest) == 0 || !isDigit(rest[0])
}

func twoDigits(b []byte) (n int, ok bool) {
	if len(b) < 2 || !isDigit(b[0]) || !isDigit(b[1]) {
		return 0, false
	}
	return int(b[0]-'0')*10 + int(b[1]-'0'), true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// formatDate writes a date as parseDate reads it, and as PostgreSQL does with DateStyle ISO.
func formatDate(n int64) string {
	switch n {
	case math.MinInt32:
		return "-infinity"
	case math.MaxInt32:
		return "infinity"
	}
	t := time.Unix(n*86400+epochSeconds, 0).UTC()
	year, era := yearOf(t)
	return fmt.Sprintf("%04d-%02d-%02d%s", year, t.Month(), t.Day(), era)
}

// formatInstant writes a timestamptz as parseInstant reads it, and as PostgreSQL does with DateStyle ISO and TimeZone UTC.
func formatInstant(n int64) string {
	switch n {
	case math.MinInt64:
		return "-infinity"
	case math.MaxInt64:
		return "infinity"
	}
	seconds, us := n/1e6, n%1e6
	if us < 0 {
		seconds, us = seconds-1, us+1e6
	}
	t := time.Unix(seconds+epochSeconds, us*1000).UTC()
	year, era := yearOf(t)
	return fmt.Sprintf("%04d-%02d-%02d %s+00%s", year, t.Month(), t.Day(), t.Format("15:04:05.999999"), era)
}

func yearOf(t time.Time) (year int, era string) {
	if t.Year() <= 0 {
		return 1 - t.Year(), " BC"
	}
	return t.Year(), ""
}

// trimSpace takes off what PostgreSQL skips around a value.
func trimSpace(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}
