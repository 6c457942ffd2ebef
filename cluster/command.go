package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"rangefinder/rib"
)

// commandVersion is the first byte of every command in the Raft log. A node that meets another version, or a kind or a field that it does
// not know, stops applying (it must not guess) and keeps serving what it has, until it is upgraded.
const commandVersion = 1

// maxCommand bounds one command, in bytes.
const maxCommand = 4 << 20

// The kinds of commands.
const (
	kindInit     = "init"     // the cluster's first command: its id and generation
	kindShard    = "shard"    // which system identifier a shard's servers show
	kindKeyspace = "keyspace" // a new keyspace with its ranges
	kindValues   = "values"   // more values of a list
	kindNode     = "node"     // a node's number
	// kindKeyspace2 is a new keyspace of types or a method that the first version did not know: it would refuse what others accept, and must stop instead.
	kindKeyspace2 = "keyspace.2"
	kindKeyspace3 = "keyspace.3" // the same for what the second did not know

	// With each of these the chain of commands begins, if it has not yet (see rib.Link): what is older does not know them.
	kindInit2       = "init.2"       // kindInit of a cluster whose chain begins there
	kindSplit       = "split"        // bounds between ranges
	kindMerge       = "merge"        // ranges of one shard become one
	kindReassign    = "reassign"     // a range that holds no row gets another owner
	kindMoveStart   = "move.start"   // a range sets out for another shard
	kindMoveAdvance = "move.advance" // its next phase
	kindMoveNote    = "move.note"    // what whoever carries it out wants to remember
	kindMoveAbort   = "move.abort"   // it stays where it was
	kindMoveFinish  = "move.finish"  // nothing of it is left on any server
	kindLoanDue     = "loan.due"     // the time has come to give a range back
	kindLoanKeep    = "loan.keep"    // it stays where it is nevertheless, for a reason
	kindLoanEnd     = "loan.end"     // it stays where it is for good
	kindTables      = "tables"       // more tables of a keyspace
	kindDrop        = "drop"         // a keyspace is no more; its rows stay
	kindForget      = "node.forget"  // a node is gone for good
	// kindMoveThaw is a frozen range that goes back to be prepared. It is no kindMoveAdvance: nodes that do not know it would refuse what others accept.
	kindMoveThaw = "move.thaw"
	// kindLoanUntil is a range that is lent for another time than it was.
	kindLoanUntil = "loan.until"
	// kindLoanCut makes two loans of one, so that a part of the range can change hands and the rest still goes back. Nodes that know neither of these two apply nothing more
	// until they are upgraded.
	kindLoanCut = "loan.cut"
)

// command is one entry of the Raft log. Exactly the field that belongs to Kind is set.
type command struct {
	Kind    string         `json:"kind"`
	Request string         `json:"request"`            // idempotency: the same request is applied once
	Init    *initCommand   `json:"init,omitempty"`     //
	Shard   *shardCommand  `json:"shard,omitempty"`    //
	Created []byte         `json:"keyspace,omitempty"` // by encodeKeyspace, without id and epochs: those are given by apply
	Values  *valuesCommand `json:"values,omitempty"`   //
	Node    string         `json:"node,omitempty"`     // its name
	Range   *rangeCommand  `json:"range,omitempty"`    // of kindSplit, kindMerge, kindReassign
	Move    *moveCommand   `json:"move,omitempty"`     //
	Loan    *loanCommand   `json:"loan,omitempty"`     //
	Tables  *tablesCommand `json:"tables,omitempty"`   // of kindTables, kindDrop
	Forget  string         `json:"forget,omitempty"`   // a node's name
	By      *signature     `json:"by,omitempty"`       // only in clusters with a chain
}

// signature says who wanted a command, when, and why. It decides nothing.
type signature struct {
	Author string    `json:"author,omitempty"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"` // by the clock of the node that proposed it
}

type rangeCommand struct {
	Keyspace string    `json:"keyspace"` // its name
	Low      []byte    `json:"low,omitempty"`
	High     []byte    `json:"high,omitempty"`
	At       [][]byte  `json:"at,omitempty"`   // kindSplit: the bounds
	From     string    `json:"from,omitempty"` // kindReassign: the owner, as the proposer knows it
	To       string    `json:"to,omitempty"`
	Until    time.Time `json:"until,omitzero"` // kindReassign: when it is to go back; zero: it stays
}

type loanCommand struct {
	ID    uint64    `json:"id"`
	Stamp time.Time `json:"stamp,omitzero"` // kindLoanDue: the proposer's clock, or the last stamp if that is later
	Why   string    `json:"why,omitempty"`  // kindLoanKeep
	Until time.Time `json:"until,omitzero"` // kindLoanUntil: when the range is to go back from now on
	At    []byte    `json:"at,omitempty"`   // kindLoanCut: where the second begins
}

