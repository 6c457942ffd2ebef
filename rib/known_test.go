package rib_test

import (
	"slices"
	"testing"
	"time"

	"rangefinder/rib"
)

// TestRestartRemembersOthersBackends: what other nodes announced survives a restart, until they say something else.
func TestRestartRemembersOthersBackends(t *testing.T) {
	before := newWorld(t)
	before.announce("n2", 3, 11)
	before.observe("n2", rib.Route{State: rib.Up, Role: rib.Primary, Timeline: 2, Stamp: rib.Stamp{Incarnation: 3}})
	before.Health().MemberGone("n2", epoch0)
	before.Health().Expire(epoch0.Add(2 * time.Minute)) // its routes are forgotten, not its servers
	known := before.Health().Known()
	if len(known) != 2 || known[0].Announcement.Observer != "n1" || known[1].Announcement.Observer != "n2" || known[1].Role != rib.Primary || known[1].Timeline != 2 {
		t.Fatalf("%+v", known)
	}

	restarted := func() *world {
		w := &world{t: t, Table: rib.NewTable(rib.Member{Name: "n1", Region: "fra", Incarnation: 2}), seq: 100}
		w.Owners().Set(before.Owners().Get())
		w.Health().Recall(known)
		return w
	}
	w := restarted()
	if v := w.view(); v.Role != rib.Primary || v.Timeline != 2 || v.Verdict != rib.StateUnknown || v.Refused != "" || v.Backend.SystemID != 11 {
		t.Errorf("recalled: %+v", v)
	}
	if again := w.Health().Known(); !slices.Equal(again, known[1:]) {
		t.Errorf("known again: %+v", again)
	}
	// Alone for long: nothing is forgotten.
	w.Health().Expire(epoch0)
	w.Health().Expire(epoch0.Add(time.Hour))
	if v := w.view(); v.Role != rib.Primary {
		t.Errorf("after an hour: %+v", v)
	}

	// The author is there and says otherwise.
	w.Health().MemberUp(rib.Member{Name: "n2", Region: "fra", Incarnation: 3})
	w.observe("n2", rib.Route{State: rib.Up, Role: rib.Replica, Timeline: 3, Stamp: rib.Stamp{Incarnation: 3}})
	if v := w.view(); v.Role != rib.Replica || v.Verdict != rib.Up {
		t.Errorf("heard: %+v", v)
	}

	// The author came back and lists it no more.
	w = restarted()
	w.Health().MemberUp(rib.Member{Name: "n2", Region: "fra", Incarnation: 4})
	w.Health().Expire(epoch0)
	w.Health().Expire(epoch0.Add(61 * time.Second))
	if list := w.Snapshot().Backends; len(list) != 0 {
		t.Errorf("still there: %+v", list)
	}

	// What this node lists comes from its configuration alone; what that was last is known again.
	w = &world{t: t, Table: rib.NewTable(rib.Member{Name: "n1", Incarnation: 2})}
	w.Health().Recall(known[:1])
	if list := w.Snapshot().Backends; len(list) != 0 {
		t.Errorf("own: %+v", list)
	}
	w.announce("n1", 2, 11)
	if v := w.view(); v.Role != rib.Primary || v.Timeline != 2 {
		t.Errorf("own, and listed: %+v", v)
	}
}

// TestAuthorStartsAnew: a node that starts anew, and has not reached its backend yet, takes nothing from what is known of it: else each restart would take the
// backend away from the whole cluster, and hand the writes to a primary of the past that still runs.
func TestAuthorStartsAnew(t *testing.T) {
	fresh := func() *world {
		w := newWorld(t)
		w.seq++
		w.Health().Announce(rib.Announcement{Backend: w.view().Backend, Observer: "n1", Stamp: rib.Stamp{Incarnation: 1, Seq: w.seq}, Gone: true})
		return w
	}
	w := fresh()
	w.announce("n2", 3, 11)
	w.observe("n2", rib.Route{State: rib.Up, Role: rib.Primary, Timeline: 3, Stamp: rib.Stamp{Incarnation: 3}})
	w.announce("n2", 4, 0)
	v := w.view()
	if v.Backend.SystemID != 11 || v.Refused != "" || v.Role != rib.Primary || v.Timeline != 3 {
		t.Errorf("its author has started anew: %+v", v)
	}
	if known := w.Health().Known(); len(known) != 1 || known[0].Announcement.Backend.SystemID != 11 || known[0].Announcement.Stamp.Incarnation != 4 {
		t.Errorf("known: %+v", known)
	}
	w.announce("n2", 5, 12)
	if v := w.view(); v.Backend.SystemID != 12 || v.Refused == "" {
		t.Errorf("it has found another server there: %+v", v)
	}

	w = fresh()
	w.announce("n2", 3, 11)
	elsewhere := w.view().Backend
	elsewhere.Addr, elsewhere.SystemID = "10.9.9.9:5432", 0
	w.Health().Announce(rib.Announcement{Backend: elsewhere, Observer: "n2", Stamp: rib.Stamp{Incarnation: 4, Seq: 1}})
	if v := w.view(); v.Backend.SystemID != 0 || v.Refused == "" {
		t.Errorf("its author looks for it in another place: %+v", v)
	}
}
