package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/cluster"
	"rangefinder/cluster/move"
	"rangefinder/gossip/memnet"
	"rangefinder/rib"
)

const (
	simPlay    = 40 * time.Second // that clients work, and that things go wrong
	simRest    = 2 * time.Minute  // within which all must have come to rest after that
	simClients = 6
	simLow     = 0 // keys are from here
	simHigh    = 100
	simRange   = "10..20"

	simFounders = 5 // nodes that make the cluster
	simSpace    = "app.registers"
)

// simKeys are the registers: the first four are in the range that moves.
var simKeys = [...]int64{10, 12, 15, 19, 5, 60}

const simMoving = 4

// simKey is a key's position.
func simKey(k int64) rib.Key {
	m, err := rib.MethodByName("range")
	if err != nil {
		panic(err) // there is one
	}
	key, err := m.AppendKey(nil, rib.Value{Type: rib.TypeBigint, Int: k})
	if err != nil {
		panic(err) // a bigint has one
	}
	return key
}

// simWorld is five nodes, a sixth that joins them while clients work, two shards, and what happens to them.
type simWorld struct {
	// constant
	seed     uint64
	fence    bool          // the shards refuse
	eager    bool          // of a test: nodes serve before moves wait for them
	onItsWay time.Duration // Late of the movers
	dir      string
	net      *memnet.Net
	nodes    []*simNode
	shards   map[string]*simShard
	began    time.Time
	ctx      context.Context
	end      context.CancelFunc
	watch    func(what string) // of a test: is told of each point of a move before anything else happens there; nil: nobody is

	// atomic
	playing atomic.Bool
	values  atomic.Int64

	acts sync.WaitGroup // what goes wrong now

	// guarded by mu
	mu      sync.Mutex
	rnd     *rand.Rand
	calls   map[uint64]*simCall
	next    uint64
	flipped map[uint64]bool
	thawed  map[uint64]bool
	game    simGame
	busy    map[string]bool // nodes and shards that are about to die, or to come back
}

// simGame is what has happened.
type simGame struct {
	seed   uint64
	fence  bool
	ops    []simOp
	notes  []simNote
	wrongs []string // against what must always be so
	late   int      // writes accepted by a shard after it was fenced
	alone  int      // of these, by nodes without a lease
	moves  int      // begun
	flips  int
	thaws  int // freezes that were given up
	again  int // moves that have flipped after one
}

// simNote is something to know when a history is read.
type simNote struct {
	at   time.Duration
	text string
}

func newSimWorld(seed uint64, fence bool, dir string) *simWorld {
	w := &simWorld{
		seed: seed, fence: fence, onItsWay: simLate, dir: dir, net: memnet.New(seed), shards: map[string]*simShard{}, began: time.Now(),
		rnd: rand.New(rand.NewPCG(seed, 1)), calls: map[uint64]*simCall{}, flipped: map[uint64]bool{}, thawed: map[uint64]bool{}, busy: map[string]bool{},
	}
	w.game.seed, w.game.fence = seed, fence
	w.ctx, w.end = context.WithCancel(context.Background())
	for _, d := range []struct {
		a, b string
		rtt  time.Duration
	}{{"iad", "iad", 1}, {"fra", "fra", 1}, {"iad", "fra", 90}, {"iad", "syd", 200}, {"fra", "syd", 280}} {
		w.net.SetRTT(d.a, d.b, d.rtt*time.Millisecond)
	}
	w.net.SetJitter(0.1)
	w.net.SetLoss(memnet.Everyone, memnet.Everyone, 0.02)
	for i, region := range []string{"iad", "fra", "syd", "iad", "fra", "syd"} {
		w.nodes = append(w.nodes, newSimNode(w, fmt.Sprintf("n%d", i), region))
	}
	w.busy[w.joiner().name] = true // until it has joined
	for i, region := range []string{"iad", "fra"} {
		name := fmt.Sprintf("shard_%d", i+1)
		w.shards[name] = newSimShard(w, name, region)
	}
	for _, k := range simKeys {
		s := w.shards["shard_1"]
		if k >= simHigh/2 {
			s = w.shards["shard_2"]
		}
		s.rows[k] = 0
	}
	return w
}

