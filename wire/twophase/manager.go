package twophase

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/wire/pg"
)

// Config is what a Manager needs. Times of zero are the defaults.
type Config struct {
	Cluster string // the cluster's id
	Node    string // this node's name
	Sites   Sites
	Shards  func() []string         // whose leftovers this node looks for; others may look for the same
	Alive   func(node string) bool  // is that node heard of? nil: no other is
	Alone   func() bool             // is this the only process of this node, so that what another one has left can be ended at once? nil: it may not be
	Wanted  func() bool             // may clients write on several shards at all? If not, leftovers are looked for seldom. nil: yes
	Logger  *slog.Logger            // nil: slog.Default
	Uses    func() (names []string) // databases whose clients may write on several shards

	Others func(ctx context.Context) []Spanning // transactions that other nodes have open on several shards; nil: none

	Every  time.Duration // between two looks at the shards; 0: 5s
	Seldom time.Duration // the same where nothing is wanted and nothing was left; 0: 1m
	Grace  time.Duration // how long what another process has prepared is left alone; 0: 10s
	Busy   time.Duration // the same while its node is heard of; 0: 1m
	Fate   time.Duration // how long a client waits to hear whether a commit whose connection was lost has been done; 0: 10s
	Keep   time.Duration // how long decisions to roll back are kept, by the server's clock; a wrong one does no harm, for they stay as long as anybody could decide otherwise. 0: 24h
	Settle time.Duration // how long a decision is kept when its work is done, by whichever node, and how often old ones are looked for; 0: 1m
}

