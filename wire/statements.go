package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"

	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/sqlkey"
)

// statement is a statement that a client has prepared: what is needed to prepare it again on another server connection.
type statement struct {
	name   string // the client's, as far as it counts; "" for the unnamed statement
	sql    string
	tail   string // of SQL's PREPARE: what follows the name there, sql at its end; "" if it came by a Parse
	width  int    // of the name as PREPARE had it, in characters
	oids   []uint32
	plan   *sqlkey.Plan
	era    uint64 // of plan; see core.era
	server string // its name on server connections: the same for all sessions that prepare the same text under the same settings
	under  string // what server was made under; see core.parsing
	id     uint64 // tells unnamed statements apart

	// Of one that calls rangefinder.unique_id(): the plan that says where, and the client's text; sql has zeros there.
	calls  *sqlkey.Plan
	source string
	anew   bool // it is such a statement as it was bound: the client has it under another name

	shape pool.Shape // what the client has been told of it

	params  []uint32 // its parameters' types, as the client has been told, if somebody has made one of them; else nil
	carries carries  // what the rows may hold

	// What EXECUTE of it is, for the text whose plan is outer and its own plan inner; see useExecute.
	outer, inner, joined *sqlkey.Plan
}

// is reports whether a Parse asks for the statement as it is.
func (s *statement) is(v *pg.ParseView) bool {
	if s.calls != nil || s.sql != string(v.SQL) || len(s.oids) != v.NumOIDs() {
		return false
	}
	for i, oid := range s.oids {
		if oid != v.OID(i) {
			return false
		}
	}
	return true
}

// portal is a bound statement. Portals live as long as the transaction they were made in.
type portal struct {
	plan    *sqlkey.Plan
	virtual bool        // answered by the node: no server knows it
	ran     bool        // and has been: it cannot be again
	use     *use        // of PREPARE and EXECUTE
	stmt    *statement  // if it has a name
	sets    *[]assigned // what it sets by set_config
	lines   *[]string   // of EXPLAIN (ROUTE): the answer
}

// serverName names a statement on server connections by what it is. 128 bits of SHA-256: two texts never share a name. under
// tells what else its meaning depends on.
func serverName(sql string, oids []uint32, under string) string {
	h := sha256.New()
	var b [4]byte
	for _, o := range oids {
		binary.BigEndian.PutUint32(b[:], o)
		h.Write(b[:])
	}
	binary.BigEndian.PutUint32(b[:], uint32(len(oids)))
	h.Write(b[:])
	binary.BigEndian.PutUint32(b[:], uint32(len(under)))
	h.Write(b[:])
	h.Write([]byte(under))
	h.Write([]byte(sql))
	var sum [sha256.Size]byte
	return "rf_" + hex.EncodeToString(h.Sum(sum[:0])[:16])
}

// sways reports whether a statement that is about to run may change what the texts behind it mean where they are prepared: the constants in them, above
// all.
func (c *core) sways(plan *sqlkey.Plan, sets []assigned) bool {
	switch {
	case plan == nil:
		return false
	case plan.Tx == sqlkey.TxCommit, plan.Tx == sqlkey.TxRollback, plan.Tx == sqlkey.TxRollbackTo:
		return c.tx.locals != "" || c.settings.parsing != c.tx.saved.parsing
	case len(plan.Sets) > 0:
		return sets == nil || slices.ContainsFunc(sets, func(x assigned) bool { return decidesMeaning(x.name) })
	case plan.Session == sqlkey.SessReset:
		return true
	}
	return (plan.Session == sqlkey.SessSet || plan.Tx == sqlkey.TxSet) && decidesMeaning(plan.Setting)
}

// serverName returns the statement's name on the session's server connection, as things stand.
func (c *core) serverName(s *statement) string {
	if s.name == "" {
		return ""
	}
	under := c.settings.parsing
	if c.tx.locals != "" || c.pinned != "" {
		under += "\x00" + c.tx.locals
		if c.pinned != "" { // what its settings are is not known: nothing is shared
			under += "\x00" + strconv.FormatUint(s.id, 10)
		}
	}
	if c.hazy { // it is prepared anew where it is next used
		return serverName(s.name+"\x00"+s.sql, s.oids, under+"\x00"+strconv.FormatUint(c.id, 10)+"\x00"+strconv.FormatUint(s.id, 10))
	}
	if s.server == "" || s.under != under {
		if s.tail != "" { // by the client's name too: so no other statement of the session has the same
			s.server = serverName("PREPARE\x00"+s.name+"\x00"+s.tail, nil, under)
		} else {
			s.server = serverName(s.sql, s.oids, under)
		}
		s.under = under
	}
	return s.server
}

