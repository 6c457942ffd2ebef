package sqlkey

import (
	"cmp"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"rangefinder/wire/pg"
)

// row is what an INSERT gives for the key of one row.
type row struct {
	table *table
	keys  []*binding // those of INSERT ... SELECT may be nil: see issue
	issue *issue
}

func (a *analysis) insert(s *pgquery.InsertStmt, at place) {
	at = a.with(s.GetWithClause(), at, s)
	t := a.target(s.GetRelation())
	target := &ref{alias: s.GetRelation().GetRelname(), table: t}
	if al := s.GetRelation().GetAlias(); al != nil {
		target.alias = al.GetAliasname()
	}
	values := s.GetSelectStmt().GetSelectStmt()
	if values != nil {
		a.watch = values
		a.selects(values, at)
	} else if s.GetSelectStmt() != nil {
		a.query(s.GetSelectStmt(), at)
	}
	if t != nil {
		a.storesKeys(t)
		a.insertRows(t, s, values)
	} else if whole, kind := a.resolve(s.GetRelation()); kind == copiedTable {
		a.insertWhole(whole, s, values)
	}
	inside := place{&scope{parent: at.scope, refs: []*ref{target, {alias: "excluded"}}}, at.facts, at.ctes}
	if c := s.GetOnConflictClause(); c != nil {
		a.subqueries(inside, c.GetInfer().GetWhereClause(), c.GetWhereClause())
		a.subqueries(inside, c.GetInfer().GetIndexElems()...)
		a.subqueries(inside, c.GetTargetList()...)
		if t != nil && !keepsShard(t, c.GetTargetList()) {
			a.refuseKeyChange(t, c.GetTargetList(), "ON CONFLICT DO UPDATE sets")
		}
	}
	a.subqueries(inside, s.GetReturningList()...)
}

// insertRows finds the key of every row.
func (a *analysis) insertRows(t *table, s *pgquery.InsertStmt, values *pgquery.SelectStmt) {
	name := quoteName(t.columns[0])
	switch {
	case s.GetOverride() == pgquery.OverridingKind_OVERRIDING_USER_VALUE:
		a.refuse(t, userValue(name))
		return
	case values == nil:
		a.refuse(t, &issue{pg.CodeFeatureNotSupported, "DEFAULT VALUES gives no " + name, "Give the row's " + name + " as a constant or a parameter."})
		return
	case len(s.GetCols()) == 0 && a.top == any(s):
		a.unnamed = t
		return
	case len(s.GetCols()) == 0:
		a.refuse(t, &issue{pg.CodeFeatureNotSupported, "INSERT names no columns, so which value is " + name + " cannot be told",
			"Name the columns: INSERT INTO " + t.String() + " (" + name + ", ...) VALUES (...)."})
		return
	}
	at := make([]int, len(t.columns))
	for i, column := range t.columns {
		at[i] = -1
		for j, n := range s.GetCols() {
			if r := n.GetResTarget(); r.GetName() == column {
				at[i] = j
				if len(r.GetIndirection()) > 0 {
					a.refuse(t, &issue{pg.CodeFeatureNotSupported, "INSERT gives a part of " + quoteName(column) + " only", "Give " + quoteName(column) + " as a whole."})
					return
				}
			}
		}
		if at[i] < 0 {
			a.refuse(t, &issue{pg.CodeFeatureNotSupported, "INSERT gives no " + quoteName(column), "Add " + quoteName(column) + " to the columns, with a constant or a parameter."})
			return
		}
	}
	if len(values.GetValuesLists()) == 0 {
		a.insertSelected(t, at, values)
		return
	}
	for _, n := range values.GetValuesLists() {
		items := n.GetList().GetItems()
		if l := a.fold.rowsOf(n); l != nil {
			a.foldedRows(t, at, l)
			continue
		}
		r := row{table: t, keys: make([]*binding, len(at))}
		for i, j := range at {
			if j >= len(items) {
				a.refuse(t, &issue{pg.CodeSyntaxError, "a row has fewer values than there are columns", "Give every row a value for each column."})
				return
			}
			before := a.problem
			if r.keys[i] = a.insertValue(t, i, items[j]); r.keys[i] == nil && !a.servers(&r, before, items[j]) {
				return
			}
		}
		a.rows = append(a.rows, r)
	}
}

// userValue is why an INSERT must not say so. Whether the column is an identity column is not known here.
func userValue(name string) *issue {
	return &issue{pg.CodeFeatureNotSupported, "OVERRIDING USER VALUE has the server give " + name + " another value than the one that is written, if it is an identity column",
		"Leave that out, and say DEFAULT for each column for which the server is to make a value."}
}

