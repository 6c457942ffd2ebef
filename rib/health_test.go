package rib_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rangefinder/rib"
)

var epoch0 = time.Unix(1_700_000_000, 0)

// world is a table with shorthands for what gossip does.
type world struct {
	t *testing.T
	*rib.Table
	seq uint64
}

// newWorld has members n1 to n3 (this node is n1) and the backend db of shard_1, announced by n1.
func newWorld(t *testing.T) *world {
	w := &world{t: t, Table: rib.NewTable(rib.Member{Name: "n1", Region: "fra", Incarnation: 1})}
	w.Health().MemberUp(rib.Member{Name: "n2", Region: "fra"})
	w.Health().MemberUp(rib.Member{Name: "n3", Region: "iad"})
	w.Owners().Set(&rib.Ownership{Epoch: rib.Epoch{Index: 1}, Shards: []rib.Shard{{Name: "shard_1", SystemID: 11}}})
	w.announce("n1", 1, 11)
	return w
}

func (w *world) announce(observer string, incarnation uint32, system uint64) {
	w.seq++
	w.Health().Announce(rib.Announcement{
		Observer: observer, Stamp: rib.Stamp{Incarnation: incarnation, Seq: w.seq},
		Backend: rib.Backend{Name: "db", Shard: "shard_1", Region: "fra", Addr: "10.0.0.1:5432", SystemID: system},
	})
}

func (w *world) observe(observer string, r rib.Route) rib.Change {
	w.seq++
	r.Backend, r.Observer, r.Stamp.Seq = "db", observer, w.seq
	if r.Stamp.Incarnation == 0 {
		r.Stamp.Incarnation = 1
	}
	return w.Health().Observe(r)
}

func (w *world) view() rib.BackendView {
	w.t.Helper()
	for _, v := range w.Snapshot().Backends {
		if v.Backend.Name == "db" {
			return v
		}
	}
	w.t.Fatal("nobody announces db")
	return rib.BackendView{}
}

func (w *world) want(verdict rib.State, reason string) {
	w.t.Helper()
	if v := w.view(); v.Verdict != verdict || v.Reason != reason {
		w.t.Errorf("verdict %s (%s), want %s (%s)", v.Verdict, v.Reason, verdict, reason)
	}
}

// What one observer says of a backend's load counts for all, and is said with the verdict. An observer that cannot tell how far it is behind
// leaves that to others.
func TestVerdictOnAFullBackend(t *testing.T) {
	w := newWorld(t)
	w.observe("n1", rib.Route{State: rib.Up, Role: rib.Replica, Lag: time.Second, LagBytes: 7})
	w.observe("n2", rib.Route{State: rib.Up, Role: rib.Replica, Lag: rib.LagUnknown, LagBytes: rib.LagBytesUnknown, Load: rib.LoadAtLimit})
	w.want(rib.Up, "2 of 2 observers say up, at the limit of its load")
	if v := w.view(); v.Lag != time.Second || v.LagBytes != 7 {
		t.Errorf("lag %v, %d bytes: want what the other observer says", v.Lag, v.LagBytes)
	}
}

func TestVerdict(t *testing.T) {
	w := newWorld(t)
	w.want(rib.StateUnknown, "no live observer")
	w.observe("n1", rib.Route{State: rib.Up, Role: rib.Primary})
	w.want(rib.Up, "1 of 1 observers say up")
	w.observe("n2", rib.Route{State: rib.Down, Role: rib.Primary})
	w.want(rib.Up, "1 of 2 observers say up") // half is no majority
	w.observe("n3", rib.Route{State: rib.Down, Role: rib.Primary})
	w.want(rib.Down, "2 of 3 observers say down")
	w.Health().MemberGone("n3", epoch0)
	w.want(rib.Up, "1 of 2 observers say up") // the word of who left stops counting at once
	w.observe("n1", rib.Route{State: rib.Withdrawn})
	w.want(rib.Down, "1 of 1 observers say down")
	w.Health().MemberGone("n2", epoch0)
	w.want(rib.StateUnknown, "no live observer, last known as primary")
	w.Health().MemberUp(rib.Member{Name: "n2", Region: "fra"})
	w.want(rib.Down, "1 of 1 observers say down")
	w.observe("n9", rib.Route{State: rib.Up}) // not a member: a stranger's word
	w.want(rib.Down, "1 of 1 observers say down")
}

