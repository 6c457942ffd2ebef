package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// moveResult is the last line of `bench move`.
type moveResult struct {
	GB         float64    `json:"gb"`                // of the keyspace when the move began, indexes included
	Failed     int64      `json:"failed_statements"` // of the move that nobody disturbed
	Lost       int        `json:"lost"`
	Duplicated int        `json:"duplicated"`
	PauseP99   float64    `json:"pause_p99_ms"`     // of statements and transactions on the moving range, from a second before the freeze to a second after the flip
	PauseMax   float64    `json:"pause_max_ms"`     // the same, of all
	Ratio      float64    `json:"throughput_ratio"` // while rows are copied and compared, of before
	Moving     float64    `json:"moving_ratio"`     // the same, up to the freeze: with what is written meanwhile, and caught up behind the copy
	AbortMS    float64    `json:"abort_ms"`
	StopMS     float64    `json:"stop_copy_start_ms"` // the same by stopping the writers: how long they stand still
	Stale      int64      `json:"stale_reads"`        // of the move that nobody disturbed
	Kills      []moveKill `json:"kills"`
}

// moveKill is a move during which something was killed.
type moveKill struct {
	Who     string `json:"who"`
	Phase   string `json:"phase"`
	Lost    int    `json:"lost"`
	Resumed bool   `json:"resumed"` // it came to its end; false: it was aborted, and nothing was left

	duplicated int
}

// moveParts are what `bench move` consists of.
var moveParts = []string{"move", "abort", "stop", "kills"}

// moveOptions are what the flags say.
type moveOptions struct {
	mb      int
	before  time.Duration
	clients int
	parts   []string
	within  time.Duration
	dir     string
	quick   bool
	json    bool
}

func parseMove(args []string) (o moveOptions, err error) {
	f := flag.NewFlagSet("bench move", flag.ContinueOnError)
	f.IntVar(&o.mb, "mb", 1000, "megabytes of rows, of which a quarter moves")
	f.DurationVar(&o.before, "before", time.Minute, "how long the load runs before the move, to compare with: a minute has a checkpoint of each server, as the move has")
	f.IntVar(&o.clients, "clients", 8, "clients")
	parts := f.String("parts", strings.Join(moveParts, ","), "what to do, of "+strings.Join(moveParts, ", "))
	f.DurationVar(&o.within, "within", 45*time.Minute, "what is not done by then is given up")
	f.StringVar(&o.dir, "dir", os.TempDir(), "folder for servers and nodes: some four times as large as the rows")
	f.BoolVar(&o.quick, "quick", false, "64 MB, 5 s before")
	f.BoolVar(&o.json, "json", false, "print one JSON object as the last line")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.quick {
		o.mb, o.before = 64, 5*time.Second
	}
	for part := range strings.SplitSeq(*parts, ",") {
		if !slices.Contains(moveParts, part) {
			return o, fmt.Errorf("-parts has %q: there are %s", part, strings.Join(moveParts, ", "))
		}
		o.parts = append(o.parts, part)
	}
	if o.mb < 1 || o.clients < 1 || o.before <= 0 || o.within <= 0 {
		return o, errors.New("-mb, -clients, -before and -within want more than 0")
	}
	return o, nil
}

// runMove moves a quarter of a keyspace between two servers under load, and kills what takes part.
func runMove(ctx context.Context, args []string) error {
	o, err := parseMove(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.within, fmt.Errorf("not done in %s (-within)", o.within))
	defer cancel()
	r, err := measureMove(ctx, o)
	if err != nil && context.Cause(ctx) != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	if err == nil && o.json {
		err = json.NewEncoder(os.Stdout).Encode(r)
	}
	if err == nil {
		err = r.fault()
	}
	return err
}

func measureMove(ctx context.Context, o moveOptions) (r moveResult, err error) {
	w, err := newMoveWorld(ctx, o)
	if err != nil {
		return r, err
	}
	defer w.close()
	r.Kills = []moveKill{}
	l := w.load(ctx, o.clients)
	defer l.end()
	for _, part := range []struct {
		name string
		do   func() error
	}{
		{"move", func() error { return w.undisturbed(ctx, l, o.before, &r) }},
		{"abort", func() (err error) {
			r.AbortMS, err = w.aborted(ctx)
			return err
		}},
		{"stop", func() (err error) {
			r.StopMS, err = w.stopCopyStart(ctx, l)
			return err
		}},
		{"kills", func() error { return w.kills(ctx, l, o, &r) }},
	} {
		if !slices.Contains(o.parts, part.name) {
			continue
		}
		if err := part.do(); err != nil {
			return r, fmt.Errorf("%s: %w", part.name, err)
		}
	}
	l.end()
	counts, err := l.check(ctx)
	if err == nil {
		_, err = w.owner(ctx)
	}
	if err != nil {
		return r, err
	}
	r.Lost, r.Duplicated = counts.lost, counts.duplicated
	w.say("of %d acknowledged rows %d are lost; %d rows are there twice, or half written, or were refused or never sent; %d more are there of which nobody heard", counts.acked, r.Lost, r.Duplicated, counts.unheard)
	if slices.Contains(o.parts, "move") {
		w.say("the undisturbed move: %s", r.musts())
	}
	return r, nil
}

