package sqlkey

import (
	"cmp"
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// eachShard refuses a statement that is about a table as such, unless all shards that have it can run it: see everyShard.
func (a *analysis) eachShard(t *table, what string) {
	if a.problem == nil {
		a.problem = &refusal{issue: *onEachShard(what), table: t, each: true}
	}
	if !slices.Contains(a.each, t) {
		a.each = append(a.each, t)
	}
}

// eachShardNamed is eachShard of a table by its name in the statement.
func (a *analysis) eachShardNamed(t *table, rv *pgquery.RangeVar, what string) {
	if rv.GetSchemaname() == "" {
		a.refuseTwoMeanings(t)
	}
	a.eachShard(t, what)
}

// everyShard makes the plan p of a statement that was refused by eachShard one for all shards that have the tables. made is the table or
// view that it makes, if it makes one.
func (c *compiler) everyShard(p *Plan, n *pgquery.Node, a *analysis, made *pgquery.RangeVar) *Plan {
	if p.Target != None || a.problem == nil || !a.problem.each {
		return p
	}
	what, t := kindName(n), a.problem.table
	if why := c.notEverywhere(n, a, made); why != nil {
		return p.refuse(&refusal{issue: *why, table: t})
	}
	fan := &Fan{Everywhere: true, Makes: made.GetRelname(), Writes: n.GetLockStmt() == nil, Locks: n.GetLockStmt() != nil, Steps: inSteps(n), Why: what + " concerns all shards that have " + t.String(), Refusal: p.Err}
	for _, t := range a.each {
		ks := t.keyspace
		if t.of != nil {
			ks = t.of.keyspace
		}
		if ks.whole {
			fan.Copies = append(fan.Copies, ks.shards...)
		} else if !slices.Contains(fan.Keyspaces, ks.id) {
			fan.Keyspaces = append(fan.Keyspaces, ks.id)
		}
		p.Keyspace, p.KeyspaceName = ks.id, ks.name
	}
	slices.Sort(fan.Copies)
	fan.Copies = slices.Compact(fan.Copies)
	if t, _ := a.resolve(cmp.Or(n.GetCreateStmt().GetRelation(), n.GetAlterTableStmt().GetRelation(), &pgquery.RangeVar{})); t != nil && t.of == nil && t.keyspace.whole {
		fan.Fills = filledByTypes(n)
	}
	p.Target, p.Fan, p.Err, p.Copies, p.Defines = Many, fan, nil, nil, definesTable(n)
	p.Reason = fan.Why + ": all of them in one transaction"
	if fan.Steps {
		p.Reason = fan.Why + ": one after the other, for it cannot be part of a transaction"
	}
	return p
}

// definesTable tells whether a statement makes, changes or takes away a table or view as such.
func definesTable(n *pgquery.Node) bool {
	return n.GetCreateStmt() != nil || n.GetViewStmt() != nil || n.GetCreateTableAsStmt() != nil || n.GetAlterTableStmt() != nil || n.GetDropStmt() != nil ||
		n.GetRenameStmt() != nil || n.GetAlterObjectSchemaStmt() != nil
}

// Within is a plan for all shards of one of Fan.Keyspaces.
func (p *Plan) Within(id rib.KeyspaceID) *Plan {
	return &Plan{Target: Many, Keyspace: id, KeyspaceName: p.KeyspaceName, Fan: &Fan{}}
}

// notEverywhere is why a statement about a sharded table is not for all of its shards.
func (c *compiler) notEverywhere(n *pgquery.Node, a *analysis, made *pgquery.RangeVar) *issue {
	refuse := func(reason, hint string) *issue { return &issue{pg.CodeFeatureNotSupported, reason, hint} }
	if made != nil {
		name := qualified(made.GetSchemaname(), made.GetRelname())
		if i := slices.Index(a.plain, name); i >= 0 {
			a.plain = slices.Delete(slices.Clone(a.plain), i, i+1)
		}
		t, _ := a.resolve(made)
		isPart := n.GetCreateStmt().GetPartbound() != nil
		if t == nil && n.GetCreateStmt() != nil && !isPart {
			return refuse("CREATE TABLE makes a table that no keyspace holds, and names one that is sharded",
				"Add the table to a keyspace first (rangefinder keyspace add-table --planned), or leave the other one out.")
		}
		if t != nil && t.of == nil && !t.keyspace.whole && !isPart {
			if why := keyAsDeclared(t, n.GetCreateStmt()); why != "" {
				return refuse(why, "Declare the key's columns as the keyspace has them: as varchar instead of varchar(10), timestamptz instead of timestamptz(3).")
			}
		}
	}
	for _, node := range n.GetAlterTableStmt().GetCmds() {
		switch node.GetAlterTableCmd().GetSubtype() {
		case pgquery.AlterTableType_AT_DetachPartition, pgquery.AlterTableType_AT_DetachPartitionFinalize, pgquery.AlterTableType_AT_DropInherit:
			return refuse("what it takes away would be a table that no keyspace holds, with rows on all shards, of which one would be asked",
				"Detach it on each shard, connected to the shard's primary, and add it to the keyspace then: rangefinder keyspace add-table.")
		}
	}
	const apart = "Use one statement for what is sharded, and another one for what is not."
	switch d := n.GetDropStmt(); {
	case len(a.plain) > 0:
		return refuse("it names "+strings.Join(a.plain, ", ")+", which no keyspace holds, together with a sharded table", apart)
	case d != nil && isRelation(d.GetRemoveType()) && len(a.each) < len(d.GetObjects()):
		return refuse("it names something that no keyspace holds, together with a sharded table", apart)
	case n.GetCreateTableAsStmt() != nil && n.GetCreateTableAsStmt().GetObjtype() != pgquery.ObjectType_OBJECT_MATVIEW, n.GetDoStmt() != nil, n.GetCallStmt() != nil:
		return refuse(kindName(n)+" cannot run on all shards", "Run it on each shard, connected to the shard's primary.")
	}
	if t, _ := a.resolve(cmp.Or(n.GetCreateStmt().GetRelation(), n.GetAlterTableStmt().GetRelation(), &pgquery.RangeVar{})); t != nil && t.of == nil && t.keyspace.whole {
		if column := c.filled(t, n); column != "" {
			return refuse("each server would compute values of column "+quoteName(column)+" for itself, so the copies would differ",
				"Leave that out, and have INSERT give the value: rangefinder.unique_id() makes numbers. Or make the table on every shard first and its keyspace then: an INSERT that leaves such columns out is evaluated once then.")
		}
	}
	const keyed = "The keyspace knows the table by its name and its key's columns: drop the keyspace (rangefinder keyspace drop, the rows stay), change the table on each shard, and make the keyspace anew, while no client writes."
	switch r := n.GetRenameStmt(); {
	case r == nil:
	case isOneOf(r.GetRenameType().String(), "OBJECT_TABLE") && a.problem.table.of == nil:
		return refuse("ALTER TABLE ... RENAME would take its name from it", keyed)
	case r.GetRenameType() == pgquery.ObjectType_OBJECT_COLUMN && slices.Contains(a.problem.table.columns, r.GetSubname()):
		return refuse("ALTER TABLE ... RENAME would take its name from a column of its key", keyed)
	}
	if n.GetAlterObjectSchemaStmt() != nil && a.problem.table.of == nil {
		return refuse("ALTER TABLE ... SET SCHEMA would take its name from it", keyed)
	}
	for _, node := range n.GetAlterTableStmt().GetCmds() {
		cmd := node.GetAlterTableCmd()
		changes := cmd.GetSubtype() == pgquery.AlterTableType_AT_DropColumn || cmd.GetSubtype() == pgquery.AlterTableType_AT_AlterColumnType
		if changes && slices.Contains(a.problem.table.columns, cmd.GetName()) {
			return refuse("ALTER TABLE would change "+quoteName(cmd.GetName())+", a column of its key", keyed)
		}
	}
	return nil
}

func isRelation(t pgquery.ObjectType) bool {
	return t == pgquery.ObjectType_OBJECT_TABLE || t == pgquery.ObjectType_OBJECT_VIEW || t == pgquery.ObjectType_OBJECT_MATVIEW || t == pgquery.ObjectType_OBJECT_FOREIGN_TABLE
}

// inSteps tells whether PostgreSQL refuses a statement in a transaction.
func inSteps(n *pgquery.Node) bool {
	concurrently := func(options []*pgquery.Node) bool {
		return slices.ContainsFunc(options, func(o *pgquery.Node) bool {
			return o.GetDefElem().GetDefname() == "concurrently" && isTrue(o.GetDefElem().GetArg())
		})
	}
	return n.GetIndexStmt().GetConcurrent() || n.GetDropStmt().GetConcurrent() || n.GetVacuumStmt().GetIsVacuumcmd() || concurrently(n.GetReindexStmt().GetParams()) ||
		slices.ContainsFunc(n.GetAlterTableStmt().GetCmds(), func(c *pgquery.Node) bool {
			return c.GetAlterTableCmd().GetDef().GetPartitionCmd().GetConcurrent()
		})
}

// keyAsDeclared is why a table that a keyspace holds must not be made like this: its key would be of another type, and so its rows in other
// places. "": it may. What it takes from other tables cannot be seen here.
func keyAsDeclared(t *table, s *pgquery.CreateStmt) string {
	if s == nil {
		return ""
	}
	if s.GetRelation().GetRelpersistence() == "u" {
		return "an unlogged table has no rows on replicas"
	}
	taken := len(s.GetInhRelations()) > 0 || s.GetOfTypename() != nil
	declared := make(map[string]*pgquery.TypeName)
	for _, e := range s.GetTableElts() {
		if c := e.GetColumnDef(); c != nil {
			declared[c.GetColname()] = c.GetTypeName()
			if slices.Contains(t.columns, c.GetColname()) && slices.ContainsFunc(c.GetConstraints(), isGenerated) {
				return "column " + quoteName(c.GetColname()) + ", which holds its key, would be made of other columns"
			}
		}
		taken = taken || e.GetTableLikeClause() != nil
	}
	for i, name := range t.columns {
		want := t.keyspace.types[i]
		switch d := declared[name]; {
		case d == nil && taken:
		case d == nil:
			return "the table would have no column " + quoteName(name) + ", which holds its key"
		case len(d.GetTypmods()) > 0 && columnType(&pgquery.TypeName{Names: d.GetNames()}) == want:
			return "column " + quoteName(name) + ", which holds its key, would be of a type with a length or precision, by which PostgreSQL may store another key than it is given"
		case columnType(d) != want:
			return "column " + quoteName(name) + ", which holds its key, would not be " + want.String()
		}
	}
	return ""
}

func isGenerated(n *pgquery.Node) bool {
	return n.GetConstraint().GetContype() == pgquery.ConstrType_CONSTR_GENERATED
}

// columnType is the type that a column of a key is declared with; 0 if that is none.
func columnType(d *pgquery.TypeName) rib.Type {
	names := stringsOf(d.GetNames())
	if len(names) == 0 || len(names) > 2 || len(names) == 2 && names[0] != "pg_catalog" || len(d.GetArrayBounds()) > 0 || len(d.GetTypmods()) > 0 {
		return 0
	}
	name := names[len(names)-1]
	switch name {
	case "bigserial", "serial8":
		name = "bigint"
	case "serial", "serial4":
		name = "integer"
	case "smallserial", "serial2":
		name = "smallint"
	}
	t, err := rib.ParseType(name)
	if err != nil {
		return 0
	}
	return t
}

// filled is the first column of a reference table that a statement has each server fill for itself, although INSERT need not give it; "" if there
// is none. What a table takes from others counts by what it asks for.
func (c *compiler) filled(t *table, n *pgquery.Node) string {
	unlike := func(expr *pgquery.Node, of *pgquery.TypeName) bool {
		if name, _, _ := strings.Cut(typeName(of, c.path), "("); expr.GetAConst() != nil && isOneOf(name, "text", "varchar", "bpchar") { // 'now' is no time there
			return false
		}
		if f := expr.GetFuncCall(); f != nil && isUnique(f) { // the node gives it to INSERT: see uniqueDefaults
			return false
		}
		s := c.survey()
		s.take(expr)
		return s.unlike != ""
	}
	column := func(d *pgquery.ColumnDef) bool {
		return d.GetTypeName() != nil && isSerial(d.GetTypeName()) || slices.ContainsFunc(d.GetConstraints(), func(o *pgquery.Node) bool {
			k := o.GetConstraint()
			return k.GetContype() == pgquery.ConstrType_CONSTR_IDENTITY || k.GetContype() == pgquery.ConstrType_CONSTR_DEFAULT && unlike(k.GetRawExpr(), d.GetTypeName())
		})
	}
	for _, e := range n.GetCreateStmt().GetTableElts() {
		if d := e.GetColumnDef(); d != nil && column(d) && !slices.Contains(t.columns, d.GetColname()) {
			return d.GetColname()
		}
		const defaults, identity = 1 << 3, 1 << 5 // of LIKE ... INCLUDING
		if l := e.GetTableLikeClause(); l.GetOptions()&(defaults|identity) != 0 {
			return l.GetRelation().GetRelname() + ".*"
		}
	}
	for _, e := range n.GetAlterTableStmt().GetCmds() {
		cmd := e.GetAlterTableCmd()
		name, does, rows := cmd.GetName(), false, false // rows: those that are there get values
		switch cmd.GetSubtype() {
		case pgquery.AlterTableType_AT_AddColumn:
			name, does, rows = cmd.GetDef().GetColumnDef().GetColname(), column(cmd.GetDef().GetColumnDef()), true
		case pgquery.AlterTableType_AT_ColumnDefault:
			does = cmd.GetDef() != nil && unlike(cmd.GetDef(), nil)
		case pgquery.AlterTableType_AT_AddIdentity:
			does = true
		case pgquery.AlterTableType_AT_AlterColumnType:
			does = cmd.GetDef().GetColumnDef().GetRawDefault() != nil && unlike(cmd.GetDef().GetColumnDef().GetRawDefault(), nil)
		}
		if does && (rows || !slices.Contains(t.columns, name)) {
			return name
		}
	}
	return ""
}

// isSerial tells whether a column's type counts.
func isSerial(d *pgquery.TypeName) bool {
	names := stringsOf(d.GetNames())
	return len(names) == 1 && isOneOf(names[0], "serial", "serial2", "serial4", "serial8", "smallserial", "bigserial")
}
