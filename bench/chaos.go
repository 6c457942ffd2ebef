package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	chaosEvery = 10 * time.Second // between two lines
	mostFound  = 20               // of one kind, in a failure's report
	mostLines  = 60               // of history there
	recovered  = 3                // writes that each client must get done once all faults are over
)

// chaos is a cluster of processes in networks of their own, under faults that a seed has chosen, and clients that keep a history.
type chaos struct {
	// constant
	out       io.Writer
	length    time.Duration
	seed      uint64
	perRegion int
	race      bool
	verbose   bool
}

// chaosResult is the JSON object.
type chaosResult struct {
	Seed       uint64         `json:"seed"`
	Minutes    float64        `json:"minutes"`
	Faults     map[string]int `json:"faults"`
	Statements int64          `json:"statements"`
	Errors     map[string]int `json:"errors"` // by SQLSTATE; connection and no connection: without one
	Wrong      int            `json:"wrong_shard"`
	Lost       int            `json:"lost_acked_writes"`
	Stale      int            `json:"stale_reads"`
	Phantom    int            `json:"phantom_writes"`
	Twice      int            `json:"duplicated_writes"`
	Torn       int            `json:"torn_transactions"`
	Trouble    int            `json:"trouble"` // crashes, leaks, a cluster that does not recover
	LongestGap float64        `json:"longest_gap_ms"`
	Acked      int            `json:"acked_writes"`
	Unknown    int            `json:"unknown_writes"`
	Refused    int            `json:"refused_writes"`
	Converged  float64        `json:"converged_ms"` // after the last fault, until all nodes believe the same and nothing is amiss; or, with trouble, until that was waited for no longer
}

func runChaos(ctx context.Context, args []string) error {
	c := &chaos{out: os.Stdout}
	f := flag.NewFlagSet("bench chaos", flag.ContinueOnError)
	f.DurationVar(&c.length, "time", 10*time.Minute, "how long faults go on")
	f.Uint64Var(&c.seed, "seed", 0, "which faults; 0: any, it is printed")
	f.IntVar(&c.perRegion, "clients", 4, "clients in each region")
	f.BoolVar(&c.race, "race", false, "nodes with the race detector")
	f.BoolVar(&c.verbose, "v", false, "print each fault")
	asJSON := f.Bool("json", false, "print one JSON object as the last line")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 || c.length < 10*time.Second || c.perRegion < 1 {
		return errors.New("chaos wants -time of 10s or more, -clients of 1 or more, and nothing else but its flags")
	}
	if c.seed == 0 {
		c.seed = rand.Uint64N(1e9) + 1
	}
	c.printf("seed %d\n", c.seed)
	r, err := c.run(ctx)
	if r != nil && *asJSON {
		err = errors.Join(err, json.NewEncoder(c.out).Encode(r))
	}
	return err
}

func (c *chaos) printf(format string, args ...any) { fmt.Fprintf(c.out, format, args...) }

// run returns a result also with the error that something was found.
func (c *chaos) run(ctx context.Context) (r *chaosResult, err error) {
	if err := raiseFiles(); err != nil {
		return nil, fmt.Errorf("raise the limit of open files: %w", err)
	}
	c.printf("starting %d nodes and %d servers in %d regions, each in a network namespace\n", nodesPerRegion*len(chaosRegions), len(chaosShards)*len(chaosRegions), len(chaosRegions))
	clients := c.perRegion * len(chaosRegions)
	w, err := newChaosWorld(ctx, clients*keysPerClient, c.race)
	defer func() { err = errors.Join(err, w.close()) }()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	said := io.Discard
	if c.verbose {
		said = c.out
	}
	s := newStriker(w, begun, c.length, said)
	run, stop := context.WithCancel(ctx)
	defer stop()
	crowd := newChaosCrowd(run, ctx, w, c.perRegion, c.seed, begun)
	defer crowd.wg.Wait() // before the world closes, also if a fault could not be made
	defer stop()
	err = c.strikeAll(ctx, s, crowd)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var found []finding
	trouble := func(err error) {
		if err != nil {
			found = append(found, finding{foundOther, -1, err.Error()})
		}
	}
	trouble(err)
	took, err := w.converged(ctx)
	if err == nil {
		c.printf("all faults are over; the cluster is whole after %v\n", took.Round(time.Millisecond))
	} else {
		err = fmt.Errorf("all faults are over; the cluster is not whole after %v: %w", took.Round(time.Millisecond), err)
		c.printf("%v\n", err)
	}
	trouble(err)
	trouble(crowd.recover(ctx))
	stop()
	crowd.wg.Wait()
	trouble(w.quiet(ctx))
	found = append(found, w.crashes()...)
	ends, err := w.ends(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	trouble(err)
	writes, seen := crowd.history()
	found = append(found, seen...)
	if err == nil {
		found = append(found, judgeHistory(writes, ends, clients*keysPerClient)...)
	}
	r = c.result(crowd, s, writes, found)
	r.Converged = float64(took.Milliseconds())
	c.printf("%d statements, %d writes acknowledged, %d refused, %d unknown; faults %v; errors %v; longest time without an answer %.0f ms\n", r.Statements, r.Acked, r.Refused, r.Unknown, r.Faults, r.Errors, r.LongestGap)
	if len(found) == 0 {
		c.printf("history: no wrong shard, no acknowledged write lost, no refused write done, no stale read, nothing twice, sums agree\n")
		return r, nil
	}
	c.report(s, writes, found)
	return r, fmt.Errorf("%d things that must not be; again with: go run ./bench chaos -time %v -seed %d -clients %d", len(found), c.length, c.seed, c.perRegion)
}

// strikeAll does the whole schedule, with a line now and then. It returns when all that was broken is mended.
func (c *chaos) strikeAll(ctx context.Context, s *striker, crowd *chaosCrowd) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	plan := chaosPlan(c.seed, c.length)
	errs := make([]error, len(chaosTracks))
	var wg sync.WaitGroup
	for i, t := range chaosTracks {
		wg.Go(func() {
			if errs[i] = s.track(ctx, t.name, plan[t.name]); errs[i] != nil {
				cancel()
			}
		})
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		_ = pause(ctx, time.Until(s.begun.Add(c.length)))
		close(done)
	}()
	tick := time.NewTicker(chaosEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return errors.Join(errs...)
		case <-tick.C:
			n, acked, found, codes := crowd.sums()
			c.printf("%4.0fs %d statements, %d writes acknowledged, errors %v, found %d; now: %s\n", time.Since(s.begun).Seconds(), n, acked, codes, found, s.going())
			for _, node := range s.world.nodes {
				if err := node.ended(); err != nil {
					return errors.Join(append(errs, err)...)
				}
			}
		}
	}
}