// insertSelected finds the key of the rows that a query gives: it must be the key of a table of the query, or a constant. at are the
// places of the key's columns among the query's.
func (a *analysis) insertSelected(t *table, at []int, s *pgquery.SelectStmt) {
	hint := "Select the key's column of a table that the rows are made of, or select the rows first and insert them with VALUES."
	made := namesNoTable(s)
	if made {
		hint = bulkHint
	}
	r := row{table: t, keys: make([]*binding, len(at))}
	for i, j := range at {
		name := quoteName(t.columns[i])
		if a.watch == s || j >= len(s.GetTargetList()) {
			r.issue = &issue{pg.CodeFeatureNotSupported, "INSERT ... SELECT gives " + name + " by a query of several parts", hint}
			break
		}
		var val *pgquery.Node
		for k, n := range s.GetTargetList() {
			if isStar(n.GetResTarget().GetVal()) {
				break
			}
			if k == j {
				val = n.GetResTarget().GetVal()
			}
		}
		switch {
		case val == nil:
			r.issue = &issue{pg.CodeFeatureNotSupported, "which column of * is " + name + " cannot be told", "Name the columns that are selected."}
			if made {
				r.issue.hint = bulkHint
			}
		case val.GetColumnRef() != nil:
			c, ok := a.watched.scope.column(val, a.env.Database)
			if ok && !c.ref.optional && c.typ() == t.keyspace.types[i] {
				r.keys[i] = a.watched.facts.value(c)
			}
			if r.keys[i] == nil {
				r.issue = &issue{pg.CodeFeatureNotSupported, name + " is given by a column of which no value is known", hint}
			}
		default:
			before := a.problem
			if r.keys[i] = a.insertValue(t, i, val); r.keys[i] != nil {
				break
			}
			if made && val.GetFuncCall() != nil {
				a.problem.hint = bulkHint
			}
			if !a.servers(&r, before, val) {
				return
			}
		}
	}
	a.rows = append(a.rows, r)
}

// servers makes what was found wrong with a value, if nothing was before, an issue of the row alone, if a server can tell what the value is: see compiler.deal.
func (a *analysis) servers(r *row, before *refusal, val *pgquery.Node) bool {
	if before != nil || a.problem.code != pg.CodeFeatureNotSupported || val.GetSetToDefault() != nil {
		return false
	}
	r.issue, a.problem = &a.problem.issue, nil
	return true
}

// bulkHint helps where rows to insert are made of arrays.
const bulkHint = "Send the rows by COPY, or as INSERT ... VALUES (...), (...), of which the router reads the keys."

// namesNoTable tells whether the rows of a query are made of constants, parameters and functions alone.
func namesNoTable(s *pgquery.SelectStmt) bool {
	none := true
	walk(s, func(n any) bool {
		_, named := n.(*pgquery.RangeVar)
		none = none && !named
		return none
	})
	return none
}

func (a *analysis) insertValue(t *table, i int, n *pgquery.Node) *binding {
	name := quoteName(t.columns[i])
	if n.GetSetToDefault() != nil {
		a.refuse(t, &issue{pg.CodeFeatureNotSupported, "INSERT leaves " + name + " to its DEFAULT, which the server alone knows", "Give " + name + " as a constant or a parameter."})
		return nil
	}
	// The value is bound as in a comparison, and what is wrong with it is told of the row.
	probe := &ref{table: t}
	v := a.bind(column{probe, i}, n)
	if v == nil {
		p := *probe.issue
		switch {
		case p.code == pg.CodeNullValueNotAllowed:
			p.reason, p.hint = "the row's "+name+" is NULL, so it belongs to no shard", "Give "+name+" a value."
		case n.GetAConst() == nil && n.GetTypeCast() == nil && n.GetAExpr() == nil || strings.HasPrefix(p.reason, name+" is compared"):
			p.reason = name + " is given by an expression that only PostgreSQL can evaluate"
		}
		if p.hint == "" {
			p.hint = "Give " + name + " as a constant or a parameter of type " + t.keyspace.types[i].String() + "."
		}
		a.refuse(t, &p)
	}
	return v
}

func (a *analysis) update(s *pgquery.UpdateStmt, at place) {
	at = a.with(s.GetWithClause(), at, s)
	t := a.target(s.GetRelation())
	a.storesKeys(t)
	target := a.addRef(s.GetRelation(), t)
	target.target = s
	inside := a.level(s, target, s.GetFromClause(), s.GetWhereClause(), at)
	a.subqueries(inside, s.GetTargetList()...)
	a.subqueries(inside, s.GetReturningList()...)
	if i := keyChange(t, s.GetTargetList(), "UPDATE sets"); i != nil && a.top == any(s) {
		a.rekeyed = i
	} else {
		a.refuseKeyChange(t, s.GetTargetList(), "UPDATE sets")
	}
	if whole, kind := a.resolve(s.GetRelation()); kind == copiedTable {
		a.updateWhole(whole, s.GetTargetList())
	}
}

