package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"rangefinder/rib"
)

// Limits of one specification. They keep a command well inside what Raft moves at once.
const (
	MaxName   = 128    // bytes of a keyspace's, shard's or request's name
	MaxTables = 256    // tables of one keyspace
	MaxShards = 4096   // shards of one keyspace
	MaxRanges = 10_000 // explicit ranges of one specification
)

// KeyspaceSpec is a keyspace as users ask for it. Its JSON form is the API's body.
type KeyspaceSpec struct {
	Name     string      `json:"name"` // for example "app.orders"
	Database string      `json:"database"`
	Method   string      `json:"method"` // "hash", "range", "list", "reference", "schema"
	Types    []string    `json:"types"`  // of the key's columns; none of reference tables
	Tables   []TableSpec `json:"tables"`
	// Who owns what, one of: Shards alone (hash: an even split; reference: those that have a copy), Shards with one Split fewer, Ranges, or Values with a Default.
	Shards []string    `json:"shards,omitempty"`
	Splits []string    `json:"splits,omitempty"` // range method: where one shard ends and the next begins
	Ranges []RangeSpec `json:"ranges,omitempty"`
	Values []ValueSpec `json:"values,omitempty"` // list method; more can be added later
	// Default is the shard of all values that are not listed. Empty: they have none, and statements about them are refused.
	Default string `json:"default,omitempty"`
	// Planned: the tables may be missing on all shards, and are made later, by CREATE TABLE through a node. Those of the method reference may have
	// no column then that each server would fill for itself.
	Planned bool `json:"planned,omitempty"`
	Origin
}

// TableSpec is one table of a keyspace.
type TableSpec struct {
	Schema  string   `json:"schema"`
	Name    string   `json:"name"`
	Columns []string `json:"columns"` // that hold the key, in the order of the keyspace's types; of a reference table see rib.KeyedTable
}

// RangeSpec gives an interval of keys to a shard.
type RangeSpec struct {
	Bounds string `json:"bounds"` // "1000-2000", "..1000", "2000.."
	Shard  string `json:"shard"`
}

// Keyspace turns the specification into a keyspace without id and epochs, or says what to change: a *RejectedError with
// reason ErrInvalid.
func (s *KeyspaceSpec) Keyspace() (*rib.Keyspace, error) {
	if err := s.names(); err != nil {
		return nil, err
	}
	method, err := rib.MethodByName(s.Method)
	if err != nil {
		return nil, reject(ErrInvalid, "method %q is not known; the methods are hash, range, list, reference and schema", s.Method)
	}
	ks := &rib.Keyspace{Name: s.Name, Database: s.Database, Method: s.Method}
	if len(s.Types) == 0 && !ks.Reference() {
		return nil, reject(ErrInvalid, "types is empty: name the type of each key column, for example bigint")
	}
	for _, name := range s.Types {
		t, err := rib.ParseType(name)
		if err != nil {
			return nil, reject(ErrInvalid, "type %q cannot be a key's; the types are %s", name, rib.TypeNames)
		}
		ks.Types = append(ks.Types, t)
	}
	ks.Tables = keyedTables(s.Tables)
	if ks.Ranges, err = s.ranges(method, ks.Types); err != nil {
		return nil, err
	}
	if err := ks.Validate(); err != nil {
		return nil, reject(ErrInvalid, "%v", err)
	}
	return ks, nil
}

