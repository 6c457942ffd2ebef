package cluster

import (
	"bytes"
	"slices"

	"rangefinder/rib"
)

// What changes ranges, as commands are applied: pure, and checked again here, whoever has checked before.

// Limits of one command.
const (
	MaxSplits         = 100     // bounds of one split
	MaxReason         = 1024    // bytes of a reason
	MaxKeyspaceRanges = 2 << 20 // ranges of one keyspace
)

// divided refuses keyspaces whose ranges have a meaning of their own.
func divided(ks *rib.Keyspace, what string) error {
	if ks.Listed() || ks.Reference() {
		return reject(ErrInvalid, "keyspace %s shards by %s: its ranges cannot be %s, only those of the methods hash and range can", ks.Name, ks.Method, what)
	}
	return nil
}

// checkInterval refuses what is no range of the keyspace.
func checkInterval(ks *rib.Keyspace, p *partition, low, high rib.Key) error {
	m, err := rib.MethodByName(ks.Method)
	if err != nil {
		return reject(ErrInvalid, "%v", err)
	}
	for _, key := range []rib.Key{low, high} {
		if err := m.CheckBound(ks.Types, key); err != nil {
			return reject(ErrInvalid, "%v", err)
		}
	}
	if len(high) > 0 && low.Compare(high) >= 0 {
		return reject(ErrInvalid, "the range %s holds no key: it ends at or before its start", ks.FormatInterval(low, high))
	}
	if !ks.Listed() {
		return nil
	}
	if i := p.find(low); i%2 == 0 || p.at(i).From.Compare(low) != 0 || p.at(i).To.Compare(high) != 0 {
		return reject(ErrInvalid, "keyspace %s lists values: name one of them, alone", ks.Name)
	}
	return nil
}

// still refuses a range of which a part is under a move.
func still(o *rib.Ownership, ks *rib.Keyspace, low, high rib.Key) error {
	for i := range o.Moves {
		if m := &o.Moves[i]; m.Keyspace == ks.ID && m.Meets(low, high) {
			until := "wait until that is over"
			if m.Phase.Ahead() {
				until += ", or abort it"
			}
			e := reject(ErrMoving, "range %s of keyspace %s is under move %d from %s to %s (%s): %s", ks.FormatInterval(m.Low, m.High), ks.Name, m.ID, m.From, m.To, m.Phase, until)
			e.Move = m
			return e
		}
	}
	return nil
}

// soleOwner is the shard that owns all of [low, high).
func soleOwner(ks *rib.Keyspace, p *partition, low, high rib.Key) (string, error) {
	i, j := p.span(low, high)
	first := p.at(i)
	for k := i + 1; k < j; k++ {
		if r := p.at(k); r.Shard != first.Shard {
			return "", reject(ErrOwner, "range %s of keyspace %s belongs to several shards: %s is %s's and %s is %s's; name ranges of one shard each",
				ks.FormatInterval(low, high), ks.Name, ks.FormatInterval(first.From, first.To), first.Shard, ks.FormatInterval(r.From, r.To), r.Shard)
		}
	}
	return first.Shard, nil
}

// checkHandover refuses to give [low, high) from one shard to another, and returns whose it is. from may be empty: whoever's it is.
func checkHandover(d *draft, ks *rib.Keyspace, p *partition, low, high rib.Key, from, to string) (owner string, err error) {
	if ks.Reference() {
		return "", reject(ErrInvalid, "keyspace %s has reference tables, which are whole on each of its shards: nothing of it moves", ks.Name)
	}
	if err := checkInterval(ks, p, low, high); err != nil {
		return "", err
	}
	if err := still(&d.Ownership, ks, low, high); err != nil {
		return "", err
	}
	if owner, err = soleOwner(ks, p, low, high); err != nil {
		return "", err
	}
	switch {
	case from != "" && owner != from:
		return "", reject(ErrOwner, "range %s of keyspace %s belongs to shard %s, not to shard %s", ks.FormatInterval(low, high), ks.Name, owner, from)
	case owner == to:
		return "", reject(ErrInvalid, "range %s of keyspace %s belongs to shard %s already", ks.FormatInterval(low, high), ks.Name, to)
	case d.Shard(to) == nil:
		return "", unknownShard(&d.Ownership, to)
	}
	return owner, nil
}

