package sqlkey

import (
	"slices"
	"strings"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// A keyspace by schema has the name of a schema for its key: whatever is in a listed schema is on one shard. So a statement needs no key of its
// own; that its names are found in such a schema says all. Names without a schema are looked for along the search path on the shard that
// has the path's listed schema.

// tenant is a listed schema.
type tenant struct {
	keyspace *keyspace
	key      rib.Key
	shard    string
}

// addSchemas adds the listed schemas of a keyspace. All other schemas are on the keyspace's default shard, if it has one, as tables of no
// keyspace are on the database's.
func (c *Catalog) addSchemas(k *rib.Keyspace) {
	d := c.database(k.Database)
	m, err := rib.MethodByName(k.Method)
	if err != nil {
		return
	}
	ks := &keyspace{id: k.ID, name: k.Name, types: slices.Clone(k.Types), method: m, shards: k.Shards()}
	if d.tenants == nil {
		d.tenants = make(map[string]*tenant)
	}
	names, shards := k.Schemas()
	for i, name := range names {
		if key, err := m.AppendKey(nil, rib.Value{Type: rib.TypeText, Bytes: []byte(name)}); err == nil {
			d.tenants[name] = &tenant{ks, key, shards[i]}
		}
	}
	if others := k.Others(); others != "" {
		d.home = others
	}
	d.shards = append(d.shards, ks.shards...)
}

// ofSchema notes that a listed schema is named.
func (a *analysis) ofSchema(schema string) {
	if a.db.tenants[schema] != nil && !slices.Contains(a.schemas, schema) {
		a.schemas = append(a.schemas, schema)
	}
}

// pathSchemas are the listed schemas of the search path.
func pathSchemas(db *database, p *path) (list []string) {
	for _, s := range p.schemas {
		if db.tenants[s] != nil && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// tenants plans a statement whose names are in listed schemas. All of these must be on one shard.
func (c *compiler) tenants(p *Plan, a *analysis, schemas []string) *Plan {
	refuse := func(reason, hint string) *Plan {
		p.Target, p.Reason = None, reason
		p.Err = pg.NewError(pg.CodeFeatureNotSupported, "the statement cannot be routed").WithDetail(upperFirst(reason) + ".").WithHint(hint)
		return p
	}
	first := c.db.tenants[schemas[0]]
	for _, s := range schemas[1:] {
		if t := c.db.tenants[s]; t.shard != first.shard {
			return refuse("schema "+quoteName(schemas[0])+" is on "+first.shard+", and "+quoteName(s)+" on "+t.shard, "Ask for the schemas one by one; SET search_path to one of them.")
		}
	}
	if len(a.keyed)+len(a.rows) > 0 {
		return refuse("it names a sharded table together with "+quoteName(schemas[0])+", a schema that is on one shard", "Ask for the tables one by one.")
	}
	if len(a.plain) > 0 && c.db.home != first.shard {
		return refuse("it names "+strings.Join(a.plain, ", ")+", which is on "+orUnknown(c.db.home)+", together with schema "+quoteName(schemas[0])+" on "+first.shard,
			"Ask for the tables one by one, or make what all schemas need a reference table.")
	}
	p.Target, p.Keyspace, p.KeyspaceName, p.method = Keyed, first.keyspace.id, first.keyspace.name, first.keyspace.method
	for _, s := range schemas {
		p.Keys = append(p.Keys, KeyRef{Literal: c.db.tenants[s].key, Type: rib.TypeText, Text: "schema " + quoteName(s), nonASCII: false})
	}
	p.Reason = "keyspace " + p.KeyspaceName + " by " + p.Keys[0].Text
	return p
}

func orUnknown(shard string) string {
	if shard == "" {
		return "no known shard"
	}
	return shard
}

// objectOfSchema takes a list of words that may begin with a listed schema.
func (a *analysis) objectOfSchema(words []string) {
	if a.db.tenants == nil || len(words) == 0 {
		return
	}
	for _, w := range words[:min(2, len(words)-1)] {
		if a.db.tenants[w] != nil {
			a.ofSchema(w)
			return
		}
	}
	if len(words) > 1 { // in another schema
		a.elsewhere = true
		a.plain = append(a.plain, qualified(words[len(words)-2], words[len(words)-1]))
		return
	}
	for _, s := range pathSchemas(a.db, a.path) {
		a.ofSchema(s)
	}
}

// refuseTwoMeanings refuses a name without a schema that is a table's of the catalog, and may be one in a listed schema of the search path too.
func (a *analysis) refuseTwoMeanings(t *table) {
	for _, s := range pathSchemas(a.db, a.path) {
		if s != t.schema {
			a.firm = true
			a.refuse(t, &issue{pg.CodeFeatureNotSupported, "the name without a schema may be that of a table in schema " + quoteName(s) + " as well, which is on the search path",
				"Name it with its schema: " + t.String() + "."})
			return
		}
	}
}
