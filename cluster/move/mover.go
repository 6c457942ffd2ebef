package move

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"rangefinder/rib"
)

// Ledger is what the mover needs of the ledger. Its methods work on the leader alone, and return when the command has been applied here.
type Ledger interface {
	// AdvanceMove brings a move from one phase to the next. With MoveFlipped the range has its new owner.
	AdvanceMove(ctx context.Context, id uint64, from, to rib.MovePhase, note []byte) error
	// ThawMove brings a move that is frozen back to where it was before.
	ThawMove(ctx context.Context, id uint64, reason string, note []byte) error
	// NoteMove keeps what the next leader needs.
	NoteMove(ctx context.Context, id uint64, note []byte) error
	// AbortMove leaves the range where it is. It works before the flip alone.
	AbortMove(ctx context.Context, id uint64, reason string) error
	// FinishMove takes the move out of the table, when nothing of it is left on any server.
	FinishMove(ctx context.Context, id uint64) error
}

// Leases is what the leader knows of the other nodes.
type Leases interface {
	// Undrained lists what is waited for until no node sends statements to the range any more: each with a live lease has said so since the move's
	// last change of phase, and the lease of every other one is over.
	Undrained(move uint64) []string
	// Unaware lists what is waited for until no node with a lease has anything at work that was routed without knowledge of the move.
	Unaware(move uint64) []string
	// Acknowledged lists the nodes, of all that were ever admitted, that have not said that they know an epoch.
	Acknowledged(e rib.Epoch) (missing []string)
}

// Config is what a Mover needs. Times of zero are the defaults.
type Config struct {
	Ledger  Ledger
	Leases  Leases
	Servers Servers
	Owners  func() *rib.Ownership         // what this node knows of the table
	Leads   func() (term uint64, ok bool) // does this node lead, with all in its table that was committed before, and in which term
	Logger  *slog.Logger                  // nil: slog.Default

	Every      time.Duration // between two looks at the table; 0: 200ms
	Poll       time.Duration // between two looks at what is waited for in a freeze; 0: 5ms
	Retry      time.Duration // after a failure; 0: 1s
	Round      time.Duration // between two looks at how far the target is behind; 0: 500ms
	MaxLag     time.Duration // behind which nothing is frozen; 0: 1s
	MaxChanged int           // rows not verified yet, above which nothing is frozen; 0: 2000
	Freeze     time.Duration // how long a freeze may last: nodes hold statements back for 5 s; 0: 4s
	Freezes    int           // how often a range is frozen until the move is aborted; 0: 6
	Again      time.Duration // between the first freeze that came to nothing and the next one, doubled each time; 0: 5s
	Standing   time.Duration // how long transactions that have lasted for half of that already, on the source's tables, are waited for before a freeze; 0: 5m
	Patience   time.Duration // how long a step before the freeze may fail until the move is aborted; 0: 1m
	Late       time.Duration // how long what a node has sent may be on its way to a shard: the fence goes that much later; 0: 10s
}

