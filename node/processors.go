package node

import (
	"context"
	"os"
	"runtime"
	runtimemetrics "runtime/metrics"
	"syscall"
	"time"
)

// A process that keeps two threads awake for the work of one pays for it: each wakes the other, looks for work, finds none and
// goes to sleep again, at every statement. So Go gets as many processors as there is work for, and no more. Measured with 16
// clients of pgbench on two cores: 10 % less processor time a query, and more of them.

// processors decides how many there are to be.
type processors struct {
	max  int // as many as Go would take
	now  int
	calm int // looks in a row at which one less would have done
}

const (
	lookEvery = 200 * time.Millisecond
	// enoughCalm is how many calm looks take a processor away: two seconds.
	enoughCalm = 10
	// late is how long a goroutine that could run may wait, in seconds, before it counts as late. Sixty statements that come at one
	// stroke are dealt with in one.
	late = 4e-3
)

// next takes what was used since the last look, in processors, and which part of the goroutines were late. It returns how many
// processors there are to be now. More come at once, and twice as many; one at a time goes, when it was idle for long enough.
func (p *processors) next(used, lateShare float64) int {
	switch {
	case used > 0.8*float64(p.now) || lateShare > 0.1:
		p.now, p.calm = min(p.max, 2*p.now), 0
	case used < 0.55*float64(p.now-1) && lateShare < 0.02:
		if p.calm++; p.calm >= enoughCalm {
			p.now, p.calm = p.now-1, 0
		}
	default:
		p.calm = 0
	}
	return p.now
}

// steerProcessors gives Go as many processors as it has work for, up to most, until ctx ends. It is for a process that is one
// node, and does nothing where GOMAXPROCS is set: somebody has decided.
func steerProcessors(ctx context.Context, most int) {
	if os.Getenv("GOMAXPROCS") != "" {
		return
	}
	p := &processors{max: most, now: runtime.GOMAXPROCS(0)}
	waits := newWaits()
	cpu, at := cpuTime(), time.Now()
	for pause(ctx, lookEvery) {
		now, used := time.Now(), cpuTime()
		before := p.now
		if n := p.next((used-cpu).Seconds()/now.Sub(at).Seconds(), waits.late()); n != before {
			runtime.GOMAXPROCS(n)
		}
		cpu, at = used, now
	}
}

// cpuTime is what the process has used of all processors.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// waits is how long goroutines that could run have waited for a processor, as Go counts it.
type waits struct {
	sample      []runtimemetrics.Sample
	lates, alls uint64 // at the last look
}

func newWaits() *waits {
	w := &waits{sample: []runtimemetrics.Sample{{Name: "/sched/latencies:seconds"}}}
	w.late()
	return w
}

// late returns which part of them waited for too long since the last look.
func (w *waits) late() float64 {
	runtimemetrics.Read(w.sample)
	if w.sample[0].Value.Kind() != runtimemetrics.KindFloat64Histogram {
		return 0
	}
	h := w.sample[0].Value.Float64Histogram()
	var lates, alls uint64
	for i, n := range h.Counts {
		alls += n
		if h.Buckets[i] >= late { // where the bucket begins
			lates += n
		}
	}
	l, a := lates-w.lates, alls-w.alls
	w.lates, w.alls = lates, alls
	if a == 0 {
		return 0
	}
	return float64(l) / float64(a)
}
