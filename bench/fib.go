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
	"slices"
	"strconv"
	"strings"
	"time"
)

// fibMusts are the most nanoseconds that a dispatch may take, by ranges.
var fibMusts = map[int]float64{16: 20, 1000: 50, 100_000: 120, 1_000_000: 600}

// flipMust is the most nanoseconds that a flip may take.
const flipMust = 1000

// The spreads and the kinds of keys of the tables that are measured.
const (
	evenly  = "even"
	skewed  = "skewed"
	integer = "integer"
	byteKey = "bytes"
)

// fibBench is `bench fib`.
type fibBench struct {
	// constant
	out    io.Writer
	sizes  []int
	rounds int
	batch  time.Duration
	json   bool

	// owned by run
	rows   []fibRow
	flipNS []float64 // by slice
	pathNS []float64
	manyNS []float64
	flips  []float64 // a second, by table
	others float64   // the part of the machine that anything else took
}

// fibRow is one line of the table.
type fibRow struct {
	ranges       int
	spread, keys string
	goroutines   int

	// nanoseconds a dispatch
	fib, chained       float64 // chained: each begins when the one before has ended
	slice, btree, hash float64

	allocs float64 // of the FIB, a dispatch
}

// fibResult is the last line of -json.
type fibResult struct {
	Dispatch map[string]float64 `json:"dispatch_ns"`
	Slice    map[string]float64 `json:"sorted_slice_ns"`
	Flip     float64            `json:"flip_ns"`
	Allocs   float64            `json:"allocs"`
	Case     string             `json:"case"`               // which rows the numbers above are of
	Many     float64            `json:"flip_100_shards_ns"` // the same among a hundred shards
	Path     float64            `json:"flip_record_ns"`     // from the record that tells of it
	PerS     float64            `json:"flips_per_s"`        // while dispatch was measured
}

// runFIB runs `bench fib`.
func runFIB(ctx context.Context, args []string) error {
	b := &fibBench{out: os.Stdout}
	f := flag.NewFlagSet("bench fib", flag.ContinueOnError)
	sizes := "16,1000,100000,1000000"
	f.StringVar(&sizes, "ranges", sizes, "ranges of the tables")
	f.IntVar(&b.rounds, "rounds", 9, "rounds; the medians are printed")
	f.DurationVar(&b.batch, "time", 10*time.Millisecond, "how long one contestant is at it in a round")
	f.BoolVar(&b.json, "json", false, "print one JSON object as the last line")
	if err := f.Parse(args); err != nil {
		return err
	}
	for s := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 2 || n > 4_000_000 {
			return fmt.Errorf("-ranges wants numbers from 2 to 4000000, not %q", s)
		}
		b.sizes = append(b.sizes, n)
	}
	if f.NArg() > 0 || b.rounds < 1 || b.batch < time.Millisecond {
		return errors.New("fib wants -rounds of 1 or more, -time of 1ms or more, and nothing else but its flags")
	}
	return b.run(ctx)
}

func (b *fibBench) printf(format string, args ...any) { fmt.Fprintf(b.out, format, args...) }

func (b *fibBench) run(ctx context.Context) error {
	began, ours := time.Now(), []int{os.Getpid()}
	busyFrom, err := busy()
	if err != nil {
		return err
	}
	oursFrom := cpu(ours)
	for _, n := range b.sizes {
		for _, keys := range []string{integer, byteKey} {
			for _, spread := range []string{evenly, skewed} {
				if err := ctx.Err(); err != nil {
					return err
				}
				b.printf("-- %d ranges, %s, %s keys\n", n, spread, keys)
				if err := b.measure(ctx, n, spread, keys); err != nil {
					return fmt.Errorf("%d ranges, %s, %s keys: %w", n, spread, keys, err)
				}
			}
		}
	}
	b.printf("-- flips\n")
	if err := b.flip(ctx); err != nil {
		return err
	}
	busyTo, err := busy()
	if err != nil {
		return err
	}
	b.others = max(0, (busyTo-busyFrom-cpu(ours)+oursFrom).Seconds()/(time.Since(began).Seconds()*float64(runtime.NumCPU())))
	b.table()
	b.printf("took %s\n", time.Since(began).Round(time.Second))
	if b.json {
		return json.NewEncoder(b.out).Encode(b.result())
	}
	return nil
}

