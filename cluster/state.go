package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"rangefinder/rib"
)

// maxRequests is how many requests are remembered. At a command a second it is more than an hour.
const maxRequests = 4096

// state is the ledger's state machine: pure, without clock or randomness, so that every voter comes to the same state.
// It is owned by one goroutine at a time; now is never changed, but replaced.
type state struct {
	generation uint32
	nextID     rib.KeyspaceID // the id that the next keyspace gets
	now        *draft
	requests   map[string]request
	order      []string // requests' ids, oldest first
	history    history
	stamp      time.Time // the latest that a command has had: time never runs backwards here
}

// request is what is remembered of a command that took effect.
type request struct {
	hash     [16]byte // of the command, to tell a repetition from an id used twice
	epoch    rib.Epoch
	keyspace rib.KeyspaceID
	move     uint64
}

// result is what a command came to.
type result struct {
	epoch    rib.Epoch
	keyspace *rib.Keyspace // of commands about one: without ranges
	move     rib.Move      // of commands about one: as it is then
	loan     rib.Loan      // the same
	changed  bool
	err      error // a *RejectedError: nothing changed
}

func newState() *state {
	return &state{nextID: 1, now: &draft{}, requests: make(map[string]request)}
}

// apply carries out one command, which data encodes, or refuses it and changes nothing.
func (s *state) apply(index uint64, c *command, data []byte) result {
	hash := c.identity(data)
	if old, ok := s.requests[c.Request]; ok && c.Request != "" {
		if old.hash != hash {
			return result{err: reject(ErrRequestReused, "request id %q was used for another command: use a new one", c.Request)}
		}
		return result{epoch: old.epoch, keyspace: s.now.Keyspace(old.keyspace), move: s.moveByID(old.move)}
	}

	next := s.now.next()
	next.Epoch = rib.Epoch{Generation: s.generation, Index: index}
	var (
		r   result
		err error
	)
	switch c.Kind {
	case kindInit, kindInit2:
		err = s.init(next, c.Init)
	case kindShard:
		if r.changed, err = recordShard(next, c.Shard); err == nil && !r.changed {
			return result{epoch: s.now.Epoch}
		}
	case kindKeyspace, kindKeyspace2, kindKeyspace3:
		r.keyspace, err = s.create(next, c.Created)
	case kindValues:
		r.keyspace, err = addValues(next, c.Values)
	case kindNode:
		if r.changed, err = numberNode(next, c.Node); err == nil && !r.changed {
			return result{epoch: s.now.Epoch}
		}
	default:
		var same bool
		if r, same, err = s.change(next, c); same && err == nil {
			r.epoch = s.now.Epoch
			return r
		}
	}
	if err != nil {
		return result{err: err}
	}
	if c.chains() || len(next.Links) > 0 {
		next.Links = chain(next.Links, next.Epoch, data)
		s.history.add(eventOf(&next.Ownership, c, &r))
	}
	s.now = next
	r.changed, r.epoch = true, next.Epoch
	if c.Request != "" {
		done := request{hash: hash, epoch: r.epoch, move: r.move.ID}
		if r.keyspace != nil {
			done.keyspace = r.keyspace.ID
		}
		s.remember(c.Request, done)
	}
	return r
}

// change carries out a command that changes ranges or moves. same: all is as it should be already.
func (s *state) change(next *draft, c *command) (r result, same bool, err error) {
	if next.ClusterID == "" {
		return r, false, reject(ErrNoCluster, "the cluster is not set up yet")
	}
	if by := c.By; by != nil && (len(by.Author) > MaxName || len(by.Reason) > MaxReason) {
		return r, false, reject(ErrInvalid, "an author has at most %d bytes, and a reason %d", MaxName, MaxReason)
	}
	changed := true
	switch c.Kind {
	case kindSplit:
		r.keyspace, err = splitRanges(next, c.Range)
	case kindMerge:
		r.keyspace, err = mergeRanges(next, c.Range)
	case kindReassign:
		r.keyspace, err = reassignRange(next, c.Range)
	case kindMoveStart:
		r.move, err = startMove(next, c.Move)
	case kindMoveAdvance:
		r.move, changed, err = advanceMove(next, c.Move)
	case kindMoveThaw:
		r.move, changed, err = thawMove(next, c.Move)
	case kindMoveNote:
		r.move, err = noteMove(next, c.Move)
	case kindMoveAbort:
		why := ""
		if c.By != nil {
			why = c.By.Reason
		}
		r.move, changed, err = abortMove(next, c.Move, why)
	case kindMoveFinish:
		r.move, err = finishMove(next, c.Move)
	case kindLoanDue:
		r.loan, changed, err = s.loanDue(next, c.Loan)
	case kindLoanKeep:
		r.loan, changed, err = keepLoan(next, c.Loan)
	case kindLoanEnd:
		r.loan, err = endLoan(next, c.Loan)
	case kindLoanUntil:
		r.loan, changed, err = untilLoan(next, c.Loan)
	case kindLoanCut:
		r.loan, err = cutLoan(next, c.Loan)
	case kindTables:
		r.keyspace, err = addTables(next, c.Tables)
	case kindDrop:
		r.keyspace, err = dropKeyspace(next, c.Tables)
	case kindForget:
		changed, err = forgetNode(next, c.Forget)
	}
	return r, !changed, err
}

