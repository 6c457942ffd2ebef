package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

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
	switch {
	case c.Kind == kindInit && c.Init != nil, c.Kind == kindShard && c.Shard != nil, (c.Kind == kindKeyspace || c.Kind == kindKeyspace2 || c.Kind == kindKeyspace3) && c.Created != nil,
		c.Kind == kindValues && c.Values != nil, c.Kind == kindNode && c.Node != "":
		return c, nil
	}
	return nil, fmt.Errorf("%w: kind %q", errStalled, c.Kind)
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
