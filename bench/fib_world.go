package main

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
)

// flipEvery makes 500 flips a second.
const flipEvery = 2 * time.Millisecond

// fibWorld is a node's beliefs and the table made from them: three shards, each a primary and three replicas in three
// regions, and one keyspace; and the keys that are asked for.
type fibWorld struct {
	// constant
	table      *rib.Table
	handle     *fib.Handle
	maintainer *fib.Maintainer
	keys       *fibKeys
	starts     *fibKeys    // of the ranges but the first
	asked      []uint32    // by key: the range that it lies in
	mapped     *fibKeys    // by key: the start of that range, for the map
	lock       sync.Locker // of the map

	// owned by who flips
	seq uint64

	// while flips go on
	stopping chan struct{}
	stopped  chan struct{}
	began    time.Time
	before   uint64
}

func newFIBWorld(n int, spread, kind string) (*fibWorld, error) {
	starts, keys := fibLayout(n, spread, kind)
	w := &fibWorld{table: fibBeliefs(3), handle: new(fib.Handle), keys: keys, starts: starts}
	k := rib.Keyspace{ID: 1, Name: "bench.orders", Database: benchDatabase, Method: "range", Types: []rib.Type{rib.TypeBigint}}
	if kind == byteKey {
		k.Types[0] = rib.TypeText
	}
	k.Ranges = make([]rib.Range, starts.len()+1)
	for i := range k.Ranges {
		k.Ranges[i].Shard = fibShard(i % 3)
		if i > 0 {
			k.Ranges[i].From = rib.Key(starts.append(nil, i-1))
			k.Ranges[i-1].To = k.Ranges[i].From
		}
	}
	o := *w.table.Owners().Get()
	o.Epoch.Index++
	o.Keyspaces = []rib.Keyspace{k}
	w.table.Owners().Set(&o)
	w.seq = 1000
	w.maintainer = fib.NewMaintainer(w.table, w.handle, nil)
	w.maintainer.Open()
	w.asked = make([]uint32, keys.len())
	for i := range w.asked {
		w.asked[i] = uint32(k.Owner(keys.append(nil, i)))
	}
	w.mapped = w.startsAsked()
	runtime.GC() //revive:disable-line:call-to-gc what building the world has left is not to be collected while it is measured
	if alarm := w.maintainer.Alarm(); alarm != "" {
		w.close()
		return nil, errors.New(alarm)
	}
	return w, nil
}

// startsAsked are the first keys of the ranges that are asked for.
func (w *fibWorld) startsAsked() *fibKeys {
	if w.keys.numbers != nil {
		k := &fibKeys{numbers: make([]uint64, len(w.asked))}
		for i, at := range w.asked {
			if at > 0 {
				k.numbers[i] = w.starts.numbers[at-1]
			}
		}
		return k
	}
	texts := make([][]byte, len(w.asked))
	for i, at := range w.asked {
		if at > 0 {
			texts[i] = w.starts.key(int(at)-1, nil)
		}
	}
	return keysOf(texts)
}

func fibShard(i int) string { return fmt.Sprintf("shard_%d", i+1) }

// fibBeliefs is a table with that many shards, each a primary and a replica in fra and one in iad and syd, all up.
func fibBeliefs(shards int) *rib.Table {
	t := rib.NewTable(rib.Member{Name: "bench", Region: "fra"})
	for region, d := range map[string]time.Duration{"fra": 0, "iad": 88 * time.Millisecond, "syd": 280 * time.Millisecond} {
		t.Health().Distance(region, d, time.Unix(1_700_000_000, 0))
	}
	o := rib.Ownership{Epoch: rib.Epoch{Index: 1}}
	seq := uint32(0)
	for i := range shards {
		shard := fibShard(i)
		o.Shards = append(o.Shards, rib.Shard{Name: shard, SystemID: 7})
		for _, place := range []string{"fra_primary", "fra", "iad", "syd"} {
			region, _, primary := strings.Cut(place, "_")
			b := rib.Backend{Name: shard + "_" + place, Shard: shard, Region: region, Addr: place + ":5432", SystemID: 7}
			role := rib.Replica
			if primary {
				role = rib.Primary
			}
			seq++
			t.Health().Announce(rib.Announcement{Backend: b, Observer: "bench", Stamp: rib.Stamp{Incarnation: 1, Seq: uint64(seq)}})
			fibObserve(t, b.Name, uint64(seq), rib.Up, role)
		}
	}
	t.Owners().Set(&o)
	return t
}

