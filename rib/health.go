package rib

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Tombstone is how long the word of an observer that left, or of its boot before the last, is kept before it is forgotten:
// long enough for a short partition to heal and for late packets to die out.
const Tombstone = 60 * time.Second

// strangerKept is how long an observer that is gone, and of which nothing is left, is known as one that is gone: what it said may still be
// with nodes that gave it up later.
const strangerKept = 5 * time.Minute

// Change is what an observation did to the table.
type Change uint8

// The changes. A Flip changed the observer's state or role of the backend: it wants to be known everywhere at once.
const (
	None Change = iota
	Updated
	Flip
)

// Health is the table's half that gossip writes: which backends exist, what each observer says of them, who is alive, and
// what this node found out itself. It merges: of what one observer said of one backend the larger stamp stays, so order,
// repetition and loss (after Digest and Newer) do not change where it ends up. No method reads a clock.
type Health struct {
	// constant
	self   string
	touch  func()
	owners *Owners // to be read: which announcements outlive their authors

	// guarded by mu
	mu        sync.Mutex
	members   map[string]Member // live ones, and self
	observers map[string]*observer
	backends  map[string]*backend
	distances map[string]*distance   // by region
	digests   map[string]DigestEntry // by observer, of all records held
	drains    map[DrainTarget]Drain  // the last word on each, taken back or not
	drainSum  uint64                 // over drains
	drained   []Drain                // those in force, sorted; replaced, never changed

	// A snapshot is made of what has changed since the last one.
	counting uint64     // grows whenever other words count than before: then every backend is looked at anew
	sorted   []*backend // by name; nil: to be made
	roll     []Member   // members, sorted; nil: to be made
}

// observer is what the table knows of one author of records.
type observer struct {
	incarnation uint32    // the highest heard: words of an earlier boot do not count
	since       time.Time // when Expire first saw that incarnation; zero until then
	floor       uint32    // records of earlier boots are refused
	goneAt      time.Time // when it left; zero while it is live or not yet noticed missing
	forgotten   bool      // it left long ago: its records are refused until it is back
}

// backend is what the table holds under one backend's name.
type backend struct {
	name          string
	announcements words[Announcement]
	routes        words[Route]
	last          roleAt  // of routes that were forgotten
	server        Backend // as last announced by who had reached it; zero: never
	evidence      string  // own, against it
	saw           *behind // by this node itself; nil: what it has told
	gauge         *Gauge

	view     BackendView // the last one made, with the latest role that an observer has told
	most     roleAt      // what most of them say
	shown    bool        // there is one
	counting uint64      // Health.counting as it was then; 0: the view is of no use
}

// roleAt is a role, and on which timeline. The last one known of a backend outlives its observers: a node that loses everybody still has to
// know which is the primary.
type roleAt struct {
	role     Role
	timeline uint32
}

// behind is how far a replica is behind.
type behind struct {
	lag   time.Duration
	bytes int64
}

func newHealth(self Member, owners *Owners, touch func()) *Health {
	return &Health{
		self: self.Name, touch: touch, owners: owners,
		members:   map[string]Member{self.Name: self},
		observers: map[string]*observer{self.Name: {incarnation: self.Incarnation}},
		backends:  map[string]*backend{},
		distances: map[string]*distance{},
		digests:   map[string]DigestEntry{},
		drains:    map[DrainTarget]Drain{},
		counting:  1,
	}
}

// recount is called when other words count than before.
func (h *Health) recount() { h.counting, h.roll = h.counting+1, nil }

// Announce merges what an author says a backend is; changed tells whether it was news. A backend outlives its author, as far as it is of use.
func (h *Health) Announce(a Announcement) (changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.Backend.Name == "" || a.Observer == "" || !h.admitAuthor(&a) {
		return false
	}
	b := h.backend(a.Backend.Name)
	old, ok := b.announcements.of(a.Observer)
	if ok && a.Stamp.Compare(old.Stamp) <= 0 {
		return false
	}
	if ok {
		h.sumOut('a', a.Backend.Name, a.Observer, old.Stamp)
	}
	h.sumUp('a', a.Backend.Name, a.Observer, a.Stamp)
	b.announcements.put(a)
	if identity, _ := b.identity(h.live); identity != nil && identity.Backend.SystemID != 0 {
		b.server = identity.Backend
	}
	b.counting = 0
	h.touch()
	return true
}