func (c *chaosCrowd) sums() (statements, acked int64, found int, codes map[string]int) {
	codes = map[string]int{}
	for _, x := range c.clients {
		statements, acked = statements+x.statements.Load(), acked+x.acked.Load()
		x.mu.Lock()
		found += len(x.found)
		for code, n := range x.errors {
			codes[code] += n
		}
		x.mu.Unlock()
	}
	return statements, acked, found, codes
}

// recover waits until every client has had writes done, also of two keys at once.
func (c *chaosCrowd) recover(ctx context.Context) error {
	before, across := map[*chaosClient]int64{}, map[*chaosClient]int64{}
	for _, x := range c.clients {
		before[x], across[x] = x.acked.Load(), x.across.Load()
	}
	late := time.Now().Add(statementLimit + 10*time.Second)
	for _, x := range c.clients {
		for x.acked.Load() < before[x]+recovered || x.across.Load() < across[x]+recovered {
			if time.Now().After(late) {
				return fmt.Errorf("client %d gets no write done, or none of two keys, though the cluster is whole", x.number)
			}
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// history is what the clients kept. They have ended.
func (c *chaosCrowd) history() (writes []chaosWrite, found []finding) {
	for _, x := range c.clients {
		writes, found = append(writes, x.writes...), append(found, x.found...)
	}
	return writes, found
}

func (c *chaos) result(crowd *chaosCrowd, s *striker, writes []chaosWrite, found []finding) *chaosResult {
	statements, _, _, codes := crowd.sums()
	r := &chaosResult{Seed: c.seed, Minutes: c.length.Minutes(), Faults: s.counts, Statements: statements, Errors: codes}
	for _, w := range writes {
		*map[outcome]*int{fateAcked: &r.Acked, fateRefused: &r.Refused, fateUnknown: &r.Unknown}[w.fate]++
	}
	for _, f := range found {
		*map[string]*int{foundWrong: &r.Wrong, foundLost: &r.Lost, foundStale: &r.Stale, foundPhantom: &r.Phantom, foundTwice: &r.Twice, foundTorn: &r.Torn, foundOther: &r.Trouble}[f.kind]++
	}
	for _, x := range crowd.clients {
		r.LongestGap = max(r.LongestGap, float64(x.gap.Milliseconds()))
	}
	return r
}

// report prints what was found, with what happened when, and what the clients were told of the keys concerned.
func (c *chaos) report(s *striker, writes []chaosWrite, found []finding) {
	c.printf("\nseed %d; the schedule, as it was done:\n", c.seed)
	for _, line := range s.said {
		c.printf("  %s\n", line)
	}
	kinds := map[string]int{}
	keys := map[int]bool{}
	c.printf("\nfound:\n")
	for _, f := range found {
		if kinds[f.kind]++; kinds[f.kind] <= mostFound {
			c.printf("  %s: %s\n", f.kind, f.text)
			keys[f.key] = true
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		c.printf("  %d of %s\n", kinds[kind], kind)
	}
	if kinds[foundOther] > 0 { // it may be the servers' own
		for _, shard := range s.world.shards {
			for _, server := range shard.servers {
				c.printf("\nlog of %s:\n%s\n", server.Name(), server.LogEnd())
			}
		}
	}
	c.printf("\nhistory of the keys concerned, the last lines:\n")
	writes = slices.DeleteFunc(slices.Clone(writes), func(w chaosWrite) bool { return !keys[w.key] && !(w.kind == writeAcross && keys[w.other]) })
	slices.SortFunc(writes, func(a, b chaosWrite) int { return int(a.at - b.at) })
	for _, w := range writes[max(0, len(writes)-mostLines):] {
		c.printf("  %v\n", w)
	}
}
