package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"rangefinder/rib"
)

// A node that follows gets, instead of a whole table, the commands that its own lacks, and carries them out as the voters did. Each is part of
// the chain, so what comes of them has the same last link or is refused. Where a node lacks more commands than its peer remembers, does not
// know one of them, or comes to something else, it pulls the whole table.
//
//	"RFD1" | CRC-32C of the rest | epoch that they begin at | count | each: index, next keyspace's id, stamp, the command as in the log
const (
	magicDelta   = "RFD1"
	maxSteps     = 1024    // that a node remembers, and that one pull carries
	maxStepBytes = 4 << 20 // the same, of their commands
	minStep      = 8 + 1 + 8 + 1
)

// ErrDelta is why commands that a peer has sent did not make a table: the whole one has to be pulled.
var ErrDelta = errors.New("the commands that were pulled do not lead to the table that was announced")

// step is a command that changed the table.
type step struct {
	before, after rib.Epoch      // of the table
	nextID        rib.KeyspaceID // of the state machine, as it was before
	stamp         time.Time      // the same
	data          []byte         // as in the log
}

// steps are the last commands, each of which begins where the one before it ends. Its methods are safe for concurrent use.
type steps struct {
	// guarded by mu
	mu    sync.Mutex
	list  []step
	bytes int // of their commands
}

// add remembers a command. One that is known already is passed over; what does not follow on the others begins anew.
func (s *steps) add(x step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.list); n > 0 {
		last := s.list[n-1].after
		if x.after.Compare(last) <= 0 {
			return
		}
		if x.before != last {
			s.list, s.bytes = nil, 0
		}
	}
	s.list = append(s.list, x)
	s.bytes += len(x.data)
	drop := 0
	for len(s.list)-drop > maxSteps || s.bytes > maxStepBytes {
		s.bytes -= len(s.list[drop].data)
		drop++
	}
	s.list = slices.Delete(s.list, 0, drop)
}

// between are the commands that lead from one table to another; nil if not all are known.
func (s *steps) between(have, want rib.Epoch) []step {
	s.mu.Lock()
	defer s.mu.Unlock()
	begin := slices.IndexFunc(s.list, func(x step) bool { return x.before == have })
	end := slices.IndexFunc(s.list, func(x step) bool { return x.after == want })
	if begin < 0 || end < begin {
		return nil
	}
	return slices.Clone(s.list[begin : end+1])
}

func encodeSteps(list []step) []byte {
	dst := append([]byte(magicDelta), 0, 0, 0, 0)
	dst = appendEpoch(dst, list[0].before)
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for i := range list {
		x := &list[i]
		dst = binary.LittleEndian.AppendUint64(dst, x.after.Index)
		dst = binary.AppendUvarint(dst, uint64(x.nextID))
		dst = appendTime(dst, x.stamp)
		dst = appendString(dst, string(x.data))
	}
	seal(dst)
	return dst
}

// decodeSteps reads what encodeSteps wrote. Errors wrap ErrCorrupt.
func decodeSteps(b []byte) ([]step, error) {
	d, err := unseal(b, magicDelta)
	if err != nil {
		return nil, err
	}
	at := d.epoch()
	n := d.count(minStep)
	if n == 0 || n > maxSteps {
		d.fail("it has no commands, or too many")
	}
	var list []step
	for range n {
		x := step{before: at, after: rib.Epoch{Generation: at.Generation, Index: d.uint64()}, nextID: d.keyspaceID(), stamp: d.time(), data: d.bytes()}
		if x.after.Compare(at) <= 0 {
			d.fail("its commands are not in their order")
		}
		if d.err != nil {
			break
		}
		list, at = append(list, x), x.after
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	return list, nil
}

// follow carries commands out on a table. Errors wrap ErrDelta.
func follow(from *draft, list []step) (*draft, error) {
	s := &state{generation: from.Epoch.Generation, now: from, requests: make(map[string]request)}
	if len(from.Links) == 0 || from.Epoch != list[0].before {
		return nil, fmt.Errorf("%w: they begin at epoch %s, and the table is of %s", ErrDelta, list[0].before, from.Epoch)
	}
	for i := range list {
		x := &list[i]
		c, err := decodeCommand(x.data)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDelta, err)
		}
		s.nextID, s.stamp = x.nextID, x.stamp
		if r := s.apply(x.after.Index, c, x.data); r.err != nil || !r.changed || s.now.Epoch != x.after {
			return nil, fmt.Errorf("%w: command %d, %s, comes to something else here (%v)", ErrDelta, x.after.Index, c.Kind, r.err)
		}
	}
	return s.now, nil
}

// delta is what a pull is answered with instead of a table; nil if the commands between are not known, or take more than the table would.
func (l *Ledger) delta(q *pullQuestion, o *rib.Ownership) []byte {
	if !q.Deltas || len(q.Hash) == 0 || q.Have.Generation != o.Epoch.Generation || len(o.Links) == 0 {
		return nil
	}
	list := l.fsm.steps.between(q.Have, o.Epoch)
	if list == nil {
		return nil
	}
	return encodeSteps(list)
}

// followed makes a table of this node's and of the commands that a peer has sent, and remembers them for others. link is the last one that the
// table is to have.
func (l *Ledger) followed(mine *rib.Ownership, data, link []byte) (*rib.Ownership, error) {
	list, err := decodeSteps(data)
	if err != nil {
		return nil, err
	}
	l.followMu.Lock()
	defer l.followMu.Unlock()
	from := l.following
	if from == nil || from.table() != mine {
		from = newDraft(mine)
	}
	d, err := follow(from, list)
	if err != nil {
		return nil, err
	}
	if last, ok := lastLink(&d.Ownership); !ok || last.Hash != hashOf(link) {
		return nil, fmt.Errorf("%w: it has another last link", ErrDelta)
	}
	l.following = d
	for _, x := range list {
		l.fsm.steps.add(x)
	}
	return d.table(), nil
}
