package wire

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/sqlkey"
)

// SQL's PREPARE, EXECUTE and DEALLOCATE. As in PostgreSQL they share one set of names with the statements of the protocol: the
// session's registry. A server knows each statement under a name of ours, so the texts are rewritten on their way, and what a
// server says of them on its way back.

// use is what a name in a client's text stands for.
type use struct {
	*sqlkey.NameUse
	stmt    *statement // nil: nothing, and the server is made to say so
	makes   bool       // PREPARE makes stmt
	changes int        // how many changes of the registry came before it in the request
	server  string     // the name that was sent
	fail    *pg.Error  // in the extended protocol: to execute it is refused
	outer   *statement // in the extended protocol: whose text it is in
}

// missingName is a name that no server knows.
const missingName = "rf_missing"

// preparePortal is bound to run a PREPARE that the client has not asked for: the unnamed portal is the client's.
const preparePortal = "rf_prepare"

// maxUses bounds the names in one text: a server connection must be able to keep so many statements.
const maxUses = pool.MinPrepared

// execArgs gives a plan the arguments of EXECUTE, with the types that the statement was prepared with.
type execArgs struct {
	use  *sqlkey.NameUse
	oids []uint32
}

// Arg returns the i-th argument, counted from 1.
func (a *execArgs) Arg(i int) (val []byte, format int16, oid uint32, null, ok bool) {
	return a.use.Arg(i, a.oids)
}

// queryNames handles a Query whose text names prepared statements.
func (c *core) queryNames(plan *sqlkey.Plan) {
	n, e := c.route(plan, &c.values)
	if e == nil && len(plan.Names) > maxUses {
		e = pg.NewError(pg.CodeProgramLimitExceeded, "the text names too many prepared statements").WithHint("Send it in parts.")
	}
	done := plan
	for i := 0; i < len(plan.Names) && e == nil; i++ {
		u := use{NameUse: &plan.Names[i], changes: len(c.seg.undo)}
		switch u.Op {
		case sqlkey.NamePrepare:
			if e = c.usePrepare(&u, plan); e == nil && u.makes {
				c.addStatement(u.stmt)
			}
			if e == nil && !u.makes && c.tx.open { // see emitNames: it may not fail before a block that is open for it alone
				e = duplicateStatement(u.Name)
			}
		case sqlkey.NameExecute:
			var o need
			if o, done, e = c.useExecute(&u, done); e != nil {
				break
			}
			if u.stmt == nil && plan.Statements == 1 && c.pinned == "" {
				e = unknownStatement([]byte(u.Name))
				break
			}
			c.seg.opens = c.tx.open
			if n.slot != nil && o.slot != nil && n.slot.Shard() != o.slot.Shard() {
				e = pg.NewError(pg.CodeFeatureNotSupported, "the statement cannot be routed").
					WithDetail("Its statements belong to different shards: " + n.slot.Shard() + " and " + o.slot.Shard() + ".").WithHint("Send them one by one.")
				break
			}
			n.merge(o)
			if c.seg.opens {
				n.write = n.write || !c.tx.readOnly
			}
		case sqlkey.NameDeallocate:
			c.useDeallocate(&u)
		}
		c.uses = append(c.uses, u)
	}
	if e != nil {
		c.fail(e)
		return
	}
	c.account(done)
	if n.slot == nil && c.srv == nil && c.seg.home != nil {
		n.slot = c.homeOf(c.seg.home)
	}
	c.routed()
	c.dispatch(n)
}

// usePrepare finds what a PREPARE makes.
func (c *core) usePrepare(u *use, plan *sqlkey.Plan) *pg.Error {
	if held := c.stmts.named[u.Name]; held != nil {
		// The server is asked all the same, for it may find another error first: by the name of a statement that is sure to be there.
		c.prepareHome(held.plan)
		c.stmts.nextID++
		u.stmt = &statement{name: u.Name, sql: "SELECT 1", plan: held.plan, id: c.stmts.nextID}
		return nil
	}
	s := &statement{name: u.Name, sql: u.Inner, tail: u.Tail, width: utf8.RuneCountInString(plan.SQL[u.Start:u.End]), oids: u.Types}
	c.replan(s)
	if c.stmts.full(s) {
		return tooManyStatements()
	}
	if s.plan.Target == sqlkey.None {
		return s.plan.Err
	}
	c.stmts.nextID++
	s.id = c.stmts.nextID
	c.prepareHome(s.plan)
	u.stmt, u.makes = s, true
	return nil
}

