package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"time"

	"rangefinder/rib"
)

// Every message is a kind, a version and a body. A new field is a new version of its kind; a node that does not know
// one ignores the message. So observations, which must be understood while a cluster is upgraded node by node, are written in
// the newest version that all live nodes read: they say in their metadata which.
const (
	kindObservation  = 1  // what one observer says of one backend
	kindAnnouncement = 2  // what one backend is
	kindEpoch        = 3  // the newest ownership that its author holds
	kindDistances    = 4  // one node's row of the matrix of round trips
	kindDigest       = 5  // per observer: newest stamp and a sum of its records
	kindPull         = 6  // asks for the records of some observers
	kindNames        = 7  // the names that hashes stand for
	kindBatch        = 8  // several of the others but no batch
	kindGoodbye      = 9  // a node leaves, as opposed to dies: memberlist does not tell us which
	kindDrain        = 10 // what an operator wants of a region, a backend or a node
	kindSchema       = 11 // a database's schema has changed
	kindRecheck      = 12 // asks who observes a backend to look at it now

	version = 1 // of all but observations

	// An observation's second version tells also by how many bytes a replica is behind.
	observationVersion = 2
)

// Levels are what a node says in its metadata that it reads. The first two are the versions of the observation.
const (
	levelDrains = 3 // drains too, so that they can be part of the sums
	level       = levelDrains
)

const (
	maxObservation = 32   // bytes of an observation on the wire
	maxBroadcast   = 1200 // bytes of anything that is queued or pushed
	maxName        = 128  // bytes of a name of a node, backend, shard or region
	maxAddr        = 256
	maxRow         = 100     // regions in a row of distances
	maxBy          = 64      // bytes of who drains something
	maxWhy         = 256     // and of why
	maxDigest      = 8192    // observers in a digest or pull
	maxNames       = 16384   // in a names message
	maxMessage     = 4 << 20 // bytes of a message over a stream that we look at

	maxIncarnation = 1<<21 - 1 // three bytes as uvarint, so that an observation fits
	manyBoots      = 1 << 20   // beyond these an incarnation grows by small steps alone: see plausible
	bootStep       = 16
	maxSeq         = 1<<28 - 1
	maxTimeline    = 1<<21 - 1
	maxDrainNumber = 1<<28 - 1
	manyDrains     = 1 << 20 // beyond these a drain's number grows by small steps alone, of drainStep
	drainStep      = 16
	maxUnix        = 1<<40 - 1
)

var (
	errKind      = errors.New("gossip: unknown kind or version")
	errMalformed = errors.New("gossip: malformed message")
)

// id is the wire's name for a node, backend or region.
type id uint64

func idOf(name string) id {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return id(h.Sum64())
}

// observation is a rib.Route whose names are hashes.
type observation struct {
	backend  id
	observer id
	route    rib.Route // Backend and Observer are empty
}

// appendObservation needs a stamp and a timeline within the limits above.
func appendObservation(dst []byte, version byte, backend, observer id, r *rib.Route) []byte {
	dst = append(dst, kindObservation, version)
	dst = binary.BigEndian.AppendUint64(dst, uint64(backend))
	dst = binary.BigEndian.AppendUint64(dst, uint64(observer))
	dst = append(dst, byte(r.State)&3|byte(r.Role)&3<<2|byte(r.Load)&3<<4, packDuration(r.Latency), packDuration(r.Lag))
	dst = appendStamp(dst, r.Stamp)
	dst = binary.AppendUvarint(dst, uint64(min(r.Timeline, maxTimeline)))
	if version >= 2 {
		dst = append(dst, packSize(r.LagBytes))
	}
	return dst
}

func (d *decoder) observation(version byte) (o observation) {
	o.backend, o.observer = d.id(), d.id()
	flags := d.byte()
	o.route.State = rib.State(flags & 3)
	o.route.Role = rib.Role(flags >> 2 & 3)
	o.route.Load = rib.LoadClass(flags >> 4 & 3)
	o.route.Latency = unpackDuration(d.byte())
	o.route.Lag = unpackDuration(d.byte())
	o.route.Stamp = d.stamp()
	o.route.Timeline = uint32(d.uvarint(maxTimeline))
	o.route.LagBytes = rib.LagBytesUnknown
	if version >= 2 {
		o.route.LagBytes = unpackSize(d.byte())
	}
	if flags>>6 != 0 || o.route.Role > rib.Replica || o.route.Load > rib.LoadAtLimit || o.route.Latency < 0 {
		d.bad()
	}
	return o
}

