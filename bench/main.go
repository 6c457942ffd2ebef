package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const usage = `bench compares a node with what it stands beside.

  go run ./bench [flags]          a node and PostgreSQL alone, with pgbench: a minute
  go run ./bench soak [flags]     1000 clients that query, cancel, die and come back, for half an hour: does anything leak
  go run ./bench fib [flags]      a dispatch in nanoseconds, beside a sorted slice, a B-tree and a map: under a minute
  go run ./bench sql [flags]      statements over eight shards: merging, COPY, two-phase commit, beside one PostgreSQL; two minutes
  go run ./bench move [flags]     a quarter of a keyspace moves under load; leader and servers killed in each phase: what is lost, how long clients wait
  go run ./bench move-sim [flags] moves in virtual time while everything fails, each history checked: is what nodes with a lease say linearizable
  go run ./bench failover [flags] servers and links that die under clients of a node and of HAProxy: how long nobody answers
  go run ./bench chaos [flags]    networks, nodes and servers that fail at random for ten minutes: is what clients were told true
  go run ./bench compare [flags]  a node, PgBouncer, HAProxy, Pgpool and PostgreSQL alone: throughput, latency, CPU, memory
  go run ./bench converge [flags] gossip of up to thousands of nodes in virtual time: how soon all know of a backend's end

It starts everything itself, on free ports of loopback and in a temporary folder, and runs the same load against each in
alternation. The node routes every statement by its key over two shards, and every answer is checked.

`

// options are what the flags say.
type options struct {
	rounds  int
	seconds int // of one run of pgbench
	modes   []string
	clients []int
	parts   []string
	targets []string // beside direct
	quick   bool
	json    bool
	profile string // folder for profiles of the node; "" is none
	out     io.Writer
}

// What a comparison consists of.
var (
	allModes = []string{"simple", "extended", "prepared"}
	allPeers = []string{rangefinder, pgbouncer, haproxy, pgpool}
	allParts = []string{"rows", "large", "connect", "idle", "routing"}
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	args, compared := os.Args[1:], false
	others := map[string]func(context.Context, []string) error{"soak": runSoak, "fib": runFIB, "failover": runFailover, "chaos": runChaos, "sql": runSQL, "move": runMove}
	if len(args) > 0 && others[args[0]] != nil {
		if err := others[args[0]](ctx, args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			stop()
			os.Exit(1)
		}
		return
	}
	virtual := map[string]func([]string) error{"converge": runConverge, "move-sim": runMoveSim}
	if len(args) > 0 && virtual[args[0]] != nil {
		stop() // Ctrl-C ends it at once: it has nothing to clear away
		fmt.Fprintln(os.Stderr, "bench:", virtual[args[0]](args[1:]))
		os.Exit(2)
	}
	if len(args) > 0 && args[0] == "compare" {
		args, compared = args[1:], true
	}
	o, err := parse(args, compared, os.Stderr)
	if err != nil {
		os.Exit(2)
	}
	run := short
	if compared {
		run = compare
	}
	err = run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parse reads the flags, and says on stderr what is wrong with them.
func parse(args []string, compared bool, stderr io.Writer) (*options, error) {
	o := &options{out: os.Stdout}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(f.Output(), usage)
		f.PrintDefaults()
	}
	f.IntVar(&o.rounds, "rounds", 11, "rounds; the medians are printed")
	f.IntVar(&o.seconds, "seconds", 1, "seconds that pgbench runs, logins included")
	f.BoolVar(&o.json, "json", false, "print one JSON object as the last line")
	clients, modes, parts, targets := "8", strings.Join(allModes, ","), strings.Join(allParts, ","), strings.Join(allPeers, ",")
	if compared {
		clients = "1,8,16,64"
		f.BoolVar(&o.quick, "quick", false, "simple protocol at 16 clients, without Pgpool, and a glance at the rest: under 50 s")
		f.StringVar(&parts, "parts", parts, "what to measure")
		f.StringVar(&targets, "targets", targets, "what to compare with PostgreSQL alone")
		f.StringVar(&o.profile, "profile", "", "folder for profiles of the node: CPU for each mode under the most clients and for logins, memory with idle clients")
	}
	f.StringVar(&clients, "clients", clients, "pgbench clients")
	f.StringVar(&modes, "modes", modes, "query modes of pgbench")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	err := o.check(f, clients, modes, parts, targets)
	if err != nil {
		fmt.Fprintf(f.Output(), "bench: %v\n\n", err)
		f.Usage()
	}
	return o, err
}

func (o *options) check(f *flag.FlagSet, clients, modes, parts, targets string) error {
	if f.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	if o.rounds < 1 || o.seconds < 1 {
		return fmt.Errorf("-rounds and -seconds want at least 1")
	}
	for s := range strings.SplitSeq(clients, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxClients {
			return fmt.Errorf("-clients wants numbers from 1 to %d, not %q", maxClients, s)
		}
		o.clients = append(o.clients, n)
	}
	for _, list := range []struct {
		flag, value string
		into        *[]string
		known       []string
	}{{"modes", modes, &o.modes, allModes}, {"parts", parts, &o.parts, allParts}, {"targets", targets, &o.targets, allPeers}} {
		*list.into = strings.Split(list.value, ",")
		for _, v := range *list.into {
			if !slices.Contains(list.known, v) {
				return fmt.Errorf("-%s wants some of %s, not %q", list.flag, strings.Join(list.known, ","), v)
			}
		}
	}
	if o.quick {
		o.rounds, o.modes, o.clients = 6, []string{"simple"}, []int{16}
		o.targets = slices.DeleteFunc(o.targets, func(t string) bool { return t == pgpool })
	}
	return nil
}

func (o *options) printf(format string, args ...any) { fmt.Fprintf(o.out, format, args...) }

func (o *options) wants(part string) bool { return slices.Contains(o.parts, part) }

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
