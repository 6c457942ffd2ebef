package sqlkey

import (
	"reflect"
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"rangefinder/wire/pg"
)

// compiler plans the statements of one text.
type compiler struct {
	db    *database
	env   *Env
	path  *path
	known *builtins
	hint  *hint // nil: the text has none
	// sharing: what is planned is what several texts have in common
	sharing bool
	fold    *fold    // not nil: long lists are taken out of what is planned
	leaves  *leaving // not nil: a Leave is asked for
	stuck   *issue   // why the last statement of which it was asked is not spread, if that is for what it changes in WITH
}

func (c *compiler) survey() *survey {
	s := &survey{path: c.path, known: c.known}
	if c.fold != nil {
		s.params = c.fold.params
	}
	return s
}

func (c *compiler) analysis() *analysis {
	return &analysis{db: c.db, env: c.env, path: c.path, known: c.known, fold: c.fold}
}

// sharded tells whether the database has any keyspace.
func (c *compiler) sharded() bool { return len(c.db.tables) > 0 || c.db.tenants != nil }

// statement plans one statement.
func (c *compiler) statement(n *pgquery.Node) *Plan {
	p := c.kind(n)
	c.perhapsTemporary(p, n)
	return p
}

// kind plans a statement by what kind of one it is.
func (c *compiler) kind(n *pgquery.Node) *Plan {
	switch {
	case n.GetSelectStmt() != nil, n.GetInsertStmt() != nil, n.GetUpdateStmt() != nil, n.GetDeleteStmt() != nil, n.GetMergeStmt() != nil:
		return c.query(n)
	case n.GetExplainStmt() != nil:
		return c.explain(n.GetExplainStmt())
	case n.GetVariableShowStmt() != nil:
		name := strings.ToLower(n.GetVariableShowStmt().GetName())
		if IsOwn(name) {
			return showOwn(name)
		}
		// By these drivers and libpq (target_session_attrs) find out whether they may write.
		return &Plan{Target: Any, Reason: "SHOW needs no table", Shows: true, OfPrimary: name == "transaction_read_only" || name == "in_hot_standby"}
	case n.GetVariableSetStmt() != nil:
		return c.set(n.GetVariableSetStmt())
	case n.GetTransactionStmt() != nil:
		return c.transaction(n.GetTransactionStmt())
	case n.GetConstraintsSetStmt() != nil: // its names are constraints, not tables
		return &Plan{Target: Any, Intent: Write, WhyWrite: "SET CONSTRAINTS", Tx: TxSet, Tag: "SET CONSTRAINTS", Reason: "a transaction statement"}
	case n.GetDiscardStmt() != nil:
		return discard(n.GetDiscardStmt())
	case n.GetDeclareCursorStmt() != nil:
		return c.declare(n.GetDeclareCursorStmt())
	case n.GetPrepareStmt() != nil:
		return c.prepare(n.GetPrepareStmt())
	case n.GetExecuteStmt() != nil:
		return c.execute(n.GetExecuteStmt())
	case n.GetDeallocateStmt() != nil:
		return c.deallocate(n.GetDeallocateStmt())
	case n.GetFetchStmt() != nil, n.GetClosePortalStmt() != nil:
		return c.fetch(n)
	case n.GetListenStmt() != nil:
		return &Plan{Target: Any, Reason: listenReason, Listen: Listen, Channel: n.GetListenStmt().GetConditionname(), Tag: "LISTEN"}
	case n.GetUnlistenStmt() != nil:
		p := &Plan{Target: Any, Reason: listenReason, Listen: Unlisten, Channel: n.GetUnlistenStmt().GetConditionname(), Tag: "UNLISTEN"}
		if p.Channel == "" {
			p.Listen = UnlistenAll
		}
		return p
	case n.GetLoadStmt() != nil:
		return c.session(n, RemainForever)
	case n.GetCopyStmt() != nil:
		return c.copy(n.GetCopyStmt())
	case n.GetCreateTableAsStmt() != nil:
		return c.createAs(n.GetCreateTableAsStmt())
	case n.GetViewStmt() != nil:
		return c.view(n.GetViewStmt())
	}
	return c.utility(n)
}

