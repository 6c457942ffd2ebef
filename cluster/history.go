package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"rangefinder/rib"
)

// MaxHistory is how many changes the ledger remembers.
const MaxHistory = 4096

// Event is one change of the ledger, as its history keeps it.
type Event struct {
	Epoch    rib.Epoch     `json:"epoch"`
	At       time.Time     `json:"at"`   // by the clock of the node that led then; zero: not noted
	Kind     string        `json:"kind"` // of the command: "keyspace", "split", "merge", "reassign", "move.start", ...
	Author   string        `json:"author,omitempty"`
	Reason   string        `json:"reason,omitempty"`
	Request  string        `json:"request_id,omitempty"`
	Keyspace string        `json:"keyspace,omitempty"`
	Low      rib.Key       `json:"-"` // the range that it was about
	High     rib.Key       `json:"-"`
	Range    string        `json:"range,omitempty"` // the same for people; empty: the whole keyspace, or none
	From     string        `json:"from,omitempty"`
	To       string        `json:"to,omitempty"`
	Move     uint64        `json:"move,omitempty"`    // its number, or the loan's
	Phase    rib.MovePhase `json:"phase,omitempty"`   // that it came into
	Subject  string        `json:"subject,omitempty"` // of a split its bounds; else the shard, the node, or whatever it was about
}

// history is the last changes, oldest first. Only the end of list is written to, so that whoever holds an older one may read on.
type history struct{ list []Event }

func (h *history) add(e Event) {
	if e.Kind == kindMoveNote && e.Author == "" && e.Reason == "" {
		return // the mover's own: there are many, and they say nothing to people
	}
	if len(h.list) >= 2*MaxHistory {
		h.list = slices.Clone(h.list[len(h.list)-MaxHistory:])
	}
	h.list = append(h.list, e)
}

// last are the changes to keep.
func (h *history) last() []Event { return h.list[max(0, len(h.list)-MaxHistory):] }

// eventOf says what a command has done that made next.
func eventOf(next *rib.Ownership, c *command, r *result) Event {
	e := Event{Epoch: next.Epoch, Kind: c.Kind, Request: c.Request}
	if by := c.By; by != nil {
		e.Author, e.Reason, e.At = by.Author, by.Reason, wholeMillis(by.At)
	}
	if r.keyspace != nil {
		e.Keyspace = r.keyspace.Name
	}
	switch {
	case c.Init != nil:
		e.Subject = c.Init.ClusterID
	case c.Shard != nil:
		e.Subject = c.Shard.Name
	case c.Node != "":
		e.Subject = c.Node
	case c.Forget != "":
		e.Subject = c.Forget
	case c.Tables != nil:
		var names []string
		for _, t := range c.Tables.Tables {
			names = append(names, t.Schema+"."+t.Name)
		}
		e.Subject = strings.Join(names, ", ")
	case c.Range != nil:
		e.Low, e.High, e.From, e.To = c.Range.Low, c.Range.High, c.Range.From, c.Range.To
		if len(c.Range.At) > 0 {
			e.Low, e.High, e.Subject = boundsOf(next.Keyspace(r.keyspace.ID), c.Range.At)
		}
	case c.Move != nil:
		m := &r.move
		e.Low, e.High, e.From, e.To, e.Move = m.Low, m.High, m.From, m.To, m.ID
		if c.Kind != kindMoveNote { // which leaves it in the phase that it is in
			e.Phase = m.Phase
		}
		e.Keyspace = nameOf(next, m.Keyspace)
	case c.Loan != nil:
		l := &r.loan
		e.Low, e.High, e.From, e.To, e.Move, e.Subject = l.Low, l.High, l.From, l.To, l.ID, l.Why
		e.Keyspace = nameOf(next, l.Keyspace)
	}
	return e
}

