package gossip

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rangefinder/rib"
)

// sends lets a node that holds the cluster key say anything to another, over a stream.
func (n *node) sends(to *node, msgs ...[]byte) {
	n.world.t.Helper()
	peer, _, ok := n.peerNode(to.self.Name)
	if !ok {
		n.world.t.Fatalf("%s does not know %s", n.self.Name, to.self.Name)
	}
	var batch []byte
	for _, m := range msgs {
		batch = appendBatched(batch, m)
	}
	if err := n.list.Load().SendReliable(&peer, batch); err != nil {
		n.world.t.Fatal(err)
	}
}

// hostile is four nodes with a backend each, of which the last one lies.
func hostile(t *testing.T, f func(w *world, victim, liar *node)) {
	t.Helper()
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 31)
		defer w.close()
		w.form(4)
		for _, n := range w.nodes {
			n.lists("b-" + n.self.Name)
		}
		w.until(15*time.Second, "one table", func() bool { return agree(w.nodes, 4) })
		f(w, w.nodes[0], w.nodes[3])
	})
}

// says is an observation of a node's backend in that node's name.
func (n *node) says(state rib.State, stamp rib.Stamp) []byte {
	r := up("b-" + n.self.Name)
	r.State, r.Stamp = state, stamp
	return appendObservation(nil, observationVersion, idOf(r.Backend), idOf(n.self.Name), &r)
}

func TestReplaysChangeNothing(t *testing.T) {
	hostile(t, func(w *world, victim, liar *node) {
		was := victim.Word()
		old := victim.says(rib.Down, was.Routes[0].Stamp) // what it might have said, and has not said since
		r := up("b-" + victim.self.Name)
		for _, state := range []rib.State{rib.Down, rib.Up} {
			r.State = state
			victim.Observe(r)
			wait(time.Second)
		}
		heard := w.nodes[1].Stats().Heard
		for range 100 {
			liar.sends(w.nodes[1], old)
			wait(50 * time.Millisecond)
		}
		if got := w.nodes[1].Stats().Heard; got != heard {
			w.t.Errorf("%d replays were taken for news", got-heard)
		}
		if v := w.nodes[1].verdict(r.Backend); v != rib.Up || !agree(w.nodes, 4) {
			w.t.Errorf("after replays %s is %v", r.Backend, v)
		}
	})
}

// A record in another's name is overruled by its owner, and one whose stamp nobody could overrule is not taken at all.
func TestRecordsInAnothersName(t *testing.T) {
	hostile(t, func(w *world, victim, liar *node) {
		backend := "b-" + victim.self.Name
		all := func(state rib.State) func() bool {
			return func() bool {
				for _, n := range w.nodes {
					if n.verdict(backend) != state {
						return false
					}
				}
				return agree(w.nodes, 4)
			}
		}
		for _, n := range w.nodes[:3] {
			liar.sends(n, victim.says(rib.Down, rib.Stamp{Incarnation: maxIncarnation, Seq: maxSeq}))
		}
		wait(5 * time.Second)
		for _, n := range w.nodes[:3] {
			if st := n.Stats(); st.Implausible == 0 || st.Jumps != 0 {
				w.t.Errorf("%s: %+v", n.self.Name, st)
			}
		}
		if !all(rib.Up)() {
			w.t.Error("the end of all incarnations was believed")
		}
		for _, stamp := range []rib.Stamp{{Incarnation: 1, Seq: maxSeq}, {Incarnation: manyBoots, Seq: 1}, {Incarnation: manyBoots + bootStep, Seq: 1}} {
			liar.sends(w.nodes[1], victim.says(rib.Down, stamp))
			w.until(10*time.Second, "the owner speaks above it", func() bool { return victim.Word().Incarnation > stamp.Incarnation })
			w.until(10*time.Second, "the owner's word again", all(rib.Up))
		}
		if st := victim.Stats(); st.Jumps != 3 {
			w.t.Errorf("%d jumps, want 3", st.Jumps)
		}
		r := up(backend)
		r.State = rib.Down
		victim.Observe(r)
		w.until(2*time.Second, "the owner's flip", all(rib.Down))
	})
}