func (a *analysis) delete(s *pgquery.DeleteStmt, at place) {
	at = a.with(s.GetWithClause(), at, s)
	t := a.target(s.GetRelation())
	inside := a.level(s, a.addRef(s.GetRelation(), t), s.GetUsingClause(), s.GetWhereClause(), at)
	a.subqueries(inside, s.GetReturningList()...)
}

// refuseKeyChange refuses assignments to key columns: the row might have to move to another shard.
func (a *analysis) refuseKeyChange(t *table, assignments []*pgquery.Node, what string) {
	if i := keyChange(t, assignments, what); i != nil {
		a.firm = true
		a.refuse(t, i)
	}
}

// keyChange is what is to be said of assignments to key columns; nil: there are none.
func keyChange(t *table, assignments []*pgquery.Node, what string) *issue {
	if t == nil {
		return nil
	}
	for _, n := range assignments {
		for _, c := range t.columns {
			if n.GetResTarget().GetName() == c {
				return &issue{pg.CodeFeatureNotSupported, what + " the sharding key " + quoteName(c) + ", which might move the row to another shard",
					"Leave " + quoteName(c) + " out of SET; to move a row, DELETE it and INSERT it anew."}
			}
		}
	}
	return nil
}

// whole takes a statement's tables from wherever they stand. It refuses sharded ones: what the statement does with them is
// not followed. made, if it is not nil, is the name of a table that does not exist yet. To a reference table, a foreign key of what is on one shard alone only
// has to have a copy there.
func (a *analysis) whole(m proto.Message, c *ctes, what string, made *pgquery.RangeVar) {
	alone := a.isAlone(m)
	walk(m, func(n any) bool {
		switch n := n.(type) {
		case *pgquery.WithClause: // seen already
			return c == nil
		case *pgquery.LockingClause:
			return false
		case *pgquery.Constraint:
			if to := n.GetPktable(); alone && to != nil {
				if _, kind := a.resolve(to); kind == copiedTable {
					a.relation(to)
					return false
				}
			}
		case *pgquery.RangeVar:
			if n == made {
				return false
			}
			if n.GetSchemaname() == "" && c.has(n.GetRelname()) {
				a.seen++
				return false
			}
			if t, kind := a.resolve(n); t != nil {
				a.firm = a.firm || kind == copiedTable && what == "TRUNCATE" // a hint would have one copy written
				a.eachShardNamed(t, n, what)
			}
			a.relation(n)
		}
		return true
	})
}

// isAlone tells whether a statement makes or alters a table that is on one shard alone.
func (a *analysis) isAlone(m proto.Message) bool {
	n, ok := m.(*pgquery.Node)
	if !ok || n.GetCreateStmt() == nil && n.GetAlterTableStmt() == nil {
		return false
	}
	_, kind := a.resolve(cmp.Or(n.GetCreateStmt().GetRelation(), n.GetAlterTableStmt().GetRelation()))
	return kind == schemaTable || kind == plainTable
}

func onEachShard(what string) *issue {
	return &issue{pg.CodeFeatureNotSupported, what + " is not routed yet", "Run it on each shard, connected to the shard's primary."}
}

// creates takes the name of a table that a statement makes.
func (a *analysis) creates(rv *pgquery.RangeVar) {
	a.seen++
	schema, name := rv.GetSchemaname(), rv.GetRelname()
	a.tables = append(a.tables, qualified(schema, name))
	in := a.schemasOf(rv)
	if a.path.temporary(rv) {
		in = pathSchemas(a.db, a.path)
	}
	for _, s := range in {
		a.ofSchema(s)
	}
	if len(in) == 0 || a.db.tenants[in[0]] == nil {
		a.plain = append(a.plain, qualified(schema, name))
	}
	if a.path.temporary(rv) {
		// Temporary tables come first on every search path.
		if same := a.db.byName[name]; len(same) > 0 {
			a.firm = true
			a.refuse(same[0], &issue{pg.CodeFeatureNotSupported, "a temporary " + quoteName(name) + " would hide the sharded table of that name", "Give it another name."})
		}
		return
	}
	t := a.db.relation(tableName{schema, name})
	if schema == "" {
		for i := 0; t == nil && i < len(a.path.schemas); i++ {
			t = a.db.relation(tableName{a.path.schemas[i], name})
		}
	}
	perhaps, known := a.path.temporaryPerhaps(a.db)
	switch same := a.db.byName[name]; {
	case t != nil:
		a.eachShard(t, "making one by that name")
	case schema == "" && perhaps && !known && len(same) > 0:
		a.firm = true
		a.refuse(same[0], &issue{pg.CodeFeatureNotSupported, "it may be a temporary " + quoteName(name) + ", which would hide the sharded table of that name", "Give its schema, or another name."})
	}
}