// listenReason is why LISTEN has no shard of its own.
const listenReason = "the node listens to all shards of the database, for all its sessions"

// query plans SELECT, INSERT, UPDATE, DELETE and MERGE.
func (c *compiler) query(n *pgquery.Node) *Plan {
	a, s := c.analysis(), c.survey()
	s.take(n)
	a.top = topOf(n)
	a.query(n, place{})
	return c.sequence(c.route(n, a, s), n, a)
}

// route decides where a statement goes from what was found in it, and from its hint.
func (c *compiler) route(m proto.Message, a *analysis, s *survey) *Plan {
	p := c.unhinted(m, a, s)
	if a.firm {
		p.about = nil
	}
	switch {
	case c.hint != nil:
		p = c.hint.apply(p, a)
		p.Hint = "a comment: " + clip(c.hint.String())
	case c.env.HintShard != "" || c.env.HintKey:
		p = c.hintBySession(p, a)
	}
	return p
}

// unhinted decides where a statement goes without a hint.
func (c *compiler) unhinted(m proto.Message, a *analysis, s *survey) *Plan {
	p := &Plan{Tables: a.tables, NumParams: s.params, Catalogs: a.catalogs, bound: a.bound}
	if s.write != "" {
		p.Intent, p.WhyWrite, p.Locks = Write, s.write, !s.alters
	}
	p.Opaque = s.foreign
	if n, ok := m.(*pgquery.Node); ok {
		p.Sets, p.SetsOnly = assignments(n, len(s.configs))
	}
	p.Copies = copiesOf(a.copied)
	for _, name := range s.schemas {
		a.ofSchema(name)
	}
	if refused := ownAssigned(p.Sets, p.SetsOnly); refused != nil {
		return refused
	}
	switch {
	case p.Sets != nil && s.pin == 0:
		p.Session = SessSet
	case s.configsHarmless():
		p.Opaque = true // whoever gets the connection next makes it clean
	case !s.configsLocal():
		s.remains(RemainUnknown, "function set_config")
	}
	p.leaves(s.pin, s.why)
	p.Frees, p.Notifies, p.Channel, p.Payload = s.frees, s.notifies, s.channel, s.payload
	p.fixed = len(s.configs) > 0
	if len(s.configs) == 1 && p.Sets == nil && movesPath(s.configs[0].name) {
		p.Setting, p.Value = s.configs[0].name, s.configs[0].value
	}
	if s.channels && a.problem == nil {
		a.problem = &refusal{issue: issue{pg.CodeFeatureNotSupported, "function pg_listening_channels knows the server connection's channels, which the node listens to for all sessions",
			"Keep a list of the channels in the application."}}
	}
	if c.sharded() {
		if a.problem == nil && a.seen != countTables(m) {
			a.refuse(nil, issuef("the statement names tables in a place where the router does not look"))
		}
		if s.opaque != nil {
			a.refuse(nil, s.opaque)
		}
		if i := s.hiddenPath(); i != nil && p.Sets == nil {
			a.refuse(nil, i)
		}
	}
	switch {
	case a.problem != nil:
		return p.refuse(a.problem)
	case len(a.changed) > 0:
		return c.everywhere(m, p, a, s)
	case a.unnamed != nil && a.unnamed.keyspace.method != nil:
		return c.unnamed(p, a)
	case len(a.schemas) > 0:
		return c.tenants(p, a, a.schemas)
	case len(a.copied) > 0 && p.Copies == nil:
		return p.refuse(&refusal{issue: issue{pg.CodeFeatureNotSupported, "no shard has all of the reference tables that it names", "Ask for the tables one by one."}, table: a.copied[0]})
	case len(a.keyed) > 0 || len(a.rows) > 0:
		return c.keyed(m, p, a, s)
	case len(a.plain) > 0:
		why := "no keyspace holds " + strings.Join(a.plain, ", ")
		for _, name := range a.plain {
			for _, t := range c.db.byName[strings.Trim(name, `"`)] {
				why += "; " + t.String() + " is sharded, but its schema is not on the search path"
			}
		}
		return c.home(p, why)
	case c.db.tenants != nil && len(a.plain) == 0 && !a.elsewhere && (s.homeTied || a.catalogs) && len(pathSchemas(c.db, c.path)) > 0:
		return c.tenants(p, a, pathSchemas(c.db, c.path))
	case len(a.copied) > 0 && s.home == "":
		return c.copied(p, a)
	case s.home != "" && !s.homeTied:
		p.AnyHome = true
		return c.home(p, s.home+" is heard from every shard")
	case s.home != "":
		return c.home(p, s.home+" concerns what one shard alone has")
	case !c.sharded() && c.db.home != "":
		return c.home(p, "database "+quoteName(c.env.Database)+" has no keyspace")
	case a.catalogs:
		p.Reason = "only system catalogs are named"
	default:
		p.Catalogs, p.Reason = s.numbers, "no table is named"
	}
	return p
}

