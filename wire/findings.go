package wire

import (
	"slices"
	"sync"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// A chooser goes by a copy of what its session has written (see outlook). What it finds out of that after a failover, it therefore finds out for
// its own statement alone: the session learns it from here. Not each error that a chooser ends with reaches the client, for the first one
// ends a statement; so a session does not forget a loss before it passes on the error that tells of it.

// findings is what the choosers of a coordinator have found out of the session's writes.
type findings struct {
	// guarded by mu
	mu       sync.Mutex
	lost     []loss  // since the client last had an answer
	doubtful []doubt // the same
}

// loss is that a shard does not have all that the session's reads of it were to see.
type loss struct {
	shard   string
	now     uint32 // the timeline that has not; what was written before that counts as lost
	message string // of the error
}

// doubt is that nobody knows whether a shard has the session's last write on a timeline.
type doubt struct {
	shard    string
	timeline uint32
	verdict  rib.Verdict
}

func (f *findings) loses(l loss) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(f.lost, l) {
		f.lost = append(f.lost, l)
	}
}

func (f *findings) doubts(d doubt) {
	f.mu.Lock()
	defer f.mu.Unlock()
	same := func(o doubt) bool { return o.shard == d.shard && o.timeline == d.timeline }
	if !slices.ContainsFunc(f.doubtful, same) {
		f.doubtful = append(f.doubtful, d)
	}
}

// tellsOfLoss has the session know what the client is told by an error of its coordinator's.
func (c *core) tellsOfLoss(e *pg.Error) {
	f := &c.host.finds
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.lost {
		if e.Code == pg.CodeObjectNotInPrerequisiteState && e.Message == l.message {
			c.forgetWrites(l.shard, l.now)
		}
	}
}

// takeDoubts ends an answer of the coordinator's with a warning of what is not known, if the client has not been warned of that.
func (c *core) takeDoubts() {
	f := &c.host.finds
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.doubtful {
		for i := range c.wrote {
			if w := &c.wrote[i]; w.shard == d.shard && w.timeline == d.timeline && w.at != 0 && !w.unsure {
				w.unsure = true
				c.fateless = append(c.fateless, d.verdict)
			}
		}
	}
	f.lost, f.doubtful = nil, nil
	c.warn()
}
