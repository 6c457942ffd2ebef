package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/hashicorp/raft"

	"rangefinder/rib"
)

// A recovery is for when a majority of the voters is lost for good. One node that is left goes on alone, with all that it knows, as a new
// generation: its epochs are later than all of the one before, whatever was agreed there that it does not know of.
//
// What it does not know of may be a move that has flipped. The shards know: each has a row for each move in rangefinder.fence. So whoever
// recovers asks them all first, and hands in what they say.

// Fence is what a shard's row says of a move.
type Fence struct {
	Shard     string // that has the row
	Move      uint64
	Side      string // "source" or "target"
	Keyspace  string
	Low, High rib.Key
	From, To  string
	State     string // of the source: "open", "frozen", "moved"; of the target: "filled" when it has all rows
}

// Place is where fences are: a database of a shard's.
type Place struct{ Shard, Database string }

// RecoverConfig is what a recovery needs. The node must not run.
type RecoverConfig struct {
	Node   string // its name
	Addr   string // its cluster port, host:port
	Dir    string // the ledger's directory
	Fences []Fence
	Asked  []Place // whose fences these are: of a place that is not named nothing is known
	Dry    bool    // only say what it would do
	Logger *slog.Logger
	Stores func(dir string) (*Stores, error) // nil: DurableStores
}

// Recovery is what a recovery has come to.
type Recovery struct {
	Before, After rib.Epoch
	Handed        []string // what the shards knew and this node did not, for people
}

// KnownOwnership is the last table that a node has on disk, for whoever wants to recover from it.
func KnownOwnership(dir string) (*rib.Ownership, error) {
	o, err := readTable(dir)
	if err == nil && o == nil {
		err = fmt.Errorf("%s: this node has no ownership table: recover another one, that has", dir)
	}
	return o, err
}

// Recover makes a node the only voter of a new generation.
func Recover(cfg RecoverConfig) (r Recovery, err error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Stores == nil {
		cfg.Stores = func(dir string) (*Stores, error) { return DurableStores(dir, cfg.Logger) }
	}
	table, err := KnownOwnership(cfg.Dir)
	if err != nil {
		return r, err
	}
	if err := forgetLeft(cfg.Dir, cfg.Logger); err != nil {
		return r, err
	}
	stores, err := cfg.Stores(cfg.Dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, stores.Close()) }()
	f := &recovering{fsm: newFSM(cfg.Logger, func() {}), table: table, fences: cfg.Fences, asked: cfg.Asked, r: &r}
	_, transport := raft.NewInmemTransport(raft.ServerAddress(cfg.Addr)) // only to write addresses
	alone := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(cfg.Node), Address: raft.ServerAddress(cfg.Addr)}}}
	has, err := raft.HasExistingState(stores.Log, stores.Stable, stores.Snapshots)
	if err != nil {
		return r, err
	}
	if cfg.Dry || !has {
		if err := f.begin(); err != nil || cfg.Dry {
			return r, err
		}
	}
	if has {
		conf := raft.DefaultConfig()
		conf.LocalID, conf.Logger = raft.ServerID(cfg.Node), newRaftLogger(cfg.Logger)
		err = raft.RecoverCluster(conf, f, stores.Log, stores.Stable, stores.Snapshots, transport, alone)
	} else {
		err = f.firstSnapshot(stores, alone, transport)
	}
	if err == nil {
		err = f.failed
	}
	if err != nil {
		return r, fmt.Errorf("recover: %w", err)
	}
	o := f.st.now.table()
	encoded, err := EncodeOwnership(nil, o)
	if err == nil {
		err = errors.Join(writeMembership(cfg.Dir, membership{ClusterID: o.ClusterID}), writeVoters(cfg.Dir, nil), writeTable(cfg.Dir, encoded))
	}
	return r, err
}

// recovering is a state machine whose snapshot is the beginning of a new generation.
type recovering struct {
	*fsm
	table  *rib.Ownership // as it was kept on disk: it may be newer than the log
	fences []Fence
	asked  []Place
	r      *Recovery
	failed error
}

