package heat

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/rib"
)

// Bounds of what is kept.
const (
	parts     = 4                      // that sessions are spread over: a power of two
	partNotes = 512                    // that one of these holds until they are collected
	keyBytes  = 54                     // of a key that are noted
	maxKeys   = 1024                   // that are told apart
	maxRanges = 4096                   // that are told apart
	perSecond = 1000                   // notes that are aimed at
	maxEvery  = 1 << 14                // statements for one note
	Memory    = 10 * time.Second       // after which a statement counts for 1/e of what it did
	Each      = 200 * time.Millisecond // how often notes should be collected
)

// Meter is what all sessions of a node share. Its methods are safe for concurrent use.
type Meter struct {
	// atomic
	every  atomic.Uint32 // of how many statements one is noted
	missed atomic.Uint64 // statements that notes stood for which found no room

	parts [parts]part

	// guarded by mu
	mu      sync.Mutex
	begun   time.Time
	at      time.Time // when notes were collected last
	keys    sketch
	ranges  sketch
	pending []note
}

// part has the notes of some sessions. Whoever finds it locked goes on.
type part struct {
	mu    sync.Mutex
	n     int
	notes [partNotes]note
}

// note is one statement that stands for weight of them.
type note struct {
	keyspace rib.KeyspaceID
	weight   uint32
	size     uint16 // of the key, which may be longer than what is here
	plain    uint16 // of what the key is a hash of, which follows it; 0: it does not
	key      [keyBytes]byte
}

// Draw is a session's own part: which of its statements is noted next. The zero value is ready. It is not safe for concurrent use.
type Draw struct {
	left   uint32 // statements up to the one that is noted, it included; 0: not drawn yet
	weight uint32 // that the note will have
	part   uint32
}

// New returns a meter.
func New() *Meter {
	m := &Meter{keys: newSketch(maxKeys), ranges: newSketch(maxRanges)}
	m.every.Store(16)
	return m
}

// Due tells whether the statement in hand may have to be noted. It is to be asked once for each.
func (d *Draw) Due() bool {
	if d.left > 1 {
		d.left--
		return false
	}
	return true
}

// Note notes the key of a statement for which Due said so, and what it is a hash of if that is known and not long. m may be nil.
func (m *Meter) Note(d *Draw, keyspace rib.KeyspaceID, key, plain rib.Key) {
	if m == nil {
		d.left = math.MaxUint32
		return
	}
	every := m.every.Load()
	if d.left == 0 { // it is the session's first
		d.part = rand.Uint32() % parts
		d.left, d.weight = interval(every), every
		if !d.Due() {
			return
		}
	}
	weight := d.weight
	d.left, d.weight = interval(every), every
	p := &m.parts[d.part]
	if !p.mu.TryLock() {
		m.missed.Add(uint64(weight))
		return
	}
	defer p.mu.Unlock()
	if p.n == partNotes {
		m.missed.Add(uint64(weight))
		return
	}
	x := &p.notes[p.n]
	p.n++
	x.keyspace, x.weight, x.size, x.plain = keyspace, weight, uint16(min(len(key), math.MaxUint16)), 0
	n := copy(x.key[:], key)
	if len(plain) <= keyBytes-n {
		x.plain = uint16(copy(x.key[n:], plain))
	}
}

// interval draws after how many statements the next is noted: each has the same chance, whatever pattern they come in.
func interval(every uint32) uint32 {
	if every <= 1 {
		return 1
	}
	return 1 + uint32(rand.ExpFloat64()/-math.Log1p(-1/float64(every)))
}

// Collect takes the notes in. rangeOf says where the range of a key begins; false: it has none any more.
func (m *Meter) Collect(now time.Time, rangeOf func(rib.KeyspaceID, rib.Key) (rib.Key, bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending = m.pending[:0]
	for i := range m.parts {
		p := &m.parts[i]
		p.mu.Lock()
		m.pending = append(m.pending, p.notes[:p.n]...)
		p.n = 0
		p.mu.Unlock()
	}
	if m.begun.IsZero() {
		m.begun, m.at = now, now
	}
	span := max(0, now.Sub(m.at))
	m.at = now
	fade := math.Exp(-float64(span) / float64(Memory))
	m.keys.fade(fade)
	m.ranges.fade(fade)
	var noted float64
	for i := range m.pending {
		noted += float64(m.pending[i].weight)
	}
	stands := 1.0 // what each note counts for, those included that found no room
	if noted > 0 {
		stands += float64(m.missed.Swap(0)) / noted
	}
	for i := range m.pending {
		x := &m.pending[i]
		key := x.key[:min(int(x.size), keyBytes)]
		c := m.keys.add(ident{x.keyspace, string(key), int(x.size) > keyBytes}, float64(x.weight)*stands)
		if plain := x.key[len(key) : len(key)+int(x.plain)]; len(plain) > 0 && c.plain != string(plain) {
			c.plain = string(plain)
		}
		if from, ok := rangeOf(x.keyspace, key); ok {
			m.ranges.add(ident{x.keyspace, string(from), false}, float64(x.weight)*stands)
		}
	}
	if span > 0 {
		m.every.Store(uint32(max(1, min(maxEvery, math.Ceil(noted*stands/span.Seconds()/perSecond)))))
	}
}

// Load is how many statements a range or a key gets.
type Load struct {
	Keyspace rib.KeyspaceID
	Key      rib.Key // of a range, where it begins
	Cut      bool    // the key is longer than what is here
	Plain    rib.Key // what the key is a hash of, as the method range writes it; nil: it is none, or that is not known
	Rate     float64 // statements a second, an average that forgets within Memory
	Error    float64 // by how much Rate may be too high
}

// Ranges are the ranges that got statements lately, those with the most first: all of them, if they are not thousands.
func (m *Meter) Ranges() []Load { return m.loads(&m.ranges) }

// Keys are the keys that got the most lately, those first. What got less than a thousandth of all is there by chance, or not.
func (m *Meter) Keys() []Load { return m.loads(&m.keys) }

func (m *Meter) loads(s *sketch) []Load {
	m.mu.Lock()
	defer m.mu.Unlock()
	// A rate that lasts has a count of rate * Memory in the end; at first it has less.
	seconds := Memory.Seconds() * (1 - math.Exp(-float64(m.at.Sub(m.begun))/float64(Memory)))
	if seconds <= 0 {
		return nil
	}
	list := s.sorted()
	loads := make([]Load, len(list))
	for i, c := range list {
		loads[i] = Load{Keyspace: c.keyspace, Key: rib.Key(c.key), Cut: c.cut, Plain: rib.Key(c.plain), Rate: c.count / seconds, Error: c.over / seconds}
	}
	return loads
}