// Observe tells a flip, which must be known everywhere at once, from an update, which need not.
func TestFlip(t *testing.T) {
	w := newWorld(t)
	for i, c := range []struct {
		route rib.Route
		want  rib.Change
	}{
		{rib.Route{State: rib.Up, Role: rib.Replica}, rib.Flip},
		{rib.Route{State: rib.Up, Role: rib.Replica, Lag: time.Second}, rib.Updated},
		{rib.Route{State: rib.Up, Role: rib.Primary}, rib.Flip},
		{rib.Route{State: rib.Down, Role: rib.Primary}, rib.Flip},
		{rib.Route{State: rib.Down, Role: rib.Primary}, rib.Updated},
	} {
		if got := w.observe("n2", c.route); got != c.want {
			t.Errorf("step %d: change %d, want %d", i, got, c.want)
		}
	}
}

func TestViewAddsUp(t *testing.T) {
	w := newWorld(t)
	w.observe("n1", rib.Route{State: rib.Up, Role: rib.Replica, Timeline: 3, Lag: rib.LagUnknown, Latency: 5 * time.Millisecond})
	if v := w.view(); v.Lag != rib.LagUnknown {
		t.Errorf("lag %v of one that does not know", v.Lag)
	}
	w.observe("n2", rib.Route{State: rib.Up, Role: rib.Replica, Timeline: 3, Lag: 2 * time.Second, Latency: 3 * time.Millisecond, Load: rib.LoadBetween})
	w.observe("n3", rib.Route{State: rib.Up, Role: rib.Replica, Timeline: 3, Lag: time.Second, Latency: 90 * time.Millisecond})
	v := w.view()
	if v.Lag != 2*time.Second || v.Latency != 3*time.Millisecond || v.Load != rib.LoadBetween || v.Role != rib.Replica || v.Timeline != 3 {
		t.Errorf("lag %v, latency %v, load %v, role %v, timeline %d", v.Lag, v.Latency, v.Load, v.Role, v.Timeline)
	}
	if len(v.Routes) != 3 || v.Routes[0].Observer != "n1" || v.Routes[2].Observer != "n3" {
		t.Errorf("routes %+v", v.Routes)
	}
	// One observer has seen a promotion that the two others have not yet: its timeline is the later one.
	w.observe("n3", rib.Route{State: rib.Up, Role: rib.Primary, Timeline: 4})
	if v := w.view(); v.Role != rib.Primary || v.Timeline != 4 {
		t.Errorf("role %v on timeline %d after a promotion", v.Role, v.Timeline)
	}
	// On one timeline the majority counts.
	for _, o := range []string{"n1", "n2"} {
		w.observe(o, rib.Route{State: rib.Up, Role: rib.Replica, Timeline: 4})
	}
	if v := w.view(); v.Role != rib.Replica {
		t.Errorf("role %v, though two of three say replica", v.Role)
	}
}

func TestConflictingAnnouncements(t *testing.T) {
	w := newWorld(t)
	w.observe("n2", rib.Route{State: rib.Up, Role: rib.Primary})
	w.Health().Announce(rib.Announcement{Observer: "n0", Stamp: rib.Stamp{Incarnation: 1, Seq: 1}, Backend: rib.Backend{Name: "db", Shard: "shard_9"}})
	w.want(rib.Up, "1 of 1 observers say up") // n0 is no member: n1's word alone counts
	w.Health().MemberUp(rib.Member{Name: "n0"})
	w.want(rib.Up, "1 of 1 observers say up; n0 and n1 announce it differently, n0's word counts")
	if v := w.view(); v.Conflict != "n0 and n1 announce it differently, n0's word counts" {
		t.Errorf("conflict %q", v.Conflict)
	}
	if v := w.view(); v.Backend.Shard != "shard_9" || v.Refused != "shard shard_9 is not recorded yet" {
		t.Errorf("shard %s, refused %q", v.Backend.Shard, v.Refused)
	}
	w.Health().Announce(rib.Announcement{Observer: "n0", Stamp: rib.Stamp{Incarnation: 1, Seq: 2}, Backend: rib.Backend{Name: "db"}, Gone: true})
	w.want(rib.Up, "1 of 1 observers say up")
	w.Health().Announce(rib.Announcement{Observer: "n1", Stamp: rib.Stamp{Incarnation: 1, Seq: 99}, Backend: rib.Backend{Name: "db"}, Gone: true})
	if n := len(w.Snapshot().Backends); n != 0 {
		t.Errorf("%d backends after all authors withdrew theirs", n)
	}
}