// quantize returns the route as a peer will decode it, so that all tables hold the same, and on the same side of the bounds.
func quantize(version byte, p *rib.Policy, r rib.Route) rib.Route {
	r.Latency = unpackDuration(packDuration(max(r.Latency, 0)))
	r.Lag = sided(r.Lag, p.MaxLag, packDuration, unpackDuration)
	if r.LagBytes = sided(r.LagBytes, p.MaxLagBytes, packSize, unpackSize); version < 2 {
		r.LagBytes = rib.LagBytesUnknown
	}
	r.Timeline = min(r.Timeline, maxTimeline)
	return r
}

func appendAnnouncement(dst []byte, a *rib.Announcement) []byte {
	var gone byte
	if a.Gone {
		gone = 1
	}
	dst = append(dst, kindAnnouncement, version, gone)
	dst = binary.BigEndian.AppendUint64(dst, a.Backend.SystemID)
	dst = appendStamp(dst, a.Stamp)
	for _, s := range [...]string{a.Observer, a.Backend.Name, a.Backend.Shard, a.Backend.Region, a.Backend.Addr} {
		dst = appendString(dst, s)
	}
	return dst
}

func (d *decoder) announcement() (a rib.Announcement) {
	a.Gone = d.flag()
	a.Backend.SystemID = uint64(d.id())
	a.Stamp = d.stamp()
	a.Observer = d.name()
	a.Backend.Name, a.Backend.Shard, a.Backend.Region = d.name(), d.name(), d.name()
	a.Backend.Addr = d.text(maxAddr)
	return a
}

// goodbye is what a node says when it leaves.
type goodbye struct {
	node        string
	incarnation uint32
}

func appendGoodbye(dst []byte, g goodbye) []byte {
	dst = append(dst, kindGoodbye, version)
	return binary.AppendUvarint(appendString(dst, g.node), uint64(g.incarnation))
}

func (d *decoder) goodbye() goodbye {
	return goodbye{node: d.name(), incarnation: uint32(d.uvarint(maxIncarnation))}
}

// CheckAnnouncement tells what no peer would accept of an announcement that comes from elsewhere than from peers, as from a file: a table that held it
// would differ from all others for good, and its author could never say a later word.
func CheckAnnouncement(a *rib.Announcement) error {
	if err := checkBackend(&a.Backend); err != nil {
		return err
	}
	if !validName(a.Observer) {
		return fmt.Errorf("gossip: backend %q: its author must be 1 to %d bytes of printable UTF-8, got %q", a.Backend.Name, maxName, a.Observer)
	}
	if a.Stamp.Incarnation > manyBoots+bootStep || a.Stamp.Seq > maxSeq {
		return fmt.Errorf("gossip: backend %q: %s cannot have said that: its incarnation would be %d, and the number of its words %d", a.Backend.Name, a.Observer, a.Stamp.Incarnation, a.Stamp.Seq)
	}
	return nil
}

// checkBackend tells an author what no peer would accept.
func checkBackend(b *rib.Backend) error {
	for _, s := range [...]string{b.Name, b.Shard, b.Region} {
		if !validName(s) {
			return fmt.Errorf("gossip: backend %q: name, shard and region must be 1 to %d bytes of printable UTF-8, got %q", b.Name, maxName, s)
		}
	}
	if len(b.Addr) > maxAddr || !validText(b.Addr) {
		return fmt.Errorf("gossip: backend %q: address must be up to %d bytes of printable UTF-8, got %q", b.Name, maxAddr, b.Addr)
	}
	return nil
}

// epochNews says which epoch its author's ledger has reached.
type epochNews struct {
	epoch  rib.Epoch
	author string
}

func appendEpoch(dst []byte, e epochNews) []byte {
	dst = append(dst, kindEpoch, version)
	dst = appendBareEpoch(dst, e.epoch)
	return appendString(dst, e.author)
}

func (d *decoder) epochNews() (e epochNews) {
	e.epoch = d.epoch()
	e.author = d.name()
	return e
}

// row is what one node measured: the round trip to each region.
type row struct {
	observer id
	stamp    rib.Stamp
	rtt      map[id]time.Duration
}

const rttUnit = 100 * time.Microsecond // 16 bits reach 6.5 s

func appendRow(dst []byte, r *row) []byte {
	dst = append(dst, kindDistances, version)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.observer))
	dst = appendStamp(dst, r.stamp)
	dst = append(dst, byte(min(len(r.rtt), maxRow)))
	n := 0
	for region, d := range r.rtt {
		if n++; n > maxRow {
			break
		}
		dst = binary.BigEndian.AppendUint64(dst, uint64(region))
		units := min(max((d+rttUnit/2)/rttUnit, 0), math.MaxUint16)
		dst = binary.BigEndian.AppendUint16(dst, uint16(units))
	}
	return dst
}