// other is the shard to move to.
func (w *moveWorld) other(ctx context.Context) (from, to string, err error) {
	from, err = w.owner(ctx)
	if to = "shard_1"; from == to {
		to = "shard_2"
	}
	return from, to, err
}

// undisturbed is the move that is measured.
func (w *moveWorld) undisturbed(ctx context.Context, l *moveLoad, before time.Duration, r *moveResult) (err error) {
	if r.GB, err = w.size(ctx); err != nil {
		return err
	}
	w.say("%.2f GB on two shards; the load alone for %s", r.GB, before)
	if err := pause(ctx, before/4); err != nil { // caches
		return err
	}
	calm, err := l.rate(ctx, before)
	if err != nil {
		return err
	}
	failed, stale, count, began := l.failed.Load(), l.stale.Load(), l.count.Load(), time.Now()
	w.say("%.0f statements and transactions a second; the move begins", calm)
	id, err := w.begin(ctx, "shard_2")
	if err != nil {
		return err
	}
	ratio := func() float64 { return float64(l.count.Load()-count) / time.Since(began).Seconds() / calm }
	seldom := 5 * moveWatch // to be asked costs a node as well
	if err := w.until(ctx, id, seldom, func(m *moveStatus) bool {
		return m == nil || m.Phase != "prepare" || m.Step != "check" && m.Step != "copy"
	}); err != nil {
		return err
	}
	r.Ratio = ratio()
	if err := w.until(ctx, id, seldom, func(m *moveStatus) bool { return m == nil || m.Phase != "prepare" }); err != nil {
		return err
	}
	frozen := time.Now()
	r.Moving = ratio()
	if err := w.until(ctx, id, moveWatch, func(m *moveStatus) bool { return m == nil || m.Phase == "flipped" || m.Phase == "aborted" }); err != nil {
		return err
	}
	flipped := time.Now()
	if err := w.over(ctx, id); err != nil { // by then all has ended that was held back, for however long
		return err
	}
	around := l.around(frozen.Add(-time.Second), flipped.Add(time.Second))
	r.PauseP99, r.PauseMax = around.p99, around.longest
	r.Failed, r.Stale = l.failed.Load()-failed, l.stale.Load()-stale
	if owner, err := w.owner(ctx); err != nil || owner != "shard_2" {
		return errors.Join(fmt.Errorf("the move was aborted: the range is on %s", owner), err)
	}
	w.say("undisturbed: %d statements failed, %d stale reads, pause p99 %.1f ms, max %.1f ms (%s), throughput while copying %.2f of before, up to the freeze %.2f; %s from begin to flip, %s in all", r.Failed, r.Stale,
		r.PauseP99, r.PauseMax, around, r.Ratio, r.Moving, flipped.Sub(began).Round(time.Second), time.Since(began).Round(time.Second))
	for _, failure := range l.failures {
		w.say("  failed: %s", failure)
	}
	return w.told(id)
}

// aborted aborts a move that copies, and returns how long it took until nothing of it was left.
func (w *moveWorld) aborted(ctx context.Context) (ms float64, err error) {
	_, to, err := w.other(ctx)
	if err != nil {
		return 0, err
	}
	id, err := w.begin(ctx, to)
	if err == nil {
		err = w.until(ctx, id, moveWatch, func(m *moveStatus) bool { return m != nil && (m.Part > 0.3 || m.Step != "check" && m.Step != "copy") })
	}
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := w.nodes[0].call(ctx, "POST", fmt.Sprintf("/api/v1/moves/%d/abort", id), map[string]string{"reason": "of the benchmark"}, nil); err != nil {
		return 0, err
	}
	told := time.Since(began)
	if err := w.over(ctx, id); err != nil {
		return 0, err
	}
	ms = float64(time.Since(began).Milliseconds())
	owner, err := w.owner(ctx)
	if err == nil && owner == to {
		err = errors.New("a move that was aborted has moved the range")
	}
	w.say("an abort in the middle of the copy was answered after %s, and nothing was left after %.0f ms, the copied rows included", told.Round(time.Millisecond), ms)
	return ms, err
}
