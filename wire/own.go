package wire

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"rangefinder/rib"
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
	return byName[Consistency](consistencies[:], name)
}

// byName is the policy that has a name, which stands in its place.
func byName[T ~uint32](names []string, name string) (T, bool) {
	i := slices.Index(names, name)
	return T(max(i, 0)), i >= 0
}

// The values of cross_shard_writes.
const (
	writesRefuse   = "refuse" // a transaction writes on one shard
	writesTwoPhase = "2pc"    // on several: it commits on all of them or on none
)

// The node's own parameters. What SET says of these three holds from then on, for the session and on all its connections; no transaction
// takes it back. Hints (hints.go) follow the transaction.
const (
	ownConsistency = "rangefinder.read_consistency"
	ownScatter     = "rangefinder.scatter"
	ownLSN         = "rangefinder.lsn" // see token.go
	ownWrites      = "rangefinder.cross_shard_writes"
)

// own are a session's values of the node's own parameters.
type own struct {
	database *atomic.Uint32 // Consistency of the database, as configured now; nil: Session
	begun    *Consistency   // what the startup packet has asked for; nil: nothing
	set      *Consistency   // what was set; nil: nothing, begun counts or the database

	scatterDatabase *atomic.Uint32 // Scatter of the database, as configured now; nil: ScatterAllow
	scatterBegun    *Scatter       // as begun
	scatterSet      *Scatter       // as set

	isolatedDatabase *atomic.Uint32 // Isolated of the database, as configured now; nil: IsolatedServe

	acrossDatabase *atomic.Bool // whether the database's transactions may write on several shards, as configured now; nil: no
	acrossBegun    *bool        // as begun
	acrossSet      *bool        // as set

	begunToken rib.Token // what the startup packet has asked for
	token      []wrote   // what was set, or that: what others have written and the session's reads must see
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

// scatter is what becomes of the session's statements on several shards.
func (o *own) scatter() Scatter {
	switch {
	case o.scatterSet != nil:
		return *o.scatterSet
	case o.scatterDatabase != nil:
		return Scatter(o.scatterDatabase.Load())
	}
	return ScatterAllow
}

// across tells whether a transaction of the session may write on several shards.
func (o *own) across() bool {
	switch {
	case o.acrossSet != nil:
		return *o.acrossSet
	case o.acrossDatabase != nil:
		return o.acrossDatabase.Load()
	}
	return false
}

// text is the value of a parameter that is no token.
func (o *own) text(name string) string {
	switch {
	case name == ownConsistency:
		return o.consistency().String()
	case name == ownScatter:
		return o.scatter().String()
	case o.across():
		return writesTwoPhase
	}
	return writesRefuse
}

// reset takes back what was set of all of them.
func (o *own) reset() {
	o.set, o.acrossSet, o.scatterSet = o.begun, o.acrossBegun, o.scatterBegun
	o.setToken(o.begunToken)
}

// begin makes a parameter what the session begins with.
func (o *own) begin(name, value string, e *env) *pg.Error {
	if name == ownLSN {
		token, _, err := e.checkToken(value)
		if err != nil {
			return err
		}
		o.begunToken = token
		o.setToken(token)
		return nil
	}
	err := o.assign(name, value)
	o.begun, o.acrossBegun, o.scatterBegun = o.set, o.acrossSet, o.scatterSet
	return err
}

// assign sets a parameter that is no token.
func (o *own) assign(name, value string) *pg.Error {
	available := writesRefuse + ", " + writesTwoPhase
	switch lower := sqlkey.LowerASCII(value); name {
	case ownConsistency:
		if c, ok := ParseConsistency(lower); ok {
			o.set = &c
			return nil
		}
		available = "session, eventual, primary"
	case ownScatter:
		if policy, ok := ParseScatter(lower); ok {
			o.scatterSet = &policy
			return nil
		}
		available = "allow, warn, forbid"
	case ownWrites:
		if across := lower == writesTwoPhase; across || lower == writesRefuse {
			o.acrossSet = &across
			return nil
		}
	default:
		return unknownOwn(name)
	}
	return pg.NewError(pg.CodeInvalidParameterValue, fmt.Sprintf("invalid value for parameter %q: %.64q", name, value)).
		WithHint("Available values: " + available + ".")
}

func unknownOwn(name string) *pg.Error {
	return pg.NewError(pg.CodeUndefinedObject, fmt.Sprintf("unrecognized configuration parameter %.64q", name)).
		WithHint("The node's own parameters are " + strings.Join([]string{ownConsistency, ownScatter, ownWrites, ownLSN, sqlkey.HintKeySetting}, ", ") + " and " + sqlkey.HintShardSetting + ".")
}

// answerOwn carries out a statement about the node's own parameters, and appends the answer without ReadyForQuery; with rows, the
// description of a row comes first, as a Query wants it. If it must be found out first how far a shard was written to, that shard is in
// c.locates: then the answer is to be asked for again when that is known.
func (c *core) answerOwn(dst []byte, plan *sqlkey.Plan, rows bool) ([]byte, *pg.Error) {
	switch {
	case plan.Own == sqlkey.OwnExplain:
		lines, e := c.explainRoute(plan, nil, 0)
		if e != nil {
			return dst, e
		}
		if rows {
			dst = describeOwn(dst, plan)
		}
		return appendLines(dst, lines, plan), nil
	case isHint(plan.Setting):
		return c.answerHint(dst, plan, rows)
	}
	if plan.Setting != ownConsistency && plan.Setting != ownLSN && plan.Setting != ownWrites && plan.Setting != ownScatter {
		return dst, unknownOwn(plan.Setting)
	}
	lsn := plan.Setting == ownLSN
	switch plan.Own {
	case sqlkey.OwnSet:
		var e *pg.Error
		if lsn {
			dst, e = c.takeToken(dst, plan.Value)
		} else {
			e = c.own.assign(plan.Setting, plan.Value)
		}
		if e != nil || c.locates.shard != "" {
			return dst, e
		}
	case sqlkey.OwnReset:
		switch plan.Setting {
		case ownLSN:
			c.own.setToken(c.own.begunToken)
		case ownWrites:
			c.own.acrossSet = c.own.acrossBegun
		case ownScatter:
			c.own.scatterSet = c.own.scatterBegun
		default:
			c.own.set = c.own.begun
		}
	case sqlkey.OwnShow:
		var value string
		var e *pg.Error
		if !lsn {
			value = c.own.text(plan.Setting)
		} else if value, e = c.tokenText(); e != nil || c.locates.shard != "" {
			return dst, e
		}
		if rows {
			dst = describeOwn(dst, plan)
		}
		dst = pg.AppendDataRow(dst, [][]byte{[]byte(value)})
	}
	return pg.AppendCommandComplete(dst, plan.Tag), nil
}

// describeOwn appends what Describe of such a statement's portal is answered with.
func describeOwn(dst []byte, plan *sqlkey.Plan) []byte {
	switch plan.Own {
	case sqlkey.OwnShow:
	case sqlkey.OwnSet:
		if !plan.OwnCall {
			return append(dst, noData...)
		}
		return pg.AppendRowDescription(dst, []pg.Field{{Name: "set_config", OID: pg.OIDText, Size: -1}})
	case sqlkey.OwnExplain:
		oid := uint32(pg.OIDText)
		if plan.ExplainJSON {
			oid = oidJSON
		}
		return pg.AppendRowDescription(dst, []pg.Field{{Name: "QUERY PLAN", OID: oid, Size: -1}})
	default:
		return append(dst, noData...)
	}
	return pg.AppendRowDescription(dst, []pg.Field{{Name: plan.Setting, OID: pg.OIDText, Size: -1}})
}

// ownQuery answers a Query of such a statement.
func (c *core) ownQuery(plan *sqlkey.Plan) {
	var e *pg.Error
	c.out, e = c.answerOwn(c.out, plan, true)
	switch {
	case e != nil:
		c.fail(e)
	case c.locates.shard == "":
		c.seg.undo = nil
		c.ready()
	}
}