func (c *Config) defaults() {
	for _, d := range []struct {
		to *time.Duration
		is time.Duration
	}{{&c.Every, 5 * time.Second}, {&c.Seldom, time.Minute}, {&c.Grace, 10 * time.Second}, {&c.Busy, time.Minute}, {&c.Fate, 10 * time.Second}, {&c.Keep, 24 * time.Hour}, {&c.Settle, time.Minute}} {
		if *d.to == 0 {
			*d.to = d.is
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Alive == nil {
		c.Alive = func(string) bool { return false }
	}
	if c.Alone == nil {
		c.Alone = func() bool { return false }
	}
	if c.Wanted == nil {
		c.Wanted = func() bool { return true }
	}
}

// Manager commits this node's transactions over several shards, and ends what was left of anybody's.
type Manager struct {
	// constant
	cfg  Config
	boot string
	stop context.CancelFunc
	ctx  context.Context
	done sync.WaitGroup

	// atomic
	numbers atomic.Uint64
	counts  counts
	spans   spans

	// guarded by mu
	mu     sync.Mutex
	active map[string]*transaction   // by GID: under way, or to be ended in the background
	spent  map[place][]spent         // decisions whose work is done, the oldest first
	ready  map[place]bool            // where decisions can be kept
	looks  map[string]look           // by shard: what the last look has shown
	tidied time.Time                 // when old decisions were last looked for; zero: never
	listed map[place]map[string]bool // which were found then, maxForget of each place at most
}

// spent is a decision whose work is done. It is kept for a while: a server may fail and take with it what it has committed, if nobody has
// waited for its replica, and then what it had prepared is there again.
type spent struct {
	gid string
	at  time.Time
}

// maxSpent bounds how many of them are kept in mind for one place.
const maxSpent = 100_000

// place is one database on one shard.
type place struct{ shard, database string }

// maxActive bounds the transactions that are under way or could not be ended yet.
const maxActive = 10_000

// New returns a manager. It starts nothing.
func New(cfg Config) *Manager {
	cfg.defaults()
	ctx, stop := context.WithCancel(context.Background())
	return &Manager{
		cfg: cfg, boot: rand.Text()[:13], ctx: ctx, stop: stop,
		active: make(map[string]*transaction), spent: make(map[place][]spent), ready: make(map[place]bool), listed: make(map[place]map[string]bool), looks: make(map[string]look),
	}
}

// tick is how often what this node has left is tried again.
const tick = time.Second

// Open starts the goroutine that ends what was left.
func (m *Manager) Open() {
	m.done.Go(func() {
		for pause(m.ctx, detectEvery) {
			m.Detect(m.ctx)
		}
	})
	m.done.Go(func() {
		t := time.NewTicker(tick)
		defer t.Stop()
		var next time.Time
		for {
			m.Mend(m.ctx)
			if now := time.Now(); !now.Before(next) {
				left := m.Look(m.ctx)
				next = now.Add(m.cfg.Every)
				if !left && !m.cfg.Wanted() {
					next = now.Add(m.cfg.Seldom)
				}
			}
			select {
			case <-m.ctx.Done():
				return
			case <-t.C:
			}
		}
	})
}

// Close stops it. What is left then is ended by other nodes, or by the next process.
func (m *Manager) Close() {
	m.stop()
	m.done.Wait()
}

// State says how far a transaction has come.
type State string

// The states of a transaction.
const (
	Preparing State = "preparing"
	Deciding  State = "deciding"
	Decided   State = "decided"      // to commit
	Refused   State = "rolling back" // decided to roll back, or never brought to a decision
	InDoubt   State = "in doubt"     // nobody here knows how it was decided
)

// transaction is one of this process's.
type transaction struct {
	// constant
	gid      GID
	name     string // gid's
	database string
	shards   []string // the decision shard first
	began    time.Time

	// guarded by Manager.mu
	state   State
	open    []string // shards, but the decision shard, on which its part may still be prepared
	left    bool     // nobody commits it any more: the background ends it
	problem string   // why that has not worked so far
}

// begin makes a transaction of writers, the first of which decides.
func (m *Manager) begin(database string, writers []Participant) (*transaction, error) {
	tx := &transaction{database: database, began: time.Now(), state: Preparing}
	for _, p := range writers {
		if !plain(p.Shard()) {
			return nil, pg.Errorf(pg.CodeFeatureNotSupported, "shard %s cannot take part in a transaction over several shards: its name is too long, or has other than letters, digits, '-', '_' and '.'", p.Shard())
		}
		tx.shards = append(tx.shards, p.Shard())
	}
	tx.open = slices.Clone(tx.shards[1:])
	tx.gid = GID{Cluster: clusterPart(m.cfg.Cluster), Node: m.cfg.Node, Boot: m.boot, Number: m.numbers.Add(1), Decision: tx.shards[0]}
	tx.name = tx.gid.String()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.active) >= maxActive {
		return nil, pg.Errorf(pg.CodeInsufficientResources, "too many transactions over several shards have not come to an end: %d", len(m.active)).
			WithHint("SHOW TWO_PHASE in the console says which, and why.")
	}
	m.active[tx.name] = tx
	return tx, nil
}

func (m *Manager) to(tx *transaction, s State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	tx.state = s
}

// leave hands a transaction over to the background, if there is anything left of it to be done. shut are the shards where nothing is.
func (m *Manager) leave(tx *transaction, shut []string, problem error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shut(tx, shut)
	if tx.left = m.active[tx.name] != nil; tx.left && problem != nil {
		tx.problem = problem.Error()
	}
}

// shut notes that nothing is prepared on some shards any more; with the last, the transaction is over. mu is held.
func (m *Manager) shut(tx *transaction, shards []string) {
	tx.open = slices.DeleteFunc(tx.open, func(s string) bool { return slices.Contains(shards, s) })
	if len(tx.open) > 0 || tx.state == InDoubt {
		return
	}
	delete(m.active, tx.name)
	if tx.state == Decided {
		at := place{tx.shards[0], tx.database}
		if list := m.spent[at]; len(list) < maxSpent { // else it is removed as what others have left is
			m.spent[at] = append(list, spent{tx.name, time.Now()})
		}
	}
}

// ensure makes sure that a shard can keep the decisions of a database.
func (m *Manager) ensure(ctx context.Context, at place) error {
	m.mu.Lock()
	ready := m.ready[at]
	m.mu.Unlock()
	if ready {
		return nil
	}
	err := m.at(ctx, at, func(s Site) error { return s.Ready(ctx) })
	if err != nil {
		var pe *pg.Error
		if errors.As(err, &pe) {
			return pe
		}
		return pg.Errorf(pg.CodeCannotEstablishConnection, "cannot prepare for a transaction over several shards: %v", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready[at] = true
	return nil
}

// unready has the next transaction look again whether decisions can be kept there.
func (m *Manager) unready(at place) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.ready, at)
}

// at connects to a place for as long as f takes.
func (m *Manager) at(ctx context.Context, p place, f func(Site) error) error {
	s, err := m.cfg.Sites.Open(ctx, p.shard, p.database)
	if err != nil {
		return err
	}
	defer s.Close()
	return f(s)
}

// Transaction is one that has not come to its end, as this node knows it.
type Transaction struct {
	GID       string
	Node      string // which has begun it
	Database  string
	Shards    []string // that take part, as far as known; the one that decides first
	Open      []string // those on which its part may still be prepared
	Decision  string   // the shard that decides
	State     State
	Age       time.Duration
	Left      bool   // nobody commits it any more; it is being ended in the background
	Problem   string // why it could not be ended so far; ""
	Elsewhere bool   // found on a shard, and not of this process
}

// Transactions lists what is under way on this node, and what it has last found on the shards that it looks after, the oldest first.
func (m *Manager) Transactions() []Transaction {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Transaction, 0, len(m.active))
	for _, tx := range m.active {
		list = append(list, Transaction{
			GID: tx.name, Node: m.cfg.Node, Database: tx.database, Shards: slices.Clone(tx.shards), Open: slices.Clone(tx.open), Decision: tx.shards[0],
			State: tx.state, Age: time.Since(tx.began), Left: tx.left, Problem: tx.problem,
		})
	}
	list = append(list, m.others()...)
	slices.SortFunc(list, func(a, b Transaction) int { return cmp.Or(cmp.Compare(b.Age, a.Age), cmp.Compare(a.GID, b.GID)) })
	return list
}