// deallocate answers SQL's DEALLOCATE: what a session has prepared stays on the servers, for whoever prepares the same. It
// returns false if the session has no such statement, but may be tied to a connection that has.
func (c *core) deallocate(dst []byte, plan *sqlkey.Plan) ([]byte, bool) {
	if !c.deallocates(plan) {
		return dst, false
	}
	if plan.Statement == "" {
		for _, s := range c.stmts.named {
			c.forget(s)
		}
		return pg.AppendCommandComplete(dst, "DEALLOCATE ALL"), true
	}
	c.forget(c.stmts.named[plan.Statement])
	return pg.AppendCommandComplete(dst, "DEALLOCATE"), true
}

// deallocates reports whether deallocate would answer the statement.
func (c *core) deallocates(plan *sqlkey.Plan) bool {
	switch {
	case !plan.Deallocate || c.onServer() && c.status == 'E':
		return false
	case plan.Statement == "":
		return c.pinned == ""
	}
	return c.stmts.named[plan.Statement] != nil
}

// forget removes a statement as the client has asked, until an error before that takes it back.
func (c *core) forget(s *statement) {
	c.stmts.remove(s)
	c.seg.undo = append(c.seg.undo, change{stmt: s, removed: true})
}

// The bounds on what one session may keep prepared.
const (
	maxStatements     = 10_000
	maxStatementBytes = 64 << 20 // texts and names of all statements of a session
	maxPortals        = 10_000
	maxPortalBytes    = 1 << 20 // names of all portals of a session
)

// registry holds a session's prepared statements and portals.
type registry struct {
	named   map[string]*statement
	unnamed *statement
	bytes   int
	portals map[string]portal // but for the unnamed one
	portal0 portal            // the unnamed one; without a plan there is none
	names   int               // bytes of the portals' names
	nextID  uint64
	rows    map[string]*described // by portal, of those whose rows may hold numbers of types
}

// size is what a statement counts for in registry.bytes.
func (s *statement) size() int { return len(s.name) + max(len(s.sql), len(s.tail)) + 4*len(s.oids) }

// full reports whether s would be too much.
func (r *registry) full(s *statement) bool {
	return len(r.named) >= maxStatements || r.bytes+s.size() > maxStatementBytes
}

func (r *registry) find(name []byte) *statement {
	if len(name) == 0 {
		return r.unnamed
	}
	return r.named[string(counted(name))]
}

// counted is what counts of a name of the protocol: PostgreSQL compares no more. SQL's names are cut by who parses them.
func counted[T string | []byte](name T) T {
	const most = 63 // bytes
	return name[:min(len(name), most)]
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
		r.bytes -= old.size()
	}
	r.named[s.name] = s
	r.bytes += s.size()
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
	r.bytes -= s.size()
}

func (r *registry) clearNamed() { r.named, r.bytes = nil, 0 }

func (r *registry) clear() {
	r.clearNamed()
	r.unnamed = nil
	r.dropPortals()
}

func (r *registry) portal(name []byte) (portal, bool) {
	if len(name) == 0 {
		return r.portal0, r.portal0.plan != nil
	}
	p, ok := r.portals[string(counted(name))]
	return p, ok
}

// setPortal returns false if there are too many.
func (r *registry) setPortal(name []byte, p portal) bool {
	if len(name) == 0 {
		r.portal0 = p
		return true
	}
	name = counted(name)
	if r.portals == nil {
		r.portals = make(map[string]portal)
	}
	old, ok := r.portals[string(name)]
	if ok && old == p {
		return true // without making a string of the name
	}
	if !ok {
		if len(r.portals) >= maxPortals || r.names+len(name) > maxPortalBytes {
			return false
		}
		r.names += len(name)
	}
	r.portals[string(name)] = p
	return true
}

// hasRun notes that a portal has been carried out, unless it has gone with its transaction.
func (r *registry) hasRun(name []byte) {
	if p, ok := r.portal(name); ok {
		p.ran = true
		r.setPortal(name, p)
	}
}

func (r *registry) dropPortals() {
	clear(r.portals)
	r.portal0, r.names = portal{}, 0
	clear(r.rows)
}
