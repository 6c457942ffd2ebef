package wire

import (
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// expectation is one message sent to the server whose answer is due. Answers come in the order of the messages.
type expectation struct {
	kind     byte   // the message's type; synthetic: none was sent, the node answers in its turn
	quiet    bool   // the client did not ask: its answer stops here
	quietZ   bool   // so does the ReadyForQuery
	begin    bool   // the client's transaction block is being opened
	told     bool   // the client has an error already, of a block that could not be opened
	settings bool   // the session's settings are being brought into force
	spares   bool   // but for those that the request takes away itself
	remains  bool   // the router's own question: what remains of the session on the server
	local    string // the router's own question whether what a statement names is here alone: the letters by which the answer says so
	ours     bool   // the router asked for it on its own: that it fails is nobody\'s error
	doubt    bool   // the router could not read the text: if the server can, it must not run
	stmt     *statement
	server   string     // stmt's name on the server
	makes    string     // the name of a statement that the server has once this is answered
	closed   string     // the name of a statement that it has no more then
	learn    *statement // whose shape the answer tells
	rows     *described // what its rows are, if that matters
	ahead    bool       // it was sent before the request itself: see lookAhead
	columns  bool       // of a Query: the statement in hand has rows, as the server has said
	copies   bool       // the server sends the data of a COPY
	ended    bool       // of a Query: one of its statements has come to an end; of a FunctionCall: it has
	use      *use       // what the text of a PREPARE or EXECUTE names
	names    bool       // a Query that names prepared statements: see core.uses
	plan     *sqlkey.Plan
	part     int        // of plan.Parts, whose turn it is
	sets     []assigned // what it sets by set_config, told by its arguments
	synth    []byte
	changes  int       // see op
	fail     *pg.Error // the node's error, for which the server is made to raise one
}

const synthetic = 0

func (c *core) push(e expectation) {
	e.changes = c.changes
	if c.expectOff == len(c.expect) {
		c.expect, c.expectOff = c.expect[:0], 0
		if e.kind == synthetic {
			c.out = append(c.out, e.synth...)
			return
		}
	}
	c.expect = append(c.expect, e)
}

func (c *core) head() *expectation {
	if !c.waiting() {
		return nil
	}
	return &c.expect[c.expectOff]
}

// pop ends the first expectation and answers those behind it that are the node's to answer.
func (c *core) pop() {
	c.expectOff++
	for c.waiting() && c.expect[c.expectOff].kind == synthetic {
		c.out = append(c.out, c.expect[c.expectOff].synth...)
		c.expectOff++
	}
	if !c.waiting() {
		clear(c.expect) // drop the pointers
		c.expect, c.expectOff = c.expect[:0], 0
		if !c.redo && !c.retrying && !c.unsent() {
			c.dropOps()
		}
	}
}

// takes reports whether a frame of that type may be part of the answer. What a server has said unasked before lies in front of the
// answer, and would be taken for its beginning: then everybody would get the answer of whoever had the connection before. No server
// that is in order does that, and a whole answer too many cannot be told from the right one; all else can. What is not part of it is never
// passed on: a client that has seen some of it would go by that.
func (e *expectation) takes(typ byte) bool {
	runs := e.kind == 'Q' || e.kind == 'E'
	switch typ {
	case 'T':
		e.columns = true
		return e.kind == 'Q' && !e.copies || e.kind == 'D'
	case 'D':
		return (e.kind == 'E' || e.columns) && !e.copies
	case 't', 'n':
		return e.kind == 'D'
	case 'C', 'I', 'G':
		return runs && !e.copies
	case 's':
		return e.kind == 'E' && !e.copies
	case 'H':
		if !runs || e.copies {
			return false
		}
		e.copies = true
		return true
	case 'd':
		return e.copies
	case 'c':
		was := e.copies
		e.copies = false
		return was
	case '1':
		return e.kind == 'P'
	case '2':
		return e.kind == 'B'
	case '3':
		return e.kind == 'C'
	case 'V':
		e.ended = e.kind == 'F'
		return e.ended
	case 'Z':
		return true // its own conditions: see readyForQuery
	}
	return false
}

// dropUntil takes back what was noted for the expectations before end, the last first: one may close what another prepares again.
func (c *core) dropUntil(end int) {
	for i := end - 1; i >= c.expectOff; i-- {
		c.dropped(&c.expect[i])
	}
	c.expectOff = end
}

// dropped takes back what was noted of the connection when the message was sent: the server has not carried it out.
func (c *core) dropped(e *expectation) {
	switch {
	case e.closed != "":
		c.srv.Prepared.Add(e.closed)
	case e.makes != "":
		c.srv.Prepared.Remove(e.makes)
	case e.kind == 'P' && e.stmt != nil:
		c.srv.Unnamed = 0
	}
}

// discarded follows an error before the Query or FunctionCall in hand, which the server discards as well. It has no Sync of its
// own.
func (c *core) discarded() {
	c.dropUntil(len(c.expect))
	c.toServer = pg.AppendSync(c.toServer)
	c.push(expectation{kind: 'S'})
}
