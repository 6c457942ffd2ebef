package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"time"

	"rangefinder/internal/pgtest"
)

// flapEvery is how long a flapping region is cut, and then not.
const flapEvery = 700 * time.Millisecond

// oldPrimary is how long a primary that was replaced behind a cut goes on after the cut is over, before its manager comes.
const oldPrimary = 3 * time.Second

// striker does the faults of a plan.
type striker struct {
	// constant
	world  *chaosWorld
	begun  time.Time
	length time.Duration // after which no fault begins any more, however late it is
	out    io.Writer

	// netMu is held while the network has a fault: one at a time, and none while a manager needs the network to be whole.
	netMu sync.Mutex

	// guarded by mu
	mu     sync.Mutex
	counts map[string]int
	said   []string
	now    map[string]string // what is going on, by track
}

func newStriker(w *chaosWorld, begun time.Time, length time.Duration, out io.Writer) *striker {
	return &striker{world: w, begun: begun, length: length, out: out, counts: map[string]int{}, now: map[string]string{}}
}

// track does the faults of one track, one after the other. What it breaks it mends, also when ctx ends.
func (s *striker) track(ctx context.Context, name string, faults []plannedFault) error {
	for _, f := range faults {
		if pause(ctx, time.Until(s.begun.Add(f.at))) != nil || time.Since(s.begun) > s.length {
			return nil
		}
		if err := s.strike(ctx, name, f); err != nil {
			return fmt.Errorf("%s at %v: %w", f.kind, f.at, err)
		}
	}
	return nil
}

// note keeps a line for whoever asks what happened when.
func (s *striker) note(format string, args ...any) {
	line := fmt.Sprintf("%7.1fs %s", time.Since(s.begun).Seconds(), fmt.Sprintf(format, args...))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, line)
	if s.out != nil {
		fmt.Fprintln(s.out, line)
	}
}

// going is what is broken at the moment.
func (s *striker) going() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, t := range chaosTracks {
		if s.now[t.name] != "" {
			all = append(all, s.now[t.name])
		}
	}
	return strings.Join(all, ", ")
}

func (s *striker) strike(ctx context.Context, track string, f plannedFault) error {
	regions, nodes := s.world.net.regions, s.world.nodes
	a := regions[f.dice[0]%uint32(len(regions))]
	b := regions[(a.number+int(f.dice[1]%uint32(len(regions)-1)))%len(regions)]
	node := nodes[f.dice[0]%uint32(len(nodes))]
	shard := s.world.shards[f.dice[0]%uint32(len(s.world.shards))]
	clock, by := node.clock, clockJump
	if f.kind == chaosServerClock {
		clock = shard.clocks[f.dice[1]%uint32(len(shard.clocks))]
	}
	if f.dice[2]%2 == 1 {
		by = -by
	}
	whom := map[string]string{trackNetwork: a.name, trackNode: node.name, trackServer: shard.name, trackClock: clock.whose}[track]
	switch f.kind {
	case chaosOneWay:
		whom += " to " + b.name
	case chaosHalf:
		whom = "of the nodes"
	case chaosNodeClock, chaosServerClock:
		whom += fmt.Sprintf(" by %+v", by)
	}
	s.mu.Lock()
	s.counts[f.kind]++
	s.now[track] = f.kind + " " + whom
	s.mu.Unlock()
	s.note("%s %s", f.kind, whom)
	defer func() {
		s.mu.Lock()
		delete(s.now, track)
		s.mu.Unlock()
		s.note("%s %s is over", f.kind, whom)
	}()
	switch f.kind {
	case chaosCut:
		return s.broken(ctx, f, func() (func() error, error) { return s.world.net.drop(ctx, ruleCut(a)...) })
	case chaosUnplug:
		return s.broken(ctx, f, func() (func() error, error) { return s.world.net.unplug(ctx, a) })
	case chaosOneWay:
		return s.broken(ctx, f, func() (func() error, error) { return s.world.net.drop(ctx, ruleOneWay(a, b)...) })
	case chaosLoss:
		return s.broken(ctx, f, func() (func() error, error) { return s.world.net.drop(ctx, ruleLoss(a, 25)...) })
	case chaosFlap:
		return s.flap(ctx, f, a)
	case chaosFreeze:
		return s.freeze(ctx, f, node)
	case chaosKill:
		return s.kill(ctx, f, node)
	case chaosHalf:
		picked := rand.New(rand.NewPCG(uint64(f.dice[0]), uint64(f.dice[1]))).Perm(len(nodes))[:len(nodes)/2]
		var half []*chaosNode
		for _, i := range picked {
			half = append(half, nodes[i])
		}
		return s.kill(ctx, f, half...)
	case chaosNodeClock, chaosServerClock:
		return s.jump(ctx, f, clock, by)
	}
	return s.server(ctx, f, shard)
}

