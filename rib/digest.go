package rib

import (
	"hash/fnv"
	"maps"
	"slices"
	"strings"
)

// DigestEntry sums up what a table holds of one observer's records. Two tables with equal entries hold the same.
type DigestEntry struct {
	Observer    string
	Incarnation uint32 // of the newest record
	Seq         uint64 // of the newest record
	// Sum is over the names and stamps of all records held. The highest stamp alone would hide a lost record behind a
	// later one that arrived.
	Sum uint64
}

// Digest sums up what this table holds, an entry per observer, sorted by name.
func (h *Health) Digest() []DigestEntry {
	h.mu.Lock()
	defer h.mu.Unlock()
	return byName(h.digests, func(e DigestEntry) string { return e.Observer })
}

// sumUp keeps an observer's entry up to date: a record of it was taken in.
func (h *Health) sumUp(kind byte, backend, observer string, s Stamp) {
	e := h.digests[observer]
	if (Stamp{e.Incarnation, e.Seq}).Compare(s) < 0 {
		e.Incarnation, e.Seq = s.Incarnation, s.Seq
	}
	e.Observer = observer
	e.Sum ^= recordSum(kind, backend, s) // in any order
	h.digests[observer] = e
}

// sumOut takes out what sumUp has put in, for a record that a newer one replaces.
func (h *Health) sumOut(kind byte, backend, observer string, s Stamp) {
	e := h.digests[observer]
	e.Sum ^= recordSum(kind, backend, s)
	h.digests[observer] = e
}

// sumAnew is for an observer of whom records were forgotten.
func (h *Health) sumAnew(observer string) {
	delete(h.digests, observer)
	for name, b := range h.backends {
		if a, ok := b.announcements.of(observer); ok {
			h.sumUp('a', name, observer, a.Stamp)
		}
		if r, ok := b.routes.of(observer); ok {
			h.sumUp('r', name, observer, r.Stamp)
		}
	}
}

func recordSum(kind byte, backend string, s Stamp) uint64 {
	f := fnv.New64a()
	f.Write([]byte(backend))
	var b [13]byte
	b[0] = kind
	for i := range 4 {
		b[1+i] = byte(s.Incarnation >> (8 * i))
	}
	for i := range 8 {
		b[5+i] = byte(s.Seq >> (8 * i))
	}
	f.Write(b[:])
	return f.Sum64()
}

// Newer is what a table whose digest is d may lack: all records of each observer whose entry differs from this table's. An
// observer's records are few, and its entry rarely differs, so this is small however large the table is. Both sides send
// each other theirs; merging them makes the tables equal. Sorted by backend, then observer.
func (h *Health) Newer(d []DigestEntry) ([]Announcement, []Route) {
	h.mu.Lock()
	defer h.mu.Unlock()
	differs := maps.Clone(h.digests)
	for _, theirs := range d {
		if differs[theirs.Observer] == theirs {
			delete(differs, theirs.Observer)
		}
	}
	var announcements []Announcement
	var routes []Route
	for _, b := range h.backends {
		for _, a := range b.announcements {
			if _, ok := differs[a.Observer]; ok {
				announcements = append(announcements, a)
			}
		}
		for _, r := range b.routes {
			if _, ok := differs[r.Observer]; ok {
				routes = append(routes, r)
			}
		}
	}
	slices.SortFunc(announcements, func(a, b Announcement) int {
		return 2*strings.Compare(a.Backend.Name, b.Backend.Name) + strings.Compare(a.Observer, b.Observer)
	})
	slices.SortFunc(routes, func(a, b Route) int {
		return 2*strings.Compare(a.Backend, b.Backend) + strings.Compare(a.Observer, b.Observer)
	})
	return announcements, routes
}