// Snapshot implements raft.FSM.
func (f *recovering) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.begin(); err != nil {
		f.failed = err
		return nil, err
	}
	return &fsmSnapshot{f.st.copyForSnapshot()}, nil
}

// begin makes the new generation's first table.
func (f *recovering) begin() error {
	s := f.st
	if f.table.Epoch.Compare(s.now.Epoch) > 0 {
		s.now = newDraft(f.table)
		for i := range s.now.Keyspaces {
			s.nextID = max(s.nextID, s.now.Keyspaces[i].ID+1)
		}
	}
	f.r.Before = s.now.Epoch
	next := s.now.next()
	s.generation = max(s.generation, next.Epoch.Generation) + 1
	next.Epoch = rib.Epoch{Generation: s.generation, Index: f.applied.Load()}
	if next.Epoch.Index == 0 {
		next.Epoch.Index = max(1, f.table.Epoch.Index)
	}
	if err := f.settle(next); err != nil {
		return err
	}
	next.Links = chain(next.Links, next.Epoch, fmt.Appendf(nil, "recovered from %s", f.r.Before))
	s.history.add(Event{Epoch: next.Epoch, Kind: "recover", Subject: f.r.Before.String()})
	s.now = next
	f.r.After = next.Epoch
	return nil
}

// settle brings the table in line with what the shards say of moves. Where the source lets writes through, nothing has flipped. Where it does
// not and the target has all rows, it may have: then the target gets the range, and nobody can have written it elsewhere since. What the node
// has never heard of and has not flipped is handed in as aborted, so that its fence, its slots and what was copied are removed.
func (f *recovering) settle(next *draft) error {
	fences := slices.Clone(f.fences)
	slices.SortStableFunc(fences, func(a, b Fence) int { return cmp.Compare(a.Move, b.Move) })
	for len(fences) > 0 {
		n := 1
		for n < len(fences) && fences[n].Move == fences[0].Move {
			n++
		}
		if err := f.settleOne(next, fences[:n]); err != nil {
			return err
		}
		fences = fences[n:]
	}
	f.abandon(next)
	return nil
}

// abandon aborts the moves that the table has as frozen and of which their source has no fence: what is left of them has been aborted and cleaned up, and
// nobody could take them further. Such a range would be frozen for ever. That one has flipped and come to its end cannot be: the fence waits for
// each node, also for this one, unless it was forgotten (docs/recovery.md says not to recover from such a node).
func (f *recovering) abandon(next *draft) {
	next.Moves = slices.Clone(next.Moves)
	for i := range next.Moves {
		m := &next.Moves[i]
		ks := next.Keyspace(m.Keyspace)
		if m.Phase != rib.MoveFrozen || ks == nil || !slices.Contains(f.asked, Place{m.From, ks.Database}) ||
			slices.ContainsFunc(f.fences, func(row Fence) bool { return row.Move == m.ID && row.Side == "source" }) {
			continue
		}
		m.Phase, m.Epoch, m.Note, m.Why = rib.MoveAborted, next.Epoch, []byte(somethingLeft), "a recovery found no fence of it on its source"
		f.r.Handed = append(f.r.Handed, fmt.Sprintf("range %s of keyspace %s stays with %s: move %d to %s was frozen here, and %s has no fence of it any more, so it is aborted", ks.FormatInterval(m.Low, m.High), ks.Name, m.From, m.ID, m.To, m.From))
	}
}

// somethingLeft is a move's note that says to the mover that there is something to remove.
const somethingLeft = `{"touched":true}`