// Votes in the names of nodes that do not observe the backend at all: nobody else holds words of theirs on it, so any stamp is news.
func TestVotesInTheNamesOfOthers(t *testing.T) {
	hostile(t, func(w *world, victim, liar *node) {
		backend := "b-" + w.nodes[1].self.Name // which nodes[1] alone observes
		right := func() bool {
			for _, n := range w.nodes {
				if n.verdict(backend) != rib.Up {
					return false
				}
			}
			return agree(w.nodes, 4)
		}
		for _, named := range []*node{victim, w.nodes[2]} {
			r := up(backend)
			r.State, r.Stamp = rib.Down, rib.Stamp{Incarnation: 1, Seq: 1}
			for _, n := range w.nodes[1:3] { // the victim hears of it from others
				liar.sends(n, appendObservation(nil, observationVersion, idOf(backend), idOf(named.self.Name), &r))
			}
		}
		w.until(10*time.Second, "those who were named speak above it", func() bool { return victim.Stats().Jumps == 1 && w.nodes[2].Stats().Jumps == 1 })
		w.until(time.Minute, "the one who observes it is believed", right)
		jumps := victim.Stats().Jumps
		wait(2 * time.Minute) // what was forged is forgotten, and the sums agree
		before := w.nodes[1].Stats().Syncs
		wait(2 * time.Minute)
		if st := w.nodes[1].Stats(); st.Syncs > before+3 || victim.Stats().Jumps != jumps || !right() {
			w.t.Errorf("there is no peace: %d syncs, %d jumps; then %+v", before, jumps, st)
		}

		// The same with other words under the stamp of one that was said, and with a backend that is not there.
		said := victim.Word().Routes[0]
		forged := appendAnnouncement(nil, &rib.Announcement{
			Backend: rib.Backend{Name: "nowhere", Shard: "shard_1", Region: "fra", Addr: "10.6.6.6:5432"}, Observer: victim.self.Name, Stamp: rib.Stamp{Incarnation: said.Stamp.Incarnation, Seq: 1},
		})
		liar.sends(victim, victim.says(rib.Down, said.Stamp))
		w.until(10*time.Second, "the owner goes on above other words of its own", func() bool { return victim.Stats().Jumps == jumps+1 })
		liar.sends(victim, forged) // of its life before: it counts nowhere
		liar.sends(victim, victim.says(rib.Down, said.Stamp))
		wait(5 * time.Second)
		if got := victim.Stats().Jumps; got != jumps+1 {
			w.t.Errorf("%d jumps over what is over", got-jumps-1)
		}
	})
}

// A second node under a name that lives is not let in beside it, and what it says does not count.
func TestANameIsTaken(t *testing.T) {
	hostile(t, func(w *world, victim, _ *node) {
		thief := &node{world: w, self: rib.Member{Name: victim.self.Name, Region: victim.self.Region, Incarnation: 1}, host: w.net.Host("thief", "syd")}
		thief.open(nil)
		thief.lists("stolen")
		_, _ = thief.Join([]string{w.nodes[1].addr})
		wait(20 * time.Second)
		for _, n := range w.nodes[1:] {
			for _, m := range n.Members() {
				if m.Name == victim.self.Name && m.Addr != victim.addr {
					w.t.Errorf("%s takes %s for %s", n.self.Name, m.Addr, m.Name)
				}
			}
			if len(n.Members()) != 4 {
				w.t.Errorf("%s has %d members", n.self.Name, len(n.Members()))
			}
		}
		_ = thief.Kill()
		thief.host.Close()
		w.until(time.Minute, "the owner's word counts", func() bool {
			for _, n := range w.nodes[1:] {
				if n.verdict("b-"+victim.self.Name) != rib.Up {
					return false
				}
			}
			return true
		})
	})
}

// A row in another's name is overruled too, and a row full of regions that nobody knows shows nowhere.
func TestLiesAboutRoundTrips(t *testing.T) {
	hostile(t, func(w *world, victim, liar *node) {
		wait(90 * time.Second)
		watcher := w.nodes[1]
		here, there := victim.self.Region, watcher.self.Region
		honest := watcher.RTTs()[here][there]
		lie := row{observer: idOf(victim.self.Name), stamp: rib.Stamp{Incarnation: 1, Seq: maxSeq}, rtt: map[id]time.Duration{idOf(there): time.Second}}
		made := row{observer: idOf(liar.self.Name), stamp: rib.Stamp{Incarnation: 1, Seq: maxSeq}, rtt: map[id]time.Duration{}}
		for i := range maxRow {
			made.rtt[id(i)] = time.Second
		}
		for _, n := range w.nodes[:3] {
			liar.sends(n, appendRow(nil, &lie), appendRow(nil, &made))
		}
		w.until(10*time.Second, "the victim's own row again", func() bool {
			return (watcher.RTTs()[here][there] - honest).Abs() < 5*time.Millisecond
		})
		if n := len(watcher.RTTs()); n > 4 {
			w.t.Errorf("%d regions", n)
		}
		for from, to := range watcher.RTTs() {
			if len(to) > 4 {
				w.t.Errorf("%s knows the way to %d regions", from, len(to))
			}
		}
		if st := victim.Stats(); st.Jumps != 1 {
			w.t.Errorf("%d jumps, want 1", st.Jumps)
		}
	})
}