// An author that has not reached the backend yet does not hide what another one knows.
func TestSystemIdentifierIsFilledIn(t *testing.T) {
	w := &world{t: t, Table: rib.NewTable(rib.Member{Name: "n1", Region: "fra", Incarnation: 1})}
	w.Health().MemberUp(rib.Member{Name: "n2", Region: "fra"})
	w.Owners().Set(&rib.Ownership{Epoch: rib.Epoch{Index: 1}, Shards: []rib.Shard{{Name: "shard_1", SystemID: 11}}})
	w.announce("n1", 1, 0)
	if v := w.view(); !strings.Contains(v.Refused, "not known yet") {
		t.Errorf("a backend that nobody has reached is not refused: %q", v.Refused)
	}
	w.announce("n2", 1, 11)
	if v := w.view(); v.Refused != "" || v.Backend.SystemID != 11 {
		t.Errorf("refused %q, system identifier %d", v.Refused, v.Backend.SystemID)
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t)
	w.announce("n1", 1, 12)
	if got, want := w.view().Refused, "system identifier 12 is not shard_1's 11"; got != want {
		t.Errorf("refused %q, want %q", got, want)
	}
	w.Owners().Set(&rib.Ownership{Epoch: rib.Epoch{Index: 2}})
	if got, want := w.view().Refused, "shard shard_1 is not recorded yet"; got != want {
		t.Errorf("refused %q, want %q", got, want)
	}
}

// A node that loses everybody, for good, still knows what the backend was.
func TestLastKnownRoleStays(t *testing.T) {
	w := newWorld(t)
	w.observe("n2", rib.Route{State: rib.Up, Role: rib.Primary, Timeline: 7})
	w.Health().MemberGone("n2", epoch0)
	w.Health().Expire(epoch0.Add(time.Hour))
	if v := w.view(); v.Role != rib.Primary || v.Timeline != 7 || v.Verdict != rib.StateUnknown || len(v.Routes) != 0 {
		t.Errorf("role %v, timeline %d, verdict %v, %d routes", v.Role, v.Timeline, v.Verdict, len(v.Routes))
	}
}

func TestTombstones(t *testing.T) {
	w := newWorld(t)
	held := func(observer string) bool {
		for _, e := range w.Health().Digest() {
			if e.Observer == observer {
				return true
			}
		}
		return false
	}
	route := rib.Route{Backend: "db", Observer: "n2", Stamp: rib.Stamp{Incarnation: 1, Seq: 5}, State: rib.Up, Role: rib.Primary}
	w.Health().Observe(route)
	w.Health().MemberGone("n2", epoch0)
	w.Health().Expire(epoch0.Add(59 * time.Second))
	if !held("n2") {
		t.Fatal("forgotten before its time")
	}
	w.Health().Expire(epoch0.Add(60 * time.Second))
	if held("n2") {
		t.Fatal("not forgotten after 60 s")
	}
	// A peer that forgets a little later must not bring it back: the two would play ball with it for ever.
	if w.Health().Observe(route); held("n2") {
		t.Error("a forgotten record is back")
	}
	w.Health().MemberUp(rib.Member{Name: "n2", Region: "fra"})
	if w.Health().Observe(route) == rib.None || !held("n2") {
		t.Error("the word of a member that is back is not heard")
	}
	w.want(rib.Up, "1 of 1 observers say up")

	// Somebody of whom we only hear is forgotten too.
	w.observe("n9", rib.Route{State: rib.Up})
	w.Health().Expire(epoch0)
	w.Health().Expire(epoch0.Add(61 * time.Second))
	if held("n9") {
		t.Error("a stranger's record stays for ever")
	}
	// And some minutes later that there was such a name: made-up ones do not add up.
	for _, c := range []struct {
		after time.Duration
		heard bool
	}{{299 * time.Second, false}, {300 * time.Second, true}} {
		w.Health().Expire(epoch0.Add(c.after))
		if w.observe("n9", rib.Route{State: rib.Up}); held("n9") != c.heard {
			t.Errorf("after %v its record is taken: %v, want %v", c.after, !c.heard, c.heard)
		}
	}
	w.Health().Expire(epoch0.Add(301 * time.Second))
	w.Health().Expire(epoch0.Add(362 * time.Second))
	if held("n9") {
		t.Error("a stranger's second record stays for ever")
	}
}

// What a live observer said before it booted does not count, and is forgotten unless it says it again.
func TestReboot(t *testing.T) {
	w := newWorld(t)
	w.announce("n2", 1, 11)
	w.observe("n2", rib.Route{State: rib.Down, Role: rib.Primary})
	w.want(rib.Down, "1 of 1 observers say down")
	w.Health().MemberUp(rib.Member{Name: "n2", Region: "fra", Incarnation: 2})
	w.want(rib.StateUnknown, "no live observer, last known as primary")
	w.observe("n2", rib.Route{State: rib.Up, Role: rib.Primary, Stamp: rib.Stamp{Incarnation: 2}})
	w.want(rib.Up, "1 of 1 observers say up")

	w.Health().Expire(epoch0) // sees the new boot
	w.Health().Expire(epoch0.Add(time.Minute))
	announcements, routes := w.Health().Newer(nil)
	if len(routes) != 1 || len(announcements) != 1 || announcements[0].Observer != "n1" {
		t.Errorf("kept %+v and %+v: n2's announcement of its last boot should be gone", announcements, routes)
	}
	if w.Health().Announce(rib.Announcement{Observer: "n2", Stamp: rib.Stamp{Incarnation: 1, Seq: 1 << 40}, Backend: rib.Backend{Name: "db"}}) {
		t.Error("a record of the last boot is back")
	}
}

