package twophase

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rangefinder/wire/pg"
)

// The protocol on servers that are made up, where everything may go wrong at each step. Real ones are in faults_test.go.

// fault is what happens to one statement.
type fault int

const (
	fine        fault = iota
	lostBefore        // the connection is lost and the server has not heard of the statement
	lostAfter         // it has carried it out
	late              // the connection is lost, and the statement is still on its way
	crashBefore       // the server crashes and has not heard of it
	crashAfter        // it has carried it out
	nodeDies          // nothing more comes from this node
	othersFirst       // before it comes, another node looks for what is left
	faults
)

// world is some shards and two nodes.
type world struct {
	mu     sync.Mutex
	shards map[string]*fakeShard
	nodes  []*fakeNode
	txs    []*fakeTx
	late   []func() // statements that are still on their way

	branches []*fakeBranch

	mutant bool // what decides to roll back is not kept
}

type fakeShard struct {
	name      string
	down      bool
	prepared  map[string]*fakeTx
	decisions map[string]Decision
	boots     int
}

type fakeNode struct {
	w    *world
	name string
	m    *Manager
	dead bool
	lies map[string]Decision // of a mutant
}

// fakeTx is one transaction, and what became of it on each shard.
type fakeTx struct {
	id     int
	shards []string
	fate   map[string]string // "committed", "rolled back"; absent: open, or prepared
	err    error             // what the client was told
	ended  bool
	age    time.Duration // since PREPARE, by the server's clock; 0: an hour
}

// fakeBranch is a connection.
type fakeBranch struct {
	n     *fakeNode
	s     *fakeShard
	tx    *fakeTx
	boot  int
	dead  bool
	plan  map[string]fault // by step; each happens once
	other *fakeNode
}

func newWorld(mutant bool) *world {
	w := &world{shards: map[string]*fakeShard{}, mutant: mutant}
	for _, name := range shardNames(3) {
		w.shards[name] = &fakeShard{name: name, prepared: map[string]*fakeTx{}, decisions: map[string]Decision{}}
	}
	for _, name := range []string{"node_a", "node_b"} {
		n := &fakeNode{w: w, name: name, lies: map[string]Decision{}}
		n.start()
		w.nodes = append(w.nodes, n)
	}
	return w
}

// start begins another process of the node.
func (n *fakeNode) start() {
	n.dead = false
	n.m = New(Config{
		Cluster: "0123456789", Node: n.name, Sites: n, Logger: slog.New(slog.DiscardHandler), Fate: 1, Grace: 1, Settle: 1, Keep: 1,
		Shards: func() []string { return shardNames(3) }, Uses: func() []string { return []string{"app"} },
	})
}

func (b *fakeBranch) Shard() string { return b.s.name }

// step is which step of the protocol a statement is.
func step(sql string) string {
	for _, s := range []string{atDecision, atPrepare, atCommit, "ROLLBACK PREPARED"} {
		if strings.Contains(sql, s) {
			return s
		}
	}
	return sql
}

func (b *fakeBranch) Exec(_ context.Context, sql string) (string, error) {
	w := b.n.w
	w.mu.Lock()
	f := b.plan[step(sql)]
	delete(b.plan, step(sql))
	if f == othersFirst {
		w.mu.Unlock()
		b.other.m.Look(context.Background())
		w.mu.Lock()
		f = fine
	}
	defer w.mu.Unlock()
	if f == nodeDies {
		b.n.dead = true
	}
	if b.n.dead || b.dead || b.s.down || b.boot != b.s.boots {
		b.lose()
		return "", errLost
	}
	switch f {
	case lostBefore:
		b.lose()
		return "", errLost
	case late:
		b.dead = true // and its transaction goes on until what was sent has come
		w.late = append(w.late, func() {
			if b.boot == b.s.boots {
				_, _ = b.carryOut(sql)
				b.lose()
			}
		})
		return "", errLost
	case crashBefore:
		b.s.crash(w)
		return "", errLost
	}
	tag, err := b.carryOut(sql)
	switch f {
	case lostAfter:
		b.lose()
		return "", errLost
	case crashAfter:
		b.s.crash(w)
		return "", errLost
	}
	return tag, err
}

