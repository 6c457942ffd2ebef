package probe

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/rib"
)

const (
	latencyWeight = 0.3
	suspectGap    = 100 * time.Millisecond // between probes that others ask for, or that closed connections cause
	soonGap       = 10 * time.Millisecond  // between probes whose answer a client waits for: all who wait share one
	seekInterval  = 200 * time.Millisecond // between probes of what may become its shard's primary
)

// worker probes one backend.
type worker struct {
	// constant
	prober   *Prober
	target   Target
	lists    bool // the configuration names it: what it is is for this node to announce
	ctx      context.Context
	stop     context.CancelFunc
	done     chan struct{}  // closed when run has ended
	wake     chan struct{}  // capacity 1
	soon     chan struct{}  // capacity 1: the same, for who waits for the answer
	failures *atomic.Uint64 // see Prober.Failures

	// atomic
	watches   atomic.Bool            // this node is one of its observers: the sink is told how it is
	suspected atomic.Bool            // since the last good probe over a new connection began
	stale     atomic.Bool            // the kept connection was made with what is not configured any more
	looked    atomic.Int64           // by Prober.clock: when Look was last called for it; 0: never
	silent    atomic.Int64           // by Prober.clock: since when nothing has been heard from it; 0: it has answered, or refused
	failure   atomic.Pointer[string] // what came of the last probe; nil: an answer

	// owned by run
	conn     *pgconn.PgConn
	state    rib.State
	good     int // probes in a row
	bad      int
	mute     bool          // the last one had no answer in time
	again    time.Duration // until one more look at a server that has broken off; 0: none
	extra    bool          // the probe is such a look
	due      time.Time     // of the next one that is none
	latency  time.Duration
	last     answer // of the last good probe
	load     rib.LoadClass
	systemID uint64
	untold   bool      // the sink has another idea of what this backend is, and keeps it until the first probe
	headAt   time.Time // when it was last known to have replayed all that it had received; zero: never
	evidence bool      // Recovered is due
	cleared  int       // good probes in a row since then, or refusals that are the server's own words: it can be reached
	strange  bool      // the last answer was another server's
	barred   int       // probes in a row that the server, or what is in front of it, did not let in
	blind    bool      // it has kept from the probe's user which timeline it receives
	reached  bool      // it has ever answered: who never reached it cannot tell that it is down
	shutOut  int       // probes in a row for which the server had no connection left
	branches branches
}

// newWorker is for a backend that the configuration lists, and that this node observes until Assign says otherwise; or for another
// one, which has to be given something to do. It needs mu.
func (p *Prober) newWorker(t Target, lists bool) (*worker, error) {
	if _, err := p.connConfig(t, p.settings.Load()); err != nil {
		return nil, err
	}
	w := &worker{
		prober: p, target: t, lists: lists, done: make(chan struct{}), wake: make(chan struct{}, 1), soon: make(chan struct{}, 1),
		failures: p.counter(t.Name), systemID: t.SystemID,
	}
	w.watches.Store(lists)
	w.ctx, w.stop = context.WithCancel(p.ctx)
	return w, nil
}

func (w *worker) backend() rib.Backend {
	return rib.Backend{
		Name: w.target.Name, Shard: w.target.Shard, Region: w.target.Region, Addr: w.target.Addr,
		SystemID: w.systemID,
	}
}

// watch says whether this node observes the backend.
func (w *worker) watch(on bool) {
	if w.watches.Swap(on) != on {
		w.hurry() // on: with its first word; off: to rest longer, or for ever
	}
}

// suspect asks for a probe now, over a new connection: the kept one may outlive the ability to connect.
func (w *worker) suspect() {
	w.suspected.Store(true)
	w.hurry()
}

// renew asks for a probe over a new connection too, and suspects nobody.
func (w *worker) renew() {
	w.stale.Store(true)
	w.hurry()
}

func (w *worker) hurry() { ring(w.wake) }

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// sought reports whether the backend's shard has no primary: this one may become it.
func (w *worker) sought() bool {
	shards := w.prober.seeking.Load()
	if shards == nil {
		return false
	}
	_, ok := (*shards)[w.target.Shard]
	return ok
}

// run probes until it is stopped or, far away, until the backend is back.
func (w *worker) run() {
	defer close(w.done)
	defer w.stop()
	defer w.hangUp()
	defer w.heard()
	for {
		began := time.Now()
		if w.stale.Swap(false) {
			w.hangUp()
		}
		if w.suspected.Swap(false) {
			w.evidence, w.cleared = true, 0
			w.hangUp()
		}
		w.probe()
		if w.evidence && w.cleared >= w.prober.settings.Load().Rise {
			w.evidence = false
			if f := w.prober.cfg.Recovered; f != nil {
				f(w.target.Name)
			}
		}
		if !w.lists && !w.evidence && w.prober.retire(w) {
			return
		}
		if !w.rest(began) {
			return
		}
	}
}

