package sqlkey

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/wire/pg"
)

// named refuses statements that name a sharded table not as a table but by a list of words (DROP, COMMENT), by its schema,
// or inside code.
func (a *analysis) named(n *pgquery.Node, what string) {
	switch {
	case n.GetDropStmt() != nil:
		for _, o := range n.GetDropStmt().GetObjects() {
			a.object(n.GetDropStmt().GetRemoveType(), o, what)
			if n.GetDropStmt().GetRemoveType() == pgquery.ObjectType_OBJECT_SCHEMA {
				a.ofSchema(o.GetString_().GetSval())
			}
		}
	case n.GetCommentStmt() != nil:
		a.object(n.GetCommentStmt().GetObjtype(), n.GetCommentStmt().GetObject(), what)
	case n.GetSecLabelStmt() != nil:
		a.object(n.GetSecLabelStmt().GetObjtype(), n.GetSecLabelStmt().GetObject(), what)
	case n.GetAlterExtensionContentsStmt() != nil:
		a.object(n.GetAlterExtensionContentsStmt().GetObjtype(), n.GetAlterExtensionContentsStmt().GetObject(), what)
	case n.GetRenameStmt() != nil:
		r := n.GetRenameStmt()
		a.object(r.GetRenameType(), r.GetObject(), what)
		if r.GetRenameType() == pgquery.ObjectType_OBJECT_SCHEMA {
			a.schema(r.GetSubname(), what)
			a.schema(r.GetNewname(), what)
		}
		for _, t := range a.db.byName[r.GetNewname()] {
			a.refuse(t, onEachShard(what+" to its name"))
		}
	case n.GetAlterObjectSchemaStmt() != nil:
		s := n.GetAlterObjectSchemaStmt()
		a.ofSchema(s.GetNewschema())
		if t := a.db.tables[tableName{s.GetNewschema(), s.GetRelation().GetRelname()}]; t != nil {
			a.refuse(t, onEachShard(what+" to its name"))
		}
	case n.GetGrantStmt() != nil:
		g := n.GetGrantStmt()
		if g.GetTargtype() != pgquery.GrantTargetType_ACL_TARGET_OBJECT || g.GetObjtype() == pgquery.ObjectType_OBJECT_SCHEMA {
			for _, o := range g.GetObjects() {
				a.ofSchema(o.GetString_().GetSval())
			}
		}
	case n.GetDoStmt() != nil:
		for _, o := range n.GetDoStmt().GetArgs() {
			a.code(o.GetDefElem().GetArg().GetString_().GetSval())
		}
	}
}

// object refuses a list of words that are the name of a sharded table, or of something of it: a column, a trigger.
func (a *analysis) object(kind pgquery.ObjectType, o *pgquery.Node, what string) {
	if o = ofDomain(kind, o); o.GetList() == nil && o.GetTypeName() == nil {
		return
	}
	words := wordsOfObject(o)
	if withinTable(kind) && len(words) > 1 {
		words = words[:len(words)-1]
	}
	if n := len(words); n > 0 && n <= 3 {
		rv := &pgquery.RangeVar{Relname: words[n-1]}
		if n > 1 {
			rv.Schemaname = words[n-2]
		}
		if t, _ := a.resolve(rv); t != nil {
			a.eachShardNamed(t, rv, what)
			return
		}
	}
	a.objectOfSchema(words)
}

// ofDomain is the domain in place of a constraint of it.
func ofDomain(kind pgquery.ObjectType, o *pgquery.Node) *pgquery.Node {
	if items := o.GetList().GetItems(); kind == pgquery.ObjectType_OBJECT_DOMCONSTRAINT && len(items) > 0 {
		return items[0]
	}
	return o
}

// withinTable tells whether objects of a kind are named by their table and a word more.
func withinTable(t pgquery.ObjectType) bool {
	switch t {
	case pgquery.ObjectType_OBJECT_COLUMN, pgquery.ObjectType_OBJECT_TABCONSTRAINT, pgquery.ObjectType_OBJECT_TRIGGER, pgquery.ObjectType_OBJECT_RULE,
		pgquery.ObjectType_OBJECT_POLICY:
		return true
	}
	return false
}

// schema refuses a schema that holds a sharded table.
func (a *analysis) schema(name, what string) {
	var first *table // by name: a map has no order, and the same statement shall have the same plan
	for _, t := range a.db.tables {
		if t.schema == name && (first == nil || t.name < first.name) {
			first = t
		}
	}
	if first != nil {
		a.refuse(first, &issue{pg.CodeFeatureNotSupported, what + " of its schema would take its name from it",
			"Keyspaces know their tables by name, with the schema's: drop those of the schema (rangefinder keyspace drop, the rows stay), rename it on each shard, and make them anew, while no client writes."})
	}
	a.ofSchema(name)
}

// code refuses a code block in which the name of a sharded table, or of what depends on one, occurs: what it does cannot be routed.
func (a *analysis) code(body string) {
	words := strings.FieldsFunc(body, func(r rune) bool {
		return r != '_' && r != '$' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r < 0x80
	})
	spoken := make(map[string]bool, 2*len(words))
	for _, w := range words {
		for _, spelled := range []string{w, LowerASCII(w)} {
			if same := a.db.byName[spelled]; len(same) > 0 {
				a.refuse(same[0], inCode())
				return
			}
			spoken[spelled] = true
		}
	}
	var first *table // by name, as above
	for _, t := range a.db.dependents {
		if spoken[t.name] && (first == nil || t.String() < first.String()) {
			first = t
		}
	}
	if first != nil {
		a.refuse(first, inCode())
	}
}

func inCode() *issue {
	return &issue{pg.CodeFeatureNotSupported, "a DO block whose code speaks of it cannot be routed", "Run it on each shard, connected to the shard's primary."}
}
