package rib

import (
	"fmt"
	"strings"
)

// ParseInterval reads a half-open interval [from, to) of keys: "1000..2000", "..1000", "1000..", ".." for all, and where it
// is clear, one hyphen for the dots: "1000-2000". Negative numbers, texts with hyphens and uuids want the dots. The order
// of the two is checked; nil is the open end.
func ParseInterval(m Method, types []Type, s string) (from, to Key, err error) {
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
	if len(to) > 0 && from.Compare(to) >= 0 {
		return nil, nil, fmt.Errorf("%w %q: it holds no key, since it ends at or before its start", ErrBound, s)
	}
	return from, to, nil
}

// ParseInterval reads an interval of the keyspace's keys as the function of this name does; of a list, one listed value.
func (k *Keyspace) ParseInterval(s string) (from, to Key, err error) {
	m, err := MethodByName(k.Method)
	if err != nil {
		return nil, nil, err
	}
	if !k.Listed() {
		return ParseInterval(m, k.Types, s)
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
