package rib

import (
	"cmp"
	"slices"
	"strings"
)

// Known is what is worth keeping of a backend on disk, for a node that starts and finds nobody: what it is, and what it was
// last known to be.
type Known struct {
	Announcement Announcement
	Role         Role
	Timeline     uint32
}

// Known lists the backends that nodes have announced, this one too, sorted by name and author.
func (h *Health) Known() []Known {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []Known
	for _, b := range h.backends {
		latest, _ := b.roleOf(h.live)
		if latest.role == RoleUnknown {
			latest = b.last
		}
		for _, a := range b.announcements {
			if !a.Gone {
				b.recognize(&a.Backend)
				list = append(list, Known{a, latest.role, latest.timeline})
			}
		}
	}
	slices.SortFunc(list, func(a, b Known) int {
		x, y := &a.Announcement, &b.Announcement
		return cmp.Or(strings.Compare(x.Backend.Name, y.Backend.Name), strings.Compare(x.Observer, y.Observer))
	})
	return list
}

// Recall puts back what Known gave before a restart. It merges as gossip does, by stamps: whatever is heard later wins, and what an
// author has not said again since it came back is forgotten. A recalled role counts only until somebody says another. What this node itself
// announces its configuration says; of its own backends only what they were last is put back.
func (h *Health) Recall(list []Known) {
	for _, k := range list {
		if k.Announcement.Observer != h.self && !h.Announce(k.Announcement) {
			continue
		}
		h.mu.Lock()
		if b := h.backend(k.Announcement.Backend.Name); b.last.timeline <= k.Timeline {
			b.last, b.counting = roleAt{k.Role, k.Timeline}, 0
			h.touch()
		}
		h.mu.Unlock()
	}
}
