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
	rounds  int           // of each fault
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

// What clients may have to wait for at most, in milliseconds.
const (
	refusedMust = 50   // for an answer from elsewhere, once the dead server's port refuses connects
	silentMust  = 3500 // when a server just says nothing any more
)

// faultResult is one line of the table, and of the JSON object.
type faultResult struct {
	Fault         string         `json:"fault"`
	GapP50        float64        `json:"gap_p50_ms"`                     // of the clients' longest times without an answer; of several rounds the median
	GapMax        float64        `json:"gap_max_ms"`                     // the longest of them, in any round
	HAProxyGapMax float64        `json:"haproxy_gap_max_ms"`             // the same through HAProxy
	Refused       float64        `json:"refused_to_answer_ms,omitempty"` // replica_kill: from when its port refuses connects until every reader has had an answer; the longest in any round
	Direct        float64        `json:"direct_connect_ms,omitempty"`    // the same without a node: connects and a statement of as many clients straight to the next server; the longest in any round
	Errors        map[string]int `json:"errors"`                         // by SQLSTATE; connection: without one
	Lost          int            `json:"lost_acked_writes"`
	Stale         int            `json:"stale_reads"` // that a session's last write was not in
}

func runFailover(ctx context.Context, args []string) error {
	b := &failover{out: os.Stdout}
	f := flag.NewFlagSet("bench failover", flag.ContinueOnError)
	f.IntVar(&b.clients, "clients", 4, "readers, and as many writers, through each of the two")
	f.IntVar(&b.rounds, "rounds", 1, "rounds of each fault, each with servers of its own")
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
	if f.NArg() > 0 || b.clients < 1 || b.rounds < 1 || b.after < time.Second {
		return errors.New("failover wants -clients and -rounds of 1 or more, -after of 1s or more, and nothing else but its flags")
	}
	farm, err := pgtest.Open(ctx, "")
	if err != nil {
		return err
	}
	b.farm = farm
	defer farm.Close()
	var results []faultResult
	for _, name := range b.faults {
		var rounds []faultResult
		for round := range b.rounds {
			r, err := b.run(ctx, name, fmt.Sprintf("%s-%d", name, round))
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			rounds = append(rounds, r)
		}
		if name != faultPrimaryAsync { // which tells of PostgreSQL, not of the node
			results = append(results, sumUp(rounds))
		}
	}
	b.printf("%-20s %10s %10s %12s %12s  %6s %6s  %s\n", "all rounds, ms", "gap p50", "gap max", "HAProxy's", "refused to", "lost", "stale", "errors")
	for _, r := range results {
		b.printf("%-20s %10.0f %10.0f %12.0f %12.1f  %6d %6d  %v%s\n", r.Fault, r.GapP50, r.GapMax, r.HAProxyGapMax, r.Refused, r.Lost, r.Stale, r.Errors, r.must())
	}
	if *asJSON {
		if err := json.NewEncoder(b.out).Encode(map[string]any{"faults": results}); err != nil {
			return err
		}
	}
	return wrong(results)
}

func (b *failover) printf(format string, args ...any) { fmt.Fprintf(b.out, format, args...) }

// sumUp is several rounds of one fault in one line.
func sumUp(rounds []faultResult) faultResult {
	sum := faultResult{Fault: rounds[0].Fault, Errors: map[string]int{}}
	var p50 []float64
	for _, r := range rounds {
		p50 = append(p50, r.GapP50)
		sum.GapMax, sum.HAProxyGapMax, sum.Refused = max(sum.GapMax, r.GapMax), max(sum.HAProxyGapMax, r.HAProxyGapMax), max(sum.Refused, r.Refused)
		sum.Direct = max(sum.Direct, r.Direct)
		sum.Lost, sum.Stale = sum.Lost+r.Lost, sum.Stale+r.Stale
		for code, n := range r.Errors {
			sum.Errors[code] += n
		}
	}
	sum.GapP50 = median(p50)
	return sum
}

// must says what of a fault's times has a bound, and whether it was kept. It is no fault when it is not: a machine that is busy with other things does that.
func (r faultResult) must() string {
	switch r.Fault {
	case faultReplicaKill:
		return fmt.Sprintf("  (refused to answer: must %d%s)", refusedMust, verdict(r.Refused <= refusedMust))
	case faultFreeze, faultCut:
		return fmt.Sprintf("  (gap max: must %d%s)", silentMust, verdict(r.GapMax <= silentMust))
	}
	return ""
}

// wrong is an error if something happened that no machine excuses.
func wrong(results []faultResult) error {
	var errs []error
	for _, r := range results {
		if r.Lost+r.Stale > 0 {
			errs = append(errs, fmt.Errorf("%s: %d acknowledged writes were lost, %d reads were stale", r.Fault, r.Lost, r.Stale))
		}
	}
	return errors.Join(errs...)
}

// run is one fault, with servers, node and HAProxy of its own.
func (b *failover) run(ctx context.Context, fault, name string) (r faultResult, err error) {
	b.printf("%s: starting a primary, two replicas, a node and HAProxy\n", fault)
	w, err := newFaultWorld(ctx, b.farm, fault, name)
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
	var direct time.Duration
	if fault == faultReplicaKill {
		if direct, err = connectsAtOnce(ctx, w.replicas[1].Addr(), len(ours.all())); err != nil {
			return r, err
		}
	}
	at := time.Now()
	for _, c := range []*faultCrowd{ours, theirs} {
		c.mark()
	}
	var refusing <-chan time.Time
	if fault == faultReplicaKill {
		refusing = refused(run, w.replicas[0].Addr())
	}
	ledger, err := w.strike(ctx, fault)
	if err != nil {
		return r, err
	}
	b.printf("%s: done within %v; going on for %v\n", fault, time.Since(at).Round(time.Millisecond), b.after)
	if err := pause(ctx, time.Until(at.Add(b.after))); err != nil {
		return r, err
	}
	var since time.Time
	if refusing != nil {
		since = <-refusing
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
	r.Direct = float64(direct.Microseconds()) / 1000
	if !since.IsZero() {
		r.Refused = ours.answeredSince(since)
		b.printf("%s: its port refused connects after %v; every reader had an answer %.1f ms later; %d connects at once, straight to the other replica, took %.1f\n",
			fault, since.Sub(at).Round(100*time.Microsecond), r.Refused, len(ours.all()), r.Direct)
	}
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