// measure lets all contestants dispatch over one table, in turns, and adds the rows.
func (b *fibBench) measure(ctx context.Context, n int, spread, keys string) error {
	w, err := newFIBWorld(n, spread, keys)
	if err != nil {
		return err
	}
	defer w.close()
	all := w.contestants()
	if err := w.agree(all); err != nil {
		return err
	}
	one := fibRow{ranges: n, spread: spread, keys: keys, goroutines: 1, allocs: w.allocs(all[0])}
	two := one
	two.goroutines = 2
	w.flips() // go on from here
	took := make([][2][]float64, len(all))
	for round := range b.rounds {
		for k := range all {
			if err := ctx.Err(); err != nil {
				return err
			}
			k = (k + round) % len(all)
			for g := range took[k] {
				took[k][g] = append(took[k][g], w.time(all[k], g+1, b.batch)...)
			}
		}
	}
	for k, c := range all {
		for g, row := range []*fibRow{&one, &two} {
			*c.column(row) = round(median(took[k][g]))
		}
	}
	b.rows = append(b.rows, one, two)
	perSecond, err := w.stop()
	b.flips = append(b.flips, perSecond)
	return err
}

// table prints the rows, and where a must was missed.
func (b *fibBench) table() {
	b.printf("\ndispatch, nanoseconds of processor time; medians of the slices of %d rounds of %s, in turns, with %.0f flips a second; others took %.0f%% of the machine\n",
		b.rounds, b.batch, slices.Min(b.flips), 100*b.others)
	b.printf("%8s %-7s %-8s %10s %7s %9s %8s %8s %8s %11s %7s %6s\n", "ranges", "spread", "keys", "goroutines",
		"fib", "chained", "slice", "btree", "map", "fib/slice", "allocs", "must")
	for _, r := range b.rows {
		must, ok := fibMusts[r.ranges]
		verdict := "-"
		if ok {
			verdict = fmt.Sprint(must)
			if r.fib > must || r.allocs > 0 {
				verdict += " MISSED"
			}
		}
		b.printf("%8d %-7s %-8s %10d %7.1f %9.1f %8.1f %8.1f %8.1f %11.2f %7.0f %6s\n", r.ranges, r.spread, r.keys, r.goroutines,
			r.fib, r.chained, r.slice, r.btree, r.hash, r.fib/r.slice, r.allocs, verdict)
	}
	verdict := ""
	if median(b.flipNS) > flipMust {
		verdict = " MISSED"
	}
	b.printf("\na flip, from the new beliefs to the swapped list: %.0f ns among %d shards (must %d%s), %.0f ns among %d; from the record on: %.0f ns among %d\n\n",
		median(b.flipNS), fewShards, flipMust, verdict, median(b.manyNS), manyShards, median(b.pathNS), fewShards)
}

// result is the worst row of each size: the must holds for every one of them.
func (b *fibBench) result() fibResult {
	r := fibResult{
		Dispatch: map[string]float64{}, Slice: map[string]float64{}, Flip: round(median(b.flipNS)), Many: round(median(b.manyNS)), Path: round(median(b.pathNS)),
		Case: "of each size, the slowest of even and skewed, integer and bytes, one and two goroutines; the sorted slice in that same case",
		PerS: round(slices.Min(b.flips)),
	}
	for _, row := range b.rows {
		size := strconv.Itoa(row.ranges)
		r.Allocs = max(r.Allocs, row.allocs)
		if row.fib > r.Dispatch[size] {
			r.Dispatch[size], r.Slice[size] = row.fib, row.slice
		}
	}
	return r
}
