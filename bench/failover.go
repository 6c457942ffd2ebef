package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"rangefinder/internal/pgtest"
)

// failover is the benchmark of what clients see when a server or the way to it dies: through a node and through HAProxy, under the
// same faults at the same time.
type failover struct {
	out     io.Writer
	farm    *pgtest.Farm
	clients int           // readers, and as many writers, on each side
	after   time.Duration // that they go on after the fault
	faults  []string
}

// The faults.
const (
	faultReplicaKill  = "replica_kill"       // SIGKILL of the closest replica
	faultPrimaryKill  = "primary_kill"       // SIGKILL of the primary, and the promotion of the replica that has the most
	faultFreeze       = "replica_stop"       // SIGSTOP of the closest replica
	faultCut          = "replica_cut"        // nothing goes to or from the closest replica any more
	faultPrimaryAsync = "primary_kill_async" // as primary_kill without synchronous replication: what that loses itself
)

var allFaults = []string{faultReplicaKill, faultPrimaryKill, faultFreeze, faultCut, faultPrimaryAsync}

const (
	beforeFault = 3 * time.Second
	// promoteAfter is what a manager of PostgreSQL servers takes here to find out that the primary is dead.
	promoteAfter = time.Second
)

// faultResult is one line of the table, and of the JSON object.
type faultResult struct {
	Fault         string         `json:"fault"`
	GapP50        float64        `json:"gap_p50_ms"`         // of the clients' longest times without an answer
	GapMax        float64        `json:"gap_max_ms"`         // the longest of them
	HAProxyGapMax float64        `json:"haproxy_gap_max_ms"` // the same through HAProxy
	Errors        map[string]int `json:"errors"`             // by SQLSTATE; connection: without one
	Lost          int            `json:"lost_acked_writes"`
	Stale         int            `json:"stale_reads"` // that a session's last write was not in
}

func runFailover(ctx context.Context, args []string) error {
	b := &failover{out: os.Stdout}
	f := flag.NewFlagSet("bench failover", flag.ContinueOnError)
	f.IntVar(&b.clients, "clients", 4, "readers, and as many writers, through each of the two")
	f.DurationVar(&b.after, "after", 30*time.Second, "how long they go on after the fault")
	faults := f.String("faults", strings.Join(allFaults, ","), "which faults")
	asJSON := f.Bool("json", false, "print one JSON object as the last line")
	if err := f.Parse(args); err != nil {
		return err
	}
	b.faults = strings.Split(*faults, ",")
	for _, name := range b.faults {
		if !slices.Contains(allFaults, name) {
			return fmt.Errorf("-faults wants some of %s, not %q", strings.Join(allFaults, ","), name)
		}
	}
	if f.NArg() > 0 || b.clients < 1 || b.after < time.Second {
		return errors.New("failover wants -clients of 1 or more, -after of 1s or more, and nothing else but its flags")
	}
	farm, err := pgtest.Open(ctx, "")
	if err != nil {
		return err
	}
	b.farm = farm
	defer farm.Close()
	var results []faultResult
	for _, name := range b.faults {
		r, err := b.run(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if name != faultPrimaryAsync { // which tells of PostgreSQL, not of the node
			results = append(results, r)
		}
	}
	if *asJSON {
		return json.NewEncoder(b.out).Encode(map[string]any{"faults": results})
	}
	return nil
}

func (b *failover) printf(format string, args ...any) { fmt.Fprintf(b.out, format, args...) }

// run is one fault, with servers, node and HAProxy of its own.
func (b *failover) run(ctx context.Context, fault string) (r faultResult, err error) {
	b.printf("%s: starting a primary, two replicas, a node and HAProxy\n", fault)
	w, err := newFaultWorld(ctx, b.farm, fault)
	if err != nil {
		return r, err
	}
	defer w.close()
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	ours, theirs := newFaultCrowd(run, rangefinder, w.node, w.node, b.clients), newFaultCrowd(run, haproxy, w.haproxyWrite, w.haproxyRead, b.clients)
	if err := errors.Join(ours.begun(ctx), theirs.begun(ctx), pause(ctx, beforeFault)); err != nil {
		return r, err
	}
	at := time.Now()
	for _, c := range []*faultCrowd{ours, theirs} {
		c.mark()
	}
	ledger, err := w.strike(ctx, fault)
	if err != nil {
		return r, err
	}
	b.printf("%s: done within %v; going on for %v\n", fault, time.Since(at).Round(time.Millisecond), b.after)
	if err := pause(ctx, time.Until(at.Add(b.after))); err != nil {
		return r, err
	}
	cancel()
	ours.wait()
	theirs.wait()
	there, err := w.ledger(ctx, ledger)
	if err != nil {
		return r, err
	}
	writers := fault == faultPrimaryKill || fault == faultPrimaryAsync
	r = faultResult{Fault: fault, Errors: ours.errors(), Lost: ours.lost(there), Stale: ours.stale()}
	r.GapP50, r.GapMax = ours.gaps(writers)
	p50, most := theirs.gaps(writers)
	r.HAProxyGapMax = most
	who := "reads"
	if writers {
		who = "writes"
	}
	b.printf("%-20s %-12s %10s %10s  %6s %6s  %s\n", fault, who+", ms", "gap p50", "gap max", "lost", "stale", "errors")
	b.printf("%-20s %-12s %10.0f %10.0f  %6d %6d  %v\n", "", rangefinder, r.GapP50, r.GapMax, r.Lost, r.Stale, r.Errors)
	b.printf("%-20s %-12s %10.0f %10.0f  %6d %6d  %v\n", "", haproxy, p50, most, theirs.lost(there), theirs.stale(), theirs.errors())
	return r, nil
}
