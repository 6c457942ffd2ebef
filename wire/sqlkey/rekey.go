package sqlkey

import (
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// Rekey is how an UPDATE of key columns runs on several shards: each is asked for the rows, which it locks, with what becomes of them. Rows that
// stay are updated where they are, those whose new key another shard owns are deleted and inserted there.
type Rekey struct {
	// SQL is what each shard is asked. Its columns are tableoid and ctid, the new values of Columns, and all columns of the table as they are.
	SQL     string
	Columns []string // that are assigned; the value of one of the key's has the key's type
	Key     []string // the key's columns
	Table   string   // its name, as it may stand in a statement
	Alias   string   // by which Returning names it, as it may stand in a statement
	// Returning is the clause with a space before it; "" if there is none.
	Returning string
	// New is the new key if it is the same for all rows, and known before they are; nil: it is not.
	New *KeyRef

	key keyTypes
}

// rekey is how an UPDATE that sets key columns runs. one is the refusal if it cannot.
func (c *compiler) rekey(n *pgquery.Node, p *Plan, a *analysis, s *survey) *Plan {
	u := n.GetUpdateStmt()
	first := a.keyed[slices.IndexFunc(a.keyed, func(r *ref) bool { return r.target == u })]
	one := &refusal{issue: *a.rekeyed, table: first.table}
	fan := &Fan{Writes: true, Why: one.reason}
	problem := c.rekeys(n, u, fan, s)
	if problem != nil {
		one.many = problem.reason
		p = p.refuse(one)
		p.about = nil // no hint makes it right
		return p
	}
	ks := first.table.keyspace
	p.Keyspace, p.KeyspaceName, p.method = ks.id, ks.name, ks.method
	fan.Rekey.New = a.newKey(u, first)
	refused := *p
	refused.refuse(one)
	fan.Refusal = refused.Err
	p.Target, p.Fan, p.Keys = Many, fan, nil
	p.Reason = c.where(p, fan) + ": " + one.reason + "; rows are updated where they are, or deleted there and inserted where they belong"
	return p
}

// rekeys makes fan.Rekey and fan.Within.
func (c *compiler) rekeys(n *pgquery.Node, u *pgquery.UpdateStmt, fan *Fan, s *survey) *issue {
	switch {
	case c.hint != nil:
		return issuef("a hint says on which shard it runs, and rows might have to leave that")
	case s.changes > 1:
		return issuef("it changes rows in WITH as well")
	case s.current:
		return issuef("a cursor is on one shard")
	case s.placed != "":
		return elsewhere(s.placed)
	case !u.GetRelation().GetInh():
		return issuef("ONLY is not for rows that move")
	case len(u.GetFromClause()) > 0 && len(u.GetReturningList()) > 0:
		return issuef("RETURNING may name what is in FROM, which the row's new shard has not")
	case holdsQuery(u.GetReturningList()):
		return issuef("RETURNING has a subquery, and on the row's new shard there are other rows")
	}
	a := c.spreads(n, u)
	if a == nil {
		return issuef("all shards together cannot run it: its tables are not joined by their keys")
	}
	t := a.spread.anchor.table
	alias := u.GetRelation().GetRelname()
	if al := u.GetRelation().GetAlias(); al != nil {
		alias = al.GetAliasname()
	}
	r := &Rekey{Alias: rib.QuoteIdent(alias), Key: t.columns, key: keyTypes{t.keyspace.types, t.keyspace.method, "UPDATE sets it so"}}
	sel := &pgquery.SelectStmt{
		TargetList:  []*pgquery.Node{target("", columnRef(alias, "tableoid")), target("", columnRef(alias, "ctid"))},
		FromClause:  append([]*pgquery.Node{{Node: &pgquery.Node_RangeVar{RangeVar: cloned(u.GetRelation())}}}, u.GetFromClause()...),
		WhereClause: u.GetWhereClause(), WithClause: u.GetWithClause(),
		LockingClause: []*pgquery.Node{{Node: &pgquery.Node_LockingClause{LockingClause: &pgquery.LockingClause{
			LockedRels: []*pgquery.Node{{Node: &pgquery.Node_RangeVar{RangeVar: &pgquery.RangeVar{Relname: alias, Inh: true, Relpersistence: "p"}}}},
			Strength:   pgquery.LockClauseStrength_LCS_FORUPDATE, WaitPolicy: pgquery.LockWaitPolicy_LockWaitBlock,
		}}}},
		Op: pgquery.SetOperation_SETOP_NONE, LimitOption: pgquery.LimitOption_LIMIT_OPTION_DEFAULT,
	}
	for _, n := range u.GetTargetList() {
		set, problem := assignedValue(n.GetResTarget())
		if problem != nil {
			return problem
		}
		name := n.GetResTarget().GetName()
		val := asColumn(set, alias, name)
		if i := slices.Index(t.columns, name); i >= 0 {
			val = castNode(val, "pg_catalog", catalogType(t.keyspace.types[i]))
		}
		r.Columns = append(r.Columns, name)
		sel.TargetList = append(sel.TargetList, target("", val))
	}
	sel.TargetList = append(sel.TargetList, target("", starOf(alias)))
	var err error
	if r.SQL, err = deparse(selectNode(sel)); err == nil {
		err = r.write(u)
	}
	if err != nil {
		return issuef("what each shard is to be asked cannot be written: %v", err)
	}
	fan.Rekey, fan.Within = r, a.spread.sets()
	c.takeLeave(selectNode(sel))
	if len(fan.Within) == 0 && (c.env.HintShard != "" || c.env.HintKey) {
		return issuef("the session's hint says on which shard it runs, and rows might have to leave that")
	}
	return nil
}

// write writes the table's name and RETURNING: those of a DELETE, whose beginning is known.
func (r *Rekey) write(u *pgquery.UpdateStmt) error {
	del := &pgquery.DeleteStmt{Relation: cloned(u.GetRelation())}
	del.Relation.Alias = nil
	node := &pgquery.Node{Node: &pgquery.Node_DeleteStmt{DeleteStmt: del}}
	text, err := deparse(node)
	if err == nil {
		r.Table, err = writtenTable(u.GetRelation())
	}
	if err != nil {
		return err
	}
	if len(u.GetReturningList()) == 0 {
		return nil
	}
	alias := del.Relation.GetRelname()
	if al := u.GetRelation().GetAlias(); al != nil {
		alias = al.GetAliasname()
	}
	for _, n := range u.GetReturningList() {
		if isStar(n.GetResTarget().GetVal()) {
			n = target("", starOf(alias))
		}
		del.ReturningList = append(del.ReturningList, n)
	}
	whole, err := deparse(node)
	r.Returning = strings.TrimPrefix(whole, text)
	return err
}

// assignedValue is what an assignment assigns.
func assignedValue(set *pgquery.ResTarget) (*pgquery.Node, *issue) {
	val := set.GetVal()
	if m := val.GetMultiAssignRef(); m != nil {
		args, at := m.GetSource().GetRowExpr().GetArgs(), int(m.GetColno())-1
		if at < 0 || at >= len(args) {
			return nil, issuef("it assigns a subquery to several columns")
		}
		val = args[at]
	}
	switch {
	case len(set.GetIndirection()) > 0:
		return nil, issuef("it sets a part of %s only", quoteName(set.GetName()))
	case val.GetSetToDefault() != nil:
		return nil, issuef("it sets %s to its DEFAULT", quoteName(set.GetName()))
	case val.GetRowExpr() != nil:
		return nil, issuef("it sets %s to a row", quoteName(set.GetName()))
	}
	return val, nil
}

// asColumn gives an expression that has no type of its own the column's, as an assignment does.
func asColumn(val *pgquery.Node, alias, column string) *pgquery.Node {
	if val.GetParamRef() == nil && val.GetAConst().GetSval() == nil && !val.GetAConst().GetIsnull() {
		return val
	}
	return &pgquery.Node{Node: &pgquery.Node_CaseExpr{CaseExpr: &pgquery.CaseExpr{
		Args:      []*pgquery.Node{{Node: &pgquery.Node_CaseWhen{CaseWhen: &pgquery.CaseWhen{Expr: boolNode(true), Result: val}}}},
		Defresult: columnRef(alias, column),
	}}}
}

// catalogType is a key type's name in pg_catalog.
func catalogType(t rib.Type) string {
	switch t {
	case rib.TypeBigint:
		return "int8"
	case rib.TypeInt:
		return "int4"
	case rib.TypeSmallint:
		return "int2"
	}
	return t.String()
}

func starOf(alias string) *pgquery.Node {
	return pgquery.MakeColumnRefNode([]*pgquery.Node{pgquery.MakeStrNode(alias), pgquery.MakeAStarNode()}, 0)
}

// holdsQuery tells whether there is a query in the expressions.
func holdsQuery(list []*pgquery.Node) (found bool) {
	walkList(list, func(n any) bool {
		if _, ok := n.(*pgquery.SelectStmt); ok {
			found = true
		}
		return !found
	})
	return found
}

// newKey is the key that all rows have after an UPDATE; nil if that cannot be told.
func (a *analysis) newKey(u *pgquery.UpdateStmt, r *ref) *KeyRef {
	columns := make([]*binding, len(r.table.columns))
	copy(columns, r.keys)
	for _, n := range u.GetTargetList() {
		for i, name := range r.table.columns {
			if n.GetResTarget().GetName() != name {
				continue
			}
			val, problem := assignedValue(n.GetResTarget())
			if problem != nil {
				return nil
			}
			columns[i] = a.bind(column{&ref{table: r.table}, i}, val)
		}
	}
	for _, v := range columns {
		if v == nil {
			return nil
		}
	}
	k := composed(columns, r.table.keyspace.method)
	return &k
}

// NewKey appends the key that a row has with these values, as text, in the client's encoding. nil is NULL.
func (r *Rekey) NewKey(dst rib.Key, values [][]byte, clientUTF8 bool) (rib.Key, error) {
	return r.key.appendKey(dst, values, clientUTF8)
}

// keyTypes is how a row's key is made of what a server has made of its columns.
type keyTypes struct {
	types  []rib.Type
	method rib.Method
	made   string // what has given the row this key, for people
}

// appendKey appends the key of these values, as text, in the client's encoding. nil is NULL.
func (k *keyTypes) appendKey(dst rib.Key, values [][]byte, clientUTF8 bool) (rib.Key, error) {
	start := len(dst)
	for i, t := range k.types {
		if values[i] == nil {
			return dst[:start], pg.NewError(pg.CodeNullValueNotAllowed, "the sharding key is NULL").
				WithDetail(k.made + ", and such a row belongs to no shard.").WithHint("Give the key a value.")
		}
		v, err := rib.ParseText(t, values[i])
		if err == nil && familyOf(t) == texts && !clientUTF8 && !ascii(values[i]) {
			return dst[:start], encodingError("the new key")
		}
		if err == nil {
			v.Type = t
			dst, err = k.method.AppendKey(dst, v)
		}
		if err != nil {
			return dst[:start], pg.NewError(CodeOf(err), "the row's new key cannot be read").WithDetail(upperFirst(err.Error()) + ".")
		}
	}
	if len(k.types) > 1 {
		return k.method.Join(dst, start), nil
	}
	return dst, nil
}

func (r *Rekey) bytes() int {
	n := len(r.SQL) + len(r.Table) + len(r.Alias) + len(r.Returning)
	for _, c := range r.Columns {
		n += len(c) + 16
	}
	if r.New != nil {
		n += r.New.bytes()
	}
	return n + 128
}

// NewKey appends the key that all rows get, if that is known (see Rekey.New).
func (p *Plan) NewKey(dst rib.Key, args Args, clientUTF8 bool) (rib.Key, bool) {
	r := p.Fan.Rekey
	if r == nil || r.New == nil {
		return dst, false
	}
	dst, err := p.appendRef(dst, r.New, args, clientUTF8)
	return dst, err == nil
}

// keepsShard tells whether the assignments of an ON CONFLICT DO UPDATE to key columns cannot move the row: each has the value that the row to
// insert has, which belongs where both are.
func keepsShard(t *table, assignments []*pgquery.Node) bool {
	set := 0
	for _, n := range assignments {
		r := n.GetResTarget()
		for _, name := range t.columns {
			if r.GetName() != name {
				continue
			}
			fields := r.GetVal().GetColumnRef().GetFields()
			if len(fields) != 2 || fields[0].GetString_().GetSval() != "excluded" || fields[1].GetString_().GetSval() != name || len(r.GetIndirection()) > 0 {
				return false
			}
			set++
		}
	}
	return set == 0 || set == len(t.columns)
}