// Observe merges what an observer believes about a backend. Routes of backends that nobody has announced yet are kept:
// the announcement may come later. An observer whose incarnation grew has to say all that it still holds again.
func (h *Health) Observe(r Route) Change {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.Backend == "" || !h.admit(r.Observer, r.Stamp) {
		return None
	}
	b := h.backend(r.Backend)
	old, ok := b.routes.of(r.Observer)
	if ok && r.Stamp.Compare(old.Stamp) <= 0 {
		return None
	}
	if ok {
		h.sumOut('r', r.Backend, r.Observer, old.Stamp)
	}
	h.sumUp('r', r.Backend, r.Observer, r.Stamp)
	b.routes.put(r)
	if r.Observer == h.self {
		b.saw = nil
	}
	b.counting = 0
	h.touch()
	if r.State != old.State || r.Role != old.Role {
		return Flip
	}
	return Updated
}

// MemberUp makes m a live member: what it says counts. Calling it again updates the member.
func (h *Health) MemberUp(m Member) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.Name == "" {
		return
	}
	o := h.observer(m.Name)
	old, ok := h.members[m.Name]
	if ok && old == m && o.incarnation >= m.Incarnation {
		return
	}
	h.members[m.Name] = m
	o.goneAt, o.forgotten = time.Time{}, false
	o.boot(m.Incarnation)
	h.recount()
	h.touch()
}

// MemberGone ends the counting of what a member said, at once. Its records stay for a while as tombstones, in case it is
// back soon; Expire forgets them.
func (h *Health) MemberGone(name string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.members[name]; !ok || name == h.self {
		return
	}
	delete(h.members, name)
	h.observer(name).goneAt = now
	h.recount()
	h.touch()
}

// Expire forgets what has been a tombstone for 60 s: the routes of observers that left, and what live ones said in an
// earlier boot and have not said again. So are announcements that cannot be of use without their author, and those of authors that an operator
// has forgotten, and the distances to regions in which nothing is any more. Drains that are over by now end. Call it every few seconds.
func (h *Health) Expire(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.obey(now)
	changed := false
	for name, o := range h.observers {
		if _, live := h.members[name]; !live && !o.forgotten {
			if o.goneAt.IsZero() { // heard of, never seen
				o.goneAt = now
			}
			if now.Sub(o.goneAt) >= Tombstone {
				o.forgotten = true
				changed = h.forget(name, func(Stamp) bool { return true }, false) || changed
			}
		}
	}
	changed = h.dropUseless() || changed
	for name, o := range h.observers {
		if _, left := h.digests[name]; o.forgotten && !left { // nothing is left that could tell it, should it come back, that it has lived before
			*o = observer{goneAt: o.goneAt, forgotten: true}
		}
		if o.forgotten && now.Sub(o.goneAt) >= strangerKept {
			if _, holds := h.digests[name]; !holds {
				delete(h.observers, name)
				continue
			}
		}
		if o.floor == o.incarnation {
			continue
		}
		if o.since.IsZero() {
			o.since = now
		}
		if now.Sub(o.since) >= Tombstone {
			o.floor = o.incarnation
			changed = h.forget(name, func(s Stamp) bool { return s.Incarnation < o.floor }, true) || changed
		}
	}
	for name, b := range h.backends {
		if len(b.announcements) == 0 && len(b.routes) == 0 && (b.gauge == nil || b.gauge.InFlight.Load() == 0) {
			delete(h.backends, name)
			h.sorted = nil
		}
	}
	changed = h.dropDistances() || changed
	if changed {
		h.recount()
		h.touch()
	}
}

// dropDistances forgets the way to regions in which no member stands and no backend: regions can be made up, too.
func (h *Health) dropDistances() (changed bool) {
	here := make(map[string]bool, len(h.distances))
	for _, m := range h.members {
		here[m.Region] = true
	}
	for _, b := range h.backends {
		for i := range b.announcements {
			here[b.announcements[i].Backend.Region] = true
		}
	}
	for region := range h.distances {
		if !here[region] {
			delete(h.distances, region)
			changed = true
		}
	}
	return changed
}

