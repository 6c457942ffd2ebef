package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"rangefinder/rib"
)

// The bounds of what the cluster, or a liar in it, can make this node hold.
const (
	maxMembers  = 4096
	maxBackends = 4096
	maxRecords  = 65536 // observations and announcements
	maxKnown    = 16384 // names that hashes resolve to
	maxPending  = 4096  // observations whose names are not known yet
)

const (
	eagerPeers   = 4
	leaveTimeout = 2 * time.Second
)

// Config is what a Speaker needs. Self, ClusterID, Transport and Health must be set.
type Config struct {
	Self      rib.Member // Addr is for Members alone: memberlist advertises the transport's
	ClusterID string     // memberlist's label, and checked in every node's metadata; up to 255 bytes
	Key       []byte     // 32 bytes that encrypt all packets and streams; nil: no encryption
	OldKeys   [][]byte   // of 32 bytes; what others have encrypted by one of them is read too, for as long as the key is changed
	Transport memberlist.NodeAwareTransport
	Health    *rib.Health
	Logger    *slog.Logger    // nil: slog.Default
	Seeds     func() []string // host:port to try when nodes are out of reach; may be nil

	// Lookup finds the addresses of a host name among Seeds, or of Join; nil: net.DefaultResolver.
	Lookup func(ctx context.Context, host string) ([]net.IPAddr, error)

	// Resume is what an earlier speaker of this node has said; this one goes on from there, under its incarnation: Health must have
	// been made with that one too. nil: this one begins.
	Resume *Word

	// Policy is how far behind this node's operator lets a replica be that serves reads: what crosses a bound is told at once. It may be
	// another one after each call. nil: there are no bounds.
	Policy func() *rib.Policy

	// OnEpoch is called when the cluster has a newer ownership epoch than SetEpoch was last given; from is a node that
	// holds it. Calls come one at a time from a goroutine that may be kept, and again as long as the epoch is not reached.
	// May be nil.
	OnEpoch func(from rib.Member, e rib.Epoch)

	// OnSchema is called when another node has told that a database's schema has changed. It must not block. May be nil.
	OnSchema func()

	// OnRecheck is called when some node (this one too) thinks that a backend has another role than its observers have told: who observes
	// it looks at it. It must not block. May be nil.
	OnRecheck func(backend string)

	// SetIncarnation must store this node's incarnation durably before it returns: this node heard a higher one of itself
	// and speaks under the new one from now on. May be nil.
	SetIncarnation func(uint32)
}

// Speaker is this node's voice and ear in the cluster. All methods may be called from any goroutine, between Open and
// Close; what this node has to say may be said before Open too.
type Speaker struct {
	// constant
	cfg     Config
	begun   time.Time
	self    id
	cluster id
	meta    []byte
	reads   byte // newest level that this node reads; less than level in tests alone
	log     *slog.Logger
	queue   *memberlist.TransmitLimitedQueue
	inbox   *inbox
	done    chan struct{} // closed by Close
	syncs   chan mismatch // capacity 1: a node whose sums differ
	epochs  chan struct{} // capacity 1: there are news
	streams chan struct{} // a token for each stream we send on
	wg      sync.WaitGroup

	// owned by rejoin
	named time.Time // when a seed that is a host name was tried last

	// atomic
	list          atomic.Pointer[memberlist.Memberlist] // set once by Open
	sums          atomic.Pointer[ack]
	sumsStale     atomic.Bool
	lastChange    atomic.Int64  // by clock
	agreed        atomic.Int64  // by clock: when another node was last found to hold the same; 0: never yet
	live          atomic.Int64  // len(peers)
	letIn         atomic.Int64  // the same for memberlist, which is never behind
	written       atomic.Uint32 // level that all live nodes read
	names         atomic.Pointer[map[string]struct{}]
	conflictUntil atomic.Int64 // by clock: until then our address may be refused
	count         counters

	// owned by hear
	pulls     int       // in the message at work
	pullAgain time.Time // before that none is answered

	// guarded by pushMu
	pushMu sync.Mutex
	pushes bucket // flips that may be pushed

	// guarded by mu; memberlist is never called under it
	mu       sync.Mutex
	opened   bool
	closed   bool
	peers    map[string]*peer    // live nodes but this one
	order    []string            // names in peers, sorted
	regions  map[string][]string // the same by region
	lost     map[string]lostPeer
	known    map[id]string // nodes, backends and regions
	backends map[string]struct{}
	records  map[recordKey]struct{}
	pending  map[recordKey]pending
	boots    map[string]uint32  // the highest incarnation heard of nodes with more than manyBoots
	lately   map[recordKey]late // observations since the last tick: each comes some twenty times
	heard    epochNews          // the newest epoch that anyone has claimed: it is told on once
	claimed  time.Time          // when
	news     epochNews          // the last one heard that was newer than this node's own
	epoch    rib.Epoch          // this node's own
	matrix   map[id]row
	own      own

	asked, heardAsks asks // of Recheck

	schemas    []uint64 // news of schemas that came lately, up to maxSchemas
	schemaNext int      // where the next one goes then
}