// chain appends a command's link to those before it.
func chain(links []rib.Link, epoch rib.Epoch, data []byte) []rib.Link {
	h := sha256.New()
	if n := len(links); n > 0 {
		h.Write(links[n-1].Hash[:])
	}
	h.Write(data)
	if drop := len(links) + 1 - rib.MaxLinks; drop > 0 {
		links = links[drop:]
	}
	links = append(make([]rib.Link, 0, len(links)+1), links...) // readers hold the old ones
	return append(links, rib.Link{Epoch: epoch, Hash: [16]byte(h.Sum(nil)[:16])})
}

func (s *state) remember(id string, r request) {
	if len(s.order) >= maxRequests {
		delete(s.requests, s.order[0])
		s.order = slices.Delete(s.order, 0, 1)
	}
	s.requests[id] = r
	s.order = append(s.order, id)
}

// moveByID is a move as it is now; one that is over has its number alone.
func (s *state) moveByID(id uint64) rib.Move {
	if m := s.now.Move(id); m != nil {
		return *m
	}
	return rib.Move{ID: id}
}

func (s *state) init(next *draft, c *initCommand) error {
	if next.ClusterID != "" {
		return reject(ErrOtherCluster, "this cluster has the id %s already", next.ClusterID)
	}
	s.generation = c.Generation
	next.ClusterID = c.ClusterID
	next.Epoch.Generation = c.Generation
	return nil
}

func recordShard(next *draft, c *shardCommand) (changed bool, err error) {
	if err := checkShard(&next.Ownership, c.Name, c.SystemID); err != nil {
		return false, err
	}
	at, found := slices.BinarySearchFunc(next.Shards, c.Name, func(s rib.Shard, name string) int { return strings.Compare(s.Name, name) })
	if found {
		return false, nil
	}
	shards := make([]rib.Shard, 0, len(next.Shards)+1)
	shards = append(shards, next.Shards[:at]...)
	shards = append(shards, rib.Shard{Name: c.Name, SystemID: c.SystemID, Epoch: next.Epoch})
	next.Shards = append(shards, next.Shards[at:]...)
	return true, nil
}

// numberNode gives a node the next number. It keeps it for ever, whatever becomes of the node.
func numberNode(next *draft, name string) (changed bool, err error) {
	if next.ClusterID == "" {
		return false, reject(ErrNoCluster, "the cluster is not set up yet")
	}
	if number, ok := next.NodeNumber(name); ok {
		at, forgotten := slices.BinarySearch(next.Forgotten, number)
		if forgotten { // it is back
			next.Forgotten = slices.Delete(slices.Clone(next.Forgotten), at, at+1)
		}
		return forgotten, nil
	}
	if err := newNumber(&next.Ownership, name); err != nil {
		return false, err
	}
	next.Nodes = append(slices.Clone(next.Nodes), name)
	return true, nil
}

// newNumber refuses a number to a node that has none and can have none.
func newNumber(o *rib.Ownership, name string) error {
	switch {
	case len(name) > MaxName:
		return reject(ErrInvalid, "node %.64q... gets no number: its name has %d bytes, and may have %d", name, len(name), MaxName)
	case len(o.Nodes) >= rib.MaxNodes:
		return reject(ErrTooMany, "node %.64q gets no number: all %d are given, each to one name for ever", name, rib.MaxNodes)
	}
	return nil
}

// checkShard refuses a name and a system identifier that contradict what is recorded.
func checkShard(o *rib.Ownership, name string, systemID uint64) error {
	switch {
	case o.ClusterID == "":
		return reject(ErrNoCluster, "the cluster is not set up yet")
	case name == "" || len(name) > MaxName:
		return reject(ErrInvalid, "a shard's name has 1 to %d bytes", MaxName)
	case systemID == 0:
		return reject(ErrInvalid, "shard %s: the system identifier is 0, which no PostgreSQL cluster has", name)
	}
	for i := range o.Shards {
		s := &o.Shards[i]
		switch {
		case s.Name == name && s.SystemID != systemID:
			return reject(ErrShardConflict, "shard %s is the PostgreSQL cluster with system identifier %d, and a server shows %d: it is no copy of that shard; correct its address or its shard",
				name, s.SystemID, systemID)
		case s.Name != name && s.SystemID == systemID:
			return reject(ErrShardConflict, "the PostgreSQL cluster with system identifier %d is shard %s already and cannot be shard %s too: correct the backend's shard, or give the new shard a PostgreSQL cluster made by its own initdb",
				systemID, s.Name, name)
		}
	}
	return nil
}

