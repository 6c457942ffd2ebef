package rib

import (
	"fmt"
	"slices"
)

// listMethod gives each listed value an owner, and all others one or none. Keys are those of the range method. The ranges of a list
// take turns: values that are not listed, one that is, and so on. A value's range ends where its key is followed by a NUL: no key of the
// same types begins with another one, so nothing lies between.
type listMethod struct{ rangeMethod }

func (*listMethod) Name() string { return "list" }

// after is the bound behind a listed key.
func after(k Key) Key { return append(slices.Clip(k), 0) }

// bound takes a bound apart: the key, and whether the bound is behind it.
func (m *listMethod) bound(types []Type, k Key) (values []Value, behind bool, err error) {
	values, err = m.decode(types, k)
	if n := len(k); err != nil && n > 0 && k[n-1] == 0 {
		if before, errBefore := m.decode(types, k[:n-1]); errBefore == nil {
			values, behind, err = before, true, nil
		}
	}
	if err == nil && len(k) > 0 && len(values) != len(types) {
		err = fmt.Errorf("%w %x: a listed value has all of the %d columns", ErrBound, []byte(k), len(types))
	}
	return values, behind, err
}

func (m *listMethod) CheckBound(types []Type, k Key) error {
	_, _, err := m.bound(types, k)
	return err
}

func (m *listMethod) Predicate(columns []string, types []Type, from, to Key) string {
	exprs := m.exprs(columns, types)
	if len(from) > 0 && after(from).Compare(to) == 0 {
		values, _, err := m.bound(types, from)
		var terms []string
		for i, l := range literals(values, err) {
			terms = append(terms, comparison(exprs[i:], "=", []string{l})...)
		}
		return conjunction(columns[:1], terms, false) // an equality is never true for NULL
	}
	var terms []string
	compare := func(k Key, at, behind string) {
		values, isBehind, err := m.bound(types, k)
		op := at
		if isBehind {
			op = behind
		}
		terms = append(terms, comparison(exprs, op, literals(values, err))...)
	}
	compare(from, ">=", ">")
	compare(to, "<", "<=")
	return conjunction(columns, terms, false)
}

// ParseBound reads a value, which is the bound before it.
func (m *listMethod) ParseBound(types []Type, s string) (Key, error) {
	k, err := m.rangeMethod.ParseBound(types, s)
	if err == nil {
		err = m.CheckBound(types, k)
	}
	return k, err
}

func (m *listMethod) FormatKey(types []Type, k Key) string {
	if _, behind, err := m.bound(types, k); err == nil && behind {
		return "after " + m.rangeMethod.FormatKey(types, k[:len(k)-1])
	}
	return m.rangeMethod.FormatKey(types, k)
}

// formatInterval writes a value, or that they are the others.
func (m *listMethod) formatInterval(types []Type, from, to Key) string {
	if len(from) > 0 && after(from).Compare(to) == 0 {
		return m.FormatKey(types, from)
	}
	return "other values"
}

// ListedValue is a value of a list, as its key, and the shard that owns it.
type ListedValue struct {
	Key   Key
	Shard string
}

// ListRanges are the ranges of a list. others is the shard of all values that are not listed; "" if they have none. Epochs are zero:
// the ledger sets them.
func ListRanges(values []ListedValue, others string) ([]Range, error) {
	k := Keyspace{Method: (*listMethod)(nil).Name(), Ranges: []Range{{Shard: others}}}
	return k.WithValues(values, Epoch{})
}

// WithValues are the ranges of a keyspace of the list method with further values, whose ranges have the epoch given. An error names
// the value, by its place, that is listed already.
func (k *Keyspace) WithValues(values []ListedValue, epoch Epoch) ([]Range, error) {
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return values[a].Key.Compare(values[b].Key) })
	ranges := make([]Range, 0, len(k.Ranges)+2*len(values))
	current, rest := k.Ranges[0], k.Ranges[1:]
	for n, i := range order {
		v := &values[i]
		if n > 0 && values[order[n-1]].Key.Compare(v.Key) == 0 {
			return nil, &ListedError{Value: i, Shard: values[order[n-1]].Shard}
		}
		for len(current.To) > 0 && current.To.Compare(v.Key) <= 0 {
			ranges, current, rest = append(ranges, current), rest[0], rest[1:]
		}
		end := after(v.Key)
		if len(current.From) > 0 && current.From.Compare(v.Key) == 0 && current.To.Compare(end) == 0 {
			return nil, &ListedError{Value: i, Shard: current.Shard}
		}
		before := current
		before.To = v.Key
		ranges = append(ranges, before, Range{From: v.Key, To: end, Shard: v.Shard, Epoch: epoch})
		current.From = end
	}
	return append(append(ranges, current), rest...), nil
}

// ListedError says that a value is listed already.
type ListedError struct {
	Value int    // its place among those to be added
	Shard string // that owns it
}

// Error says so in short: who knows the value's text says more.
func (e *ListedError) Error() string {
	return fmt.Sprintf("value %d is listed already, with shard %s", e.Value+1, e.Shard)
}

// validateList holds the ranges against what a list looks like.
func (k *Keyspace) validateList(fail func(string, ...any) error) error {
	m := &listMethod{}
	if len(k.Ranges)%2 == 0 {
		return fail("a list of values has an odd number of ranges, not %d", len(k.Ranges))
	}
	others := k.Ranges[0].Shard
	for i := range k.Ranges {
		r := &k.Ranges[i]
		if i%2 == 0 {
			if r.Shard != others {
				return fail("values that are not listed have the shards %s and %s", orNobody(others), orNobody(r.Shard))
			}
			continue
		}
		if _, behind, err := m.bound(k.Types, r.From); err != nil || behind || after(r.From).Compare(r.To) != 0 {
			return fail("the range [%x, %x) is not one listed value", []byte(r.From), []byte(r.To))
		}
		if r.Shard == "" {
			return fail("the value %s has no shard", m.FormatKey(k.Types, r.From))
		}
	}
	return nil
}

func orNobody(shard string) string {
	if shard == "" {
		return "(none)"
	}
	return shard
}
