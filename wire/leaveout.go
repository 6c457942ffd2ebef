package wire

import (
	"context"
	"fmt"
	"slices"

	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/scatter"
	"rangefinder/wire/sqlkey"
)

// This file is about statements over shards of which one has rows that another one owns. While a range moves, its new owner has copies of its rows, and
// after that its old one has them still for a while. Each shard that is asked is to leave out the rows that are not its own, so that
// each is met once: where its owner is, by the table that the statement was planned by.
//
// A node with a lease knows of every move before the first row is copied (cluster.Leases.Unaware), so it leaves out no more than the ranges that
// move. One without a lease may not have heard of a move: it asks each shard for what it owns, and nothing else. What it answers may be out of
// date then, but no row is in it twice.

// maxGaps bounds the ranges that a shard is told to leave out because the node has no lease.
const maxGaps = 64

// leaveOut has shards leave out rows that others of them own. What cannot be asked so without a lease waits for one that has ended a moment ago: if it
// returns, the table by which the statement is planned has all moves.
func (h *host) leaveOut(ctx context.Context, plan *sqlkey.Plan, shares []scatter.Share) *pg.Error {
	c := h.core()
	h.sure = c.env.leased()
	e := h.leaveOutNow(c, plan, shares)
	if e != nil && !h.sure && c.env.regains(ctx) {
		h.sure = true
		e = h.leaveOutNow(c, plan, shares)
	}
	return e
}

func (h *host) leaveOutNow(c *core, plan *sqlkey.Plan, shares []scatter.Share) *pg.Error {
	o := c.table.Ownership()
	for i := range shares {
		shard := shares[i].Slot.Shard()
		var gaps []sqlkey.Gap
		if h.sure {
			gaps = copiesAt(shard, o.Moves, plan.Keyspace, shares, false)
		} else {
			gaps = othersThan(shard, o.Keyspace(plan.Keyspace))
		}
		if shares[i].SQL = ""; len(gaps) == 0 {
			continue
		}
		leave, err := c.env.planner.Leave(c.catalog, &c.under, plan)
		switch {
		case !h.sure && len(gaps) > maxGaps:
			return alone(plan, fmt.Sprintf("Shard %s owns so many ranges that it cannot be asked for these alone.", shard))
		case err == nil:
			shares[i].SQL = leave.SQL(gaps)
		case !h.sure:
			return alone(plan, "The shards cannot be asked for what they own alone: "+err.Error()+".")
		case len(copiesAt(shard, o.Moves, plan.Keyspace, shares, true)) > 0:
			return meetsCopies(plan, o.Moves, shares, err)
		}
	}
	return nil
}

// copiesAt are the ranges of which a shard has rows that another one of those that are asked owns. What binds a statement to keys binds it to their
// owners: if the owner is not asked, no row of the range is meant. What has been cleared away may come back as long as the move is not over, by the
// promotion of a replica that was out of reach; surely: such ranges do not count.
func copiesAt(shard string, moves []rib.Move, id rib.KeyspaceID, shares []scatter.Share, surely bool) (gaps []sqlkey.Gap) {
	for i := range moves {
		m := &moves[i]
		owner, other := m.From, m.To
		if m.Phase == rib.MoveFlipped {
			owner, other = other, owner
		}
		if m.Keyspace == id && other == shard && !(surely && m.Cleared) && slices.ContainsFunc(shares, func(s scatter.Share) bool { return s.Slot.Shard() == owner }) {
			gaps = append(gaps, sqlkey.Gap{From: m.Low, To: m.High})
		}
	}
	return gaps
}

// othersThan are the keys that a shard does not own.
func othersThan(shard string, ks *rib.Keyspace) (gaps []sqlkey.Gap) {
	if ks == nil {
		return nil
	}
	within := false
	for i := range ks.Ranges {
		r := &ks.Ranges[i]
		switch {
		case r.Shard == shard:
			within = false
		case within:
			gaps[len(gaps)-1].To = r.To
		default:
			gaps, within = append(gaps, sqlkey.Gap{From: r.From, To: r.To}), true
		}
	}
	return gaps
}

// alone is the error for a statement that a node without a lease does not run, for it might meet rows twice.
func alone(plan *sqlkey.Plan, why string) *pg.Error {
	return pg.NewError(pg.CodeCannotConnectNow, "this node has lost the cluster, and the statement might meet rows of keyspace "+plan.KeyspaceName+" twice").
		WithDetail(why + " If a range moves, two shards have its rows.").
		WithHint("Bind the statement to keys, or try it on another node.")
}