type recordKey struct {
	kind              byte
	backend, observer id
}

// late is an observation that was heard lately.
type late struct {
	stamp rib.Stamp
	echo  bool // a flip that is to be echoed when it is heard again
}

type pending struct {
	observation
	since time.Time
}

// ErrConfig is wrapped by New's and Open's errors about the configuration.
var ErrConfig = errors.New("gossip: configuration")

// ErrClosed is returned after Close.
var ErrClosed = errors.New("gossip: speaker is closed")

// New makes a Speaker and starts nothing.
func New(cfg Config) *Speaker {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Lookup == nil {
		cfg.Lookup = net.DefaultResolver.LookupIPAddr
	}
	if cfg.Policy == nil {
		none := new(rib.Policy)
		cfg.Policy = func() *rib.Policy { return none }
	}
	s := &Speaker{
		cfg:       cfg,
		begun:     time.Now(),
		self:      idOf(cfg.Self.Name),
		cluster:   idOf(cfg.ClusterID),
		log:       cfg.Logger.With("part", "gossip"),
		inbox:     newInbox(),
		done:      make(chan struct{}),
		syncs:     make(chan mismatch, 1),
		epochs:    make(chan struct{}, 1),
		streams:   make(chan struct{}, maxStreams),
		peers:     make(map[string]*peer),
		regions:   make(map[string][]string),
		lost:      make(map[string]lostPeer),
		known:     make(map[id]string),
		asked:     asks{},
		heardAsks: asks{},
		backends:  make(map[string]struct{}),
		records:   make(map[recordKey]struct{}),
		pending:   make(map[recordKey]pending),
		lately:    make(map[recordKey]late),
		boots:     make(map[string]uint32),
		matrix:    make(map[id]row),
		own: own{
			incarnation:   cfg.Self.Incarnation,
			routes:        make(map[string]told),
			announcements: make(map[string]rib.Announcement),
			rtt:           make(map[string]*smoothed),
		},
	}
	if cfg.Resume != nil {
		s.resume(cfg.Resume)
	}
	s.speak(level)
	s.queue = &memberlist.TransmitLimitedQueue{
		RetransmitMult: 6,
		NumNodes:       func() int { return int(s.live.Load()) + 1 },
	}
	s.known[s.self] = cfg.Self.Name
	s.known[idOf(cfg.Self.Region)] = cfg.Self.Region
	s.names.Store(&map[string]struct{}{})
	s.sumsStale.Store(true)
	return s
}

// speak says which level this node reads. It is for New, and for tests before Open.
func (s *Speaker) speak(reads byte) {
	s.reads = reads
	s.written.Store(uint32(reads))
	s.meta = appendMeta(nil, &s.cfg.Self, s.cluster, reads)
}

// writes is the version in which observations are written.
func (s *Speaker) writes() byte { return byte(min(s.written.Load(), observationVersion)) }

// Open joins nobody yet, but others can join this node from now on.
func (s *Speaker) Open() error {
	cfg, err := s.memberlistConfig()
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.opened || s.closed {
		s.mu.Unlock()
		return fmt.Errorf("gossip: Open: %w", ErrClosed)
	}
	s.opened = true
	s.mu.Unlock()
	s.recall()
	door := &doorway{s.cfg.Transport, make(chan struct{})}
	cfg.Transport = door
	list, err := memberlist.Create(cfg)
	close(door.open)
	if err != nil {
		return fmt.Errorf("gossip: starting memberlist: %w", err)
	}
	s.list.Store(list)
	for _, f := range []func(){s.hear, s.follow, s.reconcile, s.measure, s.rejoin} {
		s.wg.Go(f)
	}
	if w := s.cfg.Resume; w != nil && len(w.Members) > 0 {
		s.wg.Go(func() { s.missing(w.Members) })
	}
	return nil
}

// recall learns the names of what the table holds already, from before a restart: peers speak of it by hashes.
func (s *Speaker) recall() {
	s.recount()
	s.mu.Lock()
	defer s.mu.Unlock()
	announcements, _ := s.cfg.Health.Newer(nil)
	for i := range announcements {
		s.learn(announcements[i].Backend.Name)
		s.learn(announcements[i].Observer)
	}
}