// names checks what does not depend on the method.
func (s *KeyspaceSpec) names() error {
	named := func(what, v string) error {
		switch {
		case v == "":
			return reject(ErrInvalid, "%s is missing", what)
		case len(v) > MaxName:
			return reject(ErrInvalid, "%s is longer than %d bytes", what, MaxName)
		case strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }):
			return reject(ErrInvalid, "%s %q holds characters that cannot be printed", what, v)
		}
		return nil
	}
	err := errors.Join(named("the keyspace's name", s.Name), named("the database", s.Database))
	if len(s.RequestID) > MaxName {
		err = errors.Join(err, reject(ErrInvalid, "request_id is longer than %d bytes", MaxName))
	}
	if len(s.Tables) == 0 && s.Method != rib.MethodSchema {
		err = errors.Join(err, reject(ErrInvalid, "tables is empty: a keyspace needs at least one table with its key columns"))
	}
	if len(s.Tables) > MaxTables {
		err = errors.Join(err, reject(ErrInvalid, "%d tables are more than the %d that one keyspace may have", len(s.Tables), MaxTables))
	}
	for i, t := range s.Tables {
		err = errors.Join(err, named(fmt.Sprintf("tables[%d].schema", i), t.Schema), named(fmt.Sprintf("tables[%d].name", i), t.Name))
		if len(t.Columns) != len(s.Types) && s.Method != rib.MethodReference {
			err = errors.Join(err, reject(ErrInvalid, "table %s.%s names %d key columns and the keyspace has %d types: they must match one to one",
				t.Schema, t.Name, len(t.Columns), len(s.Types)))
		}
		for _, c := range t.Columns {
			err = errors.Join(err, named(fmt.Sprintf("a key column of table %s.%s", t.Schema, t.Name), c))
		}
		for _, u := range s.Tables[:i] {
			if t.Schema == u.Schema && t.Name == u.Name {
				err = errors.Join(err, reject(ErrInvalid, "table %s.%s is named twice", t.Schema, t.Name))
			}
		}
	}
	for _, shard := range s.Shards {
		err = errors.Join(err, named("a shard's name", shard))
	}
	for _, r := range s.Ranges {
		err = errors.Join(err, named(fmt.Sprintf("the shard of range %q", r.Bounds), r.Shard))
	}
	if len(s.Shards) > MaxShards {
		err = errors.Join(err, reject(ErrInvalid, "%d shards are more than the %d that one keyspace may have", len(s.Shards), MaxShards))
	}
	for _, v := range s.Values {
		err = errors.Join(err, named(fmt.Sprintf("the shard of value %q", v.Value), v.Shard))
	}
	if s.Default != "" {
		err = errors.Join(err, named("the default shard", s.Default))
	}
	if len(s.Values) > MaxRanges {
		err = errors.Join(err, reject(ErrInvalid, "more than %d values in one request: add the others later", MaxRanges))
	}
	if len(s.Ranges) > MaxRanges || len(s.Splits) > MaxRanges {
		err = errors.Join(err, reject(ErrInvalid, "more than %d ranges in one request: make fewer and split them later", MaxRanges))
	}
	return rejected(err)
}