// settleOne does so for one move, with its rows.
func (f *recovering) settleOne(next *draft, rows []Fence) error {
	source, target := "", "" // what they say; "": they have no row, or were not asked
	x := rows[0]
	for _, row := range rows {
		if row.Side == "source" {
			x, source = row, row.State
		} else {
			target = row.State
		}
	}
	move := next.Move(x.Move)
	flipped := source == "moved" || source == "frozen" && target == "filled"
	switch {
	case move != nil && !flipped, move != nil && move.Phase == rib.MoveFlipped, move != nil && move.Phase == rib.MoveAborted && source != "moved":
		return nil // it is known
	case flipped, source == "open", target != "" && target != "filled":
	default:
		f.r.Handed = append(f.r.Handed, fmt.Sprintf("shard %s has a row of move %d (%s %s), and the other shard has none: whether it had flipped is not known, so nothing was done about it", x.Shard, x.Move, x.Side, x.State))
		return nil
	}
	ks, p, err := next.edit(x.Keyspace)
	if err != nil {
		return err
	}
	if err := checkInterval(ks, *p, x.Low, x.High); err != nil {
		return fmt.Errorf("what shard %s says of move %d: %w", x.Shard, x.Move, err)
	}
	owner, phase, why := x.To, rib.MoveFlipped, ""
	if !flipped {
		owner, phase, why = x.From, rib.MoveAborted, "a recovery found it on the shards alone"
	}
	if next.Shard(owner) == nil {
		return fmt.Errorf("what shard %s says of move %d: %w", x.Shard, x.Move, unknownShard(&next.Ownership, owner))
	}
	text := ks.FormatInterval(x.Low, x.High)
	had, err := soleOwner(ks, *p, x.Low, x.High)
	switch is := err == nil && had == owner; {
	case is && flipped && move == nil:
		return nil // flipped and finished
	case !is: // also without a flip: the source had the range when the move began, and has it still
		*p = (*p).assign(x.Low, x.High, owner, next.Epoch)
		if err := lend(next, rib.Loan{Keyspace: ks.ID, Low: x.Low, High: x.High}); err != nil {
			return err
		}
	}
	// No two moves meet: one that the table has where this one was is over.
	next.Moves = slices.DeleteFunc(slices.Clone(next.Moves), func(m rib.Move) bool {
		return m.ID == x.Move || m.Keyspace == ks.ID && m.Meets(x.Low, x.High) && !slices.ContainsFunc(f.fences, func(other Fence) bool { return other.Move == m.ID })
	})
	if len(next.Moves) >= rib.MaxMoves {
		return fmt.Errorf("what shard %s says of move %d: %d moves are under way, and no more may be", x.Shard, x.Move, len(next.Moves))
	}
	handed := rib.Move{ID: x.Move, Keyspace: ks.ID, Low: x.Low, High: x.High, From: x.From, To: x.To, Phase: phase, Epoch: next.Epoch, Why: why}
	switch {
	case move != nil:
		handed.Note = move.Note
	case !flipped:
		handed.Note = []byte(somethingLeft)
	}
	next.Moves = append(next.Moves, handed)
	slices.SortFunc(next.Moves, func(a, b rib.Move) int { return cmp.Compare(a.ID, b.ID) })
	if flipped {
		f.r.Handed = append(f.r.Handed, fmt.Sprintf("range %s of keyspace %s belongs to %s: move %d had flipped, or was about to (%s on %s)", text, ks.Name, x.To, x.Move, source, x.Shard))
	} else {
		f.r.Handed = append(f.r.Handed, fmt.Sprintf("range %s of keyspace %s stays with %s: move %d to %s had not flipped, and is aborted", text, ks.Name, x.From, x.Move, x.To))
	}
	return nil
}

// firstSnapshot makes Raft's state of a node that has none: it was no voter.
func (f *recovering) firstSnapshot(stores *Stores, alone raft.Configuration, transport raft.Transport) error {
	const term = 1
	if err := stores.Stable.SetUint64([]byte("CurrentTerm"), term); err != nil {
		return err
	}
	sink, err := stores.Snapshots.Create(raft.SnapshotVersionMax, f.st.now.Epoch.Index, term, alone, 1, transport)
	if err != nil {
		return err
	}
	return (&fsmSnapshot{f.st}).Persist(sink)
}
