package rib

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Position is how far a backend's write-ahead log had come when this node's own probe asked it.
type Position struct {
	Backend  string
	Shard    string
	Addr     string    // where it was asked: what is seen of one server says nothing of another
	Role     Role      // Primary: LSN is where it writes next. Replica: LSN is how far it has replayed
	Timeline uint32    // 0: unknown, the position is of no use
	LSN      uint64    // 0: the same
	Asked    time.Time // before the question was sent
	Sync     bool      // of a primary: it acknowledges what a replica has as well (synchronous_standby_names, synchronous_commit)
	Forks    []Fork    // of a primary: how it came to its timeline, as far as it says so. Not changed any more
}

// Seen is the last position of one backend, and what follows from it. It is immutable.
type Seen struct {
	Position
	// Covers says that whatever had been acknowledged by the shard's primary before that moment is in this replica; zero:
	// nothing is known to be. It holds for the server process that was asked: one that has crashed since may have gone back.
	Covers time.Time
	// Doubt: two primaries of one timeline were seen, so a position may be of either.
	Doubt bool
}

// Positions are the positions of all backends that this node probes. A position of a primary, asked after a write was acknowledged,
// is not before that write's; so a replica that has replayed up to there has the write. That makes one comparison of times of the
// question whether a replica has what a session wrote, and nobody has to ask the primary where a commit stands. No method reads
// a clock.
type Positions struct {
	// constant
	health *Health

	// guarded by mu
	mu      sync.Mutex
	shards  map[string]*track
	homes   map[string]string // by backend: its shard
	changed chan struct{}     // see Changed; nil: nobody waits
}

// track is what is known of one shard.
type track struct {
	primary  string // the backend whose marks these are
	timeline uint32 // the latest on which a primary was seen
	marks    []mark // of that timeline, oldest first; both fields only grow
	distrust time.Time
	sync     time.Time        // since when that timeline's primary has said so at every look; zero: it does not
	furthest uint64           // that a replica was seen to have replayed of that timeline
	past     []past           // the timelines before it, the latest first
	forks    map[uint32]Fork  // by timeline
	seen     map[string]*Seen // by backend
}

// mark is a position of the primary.
type mark struct {
	asked time.Time
	lsn   uint64
}

const (
	// maxMarks bounds the memory of one shard's past. When it is full every other one of the older half is forgotten, so it
	// reaches far back, and is coarse there.
	maxMarks = 64
	// rivals is how long no mark is believed after two primaries were seen on one timeline.
	rivals = time.Minute
)

func newPositions(h *Health) *Positions {
	return &Positions{health: h, shards: map[string]*track{}, homes: map[string]string{}}
}

// Saw takes what a probe was answered, and tells the backends' gauges what follows. It may be called from any goroutine; what is
// said of one backend must come in the order in which it was asked. Backends that nobody has announced are ignored.
func (p *Positions) Saw(x Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.health.gaugeOf(x.Backend) == nil {
		return
	}
	if home, ok := p.homes[x.Backend]; ok && home != x.Shard {
		delete(p.shards[home].seen, x.Backend)
	}
	p.homes[x.Backend] = x.Shard
	t := p.shards[x.Shard]
	if t == nil {
		t = &track{seen: map[string]*Seen{}}
		p.shards[x.Shard] = t
	}
	before := t.seen[x.Backend]
	t.seen[x.Backend] = &Seen{Position: x}
	if x.Role == Replica && (before == nil || before.Timeline <= x.Timeline) { // else it has no receiver, and what it says is an old one
		t.replayed(x.Timeline, x.LSN)
	}
	if x.Role == Primary && x.Timeline != 0 && x.LSN != 0 {
		t.mark(x, before)
		if p.changed != nil {
			close(p.changed)
			p.changed = nil
		}
	}
	for name, s := range t.seen {
		covers, doubt := t.covers(&s.Position), x.Asked.Before(t.distrust)
		if name != x.Backend && covers.Equal(s.Covers) && doubt == s.Doubt {
			continue
		}
		next := &Seen{s.Position, covers, doubt}
		t.seen[name] = next
		if g := p.health.gaugeOf(name); g != nil {
			g.Seen.Store(next)
		}
	}
}

// mark keeps a primary's position. before is what was seen of it before that; nil: nothing.
func (t *track) mark(x Position, before *Seen) {
	for _, f := range x.Forks {
		t.learn(f)
	}
	switch {
	case x.Timeline < t.timeline: // it was replaced: what it writes counts for nobody
		return
	case x.Timeline > t.timeline:
		if t.timeline != 0 {
			t.past = append([]past{{t.primary, t.timeline, t.marks, t.sync, t.furthest}}, t.past[:min(len(t.past), maxPast-1)]...)
		}
		t.primary, t.timeline, t.marks, t.distrust = x.Backend, x.Timeline, nil, time.Time{}
		t.sync, t.furthest = time.Time{}, 0
		t.promoted(before, &x)
	case x.Backend != t.primary: // two of one timeline, which write different things at the same positions; or another name
		t.primary, t.marks, t.distrust = x.Backend, nil, x.Asked.Add(rivals)
	}
	switch {
	case !x.Sync:
		t.sync = time.Time{}
	case t.sync.IsZero():
		t.sync = x.Asked
	}
	if x.Asked.Before(t.distrust) {
		return
	}
	if n := len(t.marks); n > 0 && (x.LSN < t.marks[n-1].lsn || x.Asked.Before(t.marks[n-1].asked)) { // another server under this name
		t.marks, t.distrust = nil, x.Asked.Add(rivals)
		return
	}
	if len(t.marks) == maxMarks {
		kept := t.marks[:0]
		for i, m := range t.marks {
			if i >= maxMarks/2 || i%2 == 1 {
				kept = append(kept, m)
			}
		}
		t.marks = kept
	}
	t.marks = append(t.marks, mark{x.Asked, x.LSN})
}

// covers is the time of the latest mark that a replica has passed.
func (t *track) covers(x *Position) (at time.Time) {
	if x.Role != Replica || x.Timeline != t.timeline || x.LSN == 0 {
		return at
	}
	for i := len(t.marks) - 1; i >= 0; i-- {
		if t.marks[i].lsn <= x.LSN {
			return t.marks[i].asked
		}
	}
	return at
}

// ErrLSN says that a text is no position in a write-ahead log.
var ErrLSN = errors.New("want a position in the write-ahead log, as 16/B374D848")

// ParseLSN reads a position as PostgreSQL writes it: two hexadecimal numbers of up to 32 bits.
func ParseLSN(s string) (uint64, error) {
	high, low, ok := strings.Cut(s, "/")
	h, errHigh := strconv.ParseUint(high, 16, 32)
	l, errLow := strconv.ParseUint(low, 16, 32)
	if !ok || errHigh != nil || errLow != nil {
		return 0, ErrLSN
	}
	return h<<32 | l, nil
}