// addStatement puts a statement into the registry, until an error before that takes it back.
func (c *core) addStatement(s *statement) {
	ch := change{stmt: s}
	if s.name == "" {
		ch.was = c.stmts.unnamed
	}
	c.stmts.put(s)
	c.seg.undo = append(c.seg.undo, ch)
}

// useExecute finds what an EXECUTE runs, and where it must. outer is the plan of the text, as far as it is known; it is
// returned with what this statement adds.
func (c *core) useExecute(u *use, outer *sqlkey.Plan) (need, *sqlkey.Plan, *pg.Error) {
	s := c.stmts.named[u.Name]
	if s == nil {
		return need{}, outer, nil
	}
	u.stmt = s
	c.replan(s)
	if e := executable(u.NameUse, s); e != nil {
		return need{}, outer, e
	}
	n, e := c.route(s.plan, &execArgs{u.NameUse, s.oids})
	if e != nil {
		return n, outer, e
	}
	if n.slot != nil {
		if e := HintContradicts(outer, n.slot.Shard()); e != nil {
			return n, outer, e
		}
	}
	if n.slot == nil && u.Home != "" {
		if n.slot = c.table.Slot(u.Home); n.slot == nil {
			return n, outer, UnknownShard(u.Home, nil)
		}
	}
	if s.outer != outer || s.inner != s.plan {
		s.outer, s.inner, s.joined = outer, s.plan, outer.Executing(u.NameUse, s.plan)
	}
	return n, s.joined, nil
}

// executable tells why a statement cannot be executed by EXECUTE, whatever the values of the arguments; nil: it can.
func executable(u *sqlkey.NameUse, s *statement) *pg.Error {
	want := max(s.plan.NumParams, len(s.oids))
	switch {
	case s.plan.Tx != sqlkey.TxNone || s.plan.Session == sqlkey.SessSet || s.plan.Session == sqlkey.SessReset || len(s.plan.Names) > 0 || s.plan.Syntax:
		return pg.NewError(pg.CodeFeatureNotSupported, fmt.Sprintf("EXECUTE of the prepared statement %q cannot be routed", u.Name)).
			WithDetail("It concerns the transaction or the session.").WithHint("Send the statement itself.")
	case len(u.Args) != want && want > 0: // of a statement without parameters PostgreSQL does not look at arguments
		return pg.NewError(pg.CodeSyntaxError, fmt.Sprintf("wrong number of parameters for prepared statement %q", u.Name)).
			WithDetail(fmt.Sprintf("Expected %d parameters but got %d.", want, len(u.Args)))
	}
	return u.Refused(s.plan)
}

// useDeallocate takes back what a DEALLOCATE among other statements names. A server's statement may be another name's of the
// session as well: then it is one made for the purpose that goes.
func (c *core) useDeallocate(u *use) {
	if u.Name == "" {
		for _, s := range c.stmts.named {
			c.forget(s)
		}
		return
	}
	s := c.stmts.named[u.Name]
	if s == nil {
		return
	}
	c.forget(s)
	if u.stmt = s; s.tail == "" {
		c.stmts.nextID++
		u.stmt = &statement{name: s.name, sql: "-- " + strconv.Itoa(len(c.uses)), plan: s.plan, id: c.stmts.nextID}
	}
}

// emitNames sends a Query whose text names prepared statements, and before it whatever of them the server lacks. There is no
// Sync between: if something cannot be prepared, the server discards the Query.
func (c *core) emitNames() {
	c.completed = 0
	front := make(map[string]bool, len(c.uses)) // names that the server has before the text, because the text needs them
	var made []*statement                       // by the text
	c.makeRoom(len(c.uses))
	for i := range c.uses {
		u := &c.uses[i]
		switch {
		case u.stmt == nil:
			u.server = missingName
		case u.makes:
			u.server = c.madeName(u.stmt)
			if !front[u.server] && c.srv.Prepared.Has(u.server) { // PREPARE is checked as things are now
				c.unprepare(u.server)
			}
			made = append(made, u.stmt)
		case slices.Contains(made, u.stmt):
			u.server = c.madeName(u.stmt)
		default:
			u.server = c.emitPrepared(u.stmt)
			front[u.server] = true
		}
	}
	c.toServer = pg.AppendQuery(c.toServer, c.inServerNames(c.plan.SQL, c.uses))
	c.push(expectation{kind: 'Q', plan: c.plan, names: true})
	c.srv.Unnamed = 0
}

