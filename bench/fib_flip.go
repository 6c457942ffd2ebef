package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
)

// fewShards and manyShards are how many there are while one of them flips.
const (
	fewShards  = 3
	manyShards = 100
)

// flip measures what it costs to swap the list of one shard: with the new beliefs in hand, among a few shards and among many,
// and from the record that tells of them.
func (b *fibBench) flip(ctx context.Context) error {
	defer runtime.KeepAlive(warmHeap())
	for range b.rounds {
		for _, shards := range []int{fewShards, manyShards} {
			if err := ctx.Err(); err != nil {
				return err
			}
			f, err := newFlipper(shards)
			if err != nil {
				return err
			}
			if shards == fewShards {
				b.flipNS = append(b.flipNS, f.time(b.batch, f.flip)...)
				b.pathNS = append(b.pathNS, f.time(b.batch, f.record)...)
			} else {
				b.manyNS = append(b.manyNS, f.time(b.batch, f.flip)...)
			}
		}
	}
	return nil
}

// nodeHeap is the heap that a node has at least, in bytes.
const nodeHeap = 64 << 20

// warmHeap returns what makes the heap as large as a node's, once flips have gone through it a few times. Each flip leaves a kilobyte of garbage, and a
// page that the system has given for the first time costs more than the four flips that fill it. A node goes on over the same pages; a small
// heap, or one that was large before, would get new ones all the time.
func warmHeap() []byte {
	debug.FreeOSMemory()
	ballast := make([]byte, nodeHeap) // never written to, so that it takes no memory itself
	f, err := newFlipper(fewShards)
	if err != nil {
		panic(err)
	}
	var stats debug.GCStats
	debug.ReadGCStats(&stats)
	for until := stats.NumGC + 3; stats.NumGC < until; debug.ReadGCStats(&stats) {
		for range 1000 {
			f.flip()
		}
	}
	return ballast
}

// flipper turns one replica down and up again.
type flipper struct {
	// constant
	beliefs *rib.Table
	table   *fib.Table
	states  [2]*rib.Snapshot

	// owned by one goroutine
	seq uint64
	now int
}

func newFlipper(shards int) (f *flipper, err error) {
	f = &flipper{beliefs: fibBeliefs(shards), seq: uint64(10 * shards), now: 1}
	if f.table, err = fib.Compile(f.beliefs.Snapshot()); err != nil {
		return nil, err
	}
	for i := range f.states {
		f.observe(i)
		f.states[i] = f.beliefs.Snapshot()
	}
	return f, nil
}

func (f *flipper) observe(state int) {
	f.seq++
	fibObserve(f.beliefs, fibShard(0)+"_fra", f.seq, []rib.State{rib.Down, rib.Up}[state], rib.Replica)
}

// flip brings the table to the other state.
func (f *flipper) flip() {
	f.now = 1 - f.now
	f.swap(f.states[f.now])
}

// record is a flip from the observer's record on.
func (f *flipper) record() {
	f.now = 1 - f.now
	f.observe(f.now)
	f.swap(f.beliefs.Snapshot())
}

func (f *flipper) swap(s *rib.Snapshot) {
	if n := f.table.Flip(s); n != 1 {
		panic(fmt.Sprintf("a flip changed %d lists", n))
	}
}

// time is how many nanoseconds of processor time once takes, in each slice of the batch.
func (f *flipper) time(batch time.Duration, once func()) (took []float64) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range max(1, int(batch/slice)) {
		n, begin := 0, threadCPU()
		for threadCPU()-begin < slice {
			for range 20 {
				once()
			}
			n += 20
		}
		took = append(took, float64((threadCPU()-begin).Nanoseconds())/float64(n))
	}
	return took
}