// broken is a fault of the network that somebody makes and heals.
func (s *striker) broken(ctx context.Context, f plannedFault, inject func() (heal func() error, err error)) error {
	s.netMu.Lock()
	defer s.netMu.Unlock()
	heal, err := inject()
	if err == nil {
		_ = pause(ctx, f.hold)
	}
	return errors.Join(err, heal())
}

func (s *striker) flap(ctx context.Context, f plannedFault, r *region) error {
	s.netMu.Lock()
	defer s.netMu.Unlock()
	for end := time.Now().Add(f.hold); time.Now().Before(end) && ctx.Err() == nil; {
		heal, err := s.world.net.drop(ctx, ruleCut(r)...)
		_ = pause(ctx, flapEvery)
		if err = errors.Join(err, heal()); err != nil {
			return err
		}
		_ = pause(ctx, flapEvery)
	}
	return nil
}

func (s *striker) freeze(ctx context.Context, f plannedFault, n *chaosNode) error {
	if err := n.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	_ = pause(ctx, f.hold)
	return n.signal(syscall.SIGCONT)
}

func (s *striker) kill(ctx context.Context, f plannedFault, nodes ...*chaosNode) (err error) {
	for _, n := range nodes {
		err = errors.Join(err, n.kill())
	}
	_ = pause(ctx, f.hold)
	for _, n := range nodes {
		err = errors.Join(err, n.start())
	}
	return err
}

// jump sets a clock wrong, and later right. Whose it is must go by it, unless another fault keeps it from telling.
func (s *striker) jump(ctx context.Context, f plannedFault, clock *chaosClock, by time.Duration) error {
	check := func() error {
		err := clock.check(ctx)
		if errors.Is(err, errClockSilent) {
			s.note("%s does not answer", clock.whose)
			return nil
		}
		return err
	}
	defer clock.set(0)
	clock.set(by)
	err := check()
	_ = pause(ctx, f.hold)
	clock.set(0)
	return errors.Join(err, check())
}

// server is a fault of one of a shard's servers.
func (s *striker) server(ctx context.Context, f plannedFault, shard *chaosShard) error {
	primary := shard.primaryNow()
	var replicas []*pgtest.Server
	for _, r := range shard.servers {
		if r != primary {
			replicas = append(replicas, r)
		}
	}
	replica := replicas[f.dice[1]%uint32(len(replicas))]
	mending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	switch f.kind {
	case chaosReplica, chaosCrash:
		victim := replica
		if f.kind == chaosCrash {
			victim = primary
		}
		err := victim.Kill()
		_ = pause(ctx, f.hold)
		return errors.Join(err, victim.Start(mending))
	case chaosStill, chaosStall:
		victim := replica
		if f.kind == chaosStall {
			victim = primary
		}
		err := victim.Freeze()
		_ = pause(ctx, f.hold)
		return errors.Join(err, victim.Thaw())
	case chaosPromote:
		if err := primary.Kill(); err != nil {
			return err
		}
		_ = pause(ctx, promoteAfter)
		old, err := shard.promote(mending)
		if err != nil {
			return err
		}
		s.note("%s promoted", shard.primaryNow().Name())
		_ = pause(ctx, f.hold)
		s.netMu.Lock()
		defer s.netMu.Unlock()
		return shard.rebuild(mending, old)
	case chaosTwoHeads:
		return s.twoHeads(ctx, mending, f, shard)
	}
	return fmt.Errorf("unknown fault %q", f.kind)
}

// twoHeads cuts a primary off and promotes another one, as a manager does that cannot reach it. For a while there are two.
func (s *striker) twoHeads(ctx, mending context.Context, f plannedFault, shard *chaosShard) error {
	s.netMu.Lock()
	defer s.netMu.Unlock()
	shard.mu.Lock()
	at := s.world.net.regions[shard.primary]
	shard.mu.Unlock()
	heal, err := s.world.net.drop(ctx, ruleCut(at)...)
	if err != nil {
		return errors.Join(err, heal())
	}
	_ = pause(ctx, promoteAfter)
	old, err := shard.promote(mending)
	if err != nil {
		return errors.Join(err, heal())
	}
	s.note("%s promoted, behind the cut %s goes on", shard.primaryNow().Name(), old.Name())
	_ = pause(ctx, f.hold)
	if err := heal(); err != nil {
		return err
	}
	_ = pause(ctx, oldPrimary)
	return shard.rebuild(mending, old)
}