// lose ends a connection: the server rolls its transaction back.
func (b *fakeBranch) lose() {
	b.dead = true
	b.rollback()
}

func (b *fakeBranch) rollback() {
	if b.tx != nil && b.tx.fate[b.s.name] == "" {
		b.tx.fate[b.s.name] = "rolled back"
	}
	b.tx = nil
}

// crash takes a server down, with all that is open on it.
func (s *fakeShard) crash(w *world) {
	s.down = true
	s.boots++
	for _, tx := range w.txs {
		if slices.Contains(tx.shards, s.name) && tx.fate[s.name] == "" && !slices.Contains(slices.Collect(maps.Values(s.prepared)), tx) {
			tx.fate[s.name] = "rolled back"
		}
	}
}

// carryOut is the server.
func (b *fakeBranch) carryOut(sql string) (string, error) {
	quoted := ""
	if part := strings.Split(sql[max(0, strings.LastIndex(sql, prefix)-1):], "'"); len(part) > 1 {
		quoted = part[1]
	}
	switch step(sql) {
	case atPrepare:
		if b.tx == nil {
			return "ROLLBACK", nil
		}
		b.s.prepared[quoted], b.tx = b.tx, nil
		return atPrepare, nil
	case atDecision:
		if _, there := b.s.decisions[quoted]; there {
			b.rollback()
			return "", &pg.Error{Severity: "ERROR", Code: codeUniqueViolation, Schema: "rangefinder"}
		}
		if b.tx == nil {
			return "ROLLBACK", nil
		}
		b.s.decisions[quoted] = Decision{GID: quoted, Commit: true, Participants: b.tx.shards, By: "app"}
		b.tx.fate[b.s.name], b.tx = "committed", nil
		return "COMMIT", nil
	case atCommit, "ROLLBACK PREPARED":
		if !b.s.finish(quoted, step(sql) == atCommit) {
			return "", pg.NewError(pg.CodeUndefinedObject, "no such transaction")
		}
		return step(sql), nil
	case "COMMIT":
		if b.tx == nil {
			return "ROLLBACK", nil
		}
		b.tx.fate[b.s.name], b.tx = "committed", nil
	case "ROLLBACK":
		b.rollback()
	}
	return sql, nil
}

func (s *fakeShard) finish(gid string, commit bool) bool {
	tx := s.prepared[gid]
	if tx == nil {
		return false
	}
	delete(s.prepared, gid)
	if tx.fate[s.name] = "rolled back"; commit {
		tx.fate[s.name] = "committed"
	}
	return true
}

// fakeSite is a shard as a node sees it.
type fakeSite struct {
	n *fakeNode
	s *fakeShard
}

// Open makes a node the Sites of its manager.
func (n *fakeNode) Open(_ context.Context, shard, _ string) (Site, error) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if n.dead || n.w.shards[shard].down {
		return nil, errLost
	}
	return &fakeSite{n, n.w.shards[shard]}, nil
}

func (x *fakeSite) do(f func()) error {
	x.n.w.mu.Lock()
	defer x.n.w.mu.Unlock()
	if x.n.dead || x.s.down {
		return errLost
	}
	f()
	return nil
}

func (x *fakeSite) Waits(context.Context) ([]Wait, error) { return nil, nil }
func (x *fakeSite) Close()                                {}
func (x *fakeSite) Ready(context.Context) error           { return x.do(func() {}) }