// forget drops an observer's routes, and if asked its announcements, that are old by its stamp.
func (h *Health) forget(name string, old func(Stamp) bool, announcements bool) (changed bool) {
	for _, b := range h.backends {
		if r, ok := b.routes.of(name); ok && old(r.Stamp) {
			if latest, _ := b.roleOf(h.live); latest.role != RoleUnknown {
				b.last = latest
			}
			b.routes.drop(name)
			changed = true
		}
		if a, ok := b.announcements.of(name); announcements && ok && old(a.Stamp) {
			b.announcements.drop(name)
			changed = true
		}
	}
	if changed {
		h.sumAnew(name)
	}
	return changed
}

// Evidence records what this node itself has met at a backend: down for a refused connect or failed probes, with why for
// people; up again clears it. It holds for this node alone and is never gossiped.
func (h *Health) Evidence(backend string, down bool, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !down {
		why = ""
	} else if why == "" {
		why = "it did not answer"
	}
	if b := h.backends[backend]; b == nil && !down || b != nil && b.evidence == why {
		return
	}
	b := h.backend(backend)
	b.evidence, b.counting = why, 0
	h.touch()
}

// Saw records how far this node's own probe has just found a backend behind that it observes, where that is not what it has told: it goes
// by this in its own word's place, until its next word. It holds for this node alone.
func (h *Health) Saw(backend string, lag time.Duration, bytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.backends[backend]
	if b == nil {
		return
	}
	b.saw, b.counting = &behind{lag, bytes}, 0
	h.touch()
}

// Distance takes one round-trip time from this node to a region. What is published changes rarely and then for good: the
// median of five samples, averaged with weight 0.3, and only if that differs by more than a tenth and a millisecond; then
// it holds for ten seconds.
func (h *Health) Distance(region string, sample time.Duration, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.distances[region]
	if d == nil {
		d = new(distance)
		h.distances[region] = d
	}
	if d.add(sample, now) {
		h.touch()
	}
}

// admit tells whether a record by that observer may be merged at all, and notes its boot.
func (h *Health) admit(name string, s Stamp) bool {
	if name == "" {
		return false
	}
	o := h.observer(name)
	if o.forgotten || s.Incarnation < o.floor {
		return false
	}
	if o.boot(s.Incarnation) {
		h.recount()
	}
	return true
}

// boot notes that the observer was heard in an incarnation, and tells whether that is a newer one.
func (o *observer) boot(incarnation uint32) bool {
	if incarnation <= o.incarnation {
		return false
	}
	o.incarnation, o.since = incarnation, time.Time{}
	return true
}

func (h *Health) observer(name string) *observer {
	o := h.observers[name]
	if o == nil {
		o = new(observer)
		h.observers[name] = o
	}
	return o
}

func (h *Health) backend(name string) *backend {
	b := h.backends[name]
	if b == nil {
		b = &backend{name: name}
		h.backends[name], h.sorted = b, nil
	}
	return b
}

// Quiet notes, for the sessions of this node alone, whether its own last probe of a backend had no answer at all. It is no verdict.
func (h *Health) Quiet(backend string, quiet bool) {
	if g := h.gaugeOf(backend); g != nil {
		g.Quiet.Store(quiet)
	}
}

// gaugeOf is a backend's; nil: nobody has announced it.
func (h *Health) gaugeOf(name string) *Gauge {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.backends[name]
	if b == nil || len(b.announcements) == 0 && b.gauge == nil {
		return nil
	}
	return b.ownGauge()
}

// announced tells whether somebody announces the backend, and of what server; 0: nobody has reached it yet.
func (h *Health) announced(name string) (systemID uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.backends[name]
	if b == nil {
		return 0, false
	}
	identity, _ := b.identity(h.live)
	if identity == nil {
		return 0, false
	}
	return identity.Backend.SystemID, true
}

func (b *backend) ownGauge() *Gauge {
	if b.gauge == nil {
		b.gauge = new(Gauge)
	}
	return b.gauge
}

// live tells whether what this observer said under that stamp counts: it is a member, and has not booted since.
func (h *Health) live(observer string, s Stamp) bool {
	if _, ok := h.members[observer]; !ok {
		return false
	}
	return s.Incarnation >= h.observers[observer].incarnation
}

// byName sorts what a map holds.
func byName[T any](m map[string]T, name func(T) string) []T {
	l := make([]T, 0, len(m))
	for _, v := range m {
		l = append(l, v)
	}
	slices.SortFunc(l, func(a, b T) int { return cmp.Compare(name(a), name(b)) })
	return l
}