// A node that flaps without end makes the others push what they may, not more, and nobody else's flip waits.
func TestFloodOfFlips(t *testing.T) {
	hostile(t, func(w *world, victim, liar *node) {
		stop := time.Now().Add(20 * time.Second)
		// In the name of one who is not there: a node that hears of its own would speak above it.
		ghost := &node{self: rib.Member{Name: "ghost", Region: "fra"}}
		seq, state := uint64(1), rib.Up
		known := rib.Announcement{Backend: rib.Backend{Name: "b-ghost", Shard: "s", Region: "fra"}, Observer: "ghost", Stamp: rib.Stamp{Incarnation: 1, Seq: 1}}
		for _, n := range w.nodes[:3] {
			liar.sends(n, appendAnnouncement(nil, &known))
		}
		before := w.nodes[1].Stats()
		flood := func() {
			for range 3 {
				var msgs [][]byte
				for range relayPullLimit { // more at a time are not told on
					seq, state = seq+1, rib.Up+rib.Down-state
					msgs = append(msgs, ghost.says(state, rib.Stamp{Incarnation: 1, Seq: seq}))
				}
				for _, n := range w.nodes[:3] {
					liar.sends(n, msgs...)
				}
			}
		}
		took, own := time.Duration(0), rib.Up
		for flips := 0; time.Now().Before(stop); flips++ {
			flood()
			if flips%4 == 1 {
				own = rib.Up + rib.Down - own
				r := up("b-" + victim.self.Name)
				r.State = own
				victim.Observe(r)
				took = max(took, w.until(3*time.Second, "another's flip in the flood", func() bool { return w.nodes[2].verdict(r.Backend) == r.State }))
			}
		}
		st := w.nodes[1].Stats()
		if pushed := st.Flips - before.Flips; st.Calmed == 0 || pushed > pushBurst+25*pushRate {
			w.t.Errorf("%d flips pushed, %d calmed", pushed, st.Calmed)
		}
		if took == 0 || took > time.Second {
			w.t.Errorf("another's flip took %v", took)
		}
		w.until(20*time.Second, "one table after the flood", func() bool { return agree(w.nodes, 5) })
	})
}

// What is said of a backend that nobody has announced waits for its announcement and shows nowhere.
func TestRecordOfABackendNobodyKnows(t *testing.T) {
	hostile(t, func(w *world, _, liar *node) {
		r := up("nobody's")
		r.Stamp = rib.Stamp{Incarnation: 1, Seq: 500}
		for _, n := range w.nodes[:3] {
			liar.sends(n, appendObservation(nil, observationVersion, idOf(r.Backend), idOf(liar.self.Name), &r))
		}
		wait(time.Second)
		for _, n := range w.nodes[:3] {
			if st := n.Stats(); st.Pending != 1 || len(n.table.Snapshot().Backends) != 4 {
				w.t.Errorf("%s: %+v", n.self.Name, st)
			}
		}
		wait(pendingTime + 2*tick)
		for _, n := range w.nodes[:3] {
			if st := n.Stats(); st.Pending != 0 {
				w.t.Errorf("%s: %d still wait", n.self.Name, st.Pending)
			}
		}
	})
}

// Names that somebody makes up keep nobody else's out, but for a moment.
func TestNamesThatNobodyBears(t *testing.T) {
	hostile(t, func(w *world, _, liar *node) {
		for part := range 17 {
			var names []string
			for i := range 1000 {
				names = append(names, fmt.Sprintf("made-up-%d-%d", part, i))
			}
			for _, n := range w.nodes[:3] {
				liar.sends(n, appendNames(nil, names))
			}
			wait(100 * time.Millisecond)
		}
		for _, n := range w.nodes[:3] {
			if st := n.Stats(); st.OverBound == 0 {
				w.t.Errorf("%s: all names were taken: %+v", n.self.Name, st)
			}
		}
		w.nodes[1].lists("new")
		w.until(recountTime+30*time.Second, "a new backend", func() bool { return agree(w.nodes, 5) })
		for _, n := range w.nodes[:3] {
			n.mu.Lock()
			if len(n.known) > 50 {
				w.t.Errorf("%s still knows %d names", n.self.Name, len(n.known))
			}
			n.mu.Unlock()
		}
	})
}

