package gossip

import (
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	"rangefinder/rib"
)

const (
	maxStreams  = 4                      // streams that we send on at once
	chunkBytes  = 128 << 10              // of the answer to a pull; each chunk is one stream
	answerGap   = 200 * time.Millisecond // between two digests of one node that are answered
	pullRate    = 5                      // pulls of one node that are answered in a second
	pullBurst   = 10                     // and at once
	quietTime   = 500 * time.Millisecond // without a change here before a differing sum means something
	syncGap     = 500 * time.Millisecond
	busySyncGap = 2 * time.Second // even if it is never quiet
)

// current sums up what this node holds, anew only after a change. Two nodes with equal sums hold the same.
func (s *Speaker) current() ack {
	if !s.sumsStale.Swap(false) {
		if a := s.sums.Load(); a != nil {
			return *a
		}
	}
	var a ack
	// Sums are mixed with names so that equal ones do not cancel out. Records of the dead are left out: each node forgets
	// them in its own time.
	for _, e := range s.cfg.Health.Digest() {
		if s.isMember(e.Observer) {
			a.records ^= mix(e.Sum + uint64(idOf(e.Observer)))
		}
	}
	if s.written.Load() >= levelDrains {
		a.records ^= s.cfg.Health.DrainSum()
	}
	a.members = mix(uint64(s.self))
	for name := range *s.names.Load() {
		a.members ^= mix(uint64(idOf(name)))
	}
	s.mu.Lock()
	a.epoch = s.epoch
	s.mu.Unlock()
	s.sums.Store(&a)
	return a
}

func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// mismatch names a node that holds something else than this one.
type mismatch struct {
	node    string
	members bool // knows other members, too
}

// Agreed is how long ago another node was last found to hold the same as this one, drains included; false: none was yet. What was said
// elsewhere since then this node may not have heard. While much changes, nodes hold the same for moments only.
func (s *Speaker) Agreed() (ago time.Duration, ok bool) {
	at := time.Duration(s.agreed.Load())
	return s.clock() - at, at != 0
}

// compare is called from memberlist's prober with what a node answered.
func (s *Speaker) compare(node string, theirs ack) {
	if theirs.epoch != (rib.Epoch{}) {
		s.inbox.put(appendEpoch(nil, epochNews{epoch: theirs.epoch, author: node}))
	}
	mine := s.current()
	if mine.members == theirs.members && mine.records == theirs.records {
		s.agreed.Store(int64(max(s.clock(), 1)))
		return
	}
	select {
	case s.syncs <- mismatch{node, mine.members != theirs.members}:
	default:
	}
}

// reconcile brings nodes together whose sums differ. Right after a change sums differ everywhere: it is the ones that go
// on differing that matter. Different members are settled by memberlist's own push/pull, which it would do by itself
// only every minute or so in a larger cluster.
func (s *Speaker) reconcile() {
	var last time.Time
	for {
		var m mismatch
		select {
		case <-s.done:
			return
		case m = <-s.syncs:
		}
		now := time.Now()
		quiet := s.clock()-time.Duration(s.lastChange.Load()) >= quietTime
		since := now.Sub(last)
		if since < syncGap || (!quiet && since < busySyncGap) {
			continue
		}
		to, member, ok := s.peerNode(m.node)
		if !ok {
			continue
		}
		last = now
		s.count.syncs.Add(1)
		if m.members {
			if _, err := s.list.Load().Join([]string{member.Addr}); err != nil {
				s.log.Debug("push/pull failed", "node", m.node, "error", err)
			}
			continue
		}
		g := s.digest(true)
		s.send(to, appendDigest(nil, &g))
	}
}

// digest sums up what this node holds. memberlist calls it too, for its push/pull.
func (s *Speaker) digest(answer bool) digest {
	entries := s.cfg.Health.Digest()
	g := digest{sender: s.cfg.Self.Name, answer: answer, entries: make([]entry, 0, len(entries))}
	for _, e := range entries {
		g.entries = append(g.entries, entry{
			observer: idOf(e.Observer),
			stamp:    rib.Stamp{Incarnation: e.Incarnation, Seq: e.Seq},
			sum:      e.Sum,
		})
	}
	if e, ok := s.drainsDigest(); ok {
		g.entries = append(g.entries, e)
	}
	s.mu.Lock()
	g.epoch = s.epoch
	s.mu.Unlock()
	return g
}

// hearDigest asks the sender for what this node lacks.
func (s *Speaker) hearDigest(g digest, out *outgoing) {
	if g.sender == s.cfg.Self.Name {
		return
	}
	s.hearEpoch(epochNews{epoch: g.epoch, author: g.sender}, out)
	to, ok := s.mayAnswer(g.sender)
	if !ok {
		return
	}
	mine := make(map[id]rib.DigestEntry)
	for _, e := range s.cfg.Health.Digest() {
		mine[idOf(e.Observer)] = e
	}
	p := pull{sender: s.cfg.Self.Name}
	for _, theirs := range g.entries {
		if s.lacks(theirs, mine) {
			p.observers = append(p.observers, theirs.observer)
		}
	}
	if g.answer {
		back := s.digest(false)
		s.send(to, appendDigest(nil, &back))
	}
	if len(p.observers) > 0 {
		s.count.pulls.Add(1)
		s.send(to, appendPull(nil, &p))
	}
}

