package sqlkey

import (
	"crypto/sha256"
	"encoding/json"
	"slices"

	"rangefinder/rib"
)

// DatabaseRule is what the configuration says about one database.
type DatabaseRule struct {
	Shard string // the shard that holds the tables of no keyspace; "" if none is configured
	// OwnConnections: a session keeps its server connection from the first use to its end (pool_mode = "session"). Plans do
	// not depend on it.
	OwnConnections bool `json:"-"`
}

// Env is what names in a statement depend on beside the catalog. It is part of a plan's identity.
type Env struct {
	Database   string
	SearchPath string // the raw setting; "" is the default: "$user", public. An empty path is `""`
	User       string // the current role, as "$user" takes it
	// Backslashes: standard_conforming_strings is off. Texts with a backslash are refused then.
	Backslashes bool
	// Encoding is client_encoding; "" and any spelling of UTF8 are UTF-8. Texts beyond ASCII are refused in others.
	Encoding string

	// HintShard is the shard that the session has set for statements that do not tell where they run; "" if none.
	HintShard string
	// HintKey: the session has set a key for them. Plans have it as a KeyRef.Session, for its value is not theirs.
	HintKey bool

	// Foreign are parameters, by bit from 0, whose declared types are not those of the keys that they are compared with: they tell no key. See PlanTyped.
	Foreign uint64
}

// Catalog is what plans stand on: the tables that have keys, and where all others live. It is immutable.
type Catalog struct {
	id        [sha256.Size]byte // of everything below: plans made for an equal catalog are good for this one
	databases map[string]*database
	only      string // the one shard that the ledger knows; "" if there is none or several
}

// database is one database's part of the catalog.
type database struct {
	home      string // the shard of all tables that are in no keyspace; "" if it is not known
	homeKeyed bool   // it holds a part of some keyspace too
	tables    map[tableName]*table
	byName    map[string][]*table // unqualified
	shards    []string
	keyspaces []*keyspace // with a key
	tenants   map[string]*tenant

	told       bool // catalogs of a server have been read: below is what they tell
	dependents map[tableName]*table
	ids        map[tableName][]string // the columns whose default is rangefinder.unique_id()
	domains    map[string]domain      // by name
	immutable  map[string]bool        // functions that are not PostgreSQL's own, by name
}

// domain is one that stores what the type below it does. No other type has its name.
type domain struct{ schema, base string }

type tableName struct{ schema, name string }

// table is a table that has a key, a reference table, or a Dependent of the first.
type table struct {
	tableName
	columns  []string // of its key; of a reference table those that INSERT must give
	keyspace *keyspace
	wrong    string   // why no row must be written: what a column of the key is; "": nothing
	all      []string // its columns, in order; nil: they are not known

	of        *table // of a dependent, which has nothing of the above but its name
	dependent Dependent
}

type keyspace struct {
	id     rib.KeyspaceID
	name   string
	types  []rib.Type
	method rib.Method // nil: a method of a newer version
	shards []string   // that own a part of it, sorted
	whole  bool       // its tables are whole on each of these
}

func (t *table) String() string { return qualified(t.schema, t.name) }

// NewCatalog makes a catalog of the ledger's state, the configured databases, by name, and what is known to depend on their sharded
// tables, by database. Nothing of them is kept.
func NewCatalog(o *rib.Ownership, databases map[string]DatabaseRule, dependents map[string][]Dependent) *Catalog {
	c := &Catalog{databases: make(map[string]*database, len(databases))}
	if len(o.Shards) == 1 {
		c.only = o.Shards[0].Name
	}
	for name, rule := range databases {
		c.database(name).home = rule.Shard
	}
	for i := range o.Keyspaces {
		c.add(&o.Keyspaces[i])
	}
	for name, d := range c.databases {
		list, told := dependents[name]
		d.told = told
		d.depend(list)
		if d.home == "" {
			d.home = c.only
		}
		if d.home != "" {
			d.homeKeyed = slices.Contains(d.shards, d.home)
			d.shards = append(d.shards, d.home)
		}
		slices.Sort(d.shards)
		d.shards = slices.Compact(d.shards)
	}
	c.id = identify(o, databases, dependents, c.only)
	return c
}

