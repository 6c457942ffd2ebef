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
			a.object(o, what)
			if n.GetDropStmt().GetRemoveType() == pgquery.ObjectType_OBJECT_SCHEMA {
				a.ofSchema(o.GetString_().GetSval())
			}
		}
	case n.GetCommentStmt() != nil:
		a.object(n.GetCommentStmt().GetObject(), what)
	case n.GetSecLabelStmt() != nil:
		a.object(n.GetSecLabelStmt().GetObject(), what)
	case n.GetAlterExtensionContentsStmt() != nil:
		a.object(n.GetAlterExtensionContentsStmt().GetObject(), what)
	case n.GetRenameStmt() != nil:
		r := n.GetRenameStmt()
		a.object(r.GetObject(), what)
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
func (a *analysis) object(o *pgquery.Node, what string) {
	var words []string
	for _, w := range o.GetList().GetItems() {
		words = append(words, w.GetString_().GetSval())
	}
	if tn := o.GetTypeName(); tn != nil {
		for _, w := range tn.GetNames() {
			words = append(words, w.GetString_().GetSval())
		}
	}
	a.objectOfSchema(words)
	for _, n := range []int{len(words), len(words) - 1} {
		if n < 1 || n > 3 {
			continue
		}
		rv := &pgquery.RangeVar{Relname: words[n-1]}
		if n > 1 {
			rv.Schemaname = words[n-2]
		}
		if t, _ := a.resolve(rv); t != nil {
			a.eachShard(t, what)
		}
	}
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
		a.refuse(first, onEachShard(what+" of its schema"))
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
