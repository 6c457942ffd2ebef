package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"rangefinder/rib"
)

// A node that has just joined, or was cut off, has not heard every word of an operator. So before it answers that something is not drained
// it asks others, and hears from them what they know.

// drainAsks is how many others are asked. In a cluster that is whole all know a word within a second, so a few would do.
const drainAsks = 16

// drainAsked is what came of it.
type drainAsked struct {
	nodes  int      // of the cluster, this one included
	said   int      // of these, that have said what they know, this one included
	silent []string // those that were asked and did not, sorted
	lost   []string // those that died or were cut off, as far as this node can tell, sorted
}

// askDrain has this node hear the last word on a target that others know.
func (n *Node) askDrain(ctx context.Context, target rib.DrainTarget) drainAsked {
	s := n.table.Snapshot()
	a := drainAsked{nodes: len(s.Members), said: 1}
	others := slices.DeleteFunc(slices.Clone(s.Members), func(m rib.Member) bool { return m.Name == s.Self.Name })
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	var mu sync.Mutex
	n.eachMember(others[:min(len(others), drainAsks)], func(_ int, m rib.Member) {
		here, err := n.askLeft(ctx, m, target, 0)
		mu.Lock()
		defer mu.Unlock()
		if err != nil || here.Heard && here.Word == nil { // of an older release: it knows a word and does not say which
			a.silent = append(a.silent, m.Name)
			return
		}
		a.said++
	})
	for _, l := range n.speaker().Lost() {
		a.lost = append(a.lost, l.Name)
	}
	slices.Sort(a.silent)
	slices.Sort(a.lost)
	return a
}

// hearDrain takes what another node has said that it knows.
func (n *Node) hearDrain(v *DrainView) error {
	target, err := drainTarget(v.Kind, v.Name)
	if err != nil {
		return err
	}
	w := rib.Drain{Target: target, Number: v.Number, Back: v.Back, Author: v.ToldTo, By: v.By, Why: v.Why, Since: v.Since.Unix()}
	if v.Until != nil {
		w.Until = v.Until.Unix()
	}
	return n.speaker().HearDrain(w)
}

// notDrained says that a target is not drained, who says so, and of whom that is not known. last is the last word that is known; Number 0:
// there is none.
func (a *drainAsked) notDrained(target rib.DrainTarget, last *rib.Drain) string {
	text := target.String() + " is not drained"
	switch {
	case last.Number > 0 && last.Back:
		text += fmt.Sprintf(": taken back by %s at %s", last.By, drainedAt(last.Since))
	case last.Number > 0:
		text += fmt.Sprintf(": what %s ordered was over at %s", last.By, drainedAt(last.Until))
	}
	text += fmt.Sprintf("; so say %d of %d nodes", a.said, a.nodes)
	if len(a.silent) > 0 {
		text += "; no answer from " + strings.Join(a.silent, ", ")
	}
	if len(a.lost) > 0 {
		text += "; lost, and not asked: " + strings.Join(a.lost[:min(len(a.lost), drainAsks)], ", ")
	}
	if more := len(a.lost) - drainAsks; more > 0 {
		text += fmt.Sprintf(" and %d others", more)
	}
	return text
}

func drainedAt(seconds int64) string {
	return time.Unix(seconds, 0).UTC().Format("2006-01-02 15:04:05 UTC")
}