// lacks tells whether a peer's entry holds something that this node's does not. Of two that differ, the one that is
// behind asks; with equal newest stamps one of them has lost something on the way, and both ask.
func (s *Speaker) lacks(theirs entry, mine map[id]rib.DigestEntry) bool {
	switch theirs.observer {
	case s.self:
		s.mine(theirs.stamp)
		// If they have this node's last word and differ all the same, they have something besides: let hear see what.
		e, ok := mine[s.self]
		return ok && theirs.sum != e.Sum && theirs.stamp == rib.Stamp{Incarnation: e.Incarnation, Seq: e.Seq}
	case drainsEntry:
		return theirs.sum != s.cfg.Health.DrainSum()
	}
	e, ok := mine[theirs.observer]
	if !ok {
		return true
	}
	if e.Sum == theirs.sum {
		return false
	}
	return s.isMember(e.Observer) && theirs.stamp.Compare(rib.Stamp{Incarnation: e.Incarnation, Seq: e.Seq}) >= 0
}

// mayAnswer finds a live node and bounds how often it is answered.
func (s *Speaker) mayAnswer(name string) (memberlist.Node, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.peers[name]
	now := time.Now()
	if !ok || now.Sub(p.answered) < answerGap {
		s.count.unanswered.Add(1)
		return memberlist.Node{}, false
	}
	p.answered = now
	return p.node, true
}

// hearPull answers with the records of the observers asked for, in chunks that hold the names they need. That may take tens of
// milliseconds, in which nothing else is heard: so pulls have at most half of the time, and whoever was not answered asks again.
func (s *Speaker) hearPull(p pull) {
	began := time.Now()
	if s.pulls++; s.pulls > maxPulls || began.Before(s.pullAgain) {
		s.count.unanswered.Add(1)
		return
	}
	s.mu.Lock()
	from, ok := s.peers[p.sender]
	if !ok || !from.pulls.take(began, pullRate, pullBurst) { // each costs a look at all records
		s.count.unanswered.Add(1)
		s.mu.Unlock()
		return
	}
	to := from.node
	s.mu.Unlock()
	defer func() {
		now := time.Now()
		s.pullAgain = now.Add(min(now.Sub(began), answerGap))
	}()
	s.count.served.Add(1)
	asked := make(map[id]struct{}, len(p.observers))
	for _, o := range p.observers {
		asked[o] = struct{}{}
	}
	// Newer leaves out the observers whose entries it is given unchanged.
	d := slices.DeleteFunc(s.cfg.Health.Digest(), func(e rib.DigestEntry) bool {
		_, ok := asked[idOf(e.Observer)]
		return ok
	})
	announcements, routes := s.cfg.Health.Newer(d)
	var chunks [][]byte
	var chunk, msg []byte
	names := make(map[string]struct{})
	add := func(msg []byte) { chunk = appendBatched(chunk, msg) }
	end := func(least int) {
		if len(chunk) > least {
			chunks = append(chunks, chunk)
			chunk, names = nil, make(map[string]struct{})
		}
	}
	name := func(need ...string) {
		var fresh []string
		for _, n := range need {
			if _, ok := names[n]; !ok {
				names[n] = struct{}{}
				fresh = append(fresh, n)
			}
		}
		if len(fresh) > 0 {
			msg = appendNames(msg[:0], fresh)
			add(msg)
		}
	}
	for i := range announcements {
		msg = appendAnnouncement(msg[:0], &announcements[i])
		add(msg)
		end(chunkBytes)
	}
	for i := range routes {
		r := &routes[i]
		name(r.Backend, r.Observer)
		msg = appendObservation(msg[:0], s.writes(), idOf(r.Backend), idOf(r.Observer), r)
		add(msg)
		end(chunkBytes)
	}
	if _, ok := asked[drainsEntry]; ok {
		for _, w := range s.cfg.Health.Drains() {
			msg = appendDrain(msg[:0], &w)
			add(msg)
			end(chunkBytes)
		}
	}
	for _, m := range s.rows(asked) {
		add(m)
		end(chunkBytes)
	}
	end(0)
	s.sendAll(to, chunks)
}

// send sends one message: as a packet if it fits, else over a stream.
func (s *Speaker) send(to memberlist.Node, msg []byte) { s.sendAll(to, [][]byte{msg}) }

// sendAll never blocks: streams are opened by a few goroutines, and what is beyond them is dropped and counted. Whoever
// lacks it asks again.
func (s *Speaker) sendAll(to memberlist.Node, msgs [][]byte) {
	list := s.list.Load()
	if list == nil || len(msgs) == 0 {
		return
	}
	if len(msgs) == 1 && len(msgs[0]) <= maxBroadcast {
		if err := list.SendBestEffort(&to, msgs[0]); err != nil {
			s.log.Debug("send failed", "node", to.Name, "error", err)
		}
		return
	}
	select {
	case s.streams <- struct{}{}:
	default:
		s.count.unanswered.Add(1)
		return
	}
	s.wg.Go(func() {
		defer func() { <-s.streams }()
		for _, m := range msgs {
			select {
			case <-s.done:
				return
			default:
			}
			if err := list.SendReliable(&to, m); err != nil {
				s.log.Debug("send failed", "node", to.Name, "error", err)
				return
			}
		}
	})
}