// madeName is the server's name of a statement that the text in hand makes.
func (c *core) madeName(s *statement) string {
	c.hazy = c.plan.Parts != nil // something else in it may set what decides the statement's meaning
	name := c.serverName(s)
	c.hazy = false
	return name
}

// keptName reports whether a text's name stays as it is: the session is tied to its connection, which may know it.
func (c *core) keptName(u *use) bool {
	return u.Op == sqlkey.NameDeallocate && u.Name == "" || u.stmt == nil && c.pinned != ""
}

// inServerNames writes a text with the server's names.
func (c *core) inServerNames(sql string, uses []use) string {
	var b strings.Builder
	at := 0
	for i := range uses {
		if u := &uses[i]; !c.keptName(u) {
			b.WriteString(sql[at:u.Start])
			b.WriteString(`"` + u.server + `"`)
			at = u.End
		}
	}
	b.WriteString(sql[at:])
	return b.String()
}

// inClientNames writes an error that a server raised over such a text with the client's names, and its position as it is in
// the client's text. statement is which of the text's it was raised by.
func (c *core) inClientNames(e *pg.Error, sql string, uses []use, statement int) *pg.Error {
	out := *e
	words := make([]string, 0, 2*len(uses))
	position, _ := strconv.Atoi(e.Position)
	shift := 0
	for i := range uses {
		u := &uses[i]
		if c.keptName(u) || u.server == "" {
			continue
		}
		if u.stmt != nil || u.Statement == statement {
			words = append(words, u.server, u.Name)
		}
		// Where the name ends in the server's text, counted as positions are.
		written := utf8.RuneCountInString(sql[u.Start:u.End])
		if utf8.RuneCountInString(sql[:u.Start])+shift+len(u.server)+2 < position {
			shift += len(u.server) + 2 - written
		}
	}
	for i := range uses {
		// Arguments name no tables: the position is one in the PREPARE.
		if u := &uses[i]; u.Op == sqlkey.NameExecute && u.Statement == statement && u.stmt != nil && e.Routine == "parserOpenTable" {
			shift = u.stmt.shift(u.server)
		}
	}
	if position > shift {
		out.Position = strconv.Itoa(position - shift)
	}
	r := strings.NewReplacer(words...)
	out.Message, out.Detail, out.Where = r.Replace(e.Message), r.Replace(e.Detail), r.Replace(e.Where)
	return &out
}

// shift is by how much a position in the server's PREPARE of s is beyond that in the client's.
func (s *statement) shift(server string) int { return len(server) + 2 - s.width }

// nameDone follows a statement of the Query's text that the server has carried out.
func (c *core) nameDone() {
	for i := range c.uses {
		u := &c.uses[i]
		switch {
		case u.Statement != c.completed || u.stmt == nil:
		case u.makes:
			c.srv.Prepared.Add(u.server)
		case u.Op == sqlkey.NameDeallocate:
			c.srv.Prepared.Remove(u.server)
		}
	}
	c.completed++
}

// undoNames takes back what the statements of the Query's text that the server has not carried out have changed in the
// registry. PREPARE is not transactional: those that it has carried out stay.
func (c *core) undoNames() {
	for i := range c.uses {
		if c.uses[i].Statement >= c.completed {
			c.undoFrom(c.uses[i].changes)
			return
		}
	}
}

