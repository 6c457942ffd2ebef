package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"rangefinder/rib"
)

// Config is what a ledger needs.
type Config struct {
	Node   string      // this node's name, the same after every restart
	Region string      // the region it stands in
	Addr   string      // its cluster port as others dial it, host:port
	Dir    string      // the ledger's own directory; made if missing
	Stream StreamLayer // what Raft speaks over; the ledger closes it
	Owners *rib.Owners // where the table goes

	Logger   *slog.Logger
	Timeouts Timeouts
	Voters   int                               // how many nodes hold the log; default 3, or 5 once members stand in five regions
	Replace  time.Duration                     // a voter that is gone for so long gives its place to another node, and see Reconcile; default 5 min
	OnApply  func(rib.Epoch)                   // called after each newer table, in order; must not block; may be nil
	Stores   func(dir string) (*Stores, error) // nil: DurableStores
	// CheckShard says why a shard cannot be given a range now, nil if it can. The leader asks before it proposes to give it one, since what
	// is applied may not depend on how servers are. nil: all can.
	CheckShard func(shard string) error
}

// Timeouts are for round trips between regions of up to about 300 ms. Zero means the default.
type Timeouts struct {
	Heartbeat time.Duration // a follower that hears nothing for so long (up to twice) asks for votes; default 1.5 s; see SetRTT
	Election  time.Duration // a candidate without an answer starts anew; default 1.5 s
	Lease     time.Duration // a leader that reaches no majority for so long steps down; default 1 s
	Commit    time.Duration // at most so long until followers learn that an entry is committed; default 100 ms
	RPC       time.Duration // one exchange between voters, opening the stream included; default 5 s
	Command   time.Duration // a command whose caller set no limit of its own; default 10 s
}

func (t Timeouts) withDefaults() Timeouts {
	set := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&t.Heartbeat, 1500*time.Millisecond)
	set(&t.Election, t.Heartbeat)
	set(&t.Lease, min(time.Second, t.Heartbeat))
	set(&t.Commit, 100*time.Millisecond)
	set(&t.RPC, 5*time.Second)
	set(&t.Command, 10*time.Second)
	return t
}

// Stores is where Raft keeps its log, its vote and its snapshots.
type Stores struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	Close     func() error
}

// DurableStores opens the stores on disk: one bbolt file and a directory of snapshots.
func DurableStores(dir string, log *slog.Logger) (*Stores, error) {
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, "raft.db"), BoltOptions: &bbolt.Options{Timeout: 2 * time.Second}})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", filepath.Join(dir, "raft.db"), err)
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, newRaftLogger(log))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the snapshots in %s: %w", dir, err), bolt.Close())
	}
	return &Stores{Log: bolt, Stable: bolt, Snapshots: snapshots, Close: bolt.Close}, nil
}