type moveCommand struct {
	ID       uint64        `json:"id,omitempty"`       // but for kindMoveStart
	Keyspace string        `json:"keyspace,omitempty"` // kindMoveStart, as all up to Until: its name
	Low      []byte        `json:"low,omitempty"`
	High     []byte        `json:"high,omitempty"`
	From     string        `json:"from,omitempty"`
	To       string        `json:"to,omitempty"`
	Until    time.Time     `json:"until,omitzero"`
	Phase    rib.MovePhase `json:"phase,omitempty"`   // kindMoveAdvance: the phase that it is in
	Next     rib.MovePhase `json:"next,omitempty"`    // kindMoveAdvance: the phase that it shall be in
	Note     []byte        `json:"note,omitempty"`    // empty: as it was
	Cleared  bool          `json:"cleared,omitempty"` // kindMoveNote: rib.Move.Cleared from now on
}

type initCommand struct {
	ClusterID  string `json:"cluster_id"`
	Generation uint32 `json:"generation"`
}

type shardCommand struct {
	Name     string `json:"name"`
	SystemID uint64 `json:"system_id"`
}

type valuesCommand struct {
	Keyspace string        `json:"keyspace"` // its name
	Values   []valueAndKey `json:"values"`
}

type valueAndKey struct {
	Key   []byte `json:"key"`
	Shard string `json:"shard"`
}

func (c *command) encode() ([]byte, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	if len(body) >= maxCommand {
		return nil, reject(ErrInvalid, "the request takes %d bytes in the ledger, and one may take %d: make fewer ranges and split them later", len(body), maxCommand)
	}
	return append([]byte{commandVersion}, body...), nil
}

// decodeCommand reads a log entry strictly: an error means that this node must not go on.
func decodeCommand(data []byte) (*command, error) {
	if len(data) == 0 || data[0] != commandVersion {
		return nil, fmt.Errorf("%w: version byte % x", errStalled, data[:min(1, len(data))])
	}
	d := json.NewDecoder(bytes.NewReader(data[1:]))
	d.DisallowUnknownFields()
	c := &command{}
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("%w: %v", errStalled, err)
	}
	if c.whole() {
		return c, nil
	}
	return nil, fmt.Errorf("%w: kind %q", errStalled, c.Kind)
}

// whole tells whether the command is of a kind that is known here, and has what belongs to that.
func (c *command) whole() bool {
	switch c.Kind {
	case kindInit, kindInit2:
		return c.Init != nil
	case kindShard:
		return c.Shard != nil
	case kindKeyspace, kindKeyspace2, kindKeyspace3:
		return c.Created != nil
	case kindValues:
		return c.Values != nil
	case kindNode:
		return c.Node != ""
	case kindSplit, kindMerge, kindReassign:
		return c.Range != nil
	case kindMoveStart, kindMoveAdvance, kindMoveThaw, kindMoveNote, kindMoveAbort, kindMoveFinish:
		return c.Move != nil
	case kindLoanDue, kindLoanKeep, kindLoanEnd, kindLoanUntil, kindLoanCut:
		return c.Loan != nil
	case kindTables, kindDrop:
		return c.Tables != nil
	case kindForget:
		return c.Forget != ""
	}
	return false
}

// chains tells whether the chain of commands begins with the command at the latest.
func (c *command) chains() bool {
	return c.Kind == kindInit2 || c.Range != nil || c.Move != nil || c.Loan != nil || c.Tables != nil || c.Forget != ""
}

// identity is what tells a repetition from another command under the same request id. Whoever repeats one does it later.
func (c *command) identity(data []byte) [16]byte {
	if c.By != nil {
		timeless, by := *c, *c.By
		by.At, timeless.By = time.Time{}, &by
		if b, err := json.Marshal(&timeless); err == nil {
			data = b
		}
	}
	sum := sha256.Sum256(data)
	return [16]byte(sum[:16])
}

// keyspaceKind is the oldest kind of command that says what ks is.
func keyspaceKind(ks *rib.Keyspace) string {
	if ks.Reference() || ks.BySchema() {
		return kindKeyspace3
	}
	if ks.Method == "list" || ks.Method == "hash" && len(ks.Types) > 1 || slices.ContainsFunc(ks.Types, func(t rib.Type) bool { return t > rib.TypeUUID }) {
		return kindKeyspace2
	}
	return kindKeyspace
}

// encodeKeyspace returns a keyspace alone in the table's encoding, which outlives the names of Go's fields.
func encodeKeyspace(ks *rib.Keyspace) ([]byte, error) { return appendKeyspace(nil, ks) }

func decodeKeyspace(b []byte) (*rib.Keyspace, error) {
	d := &decoder{rest: b}
	ks := &rib.Keyspace{}
	d.keyspace(ks)
	if err := d.end(); err != nil {
		return nil, err
	}
	return ks, nil
}
