package gossip

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"rangefinder/rib"
)

const (
	tick           = time.Second
	pendingTime    = time.Minute
	recountTime    = time.Minute
	claimTime      = 10 * time.Second // for which an epoch that this node does not get is taken for the newest
	maxPulls       = 4                // of one message that are answered
	relayPullLimit = 16               // records of a pull that are told on; more come from a join, and all others pull them too
)

// hear is the one goroutine that works on what memberlist brings.
func (s *Speaker) hear() {
	t := time.NewTicker(tick)
	defer t.Stop()
	recount := time.Now()
	for {
		select {
		case <-s.done:
			return
		case <-s.inbox.wake:
			s.work()
		case now := <-t.C:
			s.cfg.Health.Expire(now)
			s.sumsStale.Store(true) // Expire may have changed what we hold
			s.forgetPending(now)
			if now.Sub(recount) >= recountTime {
				recount = now
				s.recount()
			}
			s.mu.Lock()
			for key, l := range s.lately {
				if !l.echo {
					delete(s.lately, key)
					continue
				}
				l.echo = false // once more around, for the second copy may be on its way; but not for ever
				s.lately[key] = l
			}
			if s.heard.epoch.Compare(s.epoch) > 0 && now.Sub(s.claimed) > claimTime { // or one lie would hold up all news for good
				s.heard = epochNews{epoch: s.epoch, author: s.cfg.Self.Name}
			}
			next, spent := s.own.incarnation+1, s.own.seq >= maxSeq
			s.mu.Unlock()
			if spent {
				s.reincarnate(next)
			}
		}
	}
}

// work empties the inbox.
func (s *Speaker) work() {
	events, msgs := s.inbox.take()
	for _, e := range events {
		s.memberEvent(e)
	}
	if len(events) > 0 { // once for all: a node that joins a large cluster hears of everybody at one stroke
		s.mu.Lock()
		s.membersChanged()
		clear(s.lately) // of an observer that is back the table may want again what it has let go
		s.mu.Unlock()
	}
	var out outgoing
	news := len(events) > 0
	for _, m := range msgs {
		s.pulls = 0
		heard := s.message(m, false, &out)
		news = news || heard
	}
	if news {
		s.retryPending(&out)
	}
	s.flush(out)
}

// message applies one message; news: a name was learned. Every error is counted here and goes no further.
func (s *Speaker) message(m []byte, batched bool, out *outgoing) (news bool) {
	news, err := s.apply(m, batched, out)
	switch {
	case errors.Is(err, errKind):
		s.count.unknown.Add(1)
	case err != nil:
		s.count.malformed.Add(1)
	}
	return news
}