// Ledger is one node's part of the agreement on who owns which range. Its methods are safe for concurrent use.
type Ledger struct {
	// constant
	cfg     Config
	log     *slog.Logger
	fsm     *fsm
	raftLog *raftLogger
	opened  chan struct{} // closed by Open
	done    chan struct{} // closed by Close
	ready   chan struct{} // closed once a table with a cluster id is published
	saves   chan struct{} // capacity 1: there is a newer table to keep
	drafts  chan struct{} // capacity 1: the state machine has a newer draft
	wg      sync.WaitGroup
	leading sync.WaitGroup // what waits for Raft while this node leads

	// set by Open, constant then
	raft      *raft.Raft
	transport *raft.NetworkTransport
	streams   *ownedStreams
	stores    *Stores

	leases Leases // has a guard of its own

	// atomic
	clusterID atomic.Pointer[string]    // that this node belongs to; nil: none yet
	kept      atomic.Pointer[rib.Epoch] // of the table on disk; nil: there is none
	whole     atomic.Bool               // the next pull is to bring a whole table, for commands alone have led nowhere
	diverged  atomic.Pointer[string]    // of another node's table and this one's; nil: all that were met agree
	stats     ledgerCounters

	// guarded by the mutex above each
	ending         sync.Once  // closes done
	lifeMu         sync.Mutex // Open, Close, Bootstrap, Admit: one at a time
	isOpen, closed bool

	publishMu sync.Mutex // orders Owners.Set and OnApply
	isReady   bool
	reached   chan struct{} // closed with the next newer table

	encodedMu    sync.Mutex // the last encoding made, for many followers and the disk
	encodedTable *rib.Ownership
	encoded      []byte

	saveMu sync.Mutex // one writer of the files
	saved  rib.Epoch  // of the table on disk
	making bool       // as on disk, see membership

	followMu  sync.Mutex
	following *draft // of the table that was made of commands last, for the next ones

	membersMu   sync.Mutex
	members     map[string]rib.Member // as last told to Reconcile, by name; kept when a member goes
	votersSaved map[string]rib.Member // of them, the voters as they are on disk
	hintLeader  string                // by the last pull
	hintAddr    string
	hintVoters  []Voter
	votersTold  time.Time // when a voter last told who they are

	reconcileMu sync.Mutex           // held for the length of a Reconcile
	missing     map[string]time.Time // since when this node, as the leader, misses a voter
	present     map[string]time.Time // since when it has seen a member without a break
	rtt         time.Duration        // that Raft's timeouts are made for; 0: none was told
	rttOfAll    bool                 // it is the longest of all voters
}

type ledgerCounters struct {
	pullsServed, pullsRefused, pullsApplied, pullsDelta, pullsCurrent, pullsDiverged, strangers, saveErrors atomic.Uint64
}

// New makes a ledger. It touches neither disk nor network.
func New(cfg Config) (*Ledger, error) {
	switch {
	case cfg.Node == "":
		return nil, errors.New("cluster: Config.Node is empty")
	case cfg.Addr == "":
		return nil, errors.New("cluster: Config.Addr is empty")
	case cfg.Dir == "":
		return nil, errors.New("cluster: Config.Dir is empty")
	case cfg.Stream == nil:
		return nil, errors.New("cluster: Config.Stream is nil")
	case cfg.Owners == nil:
		return nil, errors.New("cluster: Config.Owners is nil")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Timeouts = cfg.Timeouts.withDefaults()
	if cfg.Replace <= 0 {
		cfg.Replace = 5 * time.Minute
	}
	if cfg.Stores == nil {
		cfg.Stores = func(dir string) (*Stores, error) { return DurableStores(dir, cfg.Logger) }
	}
	l := &Ledger{
		cfg: cfg, log: cfg.Logger, raftLog: newRaftLogger(cfg.Logger),
		opened: make(chan struct{}), done: make(chan struct{}), ready: make(chan struct{}), saves: make(chan struct{}, 1), drafts: make(chan struct{}, 1), reached: make(chan struct{}),
		members: make(map[string]rib.Member), missing: make(map[string]time.Time), present: make(map[string]time.Time),
	}
	l.fsm = newFSM(cfg.Logger, func() { wake(l.drafts) })
	l.leases = Leases{l: l, holders: make(map[process]*holder)}
	return l, nil
}

// Open reads what is on disk into Config.Owners and starts Raft. When it returns, the node serves what it last knew.
func (l *Ledger) Open() error {
	l.lifeMu.Lock()
	defer l.lifeMu.Unlock()
	if l.isOpen || l.closed {
		return errors.New("cluster: Open was called before")
	}
	if err := os.MkdirAll(l.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("make the ledger's directory: %w", err)
	}
	if err := l.restore(); err != nil {
		return err
	}
	if err := forgetLeft(l.cfg.Dir, l.log); err != nil {
		return err
	}
	stores, err := l.cfg.Stores(l.cfg.Dir)
	if err != nil {
		return err
	}
	l.streams = newOwnedStreams(l.cfg.Stream, l)
	l.transport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: l.streams, MaxPool: 3, Timeout: l.cfg.Timeouts.RPC, Logger: l.raftLog,
		ServerAddressProvider: addresses{l},
		// One at a time, that is without pipelines: commands are rare, and a pipeline whose reader has ended (a newer term came while it was full)
		// blocks its writer for good, and with it Raft's shutdown.
		MaxRPCsInFlight: 1,
	})
	r, err := raft.NewRaft(l.raftConfig(), l.fsm, stores.Log, stores.Stable, stores.Snapshots, l.transport)
	if err != nil {
		err = fmt.Errorf("start Raft: %w", err)
		err = errors.Join(err, l.transport.Close())
		l.streams.closeAll()
		return errors.Join(err, stores.Close())
	}
	l.raft, l.stores = r, stores
	l.isOpen = true
	if l.making && l.saved == (rib.Epoch{}) {
		// An earlier Bootstrap got this far and no further. It fails if Raft has state, which is as good.
		if err := l.bootstrapRaft(); err != nil && !errors.Is(err, ErrHasState) {
			l.log.Error("cannot go on making the cluster", slog.Any("error", err))
		}
	}
	close(l.opened)
	l.wg.Go(l.save)
	l.wg.Go(l.publishDrafts)
	l.leading.Go(l.watchLeadership)
	return nil
}

