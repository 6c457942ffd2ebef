package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// moveSim moves a range to and fro in virtual time while everything fails, and has the histories checked.
type moveSim struct {
	// constant
	out, progress io.Writer
	seeds         int
	first         uint64
	json, verbose bool
	patience      time.Duration // with a game, by a real clock; then it counts as a violation
	game          func(seed uint64, fence bool, dir string) (*simGame, error)

	games sync.WaitGroup // also those that have been given up

	// guarded by mu
	mu     sync.Mutex
	result moveSimResult
	played int
	flips  int
	thaws  int
	again  int
	ops    int
	err    error
}

// moveSimResult is the JSON line. Violations are seeds with one at least.
type moveSimResult struct {
	Seeds        int `json:"seeds"`
	Violations   int `json:"violations"`
	WithoutFence int `json:"violations_without_fence"`
}

// runMoveSim runs `bench move-sim`. It returns only to say what is wrong with the flags, see virtually.
func runMoveSim(args []string) error {
	s := &moveSim{out: os.Stdout, progress: os.Stderr, game: simPlayed}
	f := flag.NewFlagSet("bench move-sim", flag.ContinueOnError)
	f.IntVar(&s.seeds, "seeds", 100, "games, each with the fence and once more without")
	f.Uint64Var(&s.first, "first", 1, "the first seed")
	f.DurationVar(&s.patience, "patience", 5*time.Minute, "how long a game may take by a real clock; one that takes longer is told of and counts as a violation")
	f.BoolVar(&s.verbose, "v", false, "print each game with the fence, also if all is well")
	f.BoolVar(&s.json, "json", false, "print one JSON object as the last line")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 || s.seeds < 1 || s.seeds > 100000 || s.patience <= 0 {
		return errors.New("move-sim wants -seeds of 1 to 100000, a -patience above 0, and nothing else but its flags")
	}
	return virtually(s.run)
}

// run plays all games, as many at a time as there are processors.
func (s *moveSim) run(t *testing.T) error {
	began := wall()
	type task struct {
		seed  uint64
		fence bool
	}
	tasks := make(chan task)
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for k := range tasks {
				s.one(t, k.seed, k.fence)
			}
		})
	}
	told := wall()
	for i := range s.seeds {
		for _, fence := range []bool{true, false} {
			tasks <- task{s.first + uint64(i), fence}
		}
		if wall()-told > 5*time.Second {
			told = wall()
			s.mu.Lock()
			fmt.Fprintf(s.progress, "%6.0f s  %d of %d games, %d moves, %d statements; violations %d, without the fence %d\n", (wall() - began).Seconds(), s.played, 2*s.seeds, s.flips, s.ops, s.result.Violations, s.result.WithoutFence)
			s.mu.Unlock()
		}
	}
	close(tasks)
	all.Wait()
	s.result.Seeds = s.seeds
	fmt.Fprintf(s.out, "%d seeds of %v in virtual time, each with the fence and without: %d moves came to their flip under %d statements, in %.0f s\n", s.seeds, simPlay, s.flips, s.ops, (wall() - began).Seconds())
	fmt.Fprintf(s.out, "%d freezes were given up, after which %d moves came to their flip all the same\n", s.thaws, s.again)
	fmt.Fprintf(s.out, "violations: %d; with the fence switched off: %d\n", s.result.Violations, s.result.WithoutFence)
	if s.json {
		line, err := json.Marshal(s.result)
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "%s\n", line)
	}
	switch {
	case s.err != nil:
		return s.err
	case s.result.Violations > 0:
		return fmt.Errorf("%d of %d seeds have violations", s.result.Violations, s.seeds)
	case s.result.WithoutFence == 0:
		return errors.New("without the fence nothing was found: the check does not see what it should, or there were too few seeds")
	}
	return nil
}

// one plays one game and judges it.
func (s *moveSim) one(t *testing.T, seed uint64, fence bool) {
	g, err := s.watched(t, seed, fence)
	if errors.Is(err, errSimHung) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.played++
		s.result.Violations++
		fmt.Fprintln(s.out, err)
		return
	}
	var bad []int64
	if err == nil {
		bad, err = g.judge()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.played++
	if err != nil {
		s.err = errors.Join(s.err, fmt.Errorf("seed %d: %w", seed, err))
		return
	}
	s.flips += g.flips
	s.thaws += g.thaws
	s.again += g.again
	s.ops += len(g.ops)
	violated := len(bad) > 0 || g.late > 0
	switch {
	case fence && (violated || len(g.wrongs) > 0):
		s.result.Violations++
		fmt.Fprint(s.out, g.describe(bad))
	case fence && s.verbose:
		fmt.Fprint(s.out, g.describe(simKeys[:]))
	case !fence && violated:
		s.result.WithoutFence++
	}
}

// errSimHung says that a game has not come to its end.
var errSimHung = errors.New("the game has not come to its end")

// simPlayed plays one game.
func simPlayed(seed uint64, fence bool, dir string) (*simGame, error) {
	return newSimWorld(seed, fence, dir).play()
}

// watched plays one game in virtual time, and gives it up when that takes too long by a real clock, or nothing can happen in it any more: the error tells
// what it was at. What has been given up stays where it is.
func (s *moveSim) watched(t *testing.T, seed uint64, fence bool) (*simGame, error) {
	dir, err := os.MkdirTemp("", "rangefinder-sim-")
	if err != nil {
		return nil, err
	}
	type result struct {
		g   *simGame
		err error
	}
	over := make(chan result, 1)
	name := fmt.Sprintf("seed %d, fence %v", seed, fence)
	game := func(context.Context) {
		var r result
		defer func() {
			if p := recover(); p != nil { // synctest says so when all in it wait for each other
				r = result{err: fmt.Errorf("%s: %w: %v\n%s", name, errSimHung, p, simStacks(name))}
			}
			over <- r
		}()
		synctest.Test(t, func(*testing.T) { r.g, r.err = s.game(seed, fence, dir) })
	}
	s.games.Go(func() { pprof.Do(context.Background(), pprof.Labels(simLabel, name), game) })
	limit := time.NewTimer(s.patience)
	defer limit.Stop()
	select {
	case r := <-over:
		return r.g, r.err
	case <-limit.C:
		return nil, fmt.Errorf("%s: %w in %v\n%s", name, errSimHung, s.patience, simStacks(name))
	}
}

// simLabel is the label of a game's goroutines.
const simLabel = "game"

// simStacks are the stacks of a game's goroutines.
func simStacks(name string) string {
	var all, own strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
		return err.Error()
	}
	label := fmt.Sprintf("%q:%q", simLabel, name)
	for _, one := range strings.Split(all.String(), "\n\n") {
		if strings.Contains(one, label) {
			own.WriteString(one + "\n\n")
		}
	}
	return own.String()
}
