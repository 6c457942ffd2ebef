package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// converge measures how soon all nodes of a cluster act on what one of them has found out.
type converge struct {
	// constant
	out   io.Writer
	nodes int
	loss  float64 // 0 to 1
	flips int
	watch time.Duration // virtual; 0: as long as watchBudget allows, up to an hour
	seed  uint64
	alone bool
	json  bool
	began time.Duration // see wall
}

// watchBudget bounds the watch for false verdicts, unless -watch says how long: 50 nodes are watched for an hour.
const watchBudget = 50 * time.Hour

const memoryLimit = 4 << 30 // beyond it memory is collected more often

// convergeResult is the JSON line.
type convergeResult struct {
	Nodes     int     `json:"nodes"`
	Loss      float64 `json:"loss"` // percent
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	All       float64 `json:"all_ms"`
	Missed    int     `json:"missed"`
	FalseDown int     `json:"false_down"`
	LANP99    float64 `json:"lan_default_p99_ms"`
	Bytes     float64 `json:"bytes_per_node_s"` // at 50 updates a second
}

// runConverge runs `bench converge`. It returns only to say what is wrong with the flags, see virtually.
func runConverge(args []string) error {
	c := &converge{out: os.Stdout, began: wall()}
	percent := 0.0
	f := flag.NewFlagSet("bench converge", flag.ContinueOnError)
	f.IntVar(&c.nodes, "nodes", 50, "nodes, spread over eight regions")
	f.Float64Var(&percent, "loss", 0, "packets lost, percent; a value below 1 is a fraction: 0.25 is 25")
	f.IntVar(&c.flips, "flips", 0, "flips at rest, and as many under 50 updates a second; 0: 20 for up to 200 nodes, 10 for more")
	f.DurationVar(&c.watch, "watch", 0, "virtual time to look for false verdicts; 0: 1 h for up to 50 nodes, less for more nodes, so that nodes x time is 50 h")
	f.Uint64Var(&c.seed, "seed", 1, "of the network's losses and delays; 0 is a seed too")
	f.BoolVar(&c.alone, "alone", false, "without memberlist beside it")
	profile := f.String("profile", "", "file for a CPU profile of it all")
	f.BoolVar(&c.json, "json", false, "print one JSON object as the last line")
	if err := f.Parse(args); err != nil {
		return err
	}
	if c.loss = percent; percent >= 1 {
		c.loss = percent / 100
	}
	if f.NArg() > 0 || c.nodes < 2 || c.nodes > 4000 || c.loss < 0 || c.loss > 0.5 || c.flips < 0 || c.flips > 200 || c.watch < 0 {
		return errors.New("converge wants -nodes of 2 to 4000, -loss of 0 to 50 (or 0.5), -flips of 0 to 200, and nothing else but its flags")
	}
	if c.flips == 0 {
		if c.flips = 20; c.nodes > 200 {
			c.flips = 10
		}
	}
	if c.watch == 0 {
		c.watch = min(time.Hour, watchBudget/time.Duration(c.nodes)).Round(time.Second)
	}
	if *profile != "" {
		file, err := os.Create(*profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
	}
	if c.nodes <= manyNodes { // time is dearer than memory
		debug.SetGCPercent(300)
	}
	debug.SetMemoryLimit(memoryLimit)
	return virtually(func(t *testing.T) error {
		r, err := c.run(t)
		pprof.StopCPUProfile()
		if err != nil {
			return err
		}
		if c.json {
			line, err := json.Marshal(r)
			if err != nil {
				return err
			}
			c.printf("%s\n", line)
		}
		return r.missedMusts()
	})
}

// What may not be missed: times from a verdict to the FIBs, and how many packets may be lost before verdicts may be false.
const (
	mostP99    = 300 // ms
	mostAll    = 400 // ms
	sureOfLoss = 10  // percent
)

// missedMusts is an error if nodes were missed or too late, or taken for down without reason.
func (r *convergeResult) missedMusts() error {
	switch {
	case r.Missed > 0:
		return fmt.Errorf("%d nodes did not hear of a flip", r.Missed)
	case r.P99 > mostP99 || r.All > mostAll:
		return fmt.Errorf("99 %% of the nodes took %.0f ms and all %.0f, and may take %d and %d", r.P99, r.All, mostP99, mostAll)
	case r.FalseDown > 0 && r.Loss <= sureOfLoss:
		return fmt.Errorf("%d false verdicts", r.FalseDown)
	}
	return nil
}

func (c *converge) printf(format string, args ...any) { fmt.Fprintf(c.out, format, args...) }

// step says what is done, and how long it took from the start on.
func (c *converge) step(format string, args ...any) {
	c.printf("%7.1fs  %s\n", (wall() - c.began).Seconds(), fmt.Sprintf(format, args...))
}

// wall is the time by the clock on the wall: in a bubble package time knows only the virtual one.
func wall() time.Duration {
	var t syscall.Timeval
	_ = syscall.Gettimeofday(&t) // it cannot fail
	return time.Duration(t.Nano())
}

// run measures our own gossip and then memberlist's, each in a world of its own.
func (c *converge) run(t *testing.T) (r convergeResult, err error) {
	r.Nodes, r.Loss = c.nodes, c.loss*100
	c.printf("%d nodes in eight regions, 13 to 150 ms apart, %.0f %% of packets lost; times are virtual but for those at the left\n", c.nodes, c.loss*100)
	var ours report
	if err := bubble(t, func() error { return c.measureOurs(&ours) }); err != nil {
		return r, fmt.Errorf("our gossip: %w", err)
	}
	lan, wan := new(report), new(report)
	for _, p := range []struct {
		name string
		wide bool
		into *report
	}{{"memberlist's LAN default", false, lan}, {"memberlist's WAN default", true, wan}} {
		if c.alone {
			break
		}
		if err := bubble(t, func() error { return c.measureMemberlist(p.name, p.wide, p.into) }); err != nil {
			return r, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	c.printf("\nfrom an observer's verdict to the FIB, of memberlist to the delegate, ms\n")
	c.printf("%-30s %8s %8s %8s %8s\n", "", "50 %", "99 %", "all", "missed")
	for _, l := range []struct {
		name string
		s    *spread
	}{
		{"at rest", &ours.rest}, {"under 50 updates a second", &ours.busy},
		{"memberlist's LAN default", &lan.rest}, {"memberlist's WAN default", &wan.rest},
	} {
		c.printf("%-30s %8.0f %8.0f %8.0f %8d\n", l.name, ms(l.s.at(0.50)), ms(l.s.at(0.99)), ms(l.s.at(1)), l.s.missed)
	}
	c.printf("\nsent by each node, bytes a second: %.0f at rest, %.0f under %.0f updates a second\n", ours.restBytes, ours.busyBytes, ours.updates)
	c.printf("in %v: %d false verdicts by observers, %d nodes taken for dead that were not\n", c.watch, ours.falseDown, ours.falseDead)
	var use syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &use) // it cannot fail
	c.printf("took %v, and %v of processors\n", (wall() - c.began).Round(time.Second),
		time.Duration(use.Utime.Nano()+use.Stime.Nano()).Round(time.Second))
	var all spread
	all.add(&ours.rest)
	all.add(&ours.busy)
	r.P50, r.P99, r.All, r.Missed = ms(all.at(0.50)), ms(all.at(0.99)), ms(all.at(1)), all.missed
	r.FalseDown, r.LANP99, r.Bytes = ours.falseDown+ours.falseDead, ms(lan.rest.at(0.99)), ours.busyBytes
	return r, nil
}

// virtually runs f where testing/synctest can be used, which insists on a test, and ends the process. Package testing writes to
// the standard output that it finds; that is kept for the results.
func virtually(f func(*testing.T) error) error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	os.Stdout = null
	body := func(t *testing.T) {
		if err := f(t); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			t.FailNow()
		}
	}
	testing.Main(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "bench", F: body}}, nil, nil)
	return nil
}

// bubble runs f in virtual time, and leaves no memory behind.
func bubble(t *testing.T, f func() error) (err error) {
	synctest.Test(t, func(*testing.T) { err = f() })
	debug.FreeOSMemory()
	return err
}