// home makes the shard of all that no keyspace names the target.
func (c *compiler) home(p *Plan, why string) *Plan {
	p.Target, p.Shard, p.Reason = Unsharded, c.db.home, why
	if p.Shard == "" {
		p.Target = None
		name := quoteName(c.env.Database)
		p.Err = pg.NewError(pg.CodeFeatureNotSupported, "no shard is known for what is in no keyspace of database "+name).
			WithDetail(upperFirst(why) + ".").
			WithHint("Set the key \"shard\" of [[databases]] " + name + " to the shard that holds it, or make a keyspace for its tables with \"rangefinder keyspace create\".")
	}
	return p
}

// explain routes EXPLAIN as the statement that it explains. Without ANALYZE nothing of it is executed.
func (c *compiler) explain(e *pgquery.ExplainStmt) *Plan {
	p := c.statement(e.GetQuery())
	analyze := false
	for _, o := range e.GetOptions() {
		switch d := o.GetDefElem(); d.GetDefname() {
		case "analyze":
			analyze = isTrue(d.GetArg())
		case "route":
			if isTrue(d.GetArg()) {
				return explainRoute(p, e.GetOptions())
			}
		}
	}
	if analyze && p.Fan != nil && p.Fan.Alike() {
		return alikeExplained(p)
	}
	if !analyze && p.Fan != nil && p.Fan.Everywhere && p.Copies != nil { // nothing is written, and one knows as much as all
		p.Target, p.Shard, p.Fan, p.Keyspace, p.KeyspaceName = Unsharded, p.Copies[0], nil, 0, ""
	}
	if p.Target == Many && p.Fan.explainable() || len(p.Names) > 0 {
		q := *p
		if q.Explains = explains(e, analyze); q.Explains != nil {
			p = &q
		}
	}
	if p.Explains == nil {
		p = p.alone("EXPLAIN is not asked of several shards")
	}
	if !analyze {
		p.Session, p.Remains, p.WhyPin, p.Frees, p.Setting, p.Value, p.Sets, p.Opaque = SessNone, 0, "", false, "", "", nil, false
		for i := range p.Names {
			p.Names[i].Explained = true
		}
	}
	p.CopyIn, p.CopyOut = false, false
	return p
}

// isTrue reads a DefElem's argument as defGetBoolean does; what it would refuse counts as true.
func isTrue(n *pgquery.Node) bool {
	switch {
	case n == nil || n.GetNode() == nil:
		return true
	case n.GetInteger() != nil:
		return n.GetInteger().GetIval() != 0
	case n.GetBoolean() != nil:
		return n.GetBoolean().GetBoolval()
	}
	return !isOneOf(strings.ToLower(n.GetString_().GetSval()), "false", "off", "0", "no")
}