func fibObserve(t *rib.Table, backend string, seq uint64, state rib.State, role rib.Role) {
	t.Health().Observe(rib.Route{Backend: backend, Observer: "bench", Stamp: rib.Stamp{Incarnation: 1, Seq: seq}, State: state, Role: role, Timeline: 1})
}

// flips begins with 500 flips a second, through the Maintainer.
func (w *fibWorld) flips() {
	w.stopping, w.stopped = make(chan struct{}), make(chan struct{})
	w.began, w.before = time.Now(), w.maintainer.Stats().Flips
	go func() {
		defer close(w.stopped)
		tick := time.NewTicker(flipEvery)
		defer tick.Stop()
		for i, due := 0, 0; ; {
			select {
			case <-w.stopping:
				return
			case <-tick.C:
			}
			// A busy machine swallows ticks: what is due is made up for.
			for due = int(time.Since(w.began) / flipEvery); i < due; i++ {
				w.lock.Lock() // what changes candidates beside a map has to keep its readers out
				w.seq++
				w.lock.Unlock()
				fibObserve(w.table, fibShard(i%3)+"_fra", w.seq, rib.State(int(rib.Up)+(i/3+1)%2), rib.Replica)
				if i+1 < due {
					runtime.Gosched()
				}
			}
		}
	}()
}

// stop ends the flips and tells how many there were a second.
func (w *fibWorld) stop() (perSecond float64, err error) {
	close(w.stopping)
	<-w.stopped
	perSecond = float64(w.maintainer.Stats().Flips-w.before) / time.Since(w.began).Seconds()
	if alarm := w.maintainer.Alarm(); alarm != "" {
		return perSecond, errors.New(alarm)
	}
	return perSecond, nil
}

func (w *fibWorld) close() { w.maintainer.Close() }

// allocs is what a contestant allocates for a dispatch, while nothing else runs.
func (w *fibWorld) allocs(c *contestant) float64 {
	const many = 1000
	return testing.AllocsPerRun(20, func() { c.run(0, many) }) / many
}

// slice is how long a contestant runs between two looks at the clock: so short that a cold cache or an interrupt spoils few,
// and so long that a flip falls into most of them.
const slice = 2 * time.Millisecond

// time lets a contestant run on some goroutines at once, for as many slices as the batch has, and gives the nanoseconds of
// its thread's processor time that a dispatch took, by slice: what else runs on the machine takes none of that, but for the
// caches. A short while before it warms them, and tells how many dispatches fit into a slice.
func (w *fibWorld) time(c *contestant, goroutines int, batch time.Duration) []float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const probe = 1000
	done, begin := 0, threadCPU()
	for threadCPU()-begin < max(batch/3, slice/2) {
		c.run(done, probe)
		done += probe
	}
	n := max(probe, int(float64(done)*float64(slice)/float64(threadCPU()-begin)))
	slices := max(1, int(batch/slice))
	took := make([]float64, goroutines*slices)
	run := func(g int) {
		for i := range slices {
			begin := threadCPU()
			c.run(done+(g*slices+i)*n, n)
			took[g*slices+i] = float64((threadCPU() - begin).Nanoseconds()) / float64(n)
		}
	}
	if goroutines == 1 {
		run(0)
		return took
	}
	var all sync.WaitGroup
	start := make(chan struct{})
	for g := range goroutines {
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			<-start
			run(g)
		})
	}
	close(start)
	all.Wait()
	return took
}
