package rib

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// DrainKind is what kind of thing an operator drains.
type DrainKind uint8

// The kinds. A drained region is all its backends and nodes.
const (
	DrainRegion DrainKind = 1 + iota
	DrainBackend
	DrainNode
)

var drainNames = [...]string{"", "region", "backend", "node"}

// String is the kind in lower case.
func (k DrainKind) String() string { return nameOf(drainNames[:], uint8(k)) }

// ParseDrainKind is String's inverse; false for anything else.
func ParseDrainKind(name string) (DrainKind, bool) {
	i := slices.Index(drainNames[:], name)
	return DrainKind(max(i, 0)), i > 0
}

// DrainTarget is what is drained.
type DrainTarget struct {
	Kind DrainKind
	Name string
}

// String is "region fra".
func (t DrainTarget) String() string { return t.Kind.String() + " " + t.Name }

func (t DrainTarget) compare(o DrainTarget) int {
	return cmp.Or(cmp.Compare(t.Kind, o.Kind), strings.Compare(t.Name, o.Name))
}

// Drain is the last word of an operator on whether something is to get no more work. Many nodes may be told such words, and the death
// of one must not lose its: so they belong to no observer, and each counts on from the one that it takes the place of. Whoever gives
// one has heard that one, so the larger number is the later word; no clock orders them.
type Drain struct {
	Target DrainTarget
	Number uint64 // from 1
	Back   bool   // it is drained no more
	Author string // the node that was told
	By     string // who told it
	Why    string // may be empty
	Since  int64  // Unix seconds, by the author's clock: for people
	Until  int64  // Unix seconds when it ends, by the clock of whoever obeys; 0: when it is taken back
}

// Bounds of drains.
const (
	// MaxDrains is how many targets a table holds a word on, taken back or not.
	MaxDrains = 1024
	// DrainKept is how long a word is kept after it has ceased to be in force, so that an older one does not come back with a node
	// that has been away; less long if there are words on MaxDrains targets.
	DrainKept = 30 * 24 * time.Hour
)

// Errors of Health.Drain.
var (
	// ErrManyDrains: there are words on MaxDrains other targets, all of them in force; or this one is not.
	ErrManyDrains = errors.New("too many things are drained")
	// ErrOldDrain: the word has ceased to be in force longer than DrainKept ago.
	ErrOldDrain = errors.New("the order to drain is of long ago")
)

// Compare is negative, 0 or positive as d is an earlier word on its target than o, the same, or a later one. Two that were given at the same
// time, at nodes that had not heard of each other's, come in an order on which all nodes agree: to drain is then the later word.
func (d *Drain) Compare(o *Drain) int {
	return cmp.Or(cmp.Compare(d.Number, o.Number), -compareBool(d.Back, o.Back), strings.Compare(d.Author, o.Author),
		strings.Compare(d.By, o.By), strings.Compare(d.Why, o.Why), cmp.Compare(d.Since, o.Since), cmp.Compare(d.Until, o.Until))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// InForce tells whether the target is drained at that time.
func (d *Drain) InForce(now time.Time) bool {
	return !d.Back && (d.Until == 0 || now.Unix() < d.Until)
}

// forgotten tells whether the word need not be known any more.
func (d *Drain) forgotten(now time.Time) bool {
	end := d.Since
	if !d.Back {
		end = d.Until
	}
	return !d.InForce(now) && now.Sub(time.Unix(end, 0)) >= DrainKept
}

// String is who drains it since when and why, in words.
func (d *Drain) String() string {
	s := "drained by " + d.By + " since " + drainTime(d.Since)
	if d.Until != 0 {
		s += " until " + drainTime(d.Until)
	}
	if d.Why != "" {
		s += " (" + d.Why + ")"
	}
	return s
}

func drainTime(seconds int64) string {
	return time.Unix(seconds, 0).UTC().Format("2006-01-02 15:04 UTC")
}

// Drain merges an operator's word on one target; changed tells whether it was news.
func (h *Health) Drain(d Drain, now time.Time) (changed bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old, ok := h.drains[d.Target]
	switch {
	case ok && d.Compare(&old) <= 0:
		return false, nil
	case d.forgotten(now):
		return false, ErrOldDrain
	case !ok && len(h.drains) >= MaxDrains && !(d.InForce(now) && h.dropOver(now)):
		return false, fmt.Errorf("%w: %d", ErrManyDrains, len(h.drains))
	}
	if ok {
		h.drainSum ^= old.sum()
	}
	h.drainSum ^= d.sum()
	h.drains[d.Target] = d
	h.obey(now)
	return true, nil
}

// dropOver makes room for a word that is to be in force: it drops the last, by target, of those that are not any more; false: all are. What other
// nodes have dropped is the same then. mu is held.
func (h *Health) dropOver(now time.Time) bool {
	var last *Drain
	for _, d := range h.drains {
		if !d.InForce(now) && (last == nil || d.Target.compare(last.Target) > 0) {
			last = &d
		}
	}
	if last == nil {
		return false
	}
	h.drainSum ^= last.sum()
	delete(h.drains, last.Target)
	return true
}

// Drains are the last words on all targets, taken back or not, sorted by target.
func (h *Health) Drains() []Drain {
	h.mu.Lock()
	defer h.mu.Unlock()
	return sortedDrains(h.drains)
}

// DrainOf is the last word on one target; false if there is none.
func (h *Health) DrainOf(t DrainTarget) (Drain, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d, ok := h.drains[t]
	return d, ok
}

// DrainSum is a sum over all words held: two tables with the same sum hold the same ones. 0: there are none.
func (h *Health) DrainSum() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.drainSum
}

