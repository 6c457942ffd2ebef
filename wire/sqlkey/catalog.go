package sqlkey

import "rangefinder/rib"

// DatabaseRule is what the configuration says about one database.
type DatabaseRule struct {
	Shard string // the shard that holds the tables of no keyspace; "" if none is configured
}

// Env is what names in a statement depend on beside the catalog. It is part of a plan's identity.
type Env struct {
	Database   string
	SearchPath string // the raw setting; "" is the default: "$user", public
	User       string // the current role, as "$user" takes it
	// Backslashes: standard_conforming_strings is off.
	Backslashes bool
	// Encoding is client_encoding; "" and any spelling of UTF8 are UTF-8.
	Encoding string
}

// Catalog is what plans stand on: the tables that have keys, and where all others live. It is immutable.
type Catalog struct {
	ownership *rib.Ownership
}

// NewCatalog makes a catalog of the ledger's state and the configured databases. It keeps o, which must not change.
func NewCatalog(o *rib.Ownership, databases map[string]DatabaseRule) *Catalog {
	return &Catalog{ownership: o}
}

// Shards returns, sorted, the shards on which a database is known to exist: those of its keyspaces and the one that holds
// its unsharded tables. Statements with the target Any run on one of them. It is empty if nothing is known.
func (c *Catalog) Shards(database string) []string { return nil }