// form makes the cluster and the keyspace.
func (w *simWorld) form() error {
	for _, s := range w.shards {
		if err := s.start(); err != nil {
			return err
		}
	}
	for i, n := range w.nodes[:simFounders] {
		if err := n.join(i == 0); err != nil {
			return err
		}
	}
	var f *simLife
	err := w.until("a leader with three voters", simRest, func() bool {
		f = w.leads()
		return f != nil && len(f.ledger.Status().Voters) == 3
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	l := f.ledger
	err = errors.Join(l.RecordShard(ctx, "shard_1", 1), l.RecordShard(ctx, "shard_2", 2))
	_, made := l.CreateKeyspace(ctx, cluster.KeyspaceSpec{
		Name: simSpace, Database: "app", Method: "range", Types: []string{"bigint"}, Shards: []string{"shard_1", "shard_2"}, Splits: []string{fmt.Sprint(simHigh / 2)},
		Tables: []cluster.TableSpec{{Schema: "public", Name: "registers", Columns: []string{"id"}}},
	})
	if err = errors.Join(err, made); err != nil {
		return err
	}
	return w.until("leases and the keyspace everywhere", simRest, w.settled)
}

// settled reports whether all nodes that have joined live, have leases, and one table, in which nothing moves and they all have numbers.
func (w *simWorld) settled() bool {
	l := w.leads()
	for _, n := range w.nodes {
		if !n.joined.Load() {
			continue
		}
		f := n.life.Load()
		if l == nil || f == nil || !f.lessee.Held() || f.ledger.Epoch() != l.ledger.Epoch() {
			return false
		}
		o := f.fib.Load().Ownership()
		if o.Epoch != l.ledger.Epoch() || len(o.Moves) > 0 || o.KeyspaceByName(simSpace) == nil || !o.Admitted(n.name) {
			return false
		}
	}
	return true
}

func (w *simWorld) until(what string, within time.Duration, done func() bool) error {
	for began := time.Now(); !done(); {
		if time.Since(began) > within {
			return fmt.Errorf("after %v there is not: %s", within, what)
		}
		if err := pause(w.ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// play has everything happen, and returns what has.
func (w *simWorld) play() (*simGame, error) {
	defer w.close()
	if err := w.form(); err != nil {
		return nil, err
	}
	w.playing.Store(true)
	over := time.AfterFunc(simPlay, func() { w.playing.Store(false) })
	defer over.Stop()
	var all sync.WaitGroup
	for c := range simClients {
		all.Go(func() { w.client(c) })
	}
	all.Go(w.drive)
	all.Go(w.trouble)
	all.Go(w.grow)
	all.Wait()
	w.acts.Wait()
	w.net.HealAll()
	w.note("all is well from here on")
	if err := w.until("rest", simRest, w.settled); err != nil {
		w.wrong("%v: %s", err, w.stuck())
	} else {
		for _, n := range w.nodes {
			for _, key := range simKeys {
				w.add(w.statement(simClients, n, key, 0, simBrisk))
			}
		}
		w.leftovers()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.game.flips = len(w.flipped)
	return &w.game, nil
}

// stuck says what has not come to an end.
func (w *simWorld) stuck() (text string) {
	for _, n := range w.nodes {
		f := n.life.Load()
		if f == nil {
			text += n.name + " is dead; "
			continue
		}
		_, why, _ := f.lessee.Status()
		text += fmt.Sprintf("%s at %v, %s", n.name, f.ledger.Epoch(), why)
		if f.ledger.IsLeader() {
			text += fmt.Sprintf(", leads, %+v", f.mover.Status())
		}
		text += "; "
	}
	return text
}

// leftovers looks for what moves should have removed: rows, fences, replication.
func (w *simWorld) leftovers() {
	o := w.nodes[0].life.Load().fib.Load()
	ks := o.Ownership().KeyspaceByName(simSpace)
	for name, s := range w.shards {
		s.mu.Lock()
		for key := range s.rows {
			if owner, ok := o.Lookup(ks.ID, simKey(key)); !ok || owner.Slot.Shard() != name {
				w.wrong("%s has a row of key %d, which it does not own", name, key)
			}
		}
		if len(s.sources)+len(s.targets) > 0 {
			w.wrong("%s still has %d fences and %d subscriptions", name, len(s.sources), len(s.targets))
		}
		s.mu.Unlock()
	}
}

// drive has the range move to and fro.
func (w *simWorld) drive() {
	for w.playing.Load() {
		_ = pause(w.ctx, w.luck(100*time.Millisecond, 1500*time.Millisecond))
		f := w.leads()
		if f == nil || !w.playing.Load() {
			continue
		}
		o := f.table.Owners().Get()
		ks := o.KeyspaceByName(simSpace)
		to := "shard_2"
		if ks.Ranges[ks.Owner(simKey(simKeys[0]))].Shard == to {
			to = "shard_1"
		}
		ctx, cancel := context.WithTimeout(f.ctx, 5*time.Second)
		m, err := f.ledger.StartMove(ctx, cluster.MoveRequest{Keyspace: simSpace, Range: simRange, To: to})
		cancel()
		if err != nil {
			continue
		}
		w.note("%s begins move %d to %s", f.n.name, m.ID, to)
		w.mu.Lock()
		w.game.moves++
		w.mu.Unlock()
		f.mover.Kick()
		if w.luck(0, 10) == 0 {
			_ = pause(w.ctx, w.luck(0, 4*time.Second))
			w.abort(m.ID)
		}
		for w.playing.Load() {
			_ = pause(w.ctx, 100*time.Millisecond)
			if f := w.leads(); f != nil {
				if o := f.table.Owners().Get(); o.Epoch.Compare(m.Epoch) >= 0 && o.Move(m.ID) == nil {
					break
				}
			}
		}
	}
}

func (w *simWorld) abort(id uint64) {
	if f := w.leads(); f != nil {
		ctx, cancel := context.WithTimeout(f.ctx, 5*time.Second)
		defer cancel()
		w.note("an operator aborts move %d at %s", id, f.n.name)
		if err := f.mover.Abort(ctx, id, "an operator wants it"); err != nil && !errors.Is(err, move.ErrNotHere) {
			w.note("which fails: %v", err)
		}
	}
}

func (w *simWorld) close() {
	for _, n := range w.nodes {
		n.kill()
	}
	for _, s := range w.shards {
		if s.end != nil {
			s.crash()
		}
	}
	w.end()
	w.net.Close()
	_ = os.RemoveAll(w.dir)
}

// saw is told of each table that a node has. With a flip the target may accept what it had refused since an earlier one.
func (w *simWorld) saw(o *rib.Ownership) {
	for i := range o.Moves {
		m := &o.Moves[i]
		w.mu.Lock()
		news := m.Phase == rib.MoveFlipped && !w.flipped[m.ID]
		if news {
			w.flipped[m.ID] = true
			if w.thawed[m.ID] {
				w.game.again++
			}
		}
		w.mu.Unlock()
		if !news {
			continue
		}
		w.note("move %d has flipped to %s", m.ID, m.To)
		s := w.shards[m.To]
		s.mu.Lock()
		for key := range s.closed {
			if m.Holds(simKey(key)) {
				delete(s.closed, key)
			}
		}
		s.mu.Unlock()
	}
}

// thaw is told of a freeze that was given up.
func (w *simWorld) thaw(id uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.game.thaws++
	w.thawed[id] = true
}

// late is told of a write that a shard has accepted although it does not own the row any more.
func (w *simWorld) late(shard string, key, value int64, by uint64, leased bool) {
	w.mu.Lock()
	w.game.late++
	if !leased {
		w.game.alone++
	}
	w.mu.Unlock()
	w.note("%s accepts %d for key %d, which move %d took away; lease: %v", shard, value, key, by, leased)
}

func (w *simWorld) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.game.notes = append(w.game.notes, simNote{time.Since(w.began), fmt.Sprintf(format, args...)})
}

// wrong notes what must not be.
func (w *simWorld) wrong(format string, args ...any) {
	w.note("WRONG: "+format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.game.wrongs = append(w.game.wrongs, fmt.Sprintf(format, args...))
}

func (w *simWorld) add(o simOp) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.game.ops = append(w.game.ops, o)
}

// luck is a number from a up to b, b not included.
func (w *simWorld) luck(a, b time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return a + time.Duration(w.rnd.Int64N(int64(b-a)))
}

func (w *simWorld) put(c *simCall) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	w.calls[w.next] = c
	return w.next
}

func (w *simWorld) take(id uint64) *simCall {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.calls[id]
	delete(w.calls, id)
	return c
}

// claimBusy makes sure that one thing at a time is done to a node or a shard.
func (w *simWorld) claimBusy(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy[name] {
		return false
	}
	w.busy[name] = true
	return true
}

func (w *simWorld) unbusy(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.busy, name)
}

// others are the names of all nodes but one.
func (w *simWorld) others(n *simNode) (list []string) {
	for _, o := range w.nodes {
		if o != n {
			list = append(list, o.name)
		}
	}
	slices.Sort(list)
	return list
}
