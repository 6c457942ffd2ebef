package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"rangefinder/cluster"
	"rangefinder/fib"
	"rangefinder/gossip"
	"rangefinder/rib"
)

// What an operator drains is told by gossip, and what follows from it for backends is in the table that statements are routed by. Here is
// what else a node does about it: it keeps the words on disk, closes what connects it to backends that get no reads any more, and if it
// is drained itself it sends its sessions away, observes nobody and does not lead.

const (
	drainsFile   = "drains.json"
	drainsFormat = 1
	maxDrains    = 4 << 20 // bytes of drains.json
	drainTick    = 200 * time.Millisecond
	asideTick    = 2 * time.Second  // between two tries to have somebody else lead
	asideTimeout = 10 * time.Second // of one
)

// drainsOnDisk is the file. Words that are taken back are in it too: an older one must not come back.
type drainsOnDisk struct {
	keptFile
	Drains []drainOnDisk `json:"drains"`
}

type drainOnDisk struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Number uint64 `json:"number"`
	Back   bool   `json:"back"`
	Author string `json:"told_to"`
	By     string `json:"by"`
	Why    string `json:"why"`
	Since  int64  `json:"since"` // Unix seconds
	Until  int64  `json:"until"` // the same; 0: no end
}

func encodeDrains(clusterID string, words []rib.Drain) ([]byte, error) {
	f := drainsOnDisk{keptFile: keptFile{drainsFormat, clusterID}, Drains: []drainOnDisk{}}
	for _, w := range words {
		f.Drains = append(f.Drains, drainOnDisk{w.Target.Kind.String(), w.Target.Name, w.Number, w.Back, w.Author, w.By, w.Why, w.Since, w.Until})
	}
	text, err := json.MarshalIndent(f, "", "  ")
	return append(text, '\n'), err
}

func decodeDrains(text []byte, clusterID string) (words []rib.Drain, err error) {
	var f drainsOnDisk
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	if err := f.check(keptFile{drainsFormat, clusterID}); err != nil {
		return nil, err
	}
	for _, d := range f.Drains {
		kind, ok := rib.ParseDrainKind(d.Kind)
		w := rib.Drain{Target: rib.DrainTarget{Kind: kind, Name: d.Name}, Number: d.Number, Back: d.Back,
			Author: d.Author, By: d.By, Why: d.Why, Since: d.Since, Until: d.Until}
		if !ok {
			return nil, fmt.Errorf("there is no drain of %q %q", d.Kind, d.Name)
		}
		if err := gossip.CheckDrain(&w); err != nil {
			return nil, err
		}
		words = append(words, w)
	}
	return words, nil
}

// LoadDrains reads drains.json; nil if there is none.
func (d *dataDir) LoadDrains(clusterID string) ([]rib.Drain, error) {
	text, found, err := d.readKept(drainsFile, maxDrains)
	if err != nil || !found {
		return nil, err
	}
	return decodeDrains(text, clusterID)
}

// recallDrains puts into the table what was drained before a restart. It merges as gossip does: what is heard later wins.
func (n *Node) recallDrains() {
	words, err := n.dir.LoadDrains(n.state.ClusterID)
	if err != nil { // the others say it again
		n.log.Warn("what was drained before cannot be read; going on with what other nodes say", "file", drainsFile, "error", err)
		return
	}
	for _, w := range words {
		if _, err := n.table.Health().Drain(w, time.Now()); err != nil && !errors.Is(err, rib.ErrOldDrain) {
			n.log.Warn("what was drained before is not drained any more", "target", w.Target.String(), "error", err)
		}
	}
}

// keepDrains writes what is drained to disk, if that is news. Whoever is told a word has it on disk before the answer.
func (n *Node) keepDrains() error {
	n.drainsMu.Lock()
	defer n.drainsMu.Unlock()
	h := n.table.Health()
	sum := h.DrainSum()
	if sum == n.drainsKept {
		return nil
	}
	text, err := encodeDrains(n.state.ClusterID, h.Drains())
	if err == nil {
		err = writeFileAtomic(filepath.Join(n.dir.path, drainsFile), text)
	}
	if err != nil {
		return fmt.Errorf("keep on disk what is drained: %w", err)
	}
	n.drainsKept = sum
	return nil
}

