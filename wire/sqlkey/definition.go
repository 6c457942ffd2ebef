package sqlkey

import (
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// definition is a statement about something that tables need wherever they are: a type, a function, a schema, a role. All shards of the
// database have it, since sharded tables may be made of it, today or tomorrow. Tables of no keyspace stay on their one shard, and what is
// bound to one of them (a trigger, a view, a sequence that one of its columns owns) with it.
type definition struct {
	names []string // relations of the statement that are no tables, as analysis.plain has them
	has   []string // of each thing that must be there before: a condition that tells whether a server has it
	blind bool     // of something that must be there before it cannot be told
	steps bool     // PostgreSQL refuses it in a transaction
	table bool     // it may be about a table after all: ALTER TABLE alters sequences and views as well
}

// existing takes a thing that must be there before. condition is "" if a server cannot be asked.
func (d *definition) existing(condition string) *definition {
	d.blind = d.blind || condition == ""
	d.has = append(d.has, condition)
	return d
}

// relation takes a relation that must be there before. tables: it may be a table.
func (d *definition) relation(rv *pgquery.RangeVar, tables bool) *definition {
	d.names, d.table = append(d.names, qualified(rv.GetSchemaname(), rv.GetRelname())), d.table || tables
	return d.existing(hasRelation(wordsOf(rv), tables))
}

// probe is the question that tells which shards have what must be there; "" if there is nothing to be asked.
func (d *definition) probe() string {
	if d.blind || len(d.has) == 0 {
		return ""
	}
	return "SELECT pg_catalog.concat(" + strings.Join(d.has, ", ") + ")"
}

func wordsOf(rv *pgquery.RangeVar) []string {
	if rv.GetSchemaname() == "" {
		return []string{rv.GetRelname()}
	}
	return []string{rv.GetSchemaname(), rv.GetRelname()}
}

// hasRelation asks for a relation. tables: it may be a table, which has its one shard, whatever else may be called so elsewhere.
func hasRelation(words []string, tables bool) string {
	name := "pg_catalog.to_regclass(" + rib.QuoteLiteral(quotedWords(words)) + ")"
	if !tables {
		return name + " IS NOT NULL"
	}
	return "coalesce((SELECT CASE WHEN c.relpersistence = 't' THEN '" + ProbeOwn + "' WHEN c.relkind IN ('r', 'p', 'f') THEN '" + ProbeTable + "' ELSE 't' END FROM pg_catalog.pg_class AS c WHERE c.oid = " + name + "), 'f')"
}

// quotedWords is a name of several words, each in quotes.
func quotedWords(words []string) string {
	return strings.Join(rib.QuoteIdents(words), ".")
}

func hasType(words []string) string {
	if len(words) == 0 || len(words) > 2 {
		return ""
	}
	return "pg_catalog.to_regtype(" + rib.QuoteLiteral(quotedWords(words)) + ") IS NOT NULL"
}

// hasFunction asks for a function of that name, whatever its arguments.
func hasFunction(words []string) string { return hasOfSchema("pg_proc", "pro", words) }

// hasOfSchema asks for something that has a name and a schema, in the columns of a catalog whose names begin with prefix.
func hasOfSchema(catalog, prefix string, words []string) string {
	if len(words) == 0 || len(words) > 2 {
		return ""
	}
	in := "ANY (SELECT pg_catalog.unnest(pg_catalog.current_schemas(true))::pg_catalog.regnamespace)"
	if len(words) == 2 {
		in = "pg_catalog.to_regnamespace(" + rib.QuoteLiteral(quotedWords(words[:1])) + ")"
	}
	return "EXISTS (SELECT FROM pg_catalog." + catalog + " AS p WHERE p." + prefix + "name = " + rib.QuoteLiteral(words[len(words)-1]) + " AND p." + prefix + "namespace = " + in + ")"
}

func hasNamed(catalog, column, name string) string {
	return "EXISTS (SELECT FROM pg_catalog." + catalog + " AS x WHERE x." + column + " = " + rib.QuoteLiteral(name) + ")"
}

// wordsOfObject are the words of the name of an object that is no table.
func wordsOfObject(o *pgquery.Node) []string {
	switch {
	case o.GetObjectWithArgs() != nil:
		return stringsOf(o.GetObjectWithArgs().GetObjname())
	case o.GetTypeName() != nil:
		return stringsOf(o.GetTypeName().GetNames())
	case o.GetList() != nil:
		return stringsOf(o.GetList().GetItems())
	}
	return []string{o.GetString_().GetSval()}
}

// object takes one of the objects that a statement of several kinds of them names: DROP, COMMENT, ALTER ... OWNER and their like. It returns
// false of what is bound to a table, or to a server.
func (d *definition) object(t pgquery.ObjectType, o *pgquery.Node) bool {
	words := wordsOfObject(ofDomain(t, o))
	d.names = append(d.names, objectName(words))
	switch t {
	case pgquery.ObjectType_OBJECT_TYPE, pgquery.ObjectType_OBJECT_DOMAIN, pgquery.ObjectType_OBJECT_DOMCONSTRAINT:
		d.existing(hasType(words))
	case pgquery.ObjectType_OBJECT_FUNCTION, pgquery.ObjectType_OBJECT_PROCEDURE, pgquery.ObjectType_OBJECT_ROUTINE, pgquery.ObjectType_OBJECT_AGGREGATE:
		d.existing(hasFunction(words))
	case pgquery.ObjectType_OBJECT_INDEX, pgquery.ObjectType_OBJECT_SEQUENCE, pgquery.ObjectType_OBJECT_VIEW, pgquery.ObjectType_OBJECT_MATVIEW:
		d.existing(hasRelation(words, false))
	case pgquery.ObjectType_OBJECT_TABLE: // as COMMENT and GRANT may call what is none
		d.table = true
		d.existing(hasRelation(words, true))
	case pgquery.ObjectType_OBJECT_COLUMN:
		d.table, d.names[len(d.names)-1] = true, objectName(words[:len(words)-1])
		d.existing(hasRelation(words[:len(words)-1], true))
	case pgquery.ObjectType_OBJECT_SCHEMA:
		d.existing(hasNamed("pg_namespace", "nspname", words[0]))
	case pgquery.ObjectType_OBJECT_EXTENSION:
		d.existing(hasNamed("pg_extension", "extname", words[0]))
	case pgquery.ObjectType_OBJECT_ROLE:
		d.existing(hasNamed("pg_roles", "rolname", words[0]))
	case pgquery.ObjectType_OBJECT_PUBLICATION: // it stands where its tables are
		d.existing(hasNamed("pg_publication", "pubname", words[0]))
	case pgquery.ObjectType_OBJECT_STATISTIC_EXT: // as well
		d.existing(hasOfSchema("pg_statistic_ext", "stx", words))
	case pgquery.ObjectType_OBJECT_ACCESS_METHOD:
		d.existing(hasNamed("pg_am", "amname", words[0]))
	case pgquery.ObjectType_OBJECT_CAST, pgquery.ObjectType_OBJECT_COLLATION, pgquery.ObjectType_OBJECT_CONVERSION,
		pgquery.ObjectType_OBJECT_EVENT_TRIGGER, pgquery.ObjectType_OBJECT_LANGUAGE, pgquery.ObjectType_OBJECT_OPCLASS, pgquery.ObjectType_OBJECT_OPERATOR,
		pgquery.ObjectType_OBJECT_OPFAMILY, pgquery.ObjectType_OBJECT_TRANSFORM, pgquery.ObjectType_OBJECT_TSCONFIGURATION, pgquery.ObjectType_OBJECT_TSDICTIONARY,
		pgquery.ObjectType_OBJECT_TSPARSER, pgquery.ObjectType_OBJECT_TSTEMPLATE:
		d.existing("")
	default:
		return false
	}
	return true
}

// objectName is an object's name as analysis.plain has it.
func objectName(words []string) string {
	switch n := len(words); n {
	case 0:
		return ""
	case 1:
		return qualified("", words[0])
	default:
		return qualified(words[n-2], words[n-1])
	}
}

// definitionOf tells what a statement defines; nil if it is bound to tables, or concerns a server or a session.
func definitionOf(n *pgquery.Node) *definition {
	d := &definition{}
	switch {
	case n.GetCreateEnumStmt() != nil, n.GetCreateRangeStmt() != nil, n.GetCreateDomainStmt() != nil, n.GetDefineStmt() != nil, n.GetCreateFunctionStmt() != nil,
		n.GetCreateCastStmt() != nil, n.GetCreateTransformStmt() != nil, n.GetCreateConversionStmt() != nil, n.GetCreateOpClassStmt() != nil,
		n.GetCreateOpFamilyStmt() != nil, n.GetCreateExtensionStmt() != nil, n.GetCreatePlangStmt() != nil, n.GetCreateEventTrigStmt() != nil,
		n.GetAlterDefaultPrivilegesStmt() != nil, n.GetCreateRoleStmt() != nil, n.GetAlterOpFamilyStmt() != nil, n.GetAlterOperatorStmt() != nil,
		n.GetAlterTsconfigurationStmt() != nil, n.GetAlterTsdictionaryStmt() != nil, n.GetAlterEventTrigStmt() != nil, n.GetAlterCollationStmt() != nil,
		n.GetGrantRoleStmt() != nil, n.GetDropRoleStmt() != nil, n.GetReassignOwnedStmt() != nil, n.GetDropOwnedStmt() != nil, n.GetAlterRoleStmt() != nil,
		n.GetAlterRoleSetStmt() != nil, n.GetAlterDatabaseSetStmt() != nil, n.GetCreateAmStmt() != nil, n.GetCreatePublicationStmt() != nil:
		return d
	case n.GetCreateSchemaStmt() != nil && len(n.GetCreateSchemaStmt().GetSchemaElts()) == 0:
		return d
	case n.GetCompositeTypeStmt() != nil:
		d.names = append(d.names, objectName(wordsOf(n.GetCompositeTypeStmt().GetTypevar())))
		return d
	case n.GetCreateSeqStmt() != nil:
		d.names = append(d.names, objectName(wordsOf(n.GetCreateSeqStmt().GetSequence())))
		return d
	case n.GetAlterSeqStmt() != nil:
		return d.relation(n.GetAlterSeqStmt().GetSequence(), false)
	case n.GetAlterEnumStmt() != nil:
		return d.existing(hasType(stringsOf(n.GetAlterEnumStmt().GetTypeName())))
	case n.GetAlterTypeStmt() != nil:
		return d.existing(hasType(stringsOf(n.GetAlterTypeStmt().GetTypeName())))
	case n.GetAlterDomainStmt() != nil:
		return d.existing(hasType(stringsOf(n.GetAlterDomainStmt().GetTypeName())))
	case n.GetAlterFunctionStmt() != nil:
		return d.existing(hasFunction(stringsOf(n.GetAlterFunctionStmt().GetFunc().GetObjname())))
	case n.GetAlterPublicationStmt() != nil:
		return d.existing(hasNamed("pg_publication", "pubname", n.GetAlterPublicationStmt().GetPubname()))
	case n.GetAlterStatsStmt() != nil:
		return d.existing(hasOfSchema("pg_statistic_ext", "stx", stringsOf(n.GetAlterStatsStmt().GetDefnames())))
	case n.GetAlterExtensionStmt() != nil:
		return d.existing(hasNamed("pg_extension", "extname", n.GetAlterExtensionStmt().GetExtname()))
	case n.GetAlterExtensionContentsStmt() != nil:
		return d.existing(hasNamed("pg_extension", "extname", n.GetAlterExtensionContentsStmt().GetExtname()))
	case n.GetAlterTableStmt() != nil:
		s := n.GetAlterTableStmt() // of a sequence or a view as well
		return d.relation(s.GetRelation(), s.GetObjtype() == pgquery.ObjectType_OBJECT_TABLE)
	case n.GetRefreshMatViewStmt() != nil:
		return d.relation(n.GetRefreshMatViewStmt().GetRelation(), false)
	case n.GetReindexStmt() != nil:
		return d.reindex(n.GetReindexStmt())
	case n.GetVacuumStmt() != nil && len(n.GetVacuumStmt().GetRels()) == 0: // of all tables
		return d
	}
	return d.named(n)
}

func (d *definition) reindex(s *pgquery.ReindexStmt) *definition {
	switch s.GetKind() {
	case pgquery.ReindexObjectType_REINDEX_OBJECT_INDEX:
		return d.relation(s.GetRelation(), false)
	case pgquery.ReindexObjectType_REINDEX_OBJECT_SCHEMA:
		d.steps = true
		return d.existing(hasNamed("pg_namespace", "nspname", s.GetName()))
	case pgquery.ReindexObjectType_REINDEX_OBJECT_DATABASE, pgquery.ReindexObjectType_REINDEX_OBJECT_SYSTEM:
		d.steps = true
		return d
	}
	return nil
}

// named is the definition of a statement that names objects of any kind.
func (d *definition) named(n *pgquery.Node) *definition {
	ok := false
	switch {
	case n.GetDropStmt() != nil:
		s := n.GetDropStmt()
		d.steps = s.GetConcurrent()
		ok = s.GetRemoveType() != pgquery.ObjectType_OBJECT_TABLE
		for _, o := range s.GetObjects() {
			ok = ok && d.object(s.GetRemoveType(), o)
		}
	case n.GetCommentStmt() != nil:
		ok = d.object(n.GetCommentStmt().GetObjtype(), n.GetCommentStmt().GetObject())
	case n.GetSecLabelStmt() != nil:
		ok = d.object(n.GetSecLabelStmt().GetObjtype(), n.GetSecLabelStmt().GetObject())
	case n.GetAlterOwnerStmt() != nil:
		ok = d.object(n.GetAlterOwnerStmt().GetObjectType(), n.GetAlterOwnerStmt().GetObject())
	case n.GetAlterObjectSchemaStmt() != nil:
		s := n.GetAlterObjectSchemaStmt()
		if s.GetRelation() != nil {
			return d.relation(s.GetRelation(), s.GetObjectType() == pgquery.ObjectType_OBJECT_TABLE)
		}
		ok = d.object(s.GetObjectType(), s.GetObject())
	case n.GetRenameStmt() != nil:
		return d.renamed(n.GetRenameStmt())
	case n.GetGrantStmt() != nil:
		ok = d.grant(n.GetGrantStmt())
	}
	if !ok {
		return nil
	}
	return d
}

func (d *definition) renamed(s *pgquery.RenameStmt) *definition {
	switch t := s.GetRenameType(); {
	case t == pgquery.ObjectType_OBJECT_SCHEMA:
		return d.existing(hasNamed("pg_namespace", "nspname", s.GetSubname()))
	case t == pgquery.ObjectType_OBJECT_ROLE:
		return d.existing(hasNamed("pg_roles", "rolname", s.GetSubname()))
	case s.GetRelation() != nil && (t == pgquery.ObjectType_OBJECT_TABLE || t == pgquery.ObjectType_OBJECT_COLUMN && s.GetRelationType() == pgquery.ObjectType_OBJECT_TABLE):
		return d.relation(s.GetRelation(), true)
	case s.GetRelation() != nil && isOneOf(t.String(), "OBJECT_INDEX", "OBJECT_SEQUENCE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_COLUMN", "OBJECT_ATTRIBUTE"):
		return d.relation(s.GetRelation(), false)
	case s.GetObject() != nil && d.object(t, s.GetObject()):
		return d
	}
	return nil
}

func (d *definition) grant(s *pgquery.GrantStmt) bool {
	if s.GetTargtype() != pgquery.GrantTargetType_ACL_TARGET_OBJECT {
		return true // all of a schema, on each shard what there is
	}
	for _, o := range s.GetObjects() {
		switch t := s.GetObjtype(); {
		case t == pgquery.ObjectType_OBJECT_DATABASE:
			d.existing("")
		case o.GetRangeVar() != nil:
			d.relation(o.GetRangeVar(), t == pgquery.ObjectType_OBJECT_TABLE)
		case !d.object(t, o):
			return false
		}
	}
	return true
}

// madeBy are the words of the name of what a definition makes or changes that is no relation. They may begin with a listed schema.
func madeBy(n *pgquery.Node) []string {
	switch {
	case n.GetCreateEnumStmt() != nil:
		return stringsOf(n.GetCreateEnumStmt().GetTypeName())
	case n.GetCreateRangeStmt() != nil:
		return stringsOf(n.GetCreateRangeStmt().GetTypeName())
	case n.GetCreateDomainStmt() != nil:
		return stringsOf(n.GetCreateDomainStmt().GetDomainname())
	case n.GetDefineStmt() != nil:
		return stringsOf(n.GetDefineStmt().GetDefnames())
	case n.GetCreateFunctionStmt() != nil:
		return stringsOf(n.GetCreateFunctionStmt().GetFuncname())
	case n.GetAlterEnumStmt() != nil:
		return stringsOf(n.GetAlterEnumStmt().GetTypeName())
	case n.GetAlterTypeStmt() != nil:
		return stringsOf(n.GetAlterTypeStmt().GetTypeName())
	case n.GetAlterDomainStmt() != nil:
		return stringsOf(n.GetAlterDomainStmt().GetTypeName())
	case n.GetAlterFunctionStmt() != nil:
		return stringsOf(n.GetAlterFunctionStmt().GetFunc().GetObjname())
	}
	return nil
}

// ownedBy takes the table of whose columns a sequence is one's: where that is, it has to be.
func (a *analysis) ownedBy(options []*pgquery.Node, what string) {
	for _, o := range options {
		words := stringsOf(o.GetDefElem().GetArg().GetList().GetItems())
		if o.GetDefElem().GetDefname() != "owned_by" || len(words) < 2 {
			continue
		}
		rv := &pgquery.RangeVar{Relname: words[len(words)-2]}
		if len(words) > 2 {
			rv.Schemaname = words[len(words)-3]
		}
		if t, _ := a.resolve(rv); t != nil {
			a.eachShard(t, what)
		} else {
			a.plain = append(a.plain, objectName(wordsOf(rv)))
		}
	}
}

// everyShardOf makes the plan p of a definition one for all shards of the database, unless something binds it to one.
func (c *compiler) everyShardOf(p *Plan, n *pgquery.Node, d *definition, a *analysis) *Plan {
	home := p.Target == Unsharded && p.Shard == c.db.home && p.HintShard == "" || p.Target == None && a.problem == nil && c.db.home == ""
	if d == nil || !c.sharded() || !home || len(a.plain) > 0 || len(a.schemas) > 0 || c.db.tenants != nil && n.GetCreateSchemaStmt() != nil {
		return p
	}
	what := kindName(n)
	fan := &Fan{Everywhere: true, Writes: true, Steps: d.steps || inSteps(n), Probe: d.probe(), Why: what + " concerns all shards of database " + quoteName(c.env.Database)}
	if fan.Probe != "" {
		fan.Names = d.names
		fan.Why += " that have what it names"
	}
	if d.table {
		fan.Why += ", and if that is a table, " + orUnknown(c.db.home) + " alone"
	}
	for _, ks := range c.db.keyspaces {
		fan.Keyspaces = append(fan.Keyspaces, ks.id)
		p.Keyspace, p.KeyspaceName = c.db.keyspaces[0].id, c.db.keyspaces[0].name
	}
	add := func(ks *keyspace) {
		if fan.Copies = append(fan.Copies, ks.shards...); p.Keyspace == 0 || p.Keyspace > ks.id && len(c.db.keyspaces) == 0 {
			p.Keyspace, p.KeyspaceName = ks.id, ks.name
		}
	}
	for _, t := range c.db.tables {
		if t.keyspace.whole {
			add(t.keyspace)
		}
	}
	for _, t := range c.db.tenants {
		add(t.keyspace)
	}
	if c.db.home != "" {
		fan.Copies = append(fan.Copies, c.db.home)
	}
	slices.Sort(fan.Copies)
	fan.Copies = slices.Compact(fan.Copies)
	fan.Home, fan.Local, fan.Fills = c.db.home, d.table, c.filledByDomain(n.GetAlterDomainStmt())
	fan.SQL = samePassword(n)
	fan.Refusal = pg.NewError(pg.CodeFeatureNotSupported, "the statement cannot be routed").WithDetail(fan.Why + ".").
		WithHint("Run it on each shard, with a comment before it that names the shard: /* rangefinder: shard=... */.")
	p.Target, p.Shard, p.Fan, p.Err, p.Copies, p.AnyHome = Many, "", fan, nil, nil, false
	p.Reason = fan.Why + ": all of them in one transaction"
	if fan.Steps {
		p.Reason = fan.Why + ": one after the other, for it cannot be part of a transaction"
	}
	return p
}

// isStored tells whether a password is what servers keep of one already.
func isStored(password string) bool {
	_, err := pg.ParseShadow(password)
	return err == nil
}

// samePassword is the text of a CREATE ROLE or ALTER ROLE with what is to be kept of the password in place of the password; "" if there is
// none. Each server would salt it for itself, and what users show to one node would not open all shards.
func samePassword(n *pgquery.Node) string {
	options := slices.Concat(n.GetCreateRoleStmt().GetOptions(), n.GetAlterRoleStmt().GetOptions())
	for i := range options {
		if password := options[i].GetDefElem().GetArg().GetString_().GetSval(); options[i].GetDefElem().GetDefname() == "password" && password != "" && !isStored(password) {
			c := cloned(n)
			options = slices.Concat(c.GetCreateRoleStmt().GetOptions(), c.GetAlterRoleStmt().GetOptions())
			options[i].GetDefElem().GetArg().GetString_().Sval = pg.NewVerifier(password).Stored()
			if text, err := deparse(c); err == nil {
				return text
			}
		}
	}
	return ""
}