func (x *fakeSite) Prepared(context.Context, string) (f Found, err error) {
	err = x.do(func() {
		f.Max = 1
		for _, gid := range slices.Sorted(maps.Keys(x.s.prepared)) {
			f.Prepared = append(f.Prepared, Prepared{gid, "app", "app", cmp.Or(x.s.prepared[gid].age, time.Hour)})
		}
	})
	return f, err
}

func (x *fakeSite) Decision(_ context.Context, gid string) (found *Decision, err error) {
	err = x.do(func() {
		d, ok := x.s.decisions[gid]
		if !ok {
			d, ok = x.n.lies[gid]
		}
		if ok {
			found = &d
		}
	})
	return found, err
}

func (x *fakeSite) Refuse(_ context.Context, gid string) error {
	return x.do(func() {
		d := Decision{GID: gid}
		if _, there := x.s.decisions[gid]; x.n.w.mutant {
			x.n.lies[gid] = d
		} else if !there {
			x.s.decisions[gid] = d
		}
	})
}

func (x *fakeSite) Finish(_ context.Context, gid string, commit bool) (ended bool, err error) {
	err = x.do(func() { ended = x.s.finish(gid, commit) })
	return ended, err
}

func (x *fakeSite) Decisions(context.Context, time.Duration, int) (list []Decision, err error) {
	err = x.do(func() {
		for _, gid := range slices.Sorted(maps.Keys(x.s.decisions)) {
			if d := x.s.decisions[gid]; d.Commit {
				list = append(list, d)
			}
		}
	})
	return list, err
}

func (x *fakeSite) Forget(_ context.Context, gids []string) error {
	return x.do(func() {
		for _, gid := range gids {
			if x.s.decisions[gid].Commit {
				delete(x.s.decisions, gid)
			}
		}
	})
}

// ForgetRefusals forgets none while a transaction is open.
func (x *fakeSite) ForgetRefusals(context.Context, time.Duration) error {
	return x.do(func() {
		for _, b := range x.n.w.branches {
			if b.s == x.s && b.tx != nil && b.boot == b.s.boots {
				return
			}
		}
		maps.DeleteFunc(x.s.decisions, func(_ string, d Decision) bool { return !d.Commit })
	})
}

// begin has a node commit a transaction on some shards, with faults by shard and step.
func (w *world) begin(node int, shards []string, plan map[string]map[string]fault) {
	n := w.nodes[node]
	tx := &fakeTx{id: len(w.txs), shards: shards, fate: map[string]string{}}
	w.txs = append(w.txs, tx)
	var list []Participant
	for _, shard := range shards {
		s := w.shards[shard]
		if s.down { // it could not have been begun
			tx.fate[shard] = "rolled back"
		}
		steps := plan[shard]
		if steps == nil {
			steps = map[string]fault{}
		}
		b := &fakeBranch{n: n, s: s, tx: tx, boot: s.boots, plan: steps, other: w.nodes[1-node]}
		if s.down {
			b.tx = nil
		}
		list = append(list, Participant{b, true})
		w.branches = append(w.branches, b)
	}
	tx.err = n.m.Commit(context.Background(), "app", list)
	tx.ended = !n.dead // else its client has heard nothing
	w.mu.Lock()
	for _, p := range list { // what a dead node had open ends with its connections, but for what is on its way
		if b := p.Branch.(*fakeBranch); n.dead && !b.dead {
			b.lose()
		}
	}
	w.mu.Unlock()
	if n.dead {
		n.start()
	}
}

