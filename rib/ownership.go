package rib

import (
	"cmp"
	"fmt"
	"slices"
)

// Epoch is (recovery generation, Raft index) of a change to ownership. Its order carries meaning, distances do not.
type Epoch struct {
	Generation uint32
	Index      uint64
}

// Compare returns -1, 0 or +1 as e is older than, the same as, or newer than o.
func (e Epoch) Compare(o Epoch) int {
	if c := cmp.Compare(e.Generation, o.Generation); c != 0 {
		return c
	}
	return cmp.Compare(e.Index, o.Index)
}

// KeyspaceID names a keyspace in plans and indexes. IDs are given by the ledger, start at 1 and are never used again.
type KeyspaceID uint32

// Keyspace is a sharding rule and the ranges that partition it.
type Keyspace struct {
	ID       KeyspaceID
	Name     string // as users name it, for example "app.orders"
	Database string
	Method   string // see MethodByName
	Types    []Type // of the key's columns; none of the reference method
	Tables   []KeyedTable
	Ranges   []Range // sorted by From; no gap, no overlap; the first From and the last To are empty
}

// KeyedTable is one table of a keyspace, with the columns that hold the key in the order of Keyspace.Types. Of a reference table they are
// those that every INSERT must give, since their defaults differ from server to server.
type KeyedTable struct {
	Schema  string
	Name    string
	Columns []string
}

// SQL is the table's name as a statement has it, with its schema.
func (t *KeyedTable) SQL() string { return QuoteIdent(t.Schema) + "." + QuoteIdent(t.Name) }

// Range is the half-open [From, To) of keys with exactly one owning shard.
type Range struct {
	From  Key    // inclusive; empty: from the first key
	To    Key    // exclusive; empty: past the last key
	Shard string // "": nobody's, as values that a list does not hold may be
	Epoch Epoch  // of the last change to this range's owner
}

// Shard is what the ledger has recorded of a shard: which servers may call themselves its backends.
type Shard struct {
	Name     string
	SystemID uint64
	Epoch    Epoch
}

// Ownership is the ledger's whole state at one epoch. It is immutable once it is in a Table.
type Ownership struct {
	ClusterID string
	Epoch     Epoch
	Catalog   uint64 // counts changes to keyspaces and their tables: plans made for another value are void
	Keyspaces []Keyspace
	Shards    []Shard
	Nodes     []string // names, in the order of their numbers from 0: a node's number is never another one's (see NodeNumber)
	Moves     []Move   // that are not over, by ID; at most MaxMoves
	Loans     []Loan   // ranges that are to go back, by ID; at most MaxLoans
	Forgotten []int    // numbers of nodes that an operator has said are gone for good, ascending: nobody waits for them
	Links     []Link   // of the last commands, oldest first; none: the cluster is older than the chain
}

// MaxNodes bounds the numbers of nodes: they take 12 bits of rangefinder.unique_id().
const MaxNodes = 1 << 12

// String is "generation/index", as logs and the debug page show it.
func (e Epoch) String() string { return fmt.Sprintf("%d/%d", e.Generation, e.Index) }

// Keyspace finds a keyspace by ID; nil if there is none.
func (o *Ownership) Keyspace(id KeyspaceID) *Keyspace {
	for i := range o.Keyspaces {
		if o.Keyspaces[i].ID == id {
			return &o.Keyspaces[i]
		}
	}
	return nil
}

// KeyspaceByName finds a keyspace by the name that users gave it; nil if there is none.
func (o *Ownership) KeyspaceByName(name string) *Keyspace {
	for i := range o.Keyspaces {
		if o.Keyspaces[i].Name == name {
			return &o.Keyspaces[i]
		}
	}
	return nil
}

// Shard finds a recorded shard; nil if the ledger does not know it.
func (o *Ownership) Shard(name string) *Shard {
	for i := range o.Shards {
		if o.Shards[i].Name == name {
			return &o.Shards[i]
		}
	}
	return nil
}

// NodeNumber is the number that the ledger has given to a node; false if it has none yet.
func (o *Ownership) NodeNumber(name string) (number int, ok bool) {
	number = slices.Index(o.Nodes, name)
	return number, number >= 0
}

// numbersAll reports whether a node that has been in the cluster has a number, as far as this ownership tells: not before the first one is given,
// nor when there is none left.
func (o *Ownership) numbersAll() bool { return len(o.Nodes) > 0 && len(o.Nodes) < MaxNodes }

// Admitted reports whether moves wait for a node: the ledger has given it a number, and it was not forgotten since. No other may route a statement, for a
// range could change hands, and its fence go, without anybody asking whether the node knows.
func (o *Ownership) Admitted(name string) bool {
	_, ok := o.NodeNumber(name)
	return ok && !o.Forgot(name)
}

// Forgot reports whether an operator has said that a node is gone for good, and it has not come back since.
func (o *Ownership) Forgot(name string) bool {
	number, ok := o.NodeNumber(name)
	return ok && slices.Contains(o.Forgotten, number)
}