func (s *Speaker) apply(m []byte, batched bool, out *outgoing) (news bool, err error) {
	if len(m) < 2 || m[1] == 0 || m[1] > version && (m[0] != kindObservation || m[1] > min(s.reads, observationVersion)) {
		return false, errKind
	}
	d := decoder{buf: m[2:]}
	switch m[0] {
	case kindObservation:
		o := d.observation(m[1])
		if err := d.done(); err != nil {
			return false, err
		}
		s.hearObservation(o, out)
	case kindAnnouncement:
		a := d.announcement()
		if err := d.done(); err != nil {
			return false, err
		}
		return s.hearAnnouncement(a, out), nil
	case kindEpoch:
		e := d.epochNews()
		if err := d.done(); err != nil {
			return false, err
		}
		s.hearEpoch(e, out)
	case kindDistances:
		r := d.row()
		if err := d.done(); err != nil {
			return false, err
		}
		s.hearRow(r)
	case kindDigest:
		g := d.digest()
		if err := d.done(); err != nil {
			return false, err
		}
		s.hearDigest(g, out)
	case kindPull:
		p := d.pull()
		if err := d.done(); err != nil {
			return false, err
		}
		s.hearPull(p)
	case kindNames:
		names := d.names()
		if err := d.done(); err != nil {
			return false, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, name := range names {
			_, known := s.known[idOf(name)]
			news = news || !known
			s.learn(name)
		}
		return news, nil
	case kindGoodbye:
		g := d.goodbye()
		if err := d.done(); err != nil {
			return false, err
		}
		s.hearGoodbye(g, out)
	case kindDrain:
		if s.reads < levelDrains {
			return false, errKind
		}
		w := d.drain()
		if err := d.done(); err != nil {
			return false, err
		}
		s.hearDrain(w, out)
	case kindSchema:
		number := d.uvarint(math.MaxUint64)
		if err := d.done(); err != nil {
			return false, err
		}
		s.hearSchema(number, out)
	case kindRecheck:
		backend := d.id()
		if err := d.done(); err != nil {
			return false, err
		}
		s.hearRecheck(backend)
	case kindBatch:
		if batched {
			return false, errMalformed
		}
		return s.batch(d.buf, out)
	default:
		return false, errKind
	}
	return false, nil
}

// batch applies what is in a batch. A large one is the answer to a pull of much: others pull it themselves, so it is not
// told on.
func (s *Speaker) batch(b []byte, out *outgoing) (news bool, err error) {
	var msgs [][]byte
	size := len(b)
	for len(b) > 0 {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return false, errMalformed
		}
		msgs = append(msgs, b[k:k+int(n)])
		b = b[k+int(n):]
	}
	if len(msgs) > relayPullLimit && size > maxBroadcast {
		out = nil
	}
	for _, m := range msgs {
		heard := s.message(m, true, out)
		news = news || heard
	}
	if out == nil && news {
		s.retryPending(nil)
	}
	return news, nil
}

// hearObservation merges what another node believes; out is nil if it is not to be told on.
func (s *Speaker) hearObservation(o observation, out *outgoing) {
	if o.observer == s.self {
		s.mine(o.route.Stamp)
		s.mu.Lock()
		held, ok := s.own.routes[s.known[o.backend]]
		was := &held.route
		forged := s.forged(o.route.Stamp, was.Stamp, ok, was.State == o.route.State && was.Role == o.route.Role && was.Timeline == o.route.Timeline)
		s.mu.Unlock()
		s.disown(forged)
		return
	}
	key := recordKey{kindObservation, o.backend, o.observer}
	s.mu.Lock()
	if had, ok := s.lately[key]; ok && o.route.Stamp.Compare(had.stamp) <= 0 {
		echo := out != nil && had.echo && o.route.Stamp == had.stamp
		if echo {
			had.echo = false
			s.lately[key] = had
		}
		s.mu.Unlock()
		if echo {
			out.echoes = append(out.echoes, appendObservation(nil, s.writes(), o.backend, o.observer, &o.route))
		}
		return
	}
	backend, ok1 := s.known[o.backend]
	observer, ok2 := s.known[o.observer]
	if !ok1 || !ok2 {
		old, waits := s.pending[key]
		switch {
		case waits && old.route.Stamp.Compare(o.route.Stamp) >= 0:
		case waits || len(s.pending) < maxPending:
			s.pending[key] = pending{o, time.Now()}
		default:
			s.count.overBound.Add(1)
		}
		s.mu.Unlock()
		return
	}
	_, seen := s.records[key]
	if !s.plausible(observer, o.route.Stamp) || !s.admit(key) {
		s.mu.Unlock()
		return
	}
	s.lately[key] = late{stamp: o.route.Stamp}
	s.mu.Unlock()
	r := o.route
	r.Backend, r.Observer = backend, observer
	change := s.cfg.Health.Observe(r)
	if change == rib.None {
		return
	}
	s.count.heard.Add(1)
	s.changed()
	if change == rib.Flip && s.differs(&r) {
		s.hearRecheck(o.backend)
	}
	if out != nil {
		msg := appendObservation(nil, s.writes(), o.backend, o.observer, &r)
		pushed := s.tell(key.queueName(), msg, change == rib.Flip && (seen || r.State == rib.Down))
		if len(pushed.msgs) > 0 {
			s.mu.Lock()
			s.lately[key] = late{o.route.Stamp, true}
			s.mu.Unlock()
		}
		out.add(pushed)
	}
}