// session plans statements that concern only what is already on the session's server connection.
func (c *compiler) session(n *pgquery.Node, left Remains) *Plan {
	what := kindName(n)
	p := &Plan{Target: Any, Intent: Write, WhyWrite: what, Reason: what + " concerns the session's own connection"}
	p.leaves(left, what)
	return p
}

// mayLeave notes that nobody knows what the statement leaves in the server's session.
func (p *Plan) mayLeave(why string) {
	if p.Target == None {
		return
	}
	p.Session, p.Frees = SessPin, true
	if p.WhyPin == "" {
		p.WhyPin = why
	}
}

// leaves notes what the statement may leave in the server's session.
func (p *Plan) leaves(what Remains, why string) {
	if what == 0 {
		return
	}
	p.Session, p.Remains = SessPin, p.Remains|what
	if p.WhyPin == "" {
		p.WhyPin = why
	}
}

// utility plans every other statement: it goes where the tables are that no keyspace holds, unless it names a sharded one.
func (c *compiler) utility(n *pgquery.Node) *Plan {
	a, sv := c.analysis(), c.survey()
	what := kindName(n)
	sv.take(n)
	sv.write = what
	var made *pgquery.RangeVar
	switch {
	case n.GetCreateStmt() != nil:
		if made = n.GetCreateStmt().GetRelation(); !c.path.temporary(made) {
			a.made = qualified(made.GetSchemaname(), made.GetRelname())
		}
	case n.GetCreateForeignTableStmt() != nil:
		made = n.GetCreateForeignTableStmt().GetBaseStmt().GetRelation()
	case n.GetCreateSeqStmt() != nil:
		made = n.GetCreateSeqStmt().GetSequence()
	case n.GetDoStmt() != nil, n.GetCallStmt() != nil:
		sv.foreign = true
	case n.GetNotifyStmt() != nil:
		sv.notifies, sv.channel, sv.payload = true, n.GetNotifyStmt().GetConditionname(), n.GetNotifyStmt().GetPayload()
	case n.GetDropStmt() != nil:
		sv.frees = true
	case n.GetCreateSchemaStmt() != nil:
		a.ofSchema(n.GetCreateSchemaStmt().GetSchemaname())
	case n.GetCompositeTypeStmt() != nil:
		made = n.GetCompositeTypeStmt().GetTypevar()
	}
	if made != nil {
		a.creates(made)
		if c.path.temporary(made) {
			sv.temporary(n.GetCreateStmt().GetOncommit())
		}
	}
	a.whole(n, nil, what, made)
	a.named(n, what)
	if words := madeBy(n); len(words) > 0 {
		a.objectOfSchema(words)
		if len(words) == 1 && c.path.temporaryFirst() && !strings.HasPrefix(what, "ALTER") {
			sv.remains(RemainTemp, "a temporary object")
		}
	}
	d := definitionOf(n)
	if sv.pin&RemainTemp != 0 { // it is the session's own, on the connection that it is tied to
		d = nil
	}
	if d != nil && made == nil && a.problem != nil && a.problem.each && n.GetAlterSeqStmt() == nil { // it is about a table
		d = nil
	}
	if d != nil {
		a.plain = slices.DeleteFunc(a.plain, func(name string) bool { return slices.Contains(d.names, name) || name == objectName(madeBy(n)) })
	}
	a.ownedBy(slices.Concat(n.GetCreateSeqStmt().GetOptions(), n.GetAlterSeqStmt().GetOptions()), what)
	if len(a.plain) == 0 {
		sv.home, sv.homeTied = what, sv.homeTied || n.GetNotifyStmt() == nil
	}
	p := c.everyShardOf(c.everyShard(c.route(n, a, sv), n, a, made), n, d, a)
	p.Defines = p.Defines || sv.unique && definesTable(n) && p.Target != None
	switch seq, index := n.GetCreateSeqStmt().GetSequence(), n.GetIndexStmt(); {
	case seq != nil && c.path.temporary(seq):
		p.Made = qualified("", seq.GetRelname())
	case index.GetIdxname() != "": // of a temporary table, perhaps
		p.Made = qualified(index.GetRelation().GetSchemaname(), index.GetIdxname())
	}
	p.unmakes(n)
	if n.GetDoStmt() != nil || n.GetCallStmt() != nil {
		p.Commits = true
		p.mayLeave(what) // what, the server is asked at once
	}
	return p
}