// An epoch that nobody has reached holds up the news of true ones for a moment, not for good.
func TestEpochThatNobodyHas(t *testing.T) {
	hostile(t, func(w *world, _, liar *node) {
		lie := epochNews{epoch: rib.Epoch{Generation: 1 << 30, Index: 1 << 60}, author: w.nodes[1].self.Name}
		for _, n := range w.nodes[:3] {
			liar.sends(n, appendEpoch(nil, lie))
		}
		wait(claimTime + 2*time.Second)
		for index := range uint64(5) {
			e := rib.Epoch{Generation: 1, Index: index + 1}
			w.nodes[1].SetEpoch(e)
			w.until(300*time.Millisecond, "the news of an epoch", func() bool {
				for _, n := range w.nodes {
					n.mu.Lock()
					here := n.news.epoch == e || n.epoch == e
					n.mu.Unlock()
					if !here {
						return false
					}
				}
				return true
			})
			for _, n := range w.nodes {
				n.SetEpoch(e)
			}
			wait(time.Second)
		}
	})
}

// Whoever speaks in a node's name without end does not take it through all its incarnations, and does not have the last word.
func TestManyRecordsInAnothersName(t *testing.T) {
	hostile(t, func(w *world, victim, liar *node) {
		for range 100 {
			stamp := rib.Stamp{Incarnation: victim.Word().Incarnation, Seq: maxSeq}
			for _, n := range w.nodes[:3] {
				liar.sends(n, victim.says(rib.Down, stamp))
			}
			wait(100 * time.Millisecond)
		}
		if st := victim.Stats(); st.Jumps > jumpBurst+2 || st.Jumps < jumpBurst {
			w.t.Errorf("%d jumps in 10 s", st.Jumps)
		}
		w.until(30*time.Second, "the owner's word", func() bool {
			for _, n := range w.nodes {
				if n.verdict("b-"+victim.self.Name) != rib.Up {
					return false
				}
			}
			return agree(w.nodes, 4)
		})
	})
}

// A goodbye that somebody else has said does not make a death of much later a departure.
func TestGoodbyeInAnothersName(t *testing.T) {
	hostile(t, func(w *world, victim, liar *node) {
		for _, n := range w.nodes[1:3] {
			liar.sends(n, appendGoodbye(nil, goodbye{victim.self.Name, maxIncarnation}))
		}
		wait(rib.Tombstone + 10*time.Second)
		_ = victim.Kill()
		victim.host.Close()
		w.until(time.Minute, "the death", func() bool { return w.nodes[1].live.Load() == 2 && w.nodes[2].live.Load() == 2 })
		for _, n := range w.nodes[1:3] {
			if lost := n.Lost(); len(lost) != 1 || lost[0].Name != victim.self.Name {
				w.t.Errorf("%s misses %v", n.self.Name, lost)
			}
			if !slices.Contains(n.Present(), victim.self.Name) {
				w.t.Errorf("%s gives away at once what the dead one has", n.self.Name)
			}
		}
	})
}

// Each pull costs a look at all records: one node gets as many answers as it can need, and the others theirs.
func TestFloodOfPulls(t *testing.T) {
	hostile(t, func(w *world, victim, liar *node) {
		before, began := victim.Stats(), time.Now()
		for range 50 {
			var pulls [][]byte
			for range 10 {
				pulls = append(pulls, appendPull(nil, &pull{sender: liar.self.Name, observers: []id{victim.Speaker.self}}))
			}
			liar.sends(victim, pulls...)
			wait(100 * time.Millisecond)
		}
		st, most := victim.Stats(), pullBurst+pullRate*(1+uint64(time.Since(began)/time.Second))
		if served := st.Served - before.Served; served < pullBurst || served > most {
			w.t.Errorf("of 500 pulls in %v %d were answered, want up to %d", time.Since(began), served, most)
		}
		if sum := st.Served + st.Unanswered - before.Served - before.Unanswered; sum < 500 || st.Dropped != before.Dropped {
			w.t.Errorf("of 500 pulls %d are counted, and %d dropped messages", sum, st.Dropped-before.Dropped)
		}
		w.nodes[1].lists("new")
		w.until(5*time.Second, "a new backend", func() bool { return agree(w.nodes, 5) })
	})
}
