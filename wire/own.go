package wire

import (
	"fmt"
	"sync/atomic"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// Consistency is what a session's reads must see.
type Consistency uint32

// The consistencies.
const (
	Session  Consistency = iota // whatever the session itself has written
	Eventual                    // anything: the closest copy, however far behind
	Primary                     // whatever has been written: all reads go to the primary
)

var consistencies = [...]string{"session", "eventual", "primary"}

func (c Consistency) String() string { return consistencies[c] }

// ParseConsistency reads one by its name.
func ParseConsistency(name string) (Consistency, bool) {
	for i, n := range consistencies {
		if n == name {
			return Consistency(i), true
		}
	}
	return 0, false
}

// The node's own parameters. What SET says of them holds from then on, for the session and on all its connections; no transaction
// takes it back.
const ownConsistency = "rangefinder.read_consistency"

// own are a session's values of the node's own parameters.
type own struct {
	database *atomic.Uint32 // Consistency of the database, as configured now; nil: Session
	begun    *Consistency   // what the startup packet has asked for; nil: nothing
	set      *Consistency   // what was set; nil: nothing, begun counts or the database
}

// consistency is what holds for the session's reads.
func (o *own) consistency() Consistency {
	switch {
	case o.set != nil:
		return *o.set
	case o.database != nil:
		return Consistency(o.database.Load())
	}
	return Session
}

// reset takes back what was set.
func (o *own) reset() { o.set = o.begun }

// assign sets a parameter.
func (o *own) assign(name, value string) *pg.Error {
	if name != ownConsistency {
		return unknownOwn(name)
	}
	c, ok := ParseConsistency(sqlkey.LowerASCII(value))
	if !ok {
		return pg.NewError(pg.CodeInvalidParameterValue, fmt.Sprintf("invalid value for parameter %q: %.64q", name, value)).
			WithHint("Available values: session, eventual, primary.")
	}
	o.set = &c
	return nil
}

func unknownOwn(name string) *pg.Error {
	return pg.NewError(pg.CodeUndefinedObject, fmt.Sprintf("unrecognized configuration parameter %.64q", name)).
		WithHint("The node's own parameter is " + ownConsistency + ".")
}

// answerOwn carries out a statement about the node's own parameters, and appends the answer without ReadyForQuery; with rows, the
// description of a row comes first, as a Query wants it.
func (c *core) answerOwn(dst []byte, plan *sqlkey.Plan, rows bool) ([]byte, *pg.Error) {
	switch plan.Own {
	case sqlkey.OwnSet:
		if e := c.own.assign(plan.Setting, plan.Value); e != nil {
			return dst, e
		}
	case sqlkey.OwnReset:
		if plan.Setting != ownConsistency {
			return dst, unknownOwn(plan.Setting)
		}
		c.own.reset()
	case sqlkey.OwnShow:
		if plan.Setting != ownConsistency {
			return dst, unknownOwn(plan.Setting)
		}
		if rows {
			dst = describeOwn(dst, plan)
		}
		dst = pg.AppendDataRow(dst, [][]byte{[]byte(c.own.consistency().String())})
	}
	return pg.AppendCommandComplete(dst, plan.Tag), nil
}

// describeOwn appends what Describe of such a statement's portal is answered with.
func describeOwn(dst []byte, plan *sqlkey.Plan) []byte {
	if plan.Own != sqlkey.OwnShow {
		return append(dst, noData...)
	}
	return pg.AppendRowDescription(dst, []pg.Field{{Name: plan.Setting, OID: pg.OIDText, Size: -1}})
}

// ownQuery answers a Query of such a statement.
func (c *core) ownQuery(plan *sqlkey.Plan) {
	var e *pg.Error
	if c.out, e = c.answerOwn(c.out, plan, true); e != nil {
		c.fail(e)
		return
	}
	c.seg.undo = nil
	c.ready()
}