// drainLoop does what follows from what is drained.
func (n *Node) drainLoop(ctx context.Context) {
	o := obedience{resting: map[string]bool{}}
	failed := ""
	for on := true; on; on = pause(ctx, drainTick) {
		said := ""
		if err := n.keepDrains(); err != nil {
			said = err.Error()
		}
		if said != failed && said != "" {
			n.log.Error("a restart may forget what is drained", "error", said)
		}
		failed = said
		if n.whole.Load() {
			o.obey(ctx, n, time.Now())
		}
	}
}

// obedience is what drainLoop has done so far. It is owned by it.
type obedience struct {
	word    *rib.Drain      // this node is drained by it; nil: it is not
	since   time.Time       // when this was heard
	told    bool            // the sessions of then have been told to go
	resting map[string]bool // backends that are to have no connections
	aside   time.Time       // not before this somebody else is asked to lead
}

func (o *obedience) obey(ctx context.Context, n *Node, now time.Time) {
	s := n.table.Snapshot()
	if resting := atRest(s, n.fib.Load(), n.cfg().Databases); !sameSet(resting, o.resting) {
		o.resting = resting
		if closed := n.pools.Rest(resting); closed > 0 {
			n.log.Info("idle connections to drained backends are closed", "connections", closed)
		}
	}
	word, delay := s.NodeDrain(s.Self), n.cfg().DrainDelay.Duration
	switch {
	case word == nil && o.word != nil:
		n.log.Info("this node is drained no more")
		n.server.Leave(false)
	case word != nil && (o.word == nil || *word != *o.word): // another word sends away who has come since the last
		n.log.Warn("this node is drained: clients are sent away", "reason", s.NodeDrained(s.Self), "drain_delay", delay)
		o.since, o.told = now, false
	}
	o.word = word
	if word == nil {
		n.leaving.Store(nil)
		return
	}
	if !o.told && now.Sub(o.since) >= delay {
		o.told = true
		n.server.Leave(true)
	}
	n.leaving.Store(&departure{*word, max(0, delay-now.Sub(o.since)), o.told})
	if n.ledger().IsLeader() && !now.Before(o.aside) {
		o.aside = now.Add(asideTick)
		n.stepAside(ctx, s)
	}
}

// departure is how far a drained node has come in sending its sessions away.
type departure struct {
	word rib.Drain
	in   time.Duration // until they are told to go
	told bool          // they have been
}

// atRest are the drained backends that no statement goes to of its own accord: neither writes, nor reads for want of anything better.
func atRest(s *rib.Snapshot, t *fib.Table, databases []Listing) map[string]bool {
	resting := map[string]bool{}
	if len(s.Drains) == 0 {
		return resting
	}
	for i := range s.Backends {
		if s.Backends[i].Drained != "" {
			resting[s.Backends[i].Backend.Name] = true
		}
	}
	for _, slot := range t.Slots() {
		busy := func(c *fib.Candidates) {
			for _, h := range c.Writes {
				delete(resting, h.Backend.Name)
			}
			for i := range c.Reads {
				if !c.Reads[0].Drained {
					break
				}
				delete(resting, c.Reads[i].Backend.Name)
			}
		}
		busy(slot.Candidates())
		for _, d := range databases {
			busy(slot.For(d.Name))
		}
	}
	return resting
}

func sameSet(a, b map[string]bool) bool {
	if len(a) != len(b) {
		return false
	}
	for k := range a {
		if !b[k] {
			return false
		}
	}
	return true
}

// stepAside has a voter lead that is not drained.
func (n *Node) stepAside(ctx context.Context, s *rib.Snapshot) {
	to, ok := n.successor(s)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, asideTimeout)
	defer cancel()
	if err := n.ledger().StepAside(ctx, to); err != nil {
		n.log.Warn("this node is drained and leads the ledger, and another one cannot take over", "node", to.Name, "error", err)
		return
	}
	n.log.Info("another node leads the ledger, as this one is drained", "node", to.Name)
}

// successor is a voter that lives and is not drained.
func (n *Node) successor(s *rib.Snapshot) (to cluster.Voter, ok bool) {
	for _, v := range n.ledger().Voters() {
		for _, m := range s.Members {
			if m.Name == v.Name && m.Name != s.Self.Name && s.NodeDrained(m) == "" {
				return v, true
			}
		}
	}
	return to, false
}
