package rib

import (
	"errors"
	"math"
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
	SystemID uint64    // what the server itself says; 0: unknown
	Role     Role      // Primary: LSN is where it writes next. Replica: LSN is how far it has replayed
	Timeline uint32    // 0: unknown, the position is of no use
	LSN      uint64    // 0: the same
	Asked    time.Time // before the question was sent
	Told     time.Time // when the answer was there; zero: as Asked
	Flushed  uint64    // of a primary: up to where the log is on its disk, which is what replicas are sent; 0: unknown
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
	owners *Owners

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
	looked   time.Time        // when that timeline's primary was looked at first
	sync     time.Time        // since when it has said so at every look; zero: it does not
	furthest uint64           // that a replica was seen to have replayed of that timeline
	past     []past           // the timelines before it, the latest first
	forks    map[uint32]Fork  // by timeline
	seen     map[string]*Seen // by backend
}

// mark is a position of the primary.
type mark struct {
	asked   time.Time
	lsn     uint64
	told    time.Time // by then its disk had
	flushed uint64
}

const (
	// maxMarks bounds the memory of one shard's past. When it is full every other one of the older half is forgotten, so it
	// reaches far back, and is coarse there.
	maxMarks = 64
	// rivals is how long no mark is believed after two primaries were seen on one timeline.
	rivals = time.Minute
)

func newPositions(h *Health, o *Owners) *Positions {
	return &Positions{health: h, owners: o, shards: map[string]*track{}, homes: map[string]string{}}
}

// Saw takes what a probe was answered, and tells the backends' gauges what follows. It may be called from any goroutine; what is
// said of one backend must come in the order in which it was asked. Backends that nobody has announced are ignored, and so are servers
// that the ledger does not let be of the shard. The answer is how far a replica is behind, as far as this node's looks at the primary
// tell.
func (p *Positions) Saw(x Position) Delay {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x.Told.IsZero() {
		x.Told = x.Asked
	}
	if !p.serves(x.Backend, x.Shard, x.SystemID) {
		p.forget(x.Backend)
		return Delay{}
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
		if x.Timeline < t.timeline && !p.serves(t.primary, x.Shard, 0) {
			t.goBack(&x)
		}
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
	d := t.behind(&x)
	d.Has = t.covers(&x)
	return d
}

// serves tells whether somebody announces the backend, and the ledger does not say that its server is another cluster's. systemID is
// what the server says; 0: as announced. It needs mu.
func (p *Positions) serves(backend, shard string, systemID uint64) bool {
	announced, ok := p.health.announced(backend)
	if !ok {
		return false
	}
	if systemID == 0 {
		systemID = announced
	}
	for i := range p.owners.Get().Shards {
		if s := &p.owners.Get().Shards[i]; s.Name == shard {
			return systemID == 0 || systemID == s.SystemID
		}
	}
	return true // nothing is routed there yet
}

// forget drops what was seen of a backend. It needs mu.
func (p *Positions) forget(backend string) {
	home, ok := p.homes[backend]
	if !ok {
		return
	}
	delete(p.homes, backend)
	delete(p.shards[home].seen, backend)
	if g := p.health.gaugeOf(backend); g != nil {
		g.Seen.Store(nil)
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
			t.past = append([]past{{t.primary, t.timeline, t.marks, t.looked, t.sync, t.furthest}}, t.past[:min(len(t.past), maxPast-1)]...)
		}
		t.primary, t.timeline, t.marks, t.distrust = x.Backend, x.Timeline, nil, time.Time{}
		t.looked, t.sync, t.furthest = x.Asked, time.Time{}, 0
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
	t.marks = append(t.marks, mark{x.Asked, x.LSN, x.Told, x.Flushed})
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

// Delay is how far a replica is behind what its primary was seen to have on its disk. It may be further behind; zero: not known to be.
type Delay struct {
	Time  time.Duration // since when the primary has had something that the replica lacks
	Bytes int64         // how much
	Has   time.Time     // the replica has all that the primary had at that moment; zero: not known of any
}

// behind compares a replica with the primary's marks. A replica that has all that it was sent calls itself up to date, also when nothing
// is sent any more; the primary itself knows better. Both were asked by this node, so one clock measures it; and of a primary that
// writes nothing there is no mark that a replica lacks. Marks that were forgotten make it less, never more.
func (t *track) behind(x *Position) (d Delay) {
	if x.Role != Replica || x.Timeline != t.timeline || x.LSN == 0 {
		return d
	}
	for _, m := range t.marks {
		if m.flushed <= x.LSN || m.told.After(x.Asked) {
			continue
		}
		if d.Bytes = int64(min(m.flushed-x.LSN, math.MaxInt64)); d.Time == 0 {
			d.Time = x.Asked.Sub(m.told)
		}
	}
	return d
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