// restore publishes the table kept on disk.
func (l *Ledger) restore() error {
	m, err := readMembership(l.cfg.Dir)
	if err != nil {
		return err
	}
	id := m.ClusterID
	l.making = m.Making
	o, err := readTable(l.cfg.Dir)
	if err != nil {
		// Raft or a peer will bring it back; without either, serving nothing is right.
		l.log.Error("the ownership table kept on disk cannot be read; going on without it", slog.Any("error", err))
		o = nil
	}
	if id != "" {
		l.clusterID.Store(&id)
	}
	if l.votersSaved, err = readVoters(l.cfg.Dir); err != nil {
		l.log.Warn("the voters' addresses kept on disk cannot be read; using those of Raft's configuration", slog.Any("error", err))
	}
	maps.Copy(l.members, l.votersSaved)
	if o == nil || o.ClusterID == "" {
		return nil
	}
	if id != "" && id != o.ClusterID {
		return fmt.Errorf("%s: %w: %s says %s, and the table kept there is of %s; restore the right files, or empty the directory to join anew",
			l.cfg.Dir, ErrOtherCluster, clusterFile, id, o.ClusterID)
	}
	if id == "" {
		if err := writeMembership(l.cfg.Dir, membership{ClusterID: o.ClusterID}); err != nil {
			return err
		}
		l.clusterID.Store(&o.ClusterID)
	}
	l.saved = o.Epoch
	l.kept.Store(&o.Epoch)
	l.publish(o)
	return nil
}

func (l *Ledger) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(l.cfg.Node)
	c.Logger = l.raftLog
	c.HeartbeatTimeout = l.cfg.Timeouts.Heartbeat
	c.ElectionTimeout = l.cfg.Timeouts.Election
	c.LeaderLeaseTimeout = l.cfg.Timeouts.Lease
	c.CommitTimeout = l.cfg.Timeouts.Commit
	c.NoLegacyTelemetry = true
	// Commands are rare and a table is compact: keep few logs, so that a start replays little.
	c.SnapshotThreshold = 1024
	c.TrailingLogs = 1024
	return c
}

// Close stops Raft and waits until everything has stopped. The table stays in Config.Owners.
func (l *Ledger) Close() error {
	l.ending.Do(func() { close(l.done) }) // first: it ends a Bootstrap that waits
	l.lifeMu.Lock()
	defer l.lifeMu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.raftLog.said.silent.Store(true)
	if !l.isOpen {
		return l.cfg.Stream.Close()
	}
	l.leases.close()
	l.leading.Wait() // before: Raft forgets to answer what it has committed and not applied when it is shut down, and whoever waits for that waits for ever
	err := l.raft.Shutdown().Error()
	err = errors.Join(err, l.transport.Close())
	l.streams.closeAll()
	l.wg.Wait()
	return errors.Join(err, l.saveNow(), l.saveVoters(), l.stores.Close())
}