// create adds a keyspace and returns it as it is in the new table.
func (s *state) create(next *draft, encoded []byte) (*rib.Keyspace, error) {
	ks, err := decodeKeyspace(encoded)
	if err != nil {
		return nil, reject(ErrInvalid, "%v", err)
	}
	if err := checkNewKeyspace(&next.Ownership, ks); err != nil {
		return nil, err
	}
	ks.ID = s.nextID
	for i := range ks.Ranges {
		ks.Ranges[i].Epoch = next.Epoch
	}
	s.nextID++
	next.Catalog++
	next.parts = append(slices.Clip(next.parts), newPartition(ks.Ranges))
	ks.Ranges = nil
	next.Keyspaces = append(slices.Clip(next.Keyspaces), *ks)
	return &next.Keyspaces[len(next.Keyspaces)-1], nil
}

// checkNewKeyspace refuses a keyspace that does not fit the table.
func checkNewKeyspace(o *rib.Ownership, ks *rib.Keyspace) error {
	if o.ClusterID == "" {
		return reject(ErrNoCluster, "the cluster is not set up yet")
	}
	if err := ks.Validate(); err != nil {
		return reject(ErrInvalid, "%v", err)
	}
	for i := range o.Keyspaces {
		old := &o.Keyspaces[i]
		if old.Name == ks.Name {
			return reject(ErrNameTaken, "there is a keyspace named %s already", ks.Name)
		}
		if old.Database != ks.Database {
			continue
		}
		for _, t := range ks.Tables {
			for _, u := range old.Tables {
				if t.Schema == u.Schema && t.Name == u.Name {
					return reject(ErrTableTaken, "table %s.%s of database %s belongs to keyspace %s already", t.Schema, t.Name, ks.Database, old.Name)
				}
			}
		}
	}
	known := make(map[string]bool, len(o.Shards))
	for i := range o.Shards {
		known[o.Shards[i].Name] = true
	}
	for i := range ks.Ranges {
		if name := ks.Ranges[i].Shard; name != "" && !known[name] {
			return unknownShard(o, name)
		}
	}
	return nil
}

// unknownShard says which shards there are.
func unknownShard(o *rib.Ownership, name string) error {
	names := make([]string, len(o.Shards))
	for i := range o.Shards {
		names[i] = o.Shards[i].Name
	}
	list := strings.Join(names, ", ")
	if list == "" {
		list = "none yet"
	}
	return reject(ErrUnknownShard, "shard %s is not known: no node has reached a server of it yet, or its name is misspelt; known are: %s", name, list)
}

// encode returns the whole state for a Raft snapshot: the table, and what only the state machine needs.
//
//	"RFS1" | CRC-32C of the rest | generation | next id | requests, oldest first | the table by EncodeOwnership
//	"RFS2" | the same, but requests have the number of a move behind them, and before the table are the last stamp and the history, oldest first
func (s *state) encode() ([]byte, error) {
	chained := len(s.now.Links) > 0
	magic := magicState
	if chained {
		magic = magicState2
	}
	dst := append([]byte(magic), 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, s.generation)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(s.nextID))
	dst = binary.AppendUvarint(dst, uint64(len(s.order)))
	for _, id := range s.order {
		r := s.requests[id]
		dst = appendString(dst, id)
		dst = append(dst, r.hash[:]...)
		dst = appendEpoch(dst, r.epoch)
		dst = binary.LittleEndian.AppendUint32(dst, uint32(r.keyspace))
		if chained {
			dst = binary.AppendUvarint(dst, r.move)
		}
	}
	if chained {
		dst = s.history.append(appendTime(dst, s.stamp))
	}
	dst, err := EncodeOwnership(dst, s.now.table())
	if err != nil {
		return nil, err
	}
	seal(dst)
	return dst, nil
}

const minRequest = 1 + 16 + 12 + 4

// decodeState reads what encode wrote.
func decodeState(b []byte) (*state, error) {
	magic := magicState
	if bytes.HasPrefix(b, []byte(magicState2)) {
		magic = magicState2
	}
	d, err := unseal(b, magic)
	if err != nil {
		return nil, err
	}
	s := newState()
	s.generation, s.nextID = d.uint32(), rib.KeyspaceID(d.uint32())
	for range d.count(minRequest) {
		id := d.string()
		var r request
		copy(r.hash[:], d.take(len(r.hash)))
		r.epoch, r.keyspace = d.epoch(), rib.KeyspaceID(d.uint32())
		if magic == magicState2 {
			r.move = d.uvarint()
		}
		s.remember(id, r)
	}
	if magic == magicState2 {
		s.stamp, s.history = d.time(), d.history()
	}
	if d.err != nil {
		return nil, d.err
	}
	o, err := DecodeOwnership(d.rest)
	if err != nil {
		return nil, err
	}
	s.now = newDraft(o)
	return s, nil
}

// copyForSnapshot returns a state that later commands do not change.
func (s *state) copyForSnapshot() *state {
	c := *s
	c.order = slices.Clone(s.order)
	c.requests = make(map[string]request, len(s.requests))
	for id, r := range s.requests {
		c.requests[id] = r
	}
	return &c
}
