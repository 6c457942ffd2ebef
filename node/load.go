package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/cluster/balance"
	"rangefinder/rib"
	"rangefinder/wire/heat"
)

// Bounds of what nodes tell each other of the load of ranges.
const (
	loadBody  = 4 << 20          // bytes of a node's answer
	loadFresh = 2 * time.Second  // for so long what all have said is not asked again
	loadStale = 30 * time.Second // after that it is not shown any more
	hotPart   = 0.1              // of its range's statements: a key that gets as many is hot
	hotRate   = 1.0              // statements a second that it gets at least
	hotShown  = 5                // of a range
)

// loadPath is the call by which nodes ask each other.
const loadPath = "/api/v1/load/here"

// LoadHere is what one node has counted of statements with a key.
type LoadHere struct {
	Ranges []LoadOf `json:"ranges"` // of each, where it begins
	Keys   []LoadOf `json:"keys"`   // those that get the most
}

// LoadOf is the load of a range or a key.
type LoadOf struct {
	Keyspace uint32  `json:"keyspace"` // its id
	Key      []byte  `json:"key"`
	Cut      bool    `json:"cut,omitempty"`   // the key is longer
	Plain    []byte  `json:"plain,omitempty"` // what the key is a hash of, as the method range writes it
	Rate     float64 `json:"rate"`            // statements a second
	Error    float64 `json:"error,omitempty"`
}

// HotKeyView is a key that gets a large part of its range's statements.
type HotKeyView struct {
	Key      string  `json:"key"`                // as a bound is written
	Position bool    `json:"position,omitempty"` // it is the position of a key, of the method hash
	Value    string  `json:"value,omitempty"`    // with Position: the key itself, as bounds of the method range are written; empty: not known
	Rate     float64 `json:"statements_s"`       // at least
}

// loads is what the nodes have counted.
type loads struct {
	// constant
	meter  *heat.Meter   // this node's
	wanted chan struct{} // somebody would like to see it

	last atomic.Pointer[loadSum]
	turn sync.Mutex // of who asks the others
}

func newLoads() *loads { return &loads{meter: heat.New(), wanted: make(chan struct{}, 1)} }

// loadSum is what all nodes together have counted. It does not change.
type loadSum struct {
	at      time.Time
	ranges  map[loadKey]float64
	keys    map[rib.KeyspaceID][]heat.Load // in their order
	missing []string                       // nodes that have not said
}

type loadKey struct {
	keyspace rib.KeyspaceID
	key      string
}

// loadLoop takes in what this node's sessions have noted.
func (n *Node) loadLoop(ctx context.Context) {
	for pause(ctx, heat.Each) {
		o := n.fib.Load().Ownership()
		n.loads.meter.Collect(time.Now(), func(id rib.KeyspaceID, key rib.Key) (rib.Key, bool) {
			ks := o.Keyspace(id)
			if ks == nil || len(ks.Ranges) == 0 {
				return nil, false
			}
			return ks.Ranges[ks.Owner(key)].From, true
		})
	}
}

// loadAskLoop asks the other nodes when somebody looks who does not wait.
func (n *Node) loadAskLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.loads.wanted:
			n.loadNow(ctx)
		}
	}
}

// LoadHere is what this node has counted.
func (n *Node) LoadHere() LoadHere {
	told := func(list []heat.Load) []LoadOf {
		v := make([]LoadOf, len(list))
		for i, l := range list {
			v[i] = LoadOf{Keyspace: uint32(l.Keyspace), Key: l.Key, Cut: l.Cut, Plain: l.Plain, Rate: l.Rate, Error: l.Error}
		}
		return v
	}
	return LoadHere{Ranges: told(n.loads.meter.Ranges()), Keys: told(n.loads.meter.Keys())}
}

// loadNow is what all nodes have counted; they are asked if nobody has done so just now. One that does not answer is left out.
func (n *Node) loadNow(ctx context.Context) *loadSum {
	n.loads.turn.Lock()
	defer n.loads.turn.Unlock()
	if last := n.loads.last.Load(); last != nil && time.Since(last.at) < loadFresh {
		return last
	}
	ctx, cancel := context.WithTimeout(ctx, leftTimeout)
	defer cancel()
	s := n.table.Snapshot()
	answers, failed := make([]LoadHere, len(s.Members)), make([]error, len(s.Members))
	n.eachMember(s.Members, func(i int, m rib.Member) {
		if m.Name == s.Self.Name {
			answers[i] = n.LoadHere()
			return
		}
		failed[i] = n.askNode(ctx, m, loadPath, loadBody, &answers[i])
	})
	sum := sumLoads(answers)
	sum.at = time.Now()
	for i, err := range failed {
		if err != nil {
			sum.missing = append(sum.missing, s.Members[i].Name)
		}
	}
	if !errors.Is(ctx.Err(), context.Canceled) { // else nobody waits for the rest any more
		n.loads.last.Store(sum)
	}
	return sum
}

// loadSeen is what all nodes had counted when they were asked last, without a wait; nil: that was too long ago. They are asked again meanwhile.
func (n *Node) loadSeen() *loadSum {
	last := n.loads.last.Load()
	if last == nil || time.Since(last.at) >= loadFresh {
		select {
		case n.loads.wanted <- struct{}{}:
		default:
		}
	}
	if last == nil || time.Since(last.at) > loadStale {
		return nil
	}
	return last
}

// eachMember does something for all members, for some of them at once.
func (n *Node) eachMember(members []rib.Member, do func(i int, m rib.Member)) {
	var wg sync.WaitGroup
	room := make(chan struct{}, leftAtOnce)
	for i, m := range members {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			do(i, m)
		})
	}
	wg.Wait()
}

