package rib

import (
	"fmt"
	"slices"
	"time"
)

// OutlierRules say when a backend that answers is left out all the same.
type OutlierRules struct {
	Errors   int           // errors in ten seconds, in three of them at least, that eject if they are half of its answers; 0: none do
	Slowness float64       // how many times slower than the shard's others ejects, and 10 ms more at least; 0: none
	Base     time.Duration // how long the first ejection lasts; each one after it Base longer; 0: nothing is ejected
	Longest  time.Duration // the longest; 0: no bound
	WarmUp   time.Duration // how long a backend that is back takes to get its full share of reads; 0: it does at once
}

const (
	outlierLooks  = 10                       // that count, at one a second
	outlierWindow = 10500 * time.Millisecond // what was before counts no more, however few the looks; looks are a little late
	outlierSpread = 3                        // looks that find errors: one stroke, as when a server is restarted, is no habit
	outlierReads  = 50                       // fewer in a window say nothing of how slow a backend is
	outlierGap    = 10 * time.Millisecond    // slower by less is not worth a longer way
	coldHeld      = 90                       // percent that a backend leaves to others when it is back
	heldStep      = 15                       // it takes its share in steps: lists are not swapped all the time
)

// Outliers judges backends by how they answer this node's statements. It is a pure function of what it is given, and of what it was
// given before; one goroutine owns it.
type Outliers struct {
	known map[string]*suspect
}

// suspect is what is known of one backend.
type suspect struct {
	looks    [outlierLooks]glance // the last ones, a ring; the window goes from the oldest to now
	newest   int                  // of looks
	kept     int                  // of looks
	now      counts               // in the window, up to now
	spread   int                  // looks in the window that found new errors
	ejected  string               // why; "": it is not
	until    time.Time            // end of the ejection
	times    int                  // ejections that have not been forgotten
	well     time.Time            // since when it has behaved; each Base of that forgets an ejection
	out      bool                 // it could not be used when last looked at
	returned time.Time            // zero: it was never out
}

// glance is what a gauge showed at one look.
type glance struct {
	at    time.Time
	shown counts
}

// NewOutliers knows nothing yet.
func NewOutliers() *Outliers { return &Outliers{known: map[string]*suspect{}} }

// Judge is called about once a second. It returns the trials of all backends that are on one.
func (o *Outliers) Judge(s *Snapshot, rules OutlierRules, now time.Time) map[string]Trial {
	shards := map[string][]*BackendView{}
	here := make(map[string]bool, len(s.Backends))
	for i := range s.Backends {
		v := &s.Backends[i]
		here[v.Backend.Name] = true
		shards[v.Backend.Shard] = append(shards[v.Backend.Shard], v)
		o.look(v, rules, now)
	}
	for name := range o.known {
		if !here[name] {
			delete(o.known, name)
		}
	}
	trials := map[string]Trial{}
	for _, views := range shards {
		for _, v := range views {
			x := o.known[v.Backend.Name]
			if why := o.against(v, views, s, rules); why != "" {
				x.eject(why, rules, now)
			}
			if t := (Trial{Ejected: x.ejected, Held: x.held(rules, now)}); t != (Trial{}) {
				trials[v.Backend.Name] = t
			}
		}
	}
	return trials
}

// look reads a backend's gauge and ends what is over.
func (o *Outliers) look(v *BackendView, rules OutlierRules, now time.Time) {
	c := v.Gauge.counts()
	x := o.known[v.Backend.Name]
	if x == nil {
		x = &suspect{well: now}
		o.known[v.Backend.Name] = x
	}
	out := v.Down() || v.Refused != "" || v.Drained != ""
	back := x.out && !out
	x.out = out
	if x.ejected != "" && !now.Before(x.until) {
		x.ejected, x.well, back = "", now, !out
	}
	if back {
		x.returned, x.kept = now, 0
	}
	x.glance(&c, now)
	if x.ejected == "" && x.times > 0 && now.Sub(x.well) >= rules.Base {
		x.times--
		x.well = now
	}
}

// glance moves the window on to now.
func (x *suspect) glance(c *counts, now time.Time) {
	x.now, x.spread = counts{}, 0
	later := c
	for i := range x.kept { // from the newest to the oldest
		g := &x.looks[(x.newest-i+outlierLooks)%outlierLooks]
		if i > 0 && now.Sub(g.at) > outlierWindow {
			x.kept = i
			break
		}
		if g.shown.errors != later.errors {
			x.spread++
		}
		later = &g.shown
	}
	x.now = c.since(later)
	x.newest = (x.newest + 1) % outlierLooks
	x.looks[x.newest] = glance{now, *c}
	x.kept = min(x.kept+1, outlierLooks)
}

// against is why a backend should be ejected; "": it need not.
func (o *Outliers) against(v *BackendView, shard []*BackendView, s *Snapshot, rules OutlierRules) string {
	x := o.known[v.Backend.Name]
	if x.ejected != "" || x.out || rules.Base <= 0 {
		return ""
	}
	answers := x.now.total() + int(x.now.errors)
	if n := int(x.now.errors); rules.Errors > 0 && n >= rules.Errors && 2*n >= answers && x.spread >= outlierSpread {
		return fmt.Sprintf("%d of its last %d answers were errors of the server", n, answers)
	}
	if rules.Slowness <= 0 {
		return ""
	}
	mine, _, ok := o.pace(v, s)
	if !ok {
		return ""
	}
	var others []time.Duration
	for _, p := range shard {
		if _, most, ok := o.pace(p, s); ok && p != v {
			others = append(others, most)
		}
	}
	if len(others) == 0 {
		return ""
	}
	slices.Sort(others)
	usual := others[(len(others)-1)/2]
	if float64(mine) < rules.Slowness*float64(usual) || mine-usual < outlierGap {
		return ""
	}
	return fmt.Sprintf("its reads take over %v, those of the shard's others under %v", mine.Round(time.Millisecond), usual.Round(100*time.Microsecond))
}

// pace is between what and what half of a backend's reads take, without the way there; false if too few tell.
func (o *Outliers) pace(v *BackendView, s *Snapshot) (least, most time.Duration, ok bool) {
	x := o.known[v.Backend.Name]
	distance, measured := s.Distances[v.Backend.Region]
	if x.ejected != "" || x.out || !measured || x.now.total() < outlierReads {
		return 0, 0, false
	}
	least, most, ok = x.now.median()
	return max(least-distance, 0), max(most-distance, leastOf(1)), ok
}

// eject leaves the backend out, longer each time.
func (x *suspect) eject(why string, rules OutlierRules, now time.Time) {
	x.times++
	d := rules.Base * time.Duration(x.times)
	if rules.Longest > 0 && d > rules.Longest {
		d = rules.Longest
		x.times-- // more would only take longer to be forgotten
	}
	x.until = now.Add(d)
	x.ejected = fmt.Sprintf("ejected for %v: %s", d, why)
}

// held is the percentage of its turns that a backend leaves to others. While it is out it is cold already, so that it does not
// get everything between its return and the next look.
func (x *suspect) held(rules OutlierRules, now time.Time) uint8 {
	switch {
	case rules.WarmUp <= 0:
		return 0
	case x.out || x.ejected != "":
		return coldHeld
	case x.returned.IsZero() || now.Sub(x.returned) >= rules.WarmUp:
		return 0
	}
	left := coldHeld - coldHeld*now.Sub(x.returned)/rules.WarmUp
	return uint8((left + heldStep - 1) / heldStep * heldStep)
}