// publish hands a table to the RIB if it is newer than what is there, and reports whether it was.
func (l *Ledger) publish(o *rib.Ownership) bool {
	l.publishMu.Lock()
	defer l.publishMu.Unlock()
	if o.ClusterID == "" {
		return false
	}
	if id := l.ClusterID(); id != "" && id != o.ClusterID {
		l.log.Error("refused an ownership table of another cluster", slog.String("ours", id), slog.String("theirs", o.ClusterID))
		return false
	}
	before := l.Epoch().Generation
	if !l.cfg.Owners.Set(o) {
		return false
	}
	if before != 0 && before < o.Epoch.Generation {
		l.noteLeft(o)
	}
	if !l.isReady {
		l.isReady = true
		close(l.ready)
	}
	if l.cfg.OnApply != nil {
		l.cfg.OnApply(o.Epoch)
	}
	close(l.reached)
	l.reached = make(chan struct{})
	wake(l.saves)
	return true
}

// wake tells whoever receives from c, of capacity 1, that there is something new.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is pending, and it will see what is new
	}
}

// publishDrafts makes tables of the state machine's drafts: of a million ranges that takes longer than a command may.
func (l *Ledger) publishDrafts() {
	for {
		select {
		case <-l.done:
			return
		case <-l.drafts:
			l.publish(l.fsm.current.Load().table())
		}
	}
}

// served waits until this node serves a table of an epoch, or a newer one.
func (l *Ledger) served(ctx context.Context, e rib.Epoch) error {
	for {
		l.publishMu.Lock()
		reached := l.reached
		l.publishMu.Unlock()
		if l.Epoch().Compare(e) >= 0 {
			return nil
		}
		select {
		case <-reached:
		case <-l.done:
			return ErrNotOpen
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// save keeps the newest table on disk. A voter's table is in its Raft log too, but only a majority can tell how much of the
// log counts: this file is what a node serves that starts alone.
func (l *Ledger) save() {
	var again <-chan time.Time
	for {
		select {
		case <-l.done:
			return
		case <-l.saves:
		case <-again:
		}
		again = nil
		if err := errors.Join(l.saveNow(), l.saveVoters()); err != nil {
			l.stats.saveErrors.Add(1)
			l.log.Error("cannot keep the ownership table on disk; trying again", slog.Any("error", err), slog.Duration("in", saveAgain))
			again = time.After(saveAgain)
		}
	}
}

// saveAgain is when a table that could not be kept on disk is written again: others may wait for that, see Leases.Acknowledged.
const saveAgain = 2 * time.Second

// saveNow writes the newest table unless it is on disk already.
func (l *Ledger) saveNow() error {
	l.saveMu.Lock()
	defer l.saveMu.Unlock()
	o := l.cfg.Owners.Get()
	if o.ClusterID == "" || o.Epoch.Compare(l.saved) <= 0 {
		return nil
	}
	if l.ClusterID() == "" || l.making { // Raft brought it in before anybody said hello, or the cluster is made
		if err := writeMembership(l.cfg.Dir, membership{ClusterID: o.ClusterID}); err != nil {
			return err
		}
		l.clusterID.CompareAndSwap(nil, &o.ClusterID)
		l.making = false
	}
	b, err := l.encodedFor(o)
	if err != nil {
		return err
	}
	if err := writeTable(l.cfg.Dir, b); err != nil {
		return err
	}
	l.saved = o.Epoch
	l.kept.Store(&o.Epoch)
	return nil
}

// encodedFor returns o's encoding, made once for the newest table.
func (l *Ledger) encodedFor(o *rib.Ownership) ([]byte, error) {
	l.encodedMu.Lock()
	defer l.encodedMu.Unlock()
	if l.encodedTable == o {
		return l.encoded, nil
	}
	b, err := EncodeOwnership(make([]byte, 0, 2*len(l.encoded)), o)
	if err != nil {
		return nil, err
	}
	l.encodedTable, l.encoded = o, b
	return b, nil
}

// Epoch returns the epoch of the table this node serves; zero: it has none.
func (l *Ledger) Epoch() rib.Epoch { return l.cfg.Owners.Get().Epoch }
