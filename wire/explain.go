package wire

import (
	"encoding/binary"
	"fmt"
	"slices"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// Route is a statement of which a client asks by EXPLAIN (ROUTE) where it would go, as things stand in its session.
type Route struct {
	SQL            string
	Database, User string
	Plan           *sqlkey.Plan
	Table          *fib.Table
	Catalog        *sqlkey.Catalog
	Consistency    Consistency
	Scatter        Scatter
	// Key makes the plan's i-th key. Params is how many parameters have values.
	Key    func(i int) (rib.Key, error)
	Params int
	Args   sqlkey.Args // nil: there are none
	UTF8   bool        // they are encoded so
	// Primary: the state of the session has even a read go to the primary.
	Primary bool
	// Notes say what of the session matters, a sentence each.
	Notes []string
	JSON  bool // the answer is one line, of JSON
}

const oidJSON = 114

// explainRoute tells where the statement of an EXPLAIN (ROUTE) would go. given is how many arguments there are.
func (c *core) explainRoute(plan *sqlkey.Plan, args sqlkey.Args, given int) ([]string, *pg.Error) {
	if c.env.explain == nil {
		return nil, pg.NewError(pg.CodeFeatureNotSupported, "EXPLAIN (ROUTE) is not available here").WithHint("Use: rangefinder route.")
	}
	inner := plan.Explained
	r := &Route{
		SQL: sqlkey.ExplainedText(plan.SQL), Database: c.db, User: c.user, Table: c.table, Catalog: c.catalog,
		Consistency: c.own.consistency(), Scatter: c.own.scatter(), Params: given, JSON: plan.ExplainJSON,
	}
	if len(inner.Names) > 0 && inner.Names[0].Op == sqlkey.NameExecute {
		u := &inner.Names[0]
		s := c.stmts.named[u.Name]
		if s == nil {
			return nil, unknownStatement([]byte(u.Name))
		}
		c.replan(s)
		if e := executable(u, s); e != nil { // as EXECUTE would say
			return nil, e
		}
		inner, args, r.Params = s.plan, &execArgs{u, s.oids}, len(u.Args)
	}
	if r.UTF8 = c.clientUTF8(); args != nil {
		r.Args = args
	}
	r.Plan, r.Primary = inner, c.mustWrite(inner)
	r.Key = func(i int) (rib.Key, error) {
		key, err := c.appendKey(inner, i, args)
		return slices.Clone(key), err
	}
	if key := c.settings.hints.inForce().key; key != "" {
		r.Notes = append(r.Notes, fmt.Sprintf("The session has set %s = %.100s.", sqlkey.HintKeySetting, quoteLiteral(key)))
	}
	switch {
	case c.srv == nil:
	case c.onServer():
		r.Notes = append(r.Notes, "The transaction is open on "+c.srvShard+".")
	case c.pinned != "":
		r.Notes = append(r.Notes, "The session is tied to a connection to "+c.srvShard+": "+c.pinned+".")
	}
	for _, w := range c.wrote {
		r.Notes = append(r.Notes, "The session has written to "+w.shard+", and its reads there must see that.")
	}
	return c.env.explain(r), nil
}

// appendLines appends a row for each line, and the command tag.
func appendLines(dst []byte, lines []string, plan *sqlkey.Plan) []byte {
	for _, line := range lines {
		dst = pg.AppendDataRow(dst, [][]byte{[]byte(line)})
	}
	return pg.AppendCommandComplete(dst, plan.Tag)
}

// describeParams is the ParameterDescription of a statement that the node answers. A parameter that is a key has the key's type; any other is
// taken as text, for no server is asked.
func describeParams(s *statement) []byte {
	n := min(s.plan.NumParams, 1<<16-1)
	dst := binary.BigEndian.AppendUint32([]byte{'t'}, uint32(6+4*n))
	dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	for i := 1; i <= n; i++ {
		oid := uint32(pg.OIDText)
		if s.plan.Explained != nil {
			oid = s.plan.Explained.ParamType(i)
		}
		if i <= len(s.oids) && s.oids[i-1] != 0 {
			oid = s.oids[i-1]
		}
		dst = binary.BigEndian.AppendUint32(dst, oid)
	}
	return dst
}
