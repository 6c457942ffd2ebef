package probe

import (
	"fmt"
	"sync/atomic"
	"time"
)

const (
	// fewest is how many backends a node must watch to take the silence of most of them for its own fault.
	fewest = 3
	// stroke is within what time backends have to fall silent for it to be one stroke.
	stroke = 5 * time.Second
	// suspicionTime is how long a node that suspects itself calls silent backends unknown instead of down. What lasts longer
	// is believed: this node's own evidence holds all the while, and other observers are asked besides.
	suspicionTime = 30 * time.Second
)

// suspicion is this node's against itself: most backends that it watches fell silent at one stroke, and it is likelier that it has
// lost its network than that they all have died. Servers that refuse a connection, or answer that they stop, are not silent.
type suspicion struct {
	// atomic
	until atomic.Int64 // by Prober.clock; 0: never yet
	why   atomic.Pointer[string]
}

// Suspicion says why this node trusts its own eyes less than the backends it watches; "": it does not.
func (p *Prober) Suspicion() string {
	if p.clock() < p.suspicion.until.Load() {
		return *p.suspicion.why.Load()
	}
	return ""
}

// suspectSelf is called by a worker whose backend is down from now on. Its silence may be one of many.
func (p *Prober) suspectSelf(w *worker) {
	since := w.silent.Load()
	if since == 0 {
		return
	}
	var silent []int64
	total := 0
	p.mu.Lock()
	for _, workers := range []map[string]*worker{p.near, p.far} {
		for _, o := range workers {
			if !o.watches.Load() {
				continue
			}
			total++
			if at := o.silent.Load(); at != 0 {
				silent = append(silent, at)
			}
		}
	}
	p.mu.Unlock()
	n := atOneStroke(since, silent)
	if !mostOf(n, total) || p.Suspicion() != "" {
		return
	}
	why := fmt.Sprintf("%d of the %d backends that this node watches fell silent at one stroke: it suspects its own network, and calls them unknown instead of down for %.0f s", n, total, suspicionTime.Seconds())
	p.suspicion.why.Store(&why)
	p.suspicion.until.Store(p.clock() + int64(suspicionTime))
	p.log.Warn("this node suspects itself", "reason", why)
}

// atOneStroke counts the backends that fell silent within a stroke of the one that did at since, itself included. Times are by
// Prober.clock.
func atOneStroke(since int64, silent []int64) (n int) {
	for _, at := range silent {
		if d := time.Duration(at - since); d.Abs() <= stroke {
			n++
		}
	}
	return n
}

func mostOf(n, total int) bool { return total >= fewest && 2*n > total }