// boundsOf are the keys from the first to the last of a split's bounds, and all of them for people.
func boundsOf(ks *rib.Keyspace, at [][]byte) (low, high rib.Key, text string) {
	first, last := slices.MinFunc(at, bytes.Compare), slices.MaxFunc(at, bytes.Compare)
	texts := make([]string, len(at))
	if m, err := rib.MethodByName(ks.Method); err == nil {
		for i, key := range at {
			texts[i] = m.FormatKey(ks.Types, key)
		}
	}
	return first, append(slices.Clone(last), 0), strings.Join(texts, ", ")
}

func nameOf(o *rib.Ownership, id rib.KeyspaceID) string {
	if ks := o.Keyspace(id); ks != nil {
		return ks.Name
	}
	return ""

}

// HistoryFilter says which changes to list. The zero value lists all.
type HistoryFilter struct {
	Keyspace string    // only of this one; empty: of all
	Low      rib.Key   // only of ranges that have keys in [Low, High), with Keyspace; empty is open
	High     rib.Key   //
	Move     uint64    // only of this one; 0: of all
	After    rib.Epoch // only later ones
}

func (f *HistoryFilter) takes(e *Event) bool {
	m := rib.Move{Low: e.Low, High: e.High}
	return (f.Keyspace == "" || f.Keyspace == e.Keyspace) && (f.Move == 0 || f.Move == e.Move) && e.Epoch.Compare(f.After) > 0 &&
		(e.Keyspace == "" || m.Meets(f.Low, f.High))
}

// History lists the last changes, oldest first: what this voter has applied. Where there is no log it returns a *NotLeaderError.
func (l *Ledger) History(_ context.Context, f HistoryFilter) ([]Event, error) {
	if l.Follows() {
		name, addr := l.Leader()
		return nil, &NotLeaderError{Leader: name, Addr: addr}
	}
	list, o := l.fsm.past.Load(), l.fsm.current.Load()
	events := []Event{}
	if list == nil {
		return events, nil
	}
	for i := range *list {
		e := (*list)[i]
		if !f.takes(&e) {
			continue
		}
		if ks := o.KeyspaceByName(e.Keyspace); ks != nil && e.Kind != kindSplit && (len(e.Low) > 0 || len(e.High) > 0) {
			e.Range = ks.FormatInterval(e.Low, e.High)
		}
		events = append(events, e)
	}
	return events, nil
}

// Requested is what a request has changed, by its id; nil: nothing, or so long ago that it is not remembered. It is for the leader: another voter may not have applied it yet.
func (l *Ledger) Requested(id string) *Event {
	list := l.fsm.past.Load()
	if list == nil || id == "" {
		return nil
	}
	for i := len(*list) - 1; i >= 0; i-- {
		if e := &(*list)[i]; e.Request == id {
			return e
		}
	}
	return nil
}

func (h *history) append(dst []byte) []byte {
	list := h.last()
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for i := range list {
		e := &list[i]
		dst = appendEpoch(dst, e.Epoch)
		dst = appendTime(dst, e.At)
		for _, s := range []string{e.Kind, e.Author, e.Reason, e.Request, e.Keyspace, string(e.Low), string(e.High), e.From, e.To, e.Subject} {
			dst = appendString(dst, s)
		}
		dst = binary.AppendUvarint(dst, e.Move)
		dst = append(dst, byte(e.Phase))
	}
	return dst
}

const minEvent = 12 + 8 + 10 + 2

func (d *decoder) history() (h history) {
	n := d.count(minEvent)
	if n > MaxHistory {
		d.fail("its history is longer than it may be")
	}
	for range n {
		if d.err != nil {
			break
		}
		e := Event{Epoch: d.epoch(), At: d.time()}
		for _, s := range []*string{&e.Kind, &e.Author, &e.Reason, &e.Request, &e.Keyspace} {
			*s = d.string()
		}
		e.Low, e.High = d.key(), d.key()
		e.From, e.To, e.Subject = d.string(), d.string(), d.string()
		e.Move = d.uvarint()
		if phase := d.take(1); phase != nil {
			e.Phase = rib.MovePhase(phase[0])
		}
		h.list = append(h.list, e)
	}
	return h
}
