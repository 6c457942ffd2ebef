package rib

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// MaxBoundText is how many bytes a bound may have as text. No row's key comes near it: an entry of PostgreSQL's indexes has less.
const MaxBoundText = 4 << 10

// checkLength refuses a text that is too long, before it is in errors, in the history and on every node.
func checkLength(s string, most int) error {
	if len(s) <= most {
		return nil
	}
	return fmt.Errorf("%w: it is written in %d bytes, and %d are the most", ErrBound, len(s), most)
}

// ParseInterval reads a half-open interval [from, to) of keys: "1000..2000", "..1000", "1000..", ".." for all, and where it
// is clear, one hyphen for the dots: "1000-2000". Negative numbers, texts with hyphens and uuids want the dots. The order
// of the two is checked; nil is the open end, as is the lowest key that there can be: nothing comes before it.
func ParseInterval(m Method, types []Type, s string) (from, to Key, err error) {
	return parseInterval(m, types, s, func(k Key) bool { return Lowest(m, types, k) })
}

// parseInterval takes those bounds for the open end that no key comes before.
func parseInterval(m Method, types []Type, s string, lowest func(Key) bool) (from, to Key, err error) {
	if err := checkLength(s, 2*MaxBoundText+len("..")); err != nil {
		return nil, nil, err
	}
	low, high, ok := cutDots(s)
	if !ok {
		low, high, ok = strings.Cut(s, "-")
		if !ok || low == "" || high == "" || strings.ContainsAny(s, "'") || strings.Contains(high, "-") {
			return nil, nil, fmt.Errorf("%w %q: an interval is FROM..TO, where either may be left out", ErrBound, s)
		}
	}
	if from, err = m.ParseBound(types, strings.TrimSpace(low)); err != nil {
		return nil, nil, err
	}
	if to, err = m.ParseBound(types, strings.TrimSpace(high)); err != nil {
		return nil, nil, err
	}
	if lowest(to) {
		return nil, nil, fmt.Errorf("%w %q: it holds no key, since there is none below %s", ErrBound, s, m.FormatKey(types, to))
	}
	if lowest(from) {
		from = nil
	}
	if len(to) > 0 && from.Compare(to) >= 0 {
		return nil, nil, fmt.Errorf("%w %q: it holds no key, since it ends at or before its start", ErrBound, s)
	}
	return from, to, nil
}

// Lowest tells whether no key comes before a bound, which is not the open end: each of its columns has the least value of the type.
func Lowest(m Method, types []Type, bound Key) bool {
	if len(bound) == 0 {
		return false
	}
	if _, ok := m.(*hashMethod); ok {
		return bytes.Count(bound, []byte{0}) == len(bound)
	}
	r, ok := m.(*rangeMethod)
	if !ok {
		return false
	}
	values, err := r.decode(types, bound)
	return err == nil && !slices.ContainsFunc(values, func(v Value) bool { return !v.least() })
}

// ParseInterval reads an interval of the keyspace's keys as the function of this name does; of a list, one listed value. A keyspace may have a range that begins at the
// lowest key, of earlier versions: that bound is one then, so that the range before it, which holds no key, can be given to the next one's owner, and merged with it.
func (k *Keyspace) ParseInterval(s string) (from, to Key, err error) {
	m, err := MethodByName(k.Method)
	if err != nil {
		return nil, nil, err
	}
	if !k.Listed() {
		return parseInterval(m, k.Types, s, func(at Key) bool {
			return Lowest(m, k.Types, at) && !slices.ContainsFunc(k.Ranges[:min(2, len(k.Ranges))], func(r Range) bool { return at.Compare(r.From) == 0 })
		})
	}
	if from, err = m.ParseBound(k.Types, s); err != nil {
		return nil, nil, err
	}
	if len(from) == 0 {
		return nil, nil, fmt.Errorf("%w: name a listed value", ErrBound)
	}
	return from, after(from), nil
}

// FormatInterval writes an interval of the keyspace's keys as ParseInterval reads it.
func (k *Keyspace) FormatInterval(from, to Key) string {
	m, err := MethodByName(k.Method)
	if err != nil {
		return fmt.Sprintf("%x..%x", []byte(from), []byte(to))
	}
	return FormatInterval(m, k.Types, from, to)
}

// FormatInterval writes [from, to) as ParseInterval reads it; of the list method a value, or "other values".
func FormatInterval(m Method, types []Type, from, to Key) string {
	if l, ok := m.(interface {
		formatInterval(types []Type, from, to Key) string
	}); ok { // a list, by schema too
		return l.formatInterval(types, from, to)
	}
	return m.FormatKey(types, from) + ".." + m.FormatKey(types, to)
}

// cutDots splits at the first ".." that stands outside quotes.
func cutDots(s string) (before, after string, found bool) {
	quoted := false
	for i := range len(s) {
		if s[i] == '\'' {
			quoted = !quoted
		}
		if !quoted && strings.HasPrefix(s[i:], "..") {
			return s[:i], s[i+2:], true
		}
	}
	return s, "", false
}