// interval is between the beginnings of two probes.
func (w *worker) interval() time.Duration {
	interval := w.prober.settings.Load().Interval
	if w.lists && !w.watches.Load() && !w.evidence && !w.followed() {
		interval *= unwatched
	}
	if w.sought() && w.watches.Load() {
		interval = min(interval, seekInterval)
	}
	return interval + time.Duration((rand.Float64()-0.5)*0.2*float64(interval))
}

// rest waits for the next probe's time, a suspicion, or the end of the connection; false: it is stopped.
func (w *worker) rest(began time.Time) bool {
	interval := w.interval()
	if !w.extra {
		w.due = began.Add(interval)
	}
	until := w.due
	w.extra = false
	if at := time.Now().Add(w.again); w.again > 0 && at.Before(w.due) {
		until, w.extra = at, true
	}
	ctx, cancel := context.WithDeadline(w.ctx, until)
	defer cancel()
	ended := make(chan struct{})
	if w.conn != nil {
		// Nothing is notified here; it reads until the server closes or says why it ends the connection.
		go func() {
			defer close(ended)
			var err error
			for err == nil {
				err = w.conn.WaitForNotification(ctx)
			}
		}()
	}
	gap := suspectGap
	select {
	case <-ctx.Done():
	case <-w.wake:
		w.extra = false
	case <-w.soon:
		w.extra, gap = false, soonGap
	case <-ended:
	}
	cancel()
	if w.conn != nil {
		<-ended
		if w.conn.IsClosed() {
			w.hangUp()
		}
	}
	// A server that closes every connection must not be probed as fast as it can close them.
	for {
		pause := time.NewTimer(time.Until(began.Add(min(gap, interval))))
		select {
		case <-pause.C:
			return w.ctx.Err() == nil
		case <-w.soon:
			gap = soonGap
		case <-w.ctx.Done():
		}
		pause.Stop()
		if w.ctx.Err() != nil {
			return false
		}
	}
}

// hangUp ends the kept connection. One that pgconn has given up itself is still busy for a while with cancelling what
// hangs on it; Close waits for that, and not the next probe.
func (w *worker) hangUp() {
	conn := w.conn
	w.conn = nil
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx)
	w.prober.wg.Go(func() { <-conn.CleanupDone() })
}

// asked is what came of asking a server once.
type asked struct {
	answer answer
	took   time.Duration
	at     time.Time // when the query was sent
	err    error
}

func (w *worker) askOnce(ctx context.Context, p *patience) (x asked) {
	x.answer, x.took, x.at, x.err = w.ask(ctx, p)
	return x
}

// probe asks once and works the answer into the state. After a silence it asks twice at the same time, over two new connections: the
// verdict is as well founded as with one after the other, and there a timeout earlier.
func (w *worker) probe() {
	set := w.prober.settings.Load()
	ctx, patience := newPatience(w.ctx, set.Timeout)
	defer patience.over()
	kept := w.conn != nil
	var second chan asked
	twin := &worker{prober: w.prober, target: w.target}
	if !kept && w.mute && w.bad > 0 && w.bad+2 <= set.Fall {
		second = make(chan asked, 1)
		w.prober.wg.Go(func() { second <- twin.askOnce(ctx, patience) })
	}
	x := w.askOnce(ctx, patience)
	if x.err != nil && kept && w.ctx.Err() == nil && ctx.Err() == nil {
		// The kept connection may have ended for reasons of its own (an idle timeout, a restart that is over): what counts
		// is whether a new one works.
		patience.again()
		x = w.askOnce(ctx, patience)
	}
	if second != nil {
		if x.err == nil {
			patience.over()
		}
		y := <-second
		switch {
		case x.err != nil && y.err == nil:
			x, w.conn, twin.conn = y, twin.conn, nil
		case x.err != nil && w.ctx.Err() == nil && judge(x.err) == counts && judge(y.err) == counts:
			w.bad++ // it is counted where the first is
		}
		twin.hangUp()
	}
	if w.ctx.Err() != nil {
		return // closing
	}
	// The connection's own deadline may be a moment earlier than the timer that ends ctx.
	if w.mute = x.err != nil && (ctx.Err() != nil || pgconn.Timeout(x.err)); x.err != nil {
		if w.mute && judge(x.err) == counts && !answeredBy(x.err) {
			x.err = fmt.Errorf("no answer within %v", set.Timeout)
		}
		w.failed(x.err)
		return
	}
	w.answered(x.answer, x.took, x.at)
}