// unmakes notes what a statement takes away of what a session may have made for itself.
func (p *Plan) unmakes(n *pgquery.Node) {
	if d := n.GetDropStmt(); d != nil {
		switch d.GetRemoveType() {
		case pgquery.ObjectType_OBJECT_INDEX, pgquery.ObjectType_OBJECT_SEQUENCE, pgquery.ObjectType_OBJECT_VIEW, pgquery.ObjectType_OBJECT_MATVIEW:
			for _, o := range d.GetObjects() {
				p.Unmade = append(p.Unmade, objectName(wordsOfObject(o)))
			}
			p.UnmadeMore = d.GetBehavior() == pgquery.DropBehavior_DROP_CASCADE
		default: // with what belongs to it
			p.UnmadeMore = true
		}
	}
	if r := n.GetRenameStmt(); r.GetRelation() != nil && isOneOf(r.GetRenameType().String(), "OBJECT_INDEX", "OBJECT_SEQUENCE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_TABLE") {
		p.Unmade, p.Renames = []string{objectName(wordsOf(r.GetRelation()))}, true
		p.Made = qualified(r.GetRelation().GetSchemaname(), r.GetNewname())
	}
}

// kindNames are the kinds of statements whose node is called otherwise.
var kindNames = map[string]string{
	"AlterObjectSchema": "ALTER ... SET SCHEMA",
	"AlterOwner":        "ALTER ... OWNER",
	"AlterEnum":         "ALTER TYPE",
	"AlterSeq":          "ALTER SEQUENCE",
	"AlterRoleSet":      "ALTER ROLE",
	"AlterDatabaseSet":  "ALTER DATABASE",
	"CheckPoint":        "CHECKPOINT",
	"ClosePortal":       "CLOSE",
	"CompositeType":     "CREATE TYPE",
	"ConstraintsSet":    "SET CONSTRAINTS",
	"Create":            "CREATE TABLE",
	"CreateEnum":        "CREATE TYPE",
	"CreateSeq":         "CREATE SEQUENCE",
	"CreateStats":       "CREATE STATISTICS",
	"CreateTrig":        "CREATE TRIGGER",
	"Createdb":          "CREATE DATABASE",
	"Dropdb":            "DROP DATABASE",
	"GrantRole":         "GRANT",
	"Index":             "CREATE INDEX",
	"RefreshMatView":    "REFRESH MATERIALIZED VIEW",
	"Rename":            "ALTER ... RENAME",
	"Rule":              "CREATE RULE",
	"SecLabel":          "SECURITY LABEL",
	"View":              "CREATE VIEW",
}

// kindName is a statement's name as people write it: of TruncateStmt "TRUNCATE", of AlterTableStmt "ALTER TABLE".
func kindName(n *pgquery.Node) string {
	if n.GetNode() == nil {
		return "a statement of an unknown kind"
	}
	name := reflect.TypeOf(n.GetNode()).Elem().Name()
	name = strings.TrimSuffix(strings.TrimPrefix(name, "Node_"), "Stmt")
	if n.GetCreateTableAsStmt().GetObjtype() == pgquery.ObjectType_OBJECT_MATVIEW {
		return "CREATE MATERIALIZED VIEW"
	}
	if name == "Vacuum" && !n.GetVacuumStmt().GetIsVacuumcmd() {
		return "ANALYZE"
	}
	if spelled := kindNames[name]; spelled != "" {
		return spelled
	}
	var b strings.Builder
	for i, r := range name {
		if i > 0 && 'A' <= r && r <= 'Z' {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