func splitRanges(next *draft, c *rangeCommand) (*rib.Keyspace, error) {
	ks, p, err := next.edit(c.Keyspace)
	if err != nil {
		return nil, err
	}
	if err := divided(ks, "split"); err != nil {
		return nil, err
	}
	m, err := rib.MethodByName(ks.Method)
	if err != nil {
		return nil, reject(ErrInvalid, "%v", err)
	}
	if len(c.At) == 0 || len(c.At) > MaxSplits {
		return nil, reject(ErrInvalid, "a split has 1 to %d bounds, not %d", MaxSplits, len(c.At))
	}
	if (*p).n+len(c.At) > MaxKeyspaceRanges {
		return nil, reject(ErrInvalid, "a keyspace has at most %d ranges, and keyspace %s has %d already: merge some", MaxKeyspaceRanges, ks.Name, (*p).n)
	}
	for i, at := range c.At {
		key := rib.Key(at)
		if err := m.CheckBound(ks.Types, key); err != nil || len(key) == 0 {
			return nil, reject(ErrInvalid, "a split is at no key of keyspace %s: %v", ks.Name, err)
		}
		if slices.ContainsFunc(c.At[:i], func(other []byte) bool { return bytes.Equal(other, at) }) {
			return nil, reject(ErrInvalid, "the split names the bound %s twice", m.FormatKey(ks.Types, key))
		}
		if (*p).at((*p).find(key)).From.Compare(key) == 0 {
			return nil, reject(ErrInvalid, "there is a bound at %s in keyspace %s already", m.FormatKey(ks.Types, key), ks.Name)
		}
		for j := range next.Moves {
			if move := &next.Moves[j]; move.Keyspace == ks.ID && move.Holds(key) && move.Low.Compare(key) != 0 {
				return nil, still(&next.Ownership, ks, move.Low, move.High)
			}
		}
		*p = (*p).cut(key)
	}
	return ks, nil
}

func mergeRanges(next *draft, c *rangeCommand) (*rib.Keyspace, error) {
	ks, p, err := next.edit(c.Keyspace)
	if err != nil {
		return nil, err
	}
	if err := divided(ks, "merged"); err != nil {
		return nil, err
	}
	if err := checkInterval(ks, *p, c.Low, c.High); err != nil {
		return nil, err
	}
	if err := still(&next.Ownership, ks, c.Low, c.High); err != nil {
		return nil, err
	}
	i, j := (*p).span(c.Low, c.High)
	if first, last := (*p).at(i), (*p).at(j-1); first.From.Compare(c.Low) != 0 || last.To.Compare(c.High) != 0 {
		return nil, reject(ErrInvalid, "%s is not made of whole ranges of keyspace %s: those that it touches are %s", ks.FormatInterval(c.Low, c.High), ks.Name, ks.FormatInterval(first.From, last.To))
	}
	if j-i < 2 {
		return nil, reject(ErrInvalid, "%s is one range of keyspace %s already: there is nothing to merge", ks.FormatInterval(c.Low, c.High), ks.Name)
	}
	if _, err := soleOwner(ks, *p, c.Low, c.High); err != nil {
		return nil, err
	}
	*p = (*p).join(i, j)
	return ks, nil
}

func reassignRange(next *draft, c *rangeCommand) (*rib.Keyspace, error) {
	ks, p, err := next.edit(c.Keyspace)
	if err != nil {
		return nil, err
	}
	owner, err := checkHandover(next, ks, *p, c.Low, c.High, c.From, c.To)
	if err != nil {
		return nil, err
	}
	if (*p).n+2 > MaxKeyspaceRanges {
		return nil, reject(ErrTooMany, "keyspace %s has %d ranges, the most that there may be: merge some", ks.Name, (*p).n)
	}
	*p = (*p).assign(c.Low, c.High, c.To, next.Epoch)
	return ks, lend(next, rib.Loan{ID: changeID(next.Epoch), Keyspace: ks.ID, Low: c.Low, High: c.High, From: owner, To: c.To, Until: c.Until})
}
