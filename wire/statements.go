package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"rangefinder/wire/sqlkey"
)

// statement is a statement that a client has prepared: what is needed to prepare it again on another server connection.
type statement struct {
	name   string // the client's; "" for the unnamed statement
	sql    string
	oids   []uint32
	plan   *sqlkey.Plan
	server string // its name on server connections: the same for all sessions that prepare the same text
	id     uint64 // tells unnamed statements apart
}

// portal is a bound statement. Portals live as long as the transaction they were made in.
type portal struct {
	plan    *sqlkey.Plan
	virtual bool // answered by the node: no server knows it
}

// serverName names a statement on server connections by what it is. 128 bits of SHA-256: two texts never share a name.
func serverName(sql string, oids []uint32) string {
	h := sha256.New()
	var b [4]byte
	for _, o := range oids {
		binary.BigEndian.PutUint32(b[:], o)
		h.Write(b[:])
	}
	binary.BigEndian.PutUint32(b[:], uint32(len(oids)))
	h.Write(b[:])
	h.Write([]byte(sql))
	var sum [sha256.Size]byte
	return "rf_" + hex.EncodeToString(h.Sum(sum[:0])[:16])
}

// The bounds on what one session and one server connection may keep prepared.
const (
	maxStatements       = 10_000
	maxStatementBytes   = 64 << 20 // text of all statements of a session
	maxServerStatements = 1_000
)

// registry holds a session's prepared statements and portals.
type registry struct {
	named   map[string]*statement
	unnamed *statement
	bytes   int
	portals map[string]portal
	nextID  uint64
}

func (r *registry) find(name []byte) *statement {
	if len(name) == 0 {
		return r.unnamed
	}
	return r.named[string(name)]
}

func (r *registry) put(s *statement) {
	if s.name == "" {
		r.unnamed = s
		return
	}
	if r.named == nil {
		r.named = make(map[string]*statement)
	}
	if old := r.named[s.name]; old != nil {
		r.bytes -= len(old.sql)
	}
	r.named[s.name] = s
	r.bytes += len(s.sql)
}

// remove forgets s, unless its name means another statement by now.
func (r *registry) remove(s *statement) {
	if r.find([]byte(s.name)) != s {
		return
	}
	if s.name == "" {
		r.unnamed = nil
		return
	}
	delete(r.named, s.name)
	r.bytes -= len(s.sql)
}

func (r *registry) clear() {
	r.named, r.unnamed, r.bytes = nil, nil, 0
	r.dropPortals()
}

func (r *registry) portal(name []byte) (portal, bool) {
	p, ok := r.portals[string(name)]
	return p, ok
}

func (r *registry) setPortal(name []byte, p portal) {
	if r.portals == nil {
		r.portals = make(map[string]portal)
	}
	if old, ok := r.portals[string(name)]; ok && old == p {
		return // the usual case, without making a string of the name
	}
	r.portals[string(name)] = p
}

func (r *registry) dropPortals() { clear(r.portals) }