// check looks for a transaction that is there on one shard and never will be on another.
func (w *world) check(last bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, tx := range w.txs {
		var done, not, open []string
		for _, s := range tx.shards {
			switch tx.fate[s] {
			case "committed":
				done = append(done, s)
			case "rolled back":
				not = append(not, s)
			default:
				open = append(open, s)
			}
		}
		switch unknown := code(tx.err) == pg.CodeTransactionResolutionUnknown; {
		case len(done) > 0 && len(not) > 0:
			return fmt.Errorf("transaction %d is there on %v and not on %v; its client was told: %v", tx.id, done, not, tx.err)
		case last && len(open) > 0:
			return fmt.Errorf("transaction %d is still open on %v", tx.id, open)
		case !tx.ended || unknown:
		case tx.err == nil && len(not) > 0:
			return fmt.Errorf("transaction %d was acknowledged and is not there", tx.id)
		case tx.err != nil && len(done) > 0:
			return fmt.Errorf("transaction %d is there, and its client was told: %v", tx.id, tx.err)
		}
	}
	if last {
		for _, s := range w.shards {
			if len(s.prepared) > 0 || len(s.decisions) > 0 {
				return fmt.Errorf("%s: left are %v and %v", s.name, s.prepared, s.decisions)
			}
		}
	}
	return nil
}

// history makes up one history, of numbers that intn draws (from 0 to below n), and says what is wrong with it.
func history(intn func(what string, n int) int, mutant bool) error {
	w := newWorld(mutant)
	deliver := func() {
		if len(w.late) > 0 {
			i := intn("which", len(w.late))
			w.mu.Lock()
			w.late[i]()
			w.late = slices.Delete(w.late, i, i+1)
			w.mu.Unlock()
		}
	}
	resolve := func(i int) {
		w.nodes[i].m.Mend(context.Background())
		w.nodes[i].m.Look(context.Background())
	}
	for range 1 + intn("actions", 12) {
		switch intn("action", 6) {
		case 0, 1:
			shards := shardNames(3)
			first := intn("first", 3)
			shards[0], shards[first] = shards[first], shards[0]
			shards = shards[:2+intn("more", 2)]
			plan := map[string]map[string]fault{}
			for _, s := range shards {
				plan[s] = map[string]fault{}
			}
			for range intn("faults", 3) {
				steps := []string{atPrepare, atCommit, "ROLLBACK PREPARED", "ROLLBACK", atDecision, atDecision}
				at := steps[intn("step", len(steps))]
				shard := shards[intn("at", len(shards))]
				if at == atDecision {
					shard = shards[0]
				}
				plan[shard][at] = fault(intn("fault", int(faults)))
			}
			w.begin(intn("node", 2), shards, plan)
		case 2:
			deliver()
		case 3:
			resolve(intn("node", 2))
		case 4:
			s := w.shards[shardNames(3)[intn("server", 3)]]
			w.mu.Lock()
			if s.down = !s.down; s.down {
				s.crash(w)
			}
			w.mu.Unlock()
		case 5:
			n := w.nodes[intn("node", 2)]
			n.start() // what it had in its books is gone
		}
		if err := w.check(false); err != nil {
			return err
		}
	}
	for _, s := range w.shards {
		s.down = false
	}
	resolve(0)
	for len(w.late) > 0 {
		deliver()
	}
	for range 4 { // one ends, another removes what that has taken to remember
		resolve(0)
		resolve(1)
	}
	return w.check(true)
}

func TestNeverHalfCommitted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		if err := history(func(what string, n int) int { return rapid.IntRange(0, n-1).Draw(t, what) }, false); err != nil {
			t.Fatal(err)
		}
	})
}

// Without the row that says "rolled back" the same histories go wrong: the test above can fail.
func TestTheRefusalIsNeeded(t *testing.T) {
	const seeds = 3000
	wrong := 0
	for seed := range uint64(seeds) {
		for _, mutant := range []bool{false, true} {
			r := rand.New(rand.NewPCG(seed, 0))
			switch err := history(func(_ string, n int) int { return r.IntN(n) }, mutant); {
			case err != nil && !mutant:
				t.Fatalf("seed %d: %v", seed, err)
			case err != nil && strings.Contains(err.Error(), "is there on"):
				wrong++
			}
		}
	}
	if wrong == 0 {
		t.Error("without it nothing goes wrong either")
	}
	t.Logf("%d of %d histories went wrong without it", wrong, seeds)
}