// hearAnnouncement merges what another node says a backend is; news: it brought a name.
func (s *Speaker) hearAnnouncement(a rib.Announcement, out *outgoing) (news bool) {
	if a.Observer == s.cfg.Self.Name {
		s.mine(a.Stamp)
		s.mu.Lock()
		held, ok := s.own.announcements[a.Backend.Name]
		forged := s.forged(a.Stamp, held.Stamp, ok, held == a)
		s.mu.Unlock()
		s.disown(forged)
		return false
	}
	key := recordKey{kindAnnouncement, idOf(a.Backend.Name), idOf(a.Observer)}
	s.mu.Lock()
	if !s.plausible(a.Observer, a.Stamp) {
		s.mu.Unlock()
		return false
	}
	_, known := s.backends[a.Backend.Name]
	if !known && len(s.backends) >= maxBackends && !s.makeRoom(a.Observer) {
		s.count.overBound.Add(1)
		s.mu.Unlock()
		return false
	}
	if !s.learn(a.Backend.Name) || !s.learn(a.Observer) || !s.admit(key) {
		s.mu.Unlock()
		return false
	}
	s.backends[a.Backend.Name] = struct{}{}
	s.mu.Unlock()
	if s.cfg.Health.Announce(a) {
		s.count.heard.Add(1)
		s.changed()
		if out != nil {
			out.add(s.tell(key.queueName(), appendAnnouncement(nil, &a), false))
		}
	}
	return !known
}

// hearEpoch notes that somebody has a newer ownership, tells it on, and lets follow tell the node.
func (s *Speaker) hearEpoch(e epochNews, out *outgoing) {
	s.mu.Lock()
	newest := e.epoch.Compare(s.heard.epoch)
	if newest > 0 {
		s.heard, s.claimed = e, time.Now()
	}
	// Whatever is newer than ours is worth asking for, also if it is not the newest that anybody ever claimed.
	if e.epoch.Compare(s.epoch) > 0 {
		s.news = e
		select {
		case s.epochs <- struct{}{}:
		default:
		}
	}
	s.mu.Unlock()
	if newest > 0 && out != nil {
		out.add(s.tell("epoch", appendEpoch(nil, e), true))
	}
}

// hearGoodbye notes that a node leaves, or has left, and tells it on.
func (s *Speaker) hearGoodbye(g goodbye, out *outgoing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, here := s.peers[g.node]
	_, gone := s.lost[g.node]
	switch {
	case here && !p.leaves() && g.incarnation >= p.member.Incarnation:
		p.leaving = time.Now()
	case !here && gone && g.incarnation >= s.lost[g.node].incarnation:
		delete(s.lost, g.node) // the news of its end was faster
	default:
		return
	}
	if out != nil {
		out.add(s.tell("goodbye "+g.node, appendGoodbye(nil, g), true))
	}
}

// follow calls OnEpoch, so that nothing else waits for it.
func (s *Speaker) follow() {
	for {
		select {
		case <-s.done:
			return
		case <-s.epochs:
		}
		s.mu.Lock()
		e := s.news
		behind := e.epoch.Compare(s.epoch) > 0
		p, ok := s.peers[e.author]
		var from rib.Member
		if ok {
			from = p.member
		}
		s.mu.Unlock()
		if !behind || !ok || s.cfg.OnEpoch == nil {
			continue // the next ping's answer brings it again, from a node that is there
		}
		s.count.epochsHeard.Add(1)
		s.cfg.OnEpoch(from, e.epoch)
	}
}