// bindNames plans the Bind of a statement whose text is PREPARE or EXECUTE.
func (c *core) bindNames(o *op, outer *statement) (need, *pg.Error) {
	u := &use{NameUse: &outer.plan.Names[0], outer: outer}
	var n need
	var e *pg.Error
	done := outer.plan
	switch u.Op {
	case sqlkey.NamePrepare:
		e = c.usePrepare(u, outer.plan)
	case sqlkey.NameExecute:
		var m need
		if n, e = c.route(outer.plan, nil); e != nil {
			break
		}
		m, done, e = c.useExecute(u, outer.plan)
		if e == nil {
			n.merge(m)
		} else if e.Code == pg.CodeSyntaxError { // PostgreSQL counts the arguments when it executes it
			u.fail, e = e, nil
			c.prepareHome(u.stmt.plan)
		}
	}
	if e != nil {
		return n, e
	}
	// A name that the session does not have is for the server to refuse, when the portal is executed.
	if !c.stmts.setPortal(c.bind.Portal, portal{plan: done, use: u}) {
		return n, tooManyPortals()
	}
	o.use = u
	c.seg.bound, c.seg.keeps = true, c.seg.keeps || len(c.bind.Portal) > 0
	c.account(done)
	return n, nil
}

// executeNames plans the Execute of such a portal.
func (c *core) executeNames(o *op, u *use) *pg.Error {
	o.use = u
	if !u.makes {
		return u.fail
	}
	switch s := c.stmts.named[u.Name]; {
	case s == u.stmt: // executed before
		return nil
	case s != nil:
		return duplicateStatement(u.Name)
	}
	c.addStatement(u.stmt)
	return nil
}

// emitOuter sends such a statement itself, as the unnamed one, with what it names.
func (c *core) emitOuter(u *use) {
	switch {
	case u.stmt == nil:
		u.server = missingName
	case u.makes:
		u.server = c.serverName(u.stmt)
		if c.srv.Prepared.Has(u.server) {
			c.unprepare(u.server)
		}
	default:
		u.server = c.emitPrepared(u.stmt)
	}
	types, e := c.localTypes(u.outer.oids)
	if e != nil {
		c.refuseFor(u.outer, e)
		return
	}
	c.toServer = pg.AppendParse(c.toServer, "", c.inServerNames(u.outer.sql, []use{*u}), types)
	c.push(expectation{kind: 'P', quiet: true, stmt: u.outer, use: u})
	c.srv.Unnamed = 0
}

// emitUse sends the Execute of such a portal, in frame.
func (c *core) emitUse(o *op, frame []byte) {
	e := expectation{kind: 'E', plan: o.plan, use: o.use, rows: c.describedRows(o)}
	switch u := o.use; {
	case u.makes && !c.srv.Prepared.Has(u.server): // else the portal has been executed before, and cannot be again
		c.makeRoom(1)
		e.makes = u.server
		c.srv.Prepared.Add(u.server)
	case u.makes:
	case u.stmt != nil && c.serverName(u.stmt) == u.server:
		c.emitPrepared(u.stmt)
	}
	c.toServer = append(c.toServer, frame...)
	c.push(e)
}

// emitPrepare prepares a statement of SQL's PREPARE on the server connection.
func (c *core) emitPrepare(s *statement, name string) {
	c.toServer = pg.AppendParse(c.toServer, "", `PREPARE "`+name+`"`+s.tail, nil)
	c.toServer = append(c.toServer, bindPrepare...)
	c.toServer = pg.AppendExecute(c.toServer, preparePortal, 0)
	c.toServer = pg.AppendClose(c.toServer, 'P', preparePortal)
	for _, kind := range [...]byte{'P', 'B'} {
		c.push(expectation{kind: kind, quiet: true, stmt: s, server: name, makes: name})
	}
	c.push(expectation{kind: 'E', quiet: true, stmt: s, server: name, makes: name})
	c.push(expectation{kind: 'C', quiet: true})
	c.srv.Unnamed = 0
}

// bindPrepare binds the unnamed statement, without arguments, to preparePortal.
var bindPrepare = append([]byte{'B', 0, 0, 0, byte(12 + len(preparePortal))}, preparePortal+"\x00\x00\x00\x00\x00\x00\x00\x00"...)

func duplicateStatement(name string) *pg.Error {
	return pg.NewError(pg.CodeDuplicateStatement, fmt.Sprintf("prepared statement %q already exists", name))
}

func tooManyStatements() *pg.Error {
	return pg.NewError(pg.CodeProgramLimitExceeded, "too many prepared statements in one session").
		WithHint("Close statements that are not used any more.")
}