// identify hashes what plans stand on: not the ranges, whose owners plans do not know, but which shards there are, where tables are whole.
func identify(o *rib.Ownership, databases map[string]DatabaseRule, dependents map[string][]Dependent, only string) [sha256.Size]byte {
	type rule struct {
		ID                     rib.KeyspaceID
		Name, Database, Method string
		Types                  []rib.Type
		Tables                 []rib.KeyedTable
		Shards, Schemas        []string
	}
	rules := make([]rule, len(o.Keyspaces))
	whole := slices.ContainsFunc(o.Keyspaces, func(k rib.Keyspace) bool { return k.Reference() })
	for i := range o.Keyspaces {
		k := &o.Keyspaces[i]
		rules[i] = rule{k.ID, k.Name, k.Database, k.Method, k.Types, k.Tables, nil, nil}
		if k.BySchema() {
			rules[i].Schemas, rules[i].Shards = k.Schemas()
			rules[i].Shards = append(rules[i].Shards, k.Others())
		}
		if whole && !k.BySchema() {
			rules[i].Shards = k.Shards()
		}
	}
	// Maps are written in the order of their keys. A type that has no name yet cannot be written, nor planned for.
	b, err := json.Marshal([]any{rules, databases, only, dependents})
	if err != nil {
		b = []byte(err.Error())
	}
	return sha256.Sum256(b)
}

func (c *Catalog) database(name string) *database {
	d := c.databases[name]
	if d == nil {
		d = &database{tables: make(map[tableName]*table), byName: make(map[string][]*table)}
		c.databases[name] = d
	}
	return d
}

func (c *Catalog) add(k *rib.Keyspace) {
	if k.BySchema() {
		c.addSchemas(k)
		return
	}
	d := c.database(k.Database)
	ks := &keyspace{id: k.ID, name: k.Name, types: slices.Clone(k.Types), shards: k.Shards(), whole: k.Reference()}
	if m, err := rib.MethodByName(k.Method); err == nil {
		ks.method = m
	}
	if !ks.whole {
		d.keyspaces = append(d.keyspaces, ks)
	}
	for _, t := range k.Tables {
		kt := &table{tableName: tableName{t.Schema, t.Name}, columns: slices.Clone(t.Columns), keyspace: ks}
		d.tables[kt.tableName] = kt
		d.byName[t.Name] = append(d.byName[t.Name], kt)
	}
	d.shards = append(d.shards, ks.shards...)
}

// find returns the database, which may be one that neither the configuration nor the ledger names.
func (c *Catalog) find(name string) *database {
	if d := c.databases[name]; d != nil {
		return d
	}
	d := &database{home: c.only}
	if c.only != "" {
		d.shards = []string{c.only}
	}
	return d
}

// Shards returns, sorted, the shards on which a database is known to exist: those of its keyspaces and the one that holds
// its other tables. Statements with the target Any run on one of them. It is empty if nothing is known. The slice must not
// be changed.
func (c *Catalog) Shards(database string) []string { return c.find(database).shards }

// Home returns the shard that holds the tables of a database that are in no keyspace, "" if it is not known.
func (c *Catalog) Home(database string) string { return c.find(database).home }

// CatalogShard returns the shard where a database's system catalogs are best read (Plan.Catalogs): always the same one, as
// object ids differ between shards and psql looks one up with one statement to use it in the next; and one that has the
// sharded tables. "" if no shard is known.
func (c *Catalog) CatalogShard(database string) string {
	d := c.find(database)
	if !d.homeKeyed {
		for _, s := range d.shards {
			if s != d.home {
				return s
			}
		}
	}
	return d.home
}
