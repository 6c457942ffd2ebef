package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"

	"rangefinder/rib"
)

// ValueSpec gives a value to a shard.
type ValueSpec struct {
	Value string `json:"value"` // "de"; the values of several columns are separated by commas, and quoted if need be: "'a,b',5"
	Shard string `json:"shard"`
}

// ValuesSpec are values that a keyspace of the list method is to have from now on. Its JSON form is the API's body.
type ValuesSpec struct {
	Keyspace string      `json:"keyspace"` // its name
	Values   []ValueSpec `json:"values"`
	Origin
}

// With is the keyspace as it would be with the values, or a *RejectedError that says why it cannot be.
func (s *ValuesSpec) With(o *rib.Ownership) (*rib.Keyspace, error) {
	ks := o.KeyspaceByName(s.Keyspace)
	switch {
	case ks == nil:
		return nil, reject(ErrNoKeyspace, "there is no keyspace named %s", s.Keyspace)
	case len(s.Values) == 0:
		return nil, reject(ErrInvalid, "values is empty: name at least one value with its shard")
	case len(s.Values) > MaxRanges:
		return nil, reject(ErrInvalid, "more than %d values in one request", MaxRanges)
	case len(s.RequestID) > MaxName:
		return nil, reject(ErrInvalid, "request_id is longer than %d bytes", MaxName)
	}
	if err := listOnly(ks); err != nil {
		return nil, err
	}
	for _, v := range s.Values {
		if v.Shard == "" || len(v.Shard) > MaxName {
			return nil, reject(ErrInvalid, "the shard of value %s is missing, or longer than %d bytes", v.Value, MaxName)
		}
	}
	values, err := valuesOf(ks, s.Values)
	if err != nil {
		return nil, err
	}
	with := *ks
	if with.Ranges, err = ks.WithValues(values, rib.Epoch{}); err != nil {
		return nil, listedTwice(err, s.Values)
	}
	if err := stay(ks, s.Values); err != nil {
		return nil, err
	}
	return &with, listedElsewhere(o, &with)
}

// AddValues gives values of a list to shards and returns the keyspace with them. Errors and the rest are as for CreateKeyspace.
func (l *Ledger) AddValues(ctx context.Context, spec ValuesSpec) (*rib.Keyspace, error) {
	if spec.RequestID == "" {
		spec.RequestID = rand.Text()
	}
	ks := l.cfg.Owners.Get().KeyspaceByName(spec.Keyspace)
	if ks == nil {
		return nil, reject(ErrNoKeyspace, "there is no keyspace named %s", spec.Keyspace)
	}
	values, err := valuesOf(ks, spec.Values)
	if err != nil {
		return nil, err
	}
	c := &valuesCommand{Keyspace: spec.Keyspace}
	for _, v := range values {
		c.Values = append(c.Values, valueAndKey{v.Key, v.Shard})
	}
	r, err := l.propose(ctx, &command{Kind: kindValues, Request: spec.RequestID, Values: c, By: l.sign(spec.Origin)})
	if err != nil {
		return nil, err
	}
	if r.keyspace == nil {
		return nil, reject(ErrRequestReused, "request id %q belongs to a command that added no values: use a new one", spec.RequestID)
	}
	return r.keyspace, nil
}

// valuesOf reads the values that a keyspace is to have.
func valuesOf(ks *rib.Keyspace, specs []ValueSpec) ([]rib.ListedValue, error) {
	method, err := rib.MethodByName(ks.Method)
	if err != nil {
		return nil, reject(ErrInvalid, "%v", err)
	}
	return parseValues(method, ks.Types, specs)
}

// parseValues reads the values of a list.
func parseValues(method rib.Method, types []rib.Type, specs []ValueSpec) ([]rib.ListedValue, error) {
	values := make([]rib.ListedValue, len(specs))
	for i, v := range specs {
		key, err := method.ParseBound(types, v.Value)
		if err != nil {
			return nil, reject(ErrInvalid, "value %q: %v", v.Value, err)
		}
		if len(key) == 0 {
			return nil, reject(ErrInvalid, "a value of shard %s is missing: write '' for the empty text", v.Shard)
		}
		values[i] = rib.ListedValue{Key: key, Shard: v.Shard}
	}
	return values, nil
}

// listedTwice names the value that a list holds already; nil if err is.
func listedTwice(err error, specs []ValueSpec) error {
	var listed *rib.ListedError
	if errors.As(err, &listed) {
		return reject(ErrValueTaken, "value %s belongs to shard %s already", specs[listed.Value].Value, listed.Shard)
	}
	return err
}

// stay refuses values that would leave the default shard. Nobody keeps a node that has not heard of it from writing them there: that takes
// a move.
func stay(ks *rib.Keyspace, specs []ValueSpec) error {
	for _, v := range specs {
		if others := ks.Ranges[0].Shard; others != "" && v.Shard != others {
			return reject(ErrValueTaken, "value %s belongs to the default shard %s already: it can be listed for that one alone, for ranges cannot be moved yet", v.Value, others)
		}
	}
	return nil
}

// addValues gives values to a keyspace of the list method and returns it as it is in the new table.
func addValues(next *draft, c *valuesCommand) (*rib.Keyspace, error) {
	ks, p, err := next.edit(c.Keyspace)
	if err != nil {
		return nil, err
	}
	if err := listOnly(ks); err != nil {
		return nil, err
	}
	method, err := rib.MethodByName(ks.Method)
	if err != nil {
		return nil, reject(ErrInvalid, "%v", err)
	}
	values, specs := make([]rib.ListedValue, len(c.Values)), make([]ValueSpec, len(c.Values))
	for i, v := range c.Values {
		values[i] = rib.ListedValue{Key: v.Key, Shard: v.Shard}
		specs[i] = ValueSpec{Value: method.FormatKey(ks.Types, v.Key), Shard: v.Shard}
		if !slices.ContainsFunc(next.Shards, func(s rib.Shard) bool { return s.Name == v.Shard }) {
			return nil, reject(ErrUnknownShard, "shard %s is not known: no node has reached a server of it yet, or its name is misspelt", v.Shard)
		}
	}
	whole := *ks
	whole.Ranges = (*p).ranges()
	ranges, err := whole.WithValues(values, next.Epoch)
	if err != nil {
		return nil, listedTwice(err, specs)
	}
	if err := stay(&whole, specs); err != nil {
		return nil, err
	}
	whole.Ranges = ranges
	if err := whole.Validate(); err != nil {
		return nil, reject(ErrInvalid, "%v", err)
	}
	*p = newPartition(ranges)
	return ks, nil
}

// listOnly refuses keyspaces of other methods.
func listOnly(ks *rib.Keyspace) error {
	if !ks.Listed() {
		return reject(ErrInvalid, "keyspace %s shards by %s: values are given to keyspaces of the methods list and schema", ks.Name, ks.Method)
	}
	return nil
}