// sumLoads adds up what nodes have counted.
func sumLoads(answers []LoadHere) *loadSum {
	s := &loadSum{ranges: map[loadKey]float64{}, keys: map[rib.KeyspaceID][]heat.Load{}}
	keys := map[loadKey]*heat.Load{}
	for _, a := range answers {
		for _, r := range a.Ranges {
			s.ranges[loadKey{rib.KeyspaceID(r.Keyspace), string(r.Key)}] += r.Rate
		}
		for _, k := range a.Keys {
			id := loadKey{rib.KeyspaceID(k.Keyspace), string(k.Key)}
			if keys[id] == nil {
				keys[id] = &heat.Load{Keyspace: id.keyspace, Key: rib.Key(k.Key), Cut: k.Cut}
			}
			if len(k.Plain) > 0 {
				keys[id].Plain = rib.Key(k.Plain)
			}
			keys[id].Rate += k.Rate
			keys[id].Error += k.Error
		}
	}
	for id, k := range keys {
		s.keys[id.keyspace] = append(s.keys[id.keyspace], *k)
	}
	for _, list := range s.keys {
		slices.SortFunc(list, func(a, b heat.Load) int { return a.Key.Compare(b.Key) })
	}
	return s
}

// of is the load of a range. s may be nil.
func (s *loadSum) of(id rib.KeyspaceID, from rib.Key) float64 {
	if s == nil {
		return 0
	}
	return s.ranges[loadKey{id, string(from)}]
}

// within are the keys of a range that were told apart, in their order. s may be nil.
func (s *loadSum) within(id rib.KeyspaceID, from, to rib.Key) []heat.Load {
	if s == nil {
		return nil
	}
	list := s.keys[id]
	at, _ := slices.BinarySearchFunc(list, from, func(l heat.Load, k rib.Key) int { return l.Key.Compare(k) })
	list = list[at:]
	if len(to) > 0 {
		end, _ := slices.BinarySearchFunc(list, to, func(l heat.Load, k rib.Key) int { return l.Key.Compare(k) })
		list = list[:end]
	}
	return list
}

// hot are the keys that get a large part of a range's statements, the hottest first.
func (s *loadSum) hot(ks *rib.Keyspace, m rib.Method, r *rib.Range) []HotKeyView {
	rate := s.of(ks.ID, r.From)
	var hot []heat.Load
	for _, k := range s.within(ks.ID, r.From, r.To) {
		if sure := k.Rate - k.Error; !k.Cut && sure >= hotRate && sure >= hotPart*rate {
			hot = append(hot, k)
		}
	}
	slices.SortStableFunc(hot, func(a, b heat.Load) int { return cmp.Compare(b.Rate-b.Error, a.Rate-a.Error) })
	var list []HotKeyView
	for _, k := range hot[:min(len(hot), hotShown)] {
		list = append(list, HotKeyView{Key: m.FormatKey(ks.Types, k.Key), Position: ks.Method == "hash", Value: plainText(ks, k.Plain), Rate: tenths(k.Rate - k.Error)})
	}
	return list
}

// plainText is what a position is of, for people; "": not known. Other nodes may have said anything.
func plainText(ks *rib.Keyspace, plain rib.Key) string {
	m, err := rib.MethodByName("range")
	if err != nil || ks.Method != "hash" || len(plain) == 0 || m.CheckBound(ks.Types, plain) != nil {
		return ""
	}
	return m.FormatKey(ks.Types, plain)
}

// tenths rounds a rate for people.
func tenths(rate float64) float64 { return float64(int64(rate*10+0.5)) / 10 }

// keyLoads are a range's keys as a plan takes them.
func (s *loadSum) keyLoads(ks *rib.Keyspace, m rib.Method, r *rib.Range) []balance.KeyLoad {
	var list []balance.KeyLoad
	for _, k := range s.within(ks.ID, r.From, r.To) {
		if k.Cut {
			continue
		}
		one := balance.KeyLoad{Key: m.FormatKey(ks.Types, k.Key), Value: plainText(ks, k.Plain), Load: k.Rate, First: k.Key.Compare(r.From) == 0}
		if next := nextKey(m, ks.Types, k.Key); next != nil && (len(r.To) == 0 || next.Compare(r.To) < 0) {
			one.Next = m.FormatKey(ks.Types, next)
		}
		list = append(list, one)
	}
	return list
}

// nextKey is the key behind a key, where that can be written as a bound: of whole numbers, times and the like, but not of texts. Else nil.
func nextKey(m rib.Method, types []rib.Type, key rib.Key) rib.Key {
	next := slices.Clone(key)
	for i := len(next) - 1; i >= 0; i-- {
		if next[i]++; next[i] != 0 {
			if again, err := m.ParseBound(types, m.FormatKey(types, next)); m.CheckBound(types, next) != nil || err != nil || again.Compare(next) != 0 {
				return nil
			}
			return next
		}
	}
	return nil
}

// Text is the key for people. A position alone says that it is one.
func (k HotKeyView) Text() string {
	switch {
	case k.Value != "":
		return k.Value + " at " + k.Key
	case k.Position:
		return "position " + k.Key
	}
	return k.Key
}

// hotText is hot keys for people.
func hotText(list []HotKeyView) string {
	var b []byte
	for i, k := range list {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = fmt.Appendf(b, "%s (%.4g)", k.Text(), k.Rate)
	}
	return string(b)
}
