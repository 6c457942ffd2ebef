package sqlkey

import (
	"encoding/json"
	"slices"

	"rangefinder/wire/pg"
)

// Dependent is a relation that no keyspace holds and that has rows of a sharded table, or reads them. On one shard it is a part of
// the answer, or takes a row that belongs elsewhere, so a statement that names it is refused. The planner cannot find these by
// itself: a server's catalogs tell.
type Dependent struct {
	Schema, Name     string
	Kind             Dependence
	OfSchema, OfName string // the sharded table; if there are several, the first by name
}

// Dependence is what a Dependent has to do with its sharded table.
type Dependence string

// The kinds of dependence.
const (
	DependsView      Dependence = "view"              // it reads the table, perhaps by way of other views
	DependsStored    Dependence = "materialized view" // it has read it
	DependsPartition Dependence = "partition"         // of it, on whatever level
	DependsChild     Dependence = "child"             // it inherits from it
	DependsParent    Dependence = "parent"            // it is inherited by it, and so its rows are read with the parent's

	// DependsUnique is no dependent: the table, sharded or not, has a column OfName whose default is rangefinder.unique_id().
	DependsUnique Dependence = "unique id"
	// DependsOwn is none either: the reference table has a column OfName whose default each server would compute for itself.
	DependsOwn Dependence = "own default"
	// DependsKey is none either: the key's column OfName of the sharded table is not as it must be. OfSchema says what it is: a type, or that it is generated.
	DependsKey Dependence = "key column"
	// DependsColumns is none either: the columns of the table, sharded or not, are OfName, which is a list in JSON.
	DependsColumns Dependence = "columns"
	// DependsDomain is none either: it is a domain, the only type of that name, over the type OfSchema without a modifier or a collation of its own.
	DependsDomain Dependence = "domain"
	// DependsFunction is none either: all that bears the name Name is functions that somebody has made and declared IMMUTABLE.
	DependsFunction Dependence = "immutable function"
)

// depend puts the dependents of a database into its catalog. Those of tables that no keyspace holds (any more, or yet) are none.
func (d *database) depend(list []Dependent) {
	for i := range list {
		one := &list[i]
		name := tableName{one.Schema, one.Name}
		switch t := d.tables[name]; one.Kind {
		case DependsUnique:
			if d.ids == nil {
				d.ids = make(map[tableName][]string)
			}
			d.ids[name] = append(d.ids[name], one.OfName)
			continue
		case DependsDomain:
			if d.domains == nil {
				d.domains = make(map[string]domain)
			}
			d.domains[one.Name] = domain{one.Schema, one.OfSchema}
			continue
		case DependsFunction:
			if d.immutable == nil {
				d.immutable = make(map[string]bool)
			}
			d.immutable[one.Name] = true
			continue
		case DependsColumns:
			if t != nil && json.Unmarshal([]byte(one.OfName), &t.all) != nil {
				t.all = nil
			}
			continue
		case DependsOwn:
			if t != nil && t.keyspace.whole && !slices.Contains(t.columns, one.OfName) { // the keyspace was made before the table, or that default
				t.columns = append(t.columns, one.OfName)
			}
			continue
		case DependsKey:
			if t != nil && !t.keyspace.whole && slices.Contains(t.columns, one.OfName) {
				t.wrong = "column " + quoteName(one.OfName) + ", which holds its key, is " + one.OfSchema + " on the shards"
			}
			continue
		}
		of := d.tables[tableName{one.OfSchema, one.OfName}]
		if of == nil || of.keyspace.whole || d.tables[name] != nil {
			continue
		}
		if d.dependents == nil {
			d.dependents = make(map[tableName]*table)
		}
		d.dependents[name] = &table{tableName: name, of: of, dependent: *one}
	}
}

// None tells whether it is no relation, but something else that the catalogs tell of a table.
func (d Dependent) None() bool {
	return d.Kind == DependsUnique || d.Kind == DependsOwn || d.Kind == DependsKey || d.Kind == DependsColumns || d.Kind == DependsDomain || d.Kind == DependsFunction
}

// storesKeys refuses to write rows of a table whose key's column is not as it must be: another key than is given might be stored.
func (a *analysis) storesKeys(t *table) {
	if t != nil && t.wrong != "" {
		a.refuse(t, wrongKey(t))
	}
}

func wrongKey(t *table) *issue {
	return &issue{pg.CodeFeatureNotSupported, t.wrong + ", so PostgreSQL may store another key than it is given",
		"Alter the column on each shard, connected to the shard's primary: rangefinder keyspace check says how."}
}

// relation is the table or dependent of that name; nil for all others.
func (d *database) relation(name tableName) *table {
	if t := d.tables[name]; t != nil {
		return t
	}
	return d.dependents[name]
}

// String says what it is: "view public.vo reads public.orders".
func (d Dependent) String() string {
	name, of := qualified(d.Schema, d.Name), qualified(d.OfSchema, d.OfName)
	switch d.Kind {
	case DependsPartition:
		return "table " + name + " is a partition of " + of
	case DependsChild:
		return "table " + name + " inherits from " + of
	case DependsParent:
		return "table " + name + " is inherited by " + of
	}
	return string(d.Kind) + " " + name + " reads " + of
}

// refuseDependent refuses a statement that uses a dependent as if it were a table of one shard.
func (a *analysis) refuseDependent(t *table) {
	i := issue{code: pg.CodeFeatureNotSupported, reason: "one shard alone knows only its part of the rows"}
	switch t.dependent.Kind {
	case DependsPartition:
		i.hint = "Name " + t.of.String() + " itself: PostgreSQL finds the partition."
	case DependsChild:
		i.hint = "Name " + t.of.String() + " itself, or give the keyspace this table too when it is made (rangefinder keyspace create --table)."
	default:
		i.hint = "Query " + t.of.String() + " itself, with its key."
	}
	a.refuse(t, &i)
}