func (d *decoder) row() (r row) {
	r.observer = d.id()
	r.stamp = d.stamp()
	n := int(d.byte())
	if n > maxRow || n*10 > len(d.buf) {
		d.bad()
		return r
	}
	r.rtt = make(map[id]time.Duration, n)
	for range n {
		region := d.id()
		r.rtt[region] = time.Duration(d.uint16()) * rttUnit
	}
	return r
}

// entry is one observer in a digest: its newest stamp and the sum of what the sender holds of it.
type entry struct {
	observer id
	stamp    rib.Stamp
	sum      uint64
}

// digest is what a node holds.
type digest struct {
	sender  string
	answer  bool // the sender wants the receiver's digest in return
	epoch   rib.Epoch
	entries []entry
}

func appendDigest(dst []byte, g *digest) []byte {
	dst = append(dst, kindDigest, version)
	var answer byte
	if g.answer {
		answer = 1
	}
	dst = append(dst, answer)
	dst = appendString(dst, g.sender)
	dst = appendBareEpoch(dst, g.epoch)
	entries := g.entries[:min(len(g.entries), maxDigest)]
	dst = binary.AppendUvarint(dst, uint64(len(entries)))
	for _, e := range entries {
		dst = binary.BigEndian.AppendUint64(dst, uint64(e.observer))
		dst = appendStamp(dst, e.stamp)
		dst = binary.BigEndian.AppendUint64(dst, e.sum)
	}
	return dst
}

func (d *decoder) digest() (g digest) {
	g.answer = d.flag()
	g.sender = d.name()
	g.epoch = d.epoch()
	n := int(d.uvarint(maxDigest))
	if n*18 > len(d.buf) { // the least that n entries take
		d.bad()
		return g
	}
	g.entries = make([]entry, n)
	for i := range g.entries {
		g.entries[i] = entry{observer: d.id(), stamp: d.stamp(), sum: uint64(d.id())}
	}
	return g
}

// pull asks its receiver for all that it holds of these observers.
type pull struct {
	sender    string
	observers []id
}

func appendPull(dst []byte, p *pull) []byte {
	dst = append(dst, kindPull, version)
	dst = appendString(dst, p.sender)
	observers := p.observers[:min(len(p.observers), maxDigest)]
	dst = binary.AppendUvarint(dst, uint64(len(observers)))
	for _, o := range observers {
		dst = binary.BigEndian.AppendUint64(dst, uint64(o))
	}
	return dst
}

func (d *decoder) pull() (p pull) {
	p.sender = d.name()
	n := int(d.uvarint(maxDigest))
	if n*8 > len(d.buf) {
		d.bad()
		return p
	}
	p.observers = make([]id, n)
	for i := range p.observers {
		p.observers[i] = d.id()
	}
	return p
}

func appendNames(dst []byte, names []string) []byte {
	dst = append(dst, kindNames, version)
	dst = binary.AppendUvarint(dst, uint64(len(names)))
	for _, s := range names {
		dst = appendString(dst, s)
	}
	return dst
}

func (d *decoder) names() []string {
	n := int(d.uvarint(maxNames))
	if n*2 > len(d.buf) {
		d.bad()
		return nil
	}
	names := make([]string, 0, n)
	for range n {
		names = append(names, d.name())
	}
	return names
}

// appendBatched appends one message to a batch; an empty dst begins the batch.
func appendBatched(dst, msg []byte) []byte {
	if len(dst) == 0 {
		dst = append(dst, kindBatch, version)
	}
	dst = binary.AppendUvarint(dst, uint64(len(msg)))
	return append(dst, msg...)
}

// ack rides on every answer to a memberlist ping: sums over the live members and over all records, and the epoch.
type ack struct {
	members, records uint64
	epoch            rib.Epoch
}

func appendAck(dst []byte, a ack) []byte {
	dst = append(dst, version)
	dst = binary.BigEndian.AppendUint64(dst, a.members)
	dst = binary.BigEndian.AppendUint64(dst, a.records)
	return appendBareEpoch(dst, a.epoch)
}

func decodeAck(b []byte) (a ack, err error) {
	d := decoder{buf: b}
	if d.byte() != version {
		return a, errKind
	}
	a.members, a.records = uint64(d.id()), uint64(d.id())
	a.epoch = d.epoch()
	return a, d.done()
}

func appendBareEpoch(dst []byte, e rib.Epoch) []byte {
	dst = binary.AppendUvarint(dst, uint64(e.Generation))
	return binary.AppendUvarint(dst, e.Index)
}

func appendStamp(dst []byte, s rib.Stamp) []byte {
	dst = binary.AppendUvarint(dst, uint64(s.Incarnation))
	return binary.AppendUvarint(dst, s.Seq)
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}