// sum is for the sum over all: it is of nothing but what makes the word another one.
func (d *Drain) sum() uint64 {
	return hashOf(fmt.Sprintf("%d %q %d %v %q %q %q %d %d", d.Target.Kind, d.Target.Name, d.Number, d.Back, d.Author, d.By, d.Why, d.Since, d.Until))
}

func sortedDrains(m map[DrainTarget]Drain) []Drain {
	l := make([]Drain, 0, len(m))
	for _, d := range m {
		l = append(l, d)
	}
	slices.SortFunc(l, func(a, b Drain) int { return a.Target.compare(b.Target) })
	return l
}

// obey puts in force what is to be in force at that time, and forgets what is of long ago. mu is held.
func (h *Health) obey(now time.Time) {
	var holds []Drain
	for t, d := range h.drains {
		if d.forgotten(now) {
			h.drainSum ^= d.sum()
			delete(h.drains, t)
		}
	}
	for _, d := range sortedDrains(h.drains) {
		if d.InForce(now) {
			holds = append(holds, d)
		}
	}
	if slices.Equal(holds, h.drained) {
		return
	}
	h.drained = holds
	h.recount()
	h.touch()
}

// drainOf is why a backend is drained; "": it is not. mu is held.
func (h *Health) drainOf(b *Backend) string {
	_, why := inForce(h.drained, DrainTarget{DrainBackend, b.Name}, DrainTarget{DrainRegion, b.Region})
	return why
}

// inForce is the first of the targets that is drained, and why in words. What is drained with its region says so.
func inForce(drained []Drain, own, region DrainTarget) (d *Drain, why string) {
	for i := range drained {
		if drained[i].Target == own {
			return &drained[i], drained[i].String()
		}
	}
	for i := range drained {
		if drained[i].Target == region {
			return &drained[i], region.String() + " " + drained[i].String()
		}
	}
	return nil, ""
}

// NodeDrain is the word that drains a node; nil: none does.
func (s *Snapshot) NodeDrain(m Member) *Drain {
	d, _ := inForce(s.Drains, DrainTarget{DrainNode, m.Name}, DrainTarget{DrainRegion, m.Region})
	return d
}

// NodeDrained is why a node is drained; "": it is not.
func (s *Snapshot) NodeDrained(m Member) string {
	_, why := inForce(s.Drains, DrainTarget{DrainNode, m.Name}, DrainTarget{DrainRegion, m.Region})
	return why
}

// Observing are the members that are to observe backends: those that are not drained, or all if everybody is.
func (s *Snapshot) Observing() []Member {
	if len(s.Drains) == 0 {
		return s.Members
	}
	left := slices.DeleteFunc(slices.Clone(s.Members), func(m Member) bool { return s.NodeDrain(m) != nil })
	if len(left) == 0 {
		return s.Members
	}
	return left
}
