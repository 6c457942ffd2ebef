package cluster

import (
	"context"
	"slices"

	"rangefinder/rib"
)

// TablesSpec are tables that a keyspace is to have from now on. Its JSON form is the API's body.
type TablesSpec struct {
	Keyspace string      `json:"keyspace"` // its name
	Tables   []TableSpec `json:"tables"`
	// Planned: the tables may be missing on all shards, and are made later, by CREATE TABLE through a node.
	Planned bool `json:"planned,omitempty"`
	Origin
}

// DropSpec asks for a keyspace to be no more. Its tables and their rows stay where they are.
type DropSpec struct {
	Keyspace string `json:"keyspace"`
	Origin
}

type tablesCommand struct {
	Keyspace string      `json:"keyspace"`         // its name
	Tables   []TableSpec `json:"tables,omitempty"` // of kindTables
}

// With is the keyspace as it would be with the tables, and one with nothing but these, or a *RejectedError that says why it cannot be.
func (s *TablesSpec) With(o *rib.Ownership) (with, added *rib.Keyspace, err error) {
	ks := o.KeyspaceByName(s.Keyspace)
	switch {
	case ks == nil:
		return nil, nil, reject(ErrNoKeyspace, "there is no keyspace named %s", s.Keyspace)
	case ks.BySchema():
		return nil, nil, reject(ErrInvalid, "keyspace %s is by schema: it has whatever is in its schemas, and lists no tables", ks.Name)
	}
	check := KeyspaceSpec{Name: ks.Name, Database: ks.Database, Method: ks.Method, Types: make([]string, len(ks.Types)), Tables: s.Tables}
	if err := check.names(); err != nil {
		return nil, nil, err
	}
	if with, err = withTables(o, *ks, keyedTables(s.Tables)); err != nil {
		return nil, nil, err
	}
	one := *with
	one.Tables = slices.Clone(with.Tables[len(ks.Tables):])
	return with, &one, nil
}

func keyedTables(specs []TableSpec) (list []rib.KeyedTable) {
	for _, t := range specs {
		list = append(list, rib.KeyedTable{Schema: t.Schema, Name: t.Name, Columns: slices.Clone(t.Columns)})
	}
	return list
}

// AddTables gives a keyspace further tables and returns it with them. The caller has checked them with CheckKeyspace. Errors and the rest are
// as for CreateKeyspace.
func (l *Ledger) AddTables(ctx context.Context, s TablesSpec) (*rib.Keyspace, error) {
	r, err := l.proposeSigned(ctx, &command{Kind: kindTables, Tables: &tablesCommand{s.Keyspace, s.Tables}}, s.Origin)
	if err != nil {
		return nil, err
	}
	if r.keyspace == nil {
		return nil, reject(ErrRequestReused, "request id %q belongs to another command: use a new one", s.RequestID)
	}
	return r.keyspace, nil
}

// DropKeyspace takes a keyspace out of the ledger. Rows and tables stay on their shards, each with the part that it has. Errors are as for
// CreateKeyspace.
func (l *Ledger) DropKeyspace(ctx context.Context, s DropSpec) error {
	_, err := l.proposeSigned(ctx, &command{Kind: kindDrop, Tables: &tablesCommand{Keyspace: s.Keyspace}}, s.Origin)
	return err
}

// withTables is a keyspace with further tables. o has the other keyspaces.
func withTables(o *rib.Ownership, ks rib.Keyspace, tables []rib.KeyedTable) (*rib.Keyspace, error) {
	if err := still(o, &ks, nil, nil); err != nil {
		return nil, err
	}
	for i := range o.Keyspaces {
		old := &o.Keyspaces[i]
		if old.Database != ks.Database {
			continue
		}
		for _, t := range tables {
			if slices.ContainsFunc(old.Tables, func(u rib.KeyedTable) bool { return t.Schema == u.Schema && t.Name == u.Name }) {
				return nil, reject(ErrTableTaken, "table %s.%s of database %s belongs to keyspace %s already", t.Schema, t.Name, ks.Database, old.Name)
			}
		}
	}
	ks.Tables = slices.Concat(ks.Tables, tables)
	if len(ks.Tables) > MaxTables {
		return nil, reject(ErrInvalid, "%d tables are more than the %d that one keyspace may have", len(ks.Tables), MaxTables)
	}
	if err := ks.Validate(); err != nil {
		return nil, reject(ErrInvalid, "%v", err)
	}
	return &ks, nil
}

// addTables gives a keyspace tables and returns it as it is in the new table.
func addTables(next *draft, c *tablesCommand) (*rib.Keyspace, error) {
	if len(c.Tables) == 0 {
		return nil, reject(ErrInvalid, "tables is empty: name at least one")
	}
	ks, p, err := next.edit(c.Keyspace)
	if err != nil {
		return nil, err
	}
	whole := *ks
	whole.Ranges = (*p).ranges()
	with, err := withTables(&next.Ownership, whole, keyedTables(c.Tables))
	if err != nil {
		return nil, err
	}
	ks.Tables = with.Tables
	next.Catalog++
	return ks, nil
}

// dropKeyspace takes a keyspace away, and returns it as it was.
func dropKeyspace(next *draft, c *tablesCommand) (*rib.Keyspace, error) {
	ks, _, err := next.edit(c.Keyspace)
	if err != nil {
		return nil, err
	}
	if err := still(&next.Ownership, ks, nil, nil); err != nil {
		return nil, err
	}
	gone := *ks
	at := slices.IndexFunc(next.Keyspaces, func(k rib.Keyspace) bool { return k.ID == gone.ID })
	next.Keyspaces, next.parts = slices.Delete(next.Keyspaces, at, at+1), slices.Delete(next.parts, at, at+1) // copies, by edit
	next.Loans = slices.DeleteFunc(slices.Clone(next.Loans), func(l rib.Loan) bool { return l.Keyspace == gone.ID })
	next.Catalog++
	return &gone, nil
}

// listedElsewhere refuses schemas that another keyspace by schema of the database lists: its statements would go by whichever came last.
func listedElsewhere(o *rib.Ownership, ks *rib.Keyspace) error {
	if !ks.BySchema() {
		return nil
	}
	mine, _ := ks.Schemas()
	for i := range o.Keyspaces {
		old := &o.Keyspaces[i]
		if !old.BySchema() || old.Database != ks.Database || old.Name == ks.Name {
			continue
		}
		if ks.Others() != "" && old.Others() != "" {
			return reject(ErrInvalid, "keyspaces %s and %s would both say where all other schemas of database %s are: one --default is enough", old.Name, ks.Name, ks.Database)
		}
		theirs, _ := old.Schemas()
		for _, s := range mine {
			if slices.Contains(theirs, s) {
				return reject(ErrValueTaken, "schema %s of database %s belongs to keyspace %s already", s, ks.Database, old.Name)
			}
		}
	}
	return nil
}