func (c *Config) defaults() {
	for _, d := range []struct {
		to *time.Duration
		is time.Duration
	}{
		{&c.Every, 200 * time.Millisecond}, {&c.Poll, 5 * time.Millisecond}, {&c.Retry, time.Second}, {&c.Round, 500 * time.Millisecond},
		{&c.MaxLag, time.Second}, {&c.Freeze, freezeTime}, {&c.Again, 5 * time.Second}, {&c.Standing, 5 * time.Minute}, {&c.Patience, time.Minute}, {&c.Late, 10 * time.Second},
	} {
		if *d.to == 0 {
			*d.to = d.is
		}
	}
	c.MaxChanged, c.Freezes = cmp.Or(c.MaxChanged, 2000), cmp.Or(c.Freezes, 6)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

// Mover carries out the moves of the table while its node leads.
type Mover struct {
	// constant
	cfg  Config
	ctx  context.Context
	stop context.CancelFunc
	done sync.WaitGroup
	kick chan struct{}

	// guarded by mu
	mu      sync.Mutex
	workers map[uint64]*worker
}

// New returns a mover. It starts nothing.
func New(cfg Config) *Mover {
	cfg.defaults()
	ctx, stop := context.WithCancel(context.Background())
	return &Mover{cfg: cfg, ctx: ctx, stop: stop, kick: make(chan struct{}, 1), workers: make(map[uint64]*worker)}
}

// Open starts it.
func (m *Mover) Open() { m.done.Go(m.loop) }

// Close stops it and waits. Moves stay where they are, for the next leader.
func (m *Mover) Close() {
	m.stop()
	m.done.Wait()
}

// Kick has it look at the table now.
func (m *Mover) Kick() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// loop has a worker for each move of the table while this node leads, and none while it does not.
func (m *Mover) loop() {
	tick := time.NewTicker(m.cfg.Every)
	defer tick.Stop()
	var running sync.WaitGroup
	defer running.Wait()
	for {
		m.look(&running)
		select {
		case <-m.ctx.Done():
			return
		case <-tick.C:
		case <-m.kick:
		}
	}
}

func (m *Mover) look(running *sync.WaitGroup) {
	term, leads := m.cfg.Leads()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.workers {
		if !leads || w.term != term {
			w.cancel()
		}
	}
	if !leads || m.ctx.Err() != nil {
		return
	}
	moves := m.cfg.Owners().Moves
	for i := range moves {
		id := moves[i].ID
		if m.workers[id] != nil {
			continue // of an older term: until it has ended
		}
		w := newWorker(m, &moves[i], term)
		m.workers[id] = w
		running.Go(func() {
			defer w.cancel()
			w.run()
			m.mu.Lock()
			delete(m.workers, id)
			m.mu.Unlock()
		})
	}
}

// Pause has a move stop before its next step that costs something, or go on. It works on the leader alone. propose writes the note to the ledger, in the name of whoever asks.
func (m *Mover) Pause(ctx context.Context, id uint64, paused bool, propose func(ctx context.Context, note []byte) error) error {
	w := m.worker(id)
	if w == nil {
		return ErrNotHere
	}
	return w.changeBy(ctx, func(n *note) { n.Paused = paused }, propose)
}

// ErrNotHere says that no such move is being carried out on this node.
var ErrNotHere = errors.New("no such move is carried out here")

// Abort has a move end with the range where it was. It works on the leader alone, and before the flip. That the servers are cleaned up is not
// waited for.
func (m *Mover) Abort(ctx context.Context, id uint64, reason string) error {
	if err := m.cfg.Ledger.AbortMove(ctx, id, reason); err != nil {
		return err
	}
	m.Aborted(id)
	return nil
}

// Aborted has a move that the ledger has aborted end what it does. If it is over meanwhile, there is nothing to end.
func (m *Mover) Aborted(id uint64) {
	if w := m.worker(id); w != nil {
		w.interrupt(errAborted)
	}
	m.Kick()
}

var errAborted = errors.New("the move is aborted")

func (m *Mover) worker(id uint64) *worker {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.workers[id]
}

// Progress is how far a move has come.
type Progress struct {
	ID       uint64        `json:"id"`
	Keyspace string        `json:"keyspace"`
	Range    string        `json:"range"` // as users write it
	From     string        `json:"from"`
	To       string        `json:"to"`
	Phase    rib.MovePhase `json:"phase"`
	Step     string        `json:"step"`
	Paused   bool          `json:"paused"`
	Rows     int64         `json:"rows"`         // copied, or removed, in this step
	Bytes    int64         `json:"bytes"`        // the same, as text
	Part     float64       `json:"part"`         // of the rows that are copied, or removed, from 0 to 1; 1 in the steps behind that too
	LeftMS   int64         `json:"left_ms"`      // estimated, of the step; 0: not known
	LagMS    int64         `json:"lag_ms"`       // of the target, when it was last looked at
	Changed  int           `json:"changed_rows"` // that were not verified yet
	Missing  []string      `json:"missing"`      // nodes that have not said yet that they know the move, before it copies, that nothing runs on the range, in the freeze, or that they know the new owner, at its end
	Thawed   int           `json:"thawed"`       // how often the range was frozen, and let go as it could not be handed over in time
	Problem  string        `json:"problem"`      // why it does not go on; ""
	Why      string        `json:"why"`          // aborted: the reason
	AgeMS    int64         `json:"age_ms"`       // since this leader took it over
}

// Status lists the moves of the table, by ID. What this node does not carry out it knows by phase and note alone.
func (m *Mover) Status() []Progress {
	o := m.cfg.Owners()
	list := make([]Progress, 0, len(o.Moves))
	for i := range o.Moves {
		mv := &o.Moves[i]
		n := decodeNote(mv.Note)
		p := Progress{ID: mv.ID, From: mv.From, To: mv.To, Phase: mv.Phase, Step: string(cmp.Or(n.Step, "check")), Paused: n.Paused, Thawed: n.Thawed, Why: mv.Why, Missing: []string{}}
		if ks := o.Keyspace(mv.Keyspace); ks != nil {
			p.Keyspace, p.Range = ks.Name, rangeText(ks, mv)
		}
		if w := m.worker(mv.ID); w != nil {
			w.describe(&p)
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Progress) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// rangeText writes a move's range as users do.
func rangeText(ks *rib.Keyspace, m *rib.Move) string {
	method, err := rib.MethodByName(ks.Method)
	if err != nil {
		return fmt.Sprintf("%x..%x", []byte(m.Low), []byte(m.High))
	}
	return rib.FormatInterval(method, ks.Types, m.Low, m.High)
}