// rejected makes one *RejectedError of several joined ones.
func rejected(err error) error {
	if err == nil {
		return nil
	}
	return reject(ErrInvalid, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
}

// ranges makes the partition of the keys that the specification asks for.
func (s *KeyspaceSpec) ranges(method rib.Method, types []rib.Type) ([]rib.Range, error) {
	listed, isList := len(s.Values) > 0 || s.Default != "", s.Method == "list" || s.Method == rib.MethodSchema
	switch {
	case s.Method == rib.MethodReference && (listed || len(s.Ranges) > 0 || len(s.Splits) > 0):
		return nil, reject(ErrInvalid, "method reference takes shards, each of which has all rows, and nothing else")
	case s.Method == rib.MethodReference && len(s.Shards) > 0:
		if err := s.shardsOnce(); err != nil {
			return nil, err
		}
		return rib.ReferenceRanges(s.Shards), nil
	case isList && (len(s.Ranges) > 0 || len(s.Shards) > 0 || len(s.Splits) > 0):
		return nil, reject(ErrInvalid, "method %s takes values and a default, not shards, splits or ranges", s.Method)
	case isList && !listed:
		return nil, reject(ErrInvalid, "who owns the keys is missing: give values with their shards, or a default shard, or both")
	case isList:
		values, err := parseValues(method, types, s.Values)
		if err != nil {
			return nil, err
		}
		ranges, err := rib.ListRanges(values, s.Default)
		return ranges, listedTwice(err, s.Values)
	case listed:
		return nil, reject(ErrInvalid, "values and a default are for the methods list and schema, not for method %s", s.Method)
	case len(s.Ranges) > 0:
		if len(s.Shards) > 0 || len(s.Splits) > 0 {
			return nil, reject(ErrInvalid, "give ranges, or shards with splits, not both")
		}
		return s.explicit(method, types)
	case len(s.Shards) == 0:
		return nil, reject(ErrInvalid, "who owns the keys is missing: give shards, or ranges with their shards")
	case len(s.Splits) > 0 || len(s.Shards) == 1:
		return s.split(method, types)
	case s.Method == "hash":
		if err := s.shardsOnce(); err != nil {
			return nil, err
		}
		return rib.EvenRanges(s.Shards), nil
	}
	return nil, reject(ErrInvalid, "method %s cannot divide the keys over %d shards by itself: give splits (%d of them, for example \"1000\"), or ranges",
		s.Method, len(s.Shards), len(s.Shards)-1)
}

func (s *KeyspaceSpec) shardsOnce() error {
	for i, shard := range s.Shards {
		if slices.Contains(s.Shards[:i], shard) {
			return reject(ErrInvalid, "shard %s is named twice", shard)
		}
	}
	return nil
}

// split gives each shard the keys up to the next split.
func (s *KeyspaceSpec) split(method rib.Method, types []rib.Type) ([]rib.Range, error) {
	if len(s.Splits) != len(s.Shards)-1 {
		return nil, reject(ErrInvalid, "%d shards need %d splits, one between each two, and there are %d", len(s.Shards), len(s.Shards)-1, len(s.Splits))
	}
	ranges := make([]rib.Range, len(s.Shards))
	for i, shard := range s.Shards {
		ranges[i].Shard = shard
	}
	for i, text := range s.Splits {
		key, err := method.ParseBound(types, text)
		if err != nil {
			return nil, reject(ErrInvalid, "split %q: %v", text, err)
		}
		if len(key) == 0 {
			return nil, reject(ErrInvalid, "a split is empty: name the first key of shard %s", s.Shards[i+1])
		}
		if i > 0 && bytes.Compare(ranges[i].From, key) >= 0 {
			return nil, reject(ErrInvalid, "split %q does not come after split %q: splits must rise", text, s.Splits[i-1])
		}
		ranges[i].To, ranges[i+1].From = key, key
	}
	return ranges, nil
}

// explicit takes the ranges as given, in any order, and says which two overlap or where nobody owns the keys.
func (s *KeyspaceSpec) explicit(method rib.Method, types []rib.Type) ([]rib.Range, error) {
	type named struct {
		rib.Range
		bounds string
	}
	all := make([]named, len(s.Ranges))
	for i, r := range s.Ranges {
		from, to, err := rib.ParseInterval(method, types, r.Bounds)
		if err != nil {
			return nil, reject(ErrInvalid, "range %q: %v", r.Bounds, err)
		}
		all[i] = named{rib.Range{From: from, To: to, Shard: r.Shard}, r.Bounds}
	}
	slices.SortFunc(all, func(a, b named) int { return bytes.Compare(a.From, b.From) })
	show := func(k rib.Key) string { return method.FormatKey(types, k) }
	if first := all[0]; len(first.From) > 0 {
		return nil, reject(ErrInvalid, "no range holds the keys before %s: let the first range be open, \"..%s\"", show(first.From), show(first.From))
	}
	for i := 1; i < len(all); i++ {
		a, b := all[i-1], all[i]
		switch {
		case len(a.To) == 0 || bytes.Compare(b.From, a.To) < 0:
			return nil, reject(ErrInvalid, "ranges %q (%s) and %q (%s) overlap", a.bounds, a.Shard, b.bounds, b.Shard)
		case !bytes.Equal(a.To, b.From):
			return nil, reject(ErrInvalid, "no range holds the keys from %s to %s, between %q and %q", show(a.To), show(b.From), a.bounds, b.bounds)
		}
	}
	if last := all[len(all)-1]; len(last.To) > 0 {
		return nil, reject(ErrInvalid, "no range holds the keys from %s on: let the last range be open, \"%s..\"", show(last.To), show(last.To))
	}
	ranges := make([]rib.Range, len(all))
	for i := range all {
		ranges[i] = all[i].Range
	}
	return ranges, nil
}