func (s *Speaker) memberlistConfig() (*memberlist.Config, error) {
	self := &s.cfg.Self
	switch {
	case !validName(self.Name):
		return nil, fmt.Errorf("%w: node name %q: want 1 to %d bytes of printable UTF-8", ErrConfig, self.Name, maxName)
	case !validName(self.Region):
		return nil, fmt.Errorf("%w: region %q: want 1 to %d bytes of printable UTF-8", ErrConfig, self.Region, maxName)
	case self.Incarnation > maxIncarnation:
		return nil, fmt.Errorf("%w: incarnation %d is over %d", ErrConfig, self.Incarnation, maxIncarnation)
	case s.cfg.ClusterID == "" || len(s.cfg.ClusterID) > memberlist.LabelMaxSize:
		return nil, fmt.Errorf("%w: cluster id: want 1 to %d bytes, got %d", ErrConfig, memberlist.LabelMaxSize, len(s.cfg.ClusterID))
	case s.cfg.Key != nil && len(s.cfg.Key) != 32:
		return nil, fmt.Errorf("%w: cluster key: want 32 bytes, got %d", ErrConfig, len(s.cfg.Key))
	case slices.ContainsFunc(s.cfg.OldKeys, func(k []byte) bool { return len(k) != 32 || s.cfg.Key == nil }):
		return nil, fmt.Errorf("%w: other cluster keys: want 32 bytes each, and a key beside them", ErrConfig)
	case s.cfg.Transport == nil || s.cfg.Health == nil:
		return nil, fmt.Errorf("%w: Transport and Health must be set", ErrConfig)
	case len(s.meta) > memberlist.MetaMaxSize:
		return nil, fmt.Errorf("%w: name and region take %d bytes of metadata, at most %d fit", ErrConfig, len(s.meta), memberlist.MetaMaxSize)
	}
	d := delegate{s}
	cfg := memberlist.DefaultLANConfig() // between regions too: WAN's takes a minute to see a crash
	cfg.Name = self.Name
	cfg.Label = s.cfg.ClusterID
	cfg.SecretKey = s.cfg.Key
	if len(s.cfg.OldKeys) > 0 {
		ring, err := memberlist.NewKeyring(s.cfg.OldKeys, s.cfg.Key)
		if err != nil {
			return nil, fmt.Errorf("%w: cluster keys: %w", ErrConfig, err)
		}
		cfg.Keyring = ring
	}
	cfg.ProtocolVersion = 5
	cfg.DelegateProtocolMin, cfg.DelegateProtocolMax, cfg.DelegateProtocolVersion = 1, 1, 1
	// At 25 % loss half of all pings fail. With LAN's three helpers, every other second some live node among fifty was suspected and
	// not everybody heard that it lives: 12 were taken for dead in five minutes, with these none.
	cfg.IndirectChecks = 8
	cfg.RetransmitMult = 6
	cfg.GossipInterval = 100 * time.Millisecond
	cfg.GossipNodes = 4
	cfg.GossipToTheDeadTime = 30 * time.Second
	cfg.DeadNodeReclaimTime = time.Second
	cfg.TCPTimeout = 5 * time.Second // Close may have to wait for one
	cfg.EnableCompression = false
	cfg.UDPBufferSize = 1400
	cfg.Delegate, cfg.Events, cfg.Alive, cfg.Merge, cfg.Ping, cfg.Conflict = d, d, d, d, d, d
	cfg.Logger = log.New(&logWriter{log: s.log, refused: &s.count.refused}, "", 0)
	return cfg, nil
}

// Close says goodbye, so that this node's word stops counting at once, within two seconds; then it stops everything.
func (s *Speaker) Close() error { return s.close(true) }

// Kill stops without a goodbye, as a crash would. For tests.
func (s *Speaker) Kill() error { return s.close(false) }

func (s *Speaker) close(leave bool) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	var err error
	if list := s.list.Load(); list != nil {
		if leave {
			s.mu.Lock()
			bye := s.tell("goodbye", appendGoodbye(nil, goodbye{s.cfg.Self.Name, s.own.incarnation}), true)
			s.mu.Unlock()
			s.flush(bye)
			// Nobody may be left to hear it, as when a whole cluster is stopped at once. The others, if any, find out by themselves.
			if e := list.Leave(leaveTimeout); e != nil {
				s.log.Info("nobody confirms that this node leaves", "error", e)
			}
		}
		if e := list.Shutdown(); e != nil {
			err = fmt.Errorf("gossip: stopping memberlist: %w", e)
		}
	}
	s.inbox.close()
	close(s.done)
	s.wg.Wait()
	return err
}

// Join contacts nodes by host:port and returns how many answered; the error says why not, if none did.
func (s *Speaker) Join(addrs []string) (int, error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	list := s.list.Load()
	if closed || list == nil {
		return 0, fmt.Errorf("gossip: Join: %w", ErrClosed)
	}
	var errs []error
	joined := 0
	for _, addr := range addrs {
		resolved, err := s.resolve(addr)
		if err == nil {
			var n int
			n, err = list.Join(resolved)
			joined += n
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", addr, err))
		}
	}
	if joined > 0 {
		return joined, nil
	}
	return 0, fmt.Errorf("gossip: nobody to join: %w", errors.Join(errs...))
}

// clock is the time since this speaker was made, in nanoseconds: nobody sets it, as the machine's clock may be set.
func (s *Speaker) clock() time.Duration { return time.Since(s.begun) }

// changed notes that what this node holds is another thing now.
func (s *Speaker) changed() {
	s.lastChange.Store(int64(s.clock()))
	s.sumsStale.Store(true)
}
