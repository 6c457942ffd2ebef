package gossip

import "sync/atomic"

// Stats counts since New. All of it is for people and metrics; nothing routes by it.
type Stats struct {
	Members     int    // live nodes, this one included
	Backends    int    // known by announcement
	Records     int    // observations and announcements held, without tombstones
	Pending     int    // observations whose backend or observer is not known yet
	Heard       uint64 // records that changed what this node believes
	Told        uint64 // records of this node's own
	Flips       uint64 // pushed eagerly, own and relayed
	Pushes      uint64 // packets of those
	Syncs       uint64 // digests exchanged because sums differed
	Pulls       uint64 // asked of others
	Served      uint64 // pulls of others answered
	Unknown     uint64 // messages of an unknown kind or version
	Malformed   uint64 // messages that did not decode
	Refused     uint64 // packets and streams with another key or label, and nodes of another cluster
	Implausible uint64 // records and rows whose stamps their authors cannot have reached
	Calmed      uint64 // flips that were left to the queue, as there were too many to push them
	OverBound   uint64 // records or names beyond a bound
	Dropped     uint64 // messages that came faster than they were worked off
	Unanswered  uint64 // digests, pulls and words to look at a backend that came faster than they are followed, and what found no stream free: who still lacks something asks again
	TooBig      uint64 // own records that would not fit a broadcast
	Withheld    uint64 // own small changes held back by the budget
	Deaths      uint64 // nodes that went without a goodbye, as far as memberlist can tell
	Jumps       uint64 // times that this node had to step over a higher incarnation of itself
	Rejoins     uint64 // attempts to reach forgotten nodes
	EpochsHeard uint64 // newer epochs handed to OnEpoch
}

// counters are Stats' atomic half.
type counters struct {
	heard, told, flips, pushes, syncs, pulls, served                           atomic.Uint64
	unknown, malformed, refused, overBound, dropped, unanswered                atomic.Uint64
	tooBig, withheld, jumps, rejoins, implausible, calmed, epochsHeard, deaths atomic.Uint64
}

// Stats returns the counters.
func (s *Speaker) Stats() Stats {
	s.mu.Lock()
	st := Stats{
		Members:  len(s.peers) + 1,
		Backends: len(s.backends),
		Records:  len(s.records),
		Pending:  len(s.pending),
	}
	s.mu.Unlock()
	c := &s.count
	st.Heard, st.Told, st.Flips, st.Pushes = c.heard.Load(), c.told.Load(), c.flips.Load(), c.pushes.Load()
	st.Syncs, st.Pulls, st.Served = c.syncs.Load(), c.pulls.Load(), c.served.Load()
	st.Unknown, st.Malformed, st.Refused = c.unknown.Load(), c.malformed.Load(), c.refused.Load()
	st.OverBound, st.Dropped, st.Unanswered, st.TooBig = c.overBound.Load(), c.dropped.Load(), c.unanswered.Load(), c.tooBig.Load()
	st.Withheld, st.Jumps, st.Rejoins = c.withheld.Load(), c.jumps.Load(), c.rejoins.Load()
	st.Implausible, st.Calmed = c.implausible.Load(), c.calmed.Load()
	st.Deaths = c.deaths.Load()
	st.EpochsHeard = c.epochsHeard.Load()
	return st
}