// meetsCopies is the error for a statement that would meet rows of a range that moves twice.
func meetsCopies(plan *sqlkey.Plan, moves []rib.Move, shares []scatter.Share, err error) *pg.Error {
	e := pg.Errorf(pg.CodeObjectInUse, "a range of keyspace %s is moving, and the statement would meet its rows twice", plan.KeyspaceName)
	for i := range moves {
		m := &moves[i]
		if m.Keyspace == plan.Keyspace && !m.Cleared && slices.ContainsFunc(shares, func(s scatter.Share) bool { return s.Slot.Shard() == m.From }) {
			e = e.WithDetail(fmt.Sprintf("Move %d takes it from %s to %s, and the copies cannot be left out: %v.", m.ID, m.From, m.To, err))
			break
		}
	}
	return e.WithHint("Bind the statement to keys, or wait until the move is over: rangefinder move status.")
}

// Lost is scatter.Host's.
func (h *host) Lost(ctx context.Context) bool { return h.sure && !h.now.Load().env.regains(ctx) }

// Moved is scatter.Host's.
func (h *host) Moved(plan *sqlkey.Plan, args sqlkey.Args) bool {
	o := h.now.Load()
	if plan.Target == sqlkey.Keyed || plan.Hint != "" {
		return h.core().outlived(o.begun.epoch, plan, args)
	}
	return o.begun.outdated(o.table.Ownership(), plan.Keyspace)
}

// outlived reports whether a range that holds one of a statement's keys has got another owner since an epoch. A snapshot of before that does not hold the
// rows where they are now.
func (c *core) outlived(since rib.Epoch, plan *sqlkey.Plan, args sqlkey.Args) bool {
	switch {
	case c.table.Ownership().Epoch == since:
	case plan.Target == sqlkey.Keyed:
		for i := range plan.Keys {
			key, err := c.appendKey(plan, i, args)
			if err != nil {
				continue
			}
			if owner, _ := c.table.Lookup(plan.Keyspace, key); owner.Range != nil && owner.Range.Epoch.Compare(since) > 0 {
				return true
			}
		}
	case plan.Target == sqlkey.Many:
		h := &newOwners{ks: c.table.Ownership().Keyspace(plan.Keyspace), since: since}
		buf, err := plan.Shards(h, c.keyBuf[:0], args, c.clientUTF8())
		if c.keyBuf = buf; err != nil {
			_ = h.Range(nil, nil) // never fails
		}
		return h.found
	case plan.Target == sqlkey.Unsharded && plan.Hint != "": // its keys are not known: whatever the shard has got counts
		for _, ks := range c.table.Ownership().Keyspaces {
			if slices.ContainsFunc(ks.Ranges, func(r rib.Range) bool { return r.Shard == plan.Shard && r.Epoch.Compare(since) > 0 }) {
				return true
			}
		}
	}
	return false
}

// newOwners finds whether one of some keys has another owner since an epoch. It is a sqlkey.Shards.
type newOwners struct {
	ks    *rib.Keyspace // nil: it is gone
	since rib.Epoch
	found bool
}

// Begin is sqlkey.Shards's.
func (h *newOwners) Begin() {}

// Key is sqlkey.Shards's.
func (h *newOwners) Key(k rib.Key) error {
	h.look(func(r *rib.Range) bool { return r.From.Compare(k) <= 0 && (len(r.To) == 0 || r.To.Compare(k) > 0) })
	return nil
}

// Range is sqlkey.Shards's.
func (h *newOwners) Range(from, to rib.Key) error {
	h.look(func(r *rib.Range) bool { return rib.Meet(r.From, r.To, from, to) })
	return nil
}

// look is over all ranges: it is asked only in a transaction that was open when something changed.
func (h *newOwners) look(meets func(r *rib.Range) bool) {
	if h.ks == nil {
		return
	}
	for i := range h.ks.Ranges {
		r := &h.ks.Ranges[i]
		if r.Epoch.Compare(h.since) > 0 {
			h.found = h.found || meets(r)
		}
	}
}

// begun is what the ledger said when a transaction began. It keeps no table alive.
type begun struct {
	epoch rib.Epoch
	moves []unfinished // that were not over
}

// unfinished is a move.
type unfinished struct {
	id       uint64
	keyspace rib.KeyspaceID
}

func (b *begun) by(o *rib.Ownership) {
	b.epoch, b.moves = o.Epoch, b.moves[:0]
	for i := range o.Moves {
		b.moves = append(b.moves, unfinished{o.Moves[i].ID, o.Moves[i].Keyspace})
	}
}

func (b *begun) copied() begun { return begun{b.epoch, slices.Clone(b.moves)} }

// outdated reports whether a range of a keyspace has got another owner since, or a move has ended, whose rows were on two shards before.
func (b *begun) outdated(now *rib.Ownership, id rib.KeyspaceID) bool {
	if now.Epoch == b.epoch {
		return false
	}
	if slices.ContainsFunc(b.moves, func(m unfinished) bool { return m.keyspace == id && now.Move(m.id) == nil }) {
		return true
	}
	ks := now.Keyspace(id)
	return ks != nil && slices.ContainsFunc(ks.Ranges, func(r rib.Range) bool { return r.Epoch.Compare(b.epoch) > 0 })
}
