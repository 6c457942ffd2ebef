package rib

import "time"

// What an author has announced outlives it: its servers serve on while the node that lists them is down. But it does not outlive two things:
// that an operator says the node is gone for good, in the ledger, until it is back; and, once the author is long gone, that no node could use it.

// forgotten tells whether an operator has said that this author is gone for good. One that lives is not.
func (h *Health) forgotten(author string, o *Ownership) bool {
	if len(o.Forgotten) == 0 {
		return false
	}
	_, live := h.members[author]
	return !live && o.Forgot(author)
}

// ofUse tells whether an announcement is worth anything without its author: that was a node once, and says of a server of a shard that is recorded
// what it is, or has withdrawn it, which keeps out what older disks say. It needs to know the ledger's state.
func (b *backend) ofUse(a *Announcement, o *Ownership) bool {
	if _, was := o.NodeNumber(a.Observer); a.Gone || !was && o.numbersAll() {
		return was
	}
	x := a.Backend
	b.recognize(&x)
	shard := o.Shard(x.Shard)
	return shard != nil && x.SystemID == shard.SystemID
}

// admitAuthor tells whether an announcement may be merged. Of an author that is long gone that is what is of use: another node may still know it
// that this one has heard nothing of, or had no use for before the shard was recorded.
func (h *Health) admitAuthor(a *Announcement) bool {
	owners := h.owners.Get()
	if h.forgotten(a.Observer, owners) {
		return false
	}
	if o := h.observers[a.Observer]; o != nil && o.forgotten {
		b := h.backends[a.Backend.Name]
		if b == nil {
			b = &backend{}
		}
		return owners.ClusterID != "" && a.Stamp.Incarnation >= o.floor && b.ofUse(a, owners)
	}
	return h.admit(a.Observer, a.Stamp)
}

// dropUseless drops announcements that outlive their authors no longer.
func (h *Health) dropUseless() (changed bool) {
	owners := h.owners.Get()
	if owners.ClusterID == "" { // what is of use is not known yet
		return false
	}
	of := map[string]bool{} // by author who is not live: whether an operator has forgotten it
	lost := map[string]bool{}
	for _, b := range h.backends {
		for i := len(b.announcements) - 1; i >= 0; i-- {
			a := &b.announcements[i]
			name := a.Observer
			if _, live := h.members[name]; live {
				continue
			}
			forgotten, known := of[name]
			if !known {
				forgotten = h.forgotten(name, owners)
				of[name] = forgotten
			}
			if o := h.observers[name]; forgotten || o != nil && o.forgotten && !b.ofUse(a, owners) {
				b.announcements.drop(name)
				lost[name] = true
			}
		}
	}
	for name := range lost {
		h.sumAnew(name)
	}
	return len(lost) > 0
}

// MakeRoom drops a backend that no live author announces and no live observer has a say on: one that nobody has ever told a role of, if there is any
// such, and the last by name. false: there is none.
func (h *Health) MakeRoom() (name string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var drop *backend
	for _, b := range h.backends {
		if b.spokenOf(h.live) {
			continue
		}
		if drop == nil || b.unseen() && !drop.unseen() || b.unseen() == drop.unseen() && b.name > drop.name {
			drop = b
		}
	}
	if drop == nil {
		return "", false
	}
	var authors []string
	for _, a := range drop.announcements {
		authors = append(authors, a.Observer)
	}
	for _, r := range drop.routes {
		authors = append(authors, r.Observer)
	}
	delete(h.backends, drop.name)
	h.sorted = nil
	for _, author := range authors {
		h.sumAnew(author)
	}
	h.touch()
	return drop.name, true
}

// spokenOf tells whether somebody who lives announces the backend, or says anything of it.
func (b *backend) spokenOf(live func(string, Stamp) bool) bool {
	for _, a := range b.announcements {
		if live(a.Observer, a.Stamp) {
			return true
		}
	}
	for _, r := range b.routes {
		if live(r.Observer, r.Stamp) {
			return true
		}
	}
	return b.evidence != "" || b.gauge != nil && b.gauge.InFlight.Load() != 0
}

// unseen tells whether nobody has told a role of the backend yet.
func (b *backend) unseen() bool { return b.last.role == RoleUnknown && len(b.routes) == 0 }

// AnnouncedBy lists the backends that this author alone announces, sorted by name: without it nobody does. since is when it was found gone, by
// the clock that MemberGone and Expire were given; zero if it was not, or if that is long forgotten.
func (h *Health) AnnouncedBy(author string) (alone []string, since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o := h.observers[author]; o != nil {
		since = o.goneAt
	}
	for _, b := range byName(h.backends, func(b *backend) string { return b.name }) {
		own, others := false, false
		for _, a := range b.announcements {
			if !a.Gone {
				own, others = own || a.Observer == author, others || a.Observer != author
			}
		}
		if own && !others {
			alone = append(alone, b.name)
		}
	}
	return alone, since
}