func TestEvidenceIsOwn(t *testing.T) {
	w := newWorld(t)
	w.observe("n2", rib.Route{State: rib.Up})
	before := fmt.Sprint(w.Health().Digest())
	w.Health().Evidence("db", true, "connection refused")
	if v := w.view(); v.Evidence != "connection refused" || v.Verdict != rib.Up {
		t.Errorf("evidence %q, verdict %v", v.Evidence, v.Verdict)
	}
	if after := fmt.Sprint(w.Health().Digest()); after != before {
		t.Error("own evidence got into the digest")
	}
	w.Health().Evidence("db", true, "")
	if v := w.view(); v.Evidence == "" {
		t.Error("evidence without a reason is no evidence")
	}
	w.Health().Evidence("db", false, "answered")
	if v := w.view(); v.Evidence != "" {
		t.Errorf("evidence %q after it was taken back", v.Evidence)
	}
}

// Changed fires for changes of either half, once for many, and not for what is no change; a snapshot is made once.
func TestChangedAndSnapshot(t *testing.T) {
	w := newWorld(t)
	fired := func() bool {
		select {
		case <-w.Changed():
			return true
		default:
			return false
		}
	}
	if !fired() || fired() {
		t.Error("many changes should fire once")
	}
	s := w.Snapshot()
	w.Health().MemberUp(rib.Member{Name: "n2", Region: "fra"})
	w.Health().Evidence("db", false, "")
	w.Health().Expire(epoch0)
	w.Health().MemberGone("nobody", epoch0)
	w.Health().MemberGone("n1", epoch0) // ourselves
	if fired() || w.Snapshot() != s {
		t.Error("something that changes nothing fired")
	}
	w.Owners().Set(&rib.Ownership{Epoch: rib.Epoch{Index: 5}})
	if !fired() || w.Snapshot() == s || w.Snapshot().Ownership.Epoch.Index != 5 {
		t.Error("a new ownership did not fire")
	}
	gauge := s.Backends[0].Gauge
	w.Health().MemberGone("n2", epoch0)
	if w.Snapshot().Backends[0].Gauge != gauge || gauge == nil {
		t.Error("a backend's gauge changed")
	}
	if n := len(w.Snapshot().Members); n != 2 {
		t.Errorf("%d members", n)
	}
}

// A timeline that one observer alone sees, far beyond the others', does not decide who is the primary.
func TestOneObserversTimeline(t *testing.T) {
	w := newWorld(t)
	want := func(when string, role rib.Role, timeline uint32) {
		t.Helper()
		if v := w.view(); v.Role != role || v.Timeline != timeline {
			t.Errorf("%s: %v on timeline %d, want %v on %d", when, v.Role, v.Timeline, role, timeline)
		}
	}
	w.observe("n1", rib.Route{State: rib.Up, Role: rib.Primary, Timeline: 2_000_000})
	want("it alone has a say", rib.Primary, 2_000_000)
	w.observe("n2", rib.Route{State: rib.Up, Role: rib.Replica, Timeline: 3})
	want("of two neither is alone", rib.Primary, 2_000_000)
	w.observe("n3", rib.Route{State: rib.Up, Role: rib.Replica, Timeline: 3})
	want("two of three say otherwise", rib.Replica, 3)
	w.observe("n1", rib.Route{State: rib.Up, Role: rib.Primary, Timeline: 4})
	want("a promotion that one has seen first", rib.Primary, 4)
	w.observe("n1", rib.Route{State: rib.Up, Role: rib.Primary, Timeline: 500})
	w.observe("n2", rib.Route{State: rib.Up, Role: rib.Primary, Timeline: 500})
	want("two say so", rib.Primary, 500)
}

// How far a backend is in a region without a node an observer beside this node tells as well as this node's own probe.
func TestLatencyOfAnObserverInTheSameRegion(t *testing.T) {
	w := newWorld(t)
	ms := time.Millisecond
	want := func(when string, own time.Duration) {
		t.Helper()
		if v := w.view(); v.Own != own {
			t.Errorf("%s: %v, want %v", when, v.Own, own)
		}
	}
	w.observe("n3", rib.Route{State: rib.Up, Role: rib.Replica, Latency: 5 * ms})
	want("an observer in another region", 0)
	w.observe("n2", rib.Route{State: rib.Up, Role: rib.Replica, Latency: 20 * ms})
	want("one in this region", 20*ms)
	w.observe("n1", rib.Route{State: rib.Up, Role: rib.Replica, Latency: 30 * ms})
	want("this node itself", 30*ms)
}
