package rib

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"sort"
)

// maxColumns bounds a key: PostgreSQL's own limit for an index.
const maxColumns = 32

// EvenRanges splits the 64-bit positions of the hash method evenly among the shards, in their order. Epochs are zero: the
// ledger sets them.
func EvenRanges(shards []string) []Range {
	ranges := make([]Range, len(shards))
	for i, shard := range shards {
		ranges[i].Shard = shard
		if i > 0 {
			// i * 2^64 / n, without the 65th bit.
			cut, _ := bits.Div64(uint64(i), 0, uint64(len(shards)))
			ranges[i].From = binary.BigEndian.AppendUint64(nil, cut)
			ranges[i-1].To = ranges[i].From
		}
	}
	return ranges
}

// Validate tells whether the keyspace holds together: known method and types, named tables and columns, ranges that cover
// every key once. It wraps ErrKeyspace and names what to fix.
func (k *Keyspace) Validate() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w %q: "+format, append([]any{ErrKeyspace, k.Name}, args...)...)
	}
	if k.Name == "" {
		return fmt.Errorf("%w: it has no name", ErrKeyspace)
	}
	m, err := MethodByName(k.Method)
	if err != nil {
		return fail("%w", err)
	}
	if (len(k.Types) == 0 || len(k.Types) > maxColumns) && !k.Reference() {
		return fail("its key has %d columns; 1 to %d are possible", len(k.Types), maxColumns)
	}
	for _, t := range k.Types {
		if _, err := ParseType(t.String()); err != nil {
			return fail("%w", err)
		}
	}
	if err := k.validateTables(fail); err != nil {
		return err
	}
	return k.validateRanges(m, fail)
}

func (k *Keyspace) validateTables(fail func(string, ...any) error) error {
	seen := make(map[[2]string]bool, len(k.Tables))
	for _, t := range k.Tables {
		if t.Schema == "" || t.Name == "" {
			return fail("a table wants a schema and a name, not %q.%q", t.Schema, t.Name)
		}
		id := [2]string{t.Schema, t.Name}
		if seen[id] {
			return fail("table %s.%s is listed twice", t.Schema, t.Name)
		}
		seen[id] = true
		if len(t.Columns) != len(k.Types) && !k.Reference() {
			return fail("table %s.%s has %d key columns, the key has %d", t.Schema, t.Name, len(t.Columns), len(k.Types))
		}
		for i, c := range t.Columns {
			if c == "" {
				return fail("column %d of table %s.%s has no name", i+1, t.Schema, t.Name)
			}
			if slices.Contains(t.Columns[:i], c) {
				return fail("column %s of table %s.%s is listed twice", c, t.Schema, t.Name)
			}
		}
	}
	return nil
}

func (k *Keyspace) validateRanges(m Method, fail func(string, ...any) error) error {
	name := func(r *Range) string {
		return "[" + FormatInterval(m, k.Types, r.From, r.To) + ") of " + r.Shard
	}
	if len(k.Ranges) == 0 {
		return fail("it has no ranges")
	}
	last := &k.Ranges[len(k.Ranges)-1]
	if len(k.Ranges[0].From) > 0 {
		return fail("its first range %s leaves a gap before it", name(&k.Ranges[0]))
	}
	if len(last.To) > 0 {
		return fail("its last range %s leaves a gap behind it", name(last))
	}
	for i := range k.Ranges {
		r := &k.Ranges[i]
		if r.Shard == "" && !k.Listed() {
			return fail("range %s has no shard", name(r))
		}
		if err := m.CheckBound(k.Types, r.From); err != nil {
			return fail("%w", err)
		}
		if i == 0 {
			continue
		}
		before := &k.Ranges[i-1]
		// Only the last range may be open above: an empty To in the middle reaches to the end and overlaps.
		switch c := before.To.Compare(r.From); {
		case len(before.To) == 0 || c > 0:
			return fail("ranges %s and %s overlap, or are out of order", name(before), name(r))
		case c < 0:
			return fail("ranges %s and %s leave a gap between them", name(before), name(r))
		}
		if before.From.Compare(before.To) >= 0 {
			return fail("range %s holds no key", name(before))
		}
	}
	switch {
	case k.Listed():
		if err := k.validateList(fail); err != nil || !k.BySchema() {
			return err
		}
		return k.validateSchemas(fail)
	case k.Reference():
		return k.validateCopies(fail)
	}
	return nil
}

// Owner is the index of the range that holds key: the reference that the compiled index is tested against. It requires a
// valid keyspace.
func (k *Keyspace) Owner(key Key) (i int) {
	return sort.Search(len(k.Ranges)-1, func(i int) bool { return k.Ranges[i+1].From.Compare(key) > 0 })
}
