package node

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time as the configuration writes it: a string with a unit, "250ms", "10s", "1m30s". It is a
// struct, so that a bare number in the file is refused instead of being read as nanoseconds.
type Duration struct{ time.Duration }

// UnmarshalText reads Go's duration syntax. A number without a unit and a negative duration are errors that say so.
func (d *Duration) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if n, err := strconv.ParseFloat(s, 64); err == nil && n != 0 {
		return fmt.Errorf("%q has no unit: write %q or %q", s, s+"s", s+"ms")
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration: write a number with a unit, for example \"250ms\", \"10s\" or \"1m30s\"", s)
	}
	if v < 0 {
		return fmt.Errorf("%q is negative", s)
	}
	d.Duration = v
	return nil
}

// MarshalText writes what UnmarshalText reads, without the zero units that time.Duration adds ("1m0s" is "1m").
func (d Duration) MarshalText() ([]byte, error) {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return []byte(s), nil
}

// Size is a number of bytes as the configuration writes it: a string with a unit, "64KiB", "16MiB", "1GiB".
type Size struct{ Bytes int64 }

// sizeUnits are the units of Size, largest first so that printing picks the shortest form.
func sizeUnits() []struct {
	name  string
	bytes int64
} {
	return []struct {
		name  string
		bytes int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}
}

// UnmarshalText reads a whole number and a unit (B, KiB, MiB, GiB).
func (z *Size) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	for _, u := range sizeUnits() {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/u.bytes {
			break
		}
		z.Bytes = n * u.bytes
		return nil
	}
	return fmt.Errorf("%q is not a size: write a whole number with a unit, for example \"64KiB\", \"16MiB\" or \"1GiB\"", s)
}

// MarshalText writes the largest unit that divides the size.
func (z Size) MarshalText() ([]byte, error) { return []byte(z.String()), nil }

// String writes the largest unit that divides the size.
func (z Size) String() string {
	for _, u := range sizeUnits() {
		if z.Bytes >= u.bytes && z.Bytes%u.bytes == 0 {
			return strconv.FormatInt(z.Bytes/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(z.Bytes, 10) + "B"
}
