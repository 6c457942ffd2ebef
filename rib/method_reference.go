package rib

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// MethodReference is the method of keyspaces whose tables are whole on each of their shards. They have no key: a read goes to any of the
// shards, a write to all of them. What takes the place of keys numbers the copies, so that a keyspace is the same to whoever only wants to
// know its shards: range n is the copy on its shard.
const MethodReference = "reference"

type referenceMethod struct{}

func (*referenceMethod) Name() string { return MethodReference }

func (*referenceMethod) AppendKey(dst Key, v Value) (Key, error) {
	return dst, fmt.Errorf("%w %s: reference tables have none", ErrKeyType, v.Type)
}

func (*referenceMethod) Join(dst Key, _ int) Key { return dst }

func (*referenceMethod) Predicate([]string, []Type, Key, Key) string { return "true" }

func (*referenceMethod) ParseBound(_ []Type, s string) (Key, error) {
	if s == "" {
		return nil, nil
	}
	return nil, fmt.Errorf("%w %q: reference tables have none", ErrBound, s)
}

func (m *referenceMethod) FormatKey(types []Type, k Key) string {
	switch {
	case m.CheckBound(types, k) != nil:
		return fmt.Sprintf("invalid(%x)", []byte(k))
	case len(k) == 0:
		return ""
	}
	return fmt.Sprintf("copy %d", binary.BigEndian.Uint32(k)+1)
}

func (*referenceMethod) CheckBound(_ []Type, k Key) error {
	if len(k) != 0 && len(k) != 4 {
		return fmt.Errorf("%w %x: the number of a copy is 4 bytes", ErrBound, []byte(k))
	}
	return nil
}

// ReferenceRanges are the ranges of a keyspace of the reference method, one for each shard. Epochs are zero: the ledger sets them.
func ReferenceRanges(shards []string) []Range {
	ranges := make([]Range, len(shards))
	for i, shard := range shards {
		ranges[i].Shard = shard
		if i > 0 {
			ranges[i].From = binary.BigEndian.AppendUint32(nil, uint32(i))
			ranges[i-1].To = ranges[i].From
		}
	}
	return ranges
}

// Reference tells whether the keyspace's tables are whole on each of its shards.
func (k *Keyspace) Reference() bool { return k.Method == MethodReference }

// Shards are the shards that own a part of the keyspace, sorted.
func (k *Keyspace) Shards() []string {
	var list []string
	seen := make(map[string]bool)
	for i := range k.Ranges {
		if shard := k.Ranges[i].Shard; shard != "" && !seen[shard] {
			seen[shard] = true
			list = append(list, shard)
		}
	}
	slices.Sort(list)
	return list
}

// validateCopies holds the ranges of a reference keyspace against what they mean.
func (k *Keyspace) validateCopies(fail func(string, ...any) error) error {
	if len(k.Types) > 0 {
		return fail("reference tables have no key, and %d types are given", len(k.Types))
	}
	if n := len(k.Shards()); n != len(k.Ranges) {
		return fail("reference tables have one copy on each shard, and %d shards have %d", n, len(k.Ranges))
	}
	return nil
}
