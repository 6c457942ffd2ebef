package probe

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/rib"
)

const (
	latencyWeight = 0.3
	suspectGap    = 100 * time.Millisecond // between probes that others ask for, or that closed connections cause
)

// worker probes one backend.
type worker struct {
	// constant
	prober *Prober
	target Target
	near   bool // tells the sink
	ctx    context.Context
	stop   context.CancelFunc
	done   chan struct{} // closed when run has ended
	wake   chan struct{} // capacity 1

	// atomic
	suspected atomic.Bool // since the last good probe over a new connection began
	stale     atomic.Bool // the kept connection was made with what is not configured any more

	// owned by run
	conn     *pgconn.PgConn
	state    rib.State
	good     int // probes in a row
	bad      int
	latency  time.Duration
	last     answer // of the last good probe
	systemID uint64
	untold   bool      // the sink has another idea of what this backend is, and keeps it until the first probe
	headAt   time.Time // when it was last known to have replayed all that it had received; zero: never
	evidence bool      // Recovered is due
	cleared  int       // good probes in a row since then
	failure  string
}

func (p *Prober) newWorker(t Target, near bool) (*worker, error) {
	if _, err := p.connConfig(t, p.settings.Load()); err != nil {
		return nil, err
	}
	w := &worker{prober: p, target: t, near: near, done: make(chan struct{}), wake: make(chan struct{}, 1), evidence: !near, systemID: t.SystemID}
	w.ctx, w.stop = context.WithCancel(p.ctx)
	return w, nil
}

func (w *worker) backend() rib.Backend {
	return rib.Backend{
		Name: w.target.Name, Shard: w.target.Shard, Region: w.target.Region, Addr: w.target.Addr,
		SystemID: w.systemID,
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

func (w *worker) hurry() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run probes until it is stopped or, far away, until the backend is back.
func (w *worker) run() {
	defer close(w.done)
	defer w.stop()
	defer w.hangUp()
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
			if !w.near && !w.suspected.Load() {
				return
			}
		}
		if !w.rest(began) {
			return
		}
	}
}

// rest waits for the next probe's time, a suspicion, or the end of the connection; false: it is stopped.
func (w *worker) rest(began time.Time) bool {
	interval := w.prober.settings.Load().Interval
	interval += time.Duration((rand.Float64() - 0.5) * 0.2 * float64(interval))
	ctx, cancel := context.WithDeadline(w.ctx, began.Add(interval))
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
	select {
	case <-ctx.Done():
	case <-w.wake:
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
	pause := time.NewTimer(time.Until(began.Add(min(suspectGap, interval))))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-w.ctx.Done():
	}
	return w.ctx.Err() == nil
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

// probe asks once and works the answer into the state.
func (w *worker) probe() {
	ctx, cancel := context.WithTimeout(w.ctx, w.prober.settings.Load().Timeout)
	defer cancel()
	kept := w.conn != nil
	a, took, err := w.ask(ctx)
	if err != nil && kept && w.ctx.Err() == nil && ctx.Err() == nil {
		// The kept connection may have ended for reasons of its own (an idle timeout, a restart that is over): what counts
		// is whether a new one works.
		a, took, err = w.ask(ctx)
	}
	if w.ctx.Err() != nil {
		return // closing
	}
	if err != nil {
		w.failed(err)
		return
	}
	w.answered(a, took)
}

func (w *worker) answered(a answer, took time.Duration) {
	w.bad = 0
	w.good++
	w.cleared++
	w.failure = ""
	if w.latency == 0 {
		w.latency = took
	}
	w.latency += time.Duration(latencyWeight * float64(took-w.latency))
	before := w.state
	if before != rib.Down || w.good >= w.prober.settings.Load().Rise {
		w.state = rib.Up
	}
	if !w.near {
		return
	}
	if before != w.state {
		w.prober.log.Info("backend is up", "backend", w.target.Name, "role", roleName(a.role), "timeline", a.timeline)
	}
	if w.last.role != a.role && w.last.role != rib.RoleUnknown {
		w.prober.log.Info("backend changed its role", "backend", w.target.Name, "from", roleName(w.last.role), "to", roleName(a.role), "timeline", a.timeline)
	}
	a.lag = w.sinceHead(a, time.Now().Add(-took))
	w.last = a
	if a.systemID != w.systemID || w.untold {
		w.systemID, w.untold = a.systemID, false
		w.prober.cfg.Sink.Announce(w.backend())
	}
	w.observe()
}

// sinceHead is a replica's lag. While something is being replayed the server only knows the age of the last commit, which after
// an idle hour is an hour: but a replica cannot be further behind than it has been away from the head.
func (w *worker) sinceHead(a answer, asked time.Time) time.Duration {
	switch {
	case a.role != rib.Replica || a.timeline != w.last.timeline:
		w.headAt = time.Time{}
	case w.headAt.IsZero():
	case a.lag == rib.LagUnknown, a.lag > time.Since(w.headAt):
		return time.Since(w.headAt)
	}
	if a.role == rib.Replica && a.lag == 0 {
		w.headAt = asked
	}
	return a.lag
}

func (w *worker) failed(err error) {
	w.hangUp()
	w.good = 0
	w.cleared = 0
	if w.untold {
		w.untold = false
		w.prober.cfg.Sink.Announce(w.backend())
	}
	verdict := judge(err)
	if verdict == neutral {
		w.note(err)
		return
	}
	w.bad++
	before := w.state
	if verdict == definite || w.bad >= w.prober.settings.Load().Fall {
		w.state = rib.Down
	}
	w.note(err)
	if !w.near || w.state != rib.Down {
		return
	}
	if before != rib.Down {
		w.prober.log.Warn("backend is down", "backend", w.target.Name, "addr", w.target.Addr, "failed_probes", w.bad, "error", w.failure)
	}
	w.observe()
}

// note logs a failure when it is another than the last.
func (w *worker) note(err error) {
	text := explain(err)
	if text != w.failure {
		w.failure = text
		w.prober.log.Info("probe failed", "backend", w.target.Name, "addr", w.target.Addr, "error", text)
	}
}

func (w *worker) observe() {
	w.prober.cfg.Sink.Observe(rib.Route{
		Backend:  w.target.Name,
		State:    w.state,
		Role:     w.last.role, // of a backend that is down: the last known
		Timeline: w.last.timeline,
		Latency:  w.latency,
		Lag:      w.last.lag,
	})
}

// weight is what a failure says about the server.
type weight int

const (
	counts   weight = iota // one failed probe of Fall
	definite               // down at once
	neutral                // the server works, but not for us now
)

// SQLSTATEs that a server answers a probe with.
const (
	cannotConnectNow   = "57P03" // it starts, stops or recovers
	adminShutdown      = "57P01"
	crashShutdown      = "57P02"
	tooManyConnections = "53300"
	notInThatState     = "55000" // it was promoted between two functions of the query
)

func judge(err error) weight {
	var pg *pgconn.PgError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return definite
	case errors.As(err, &pg):
		switch pg.Code {
		case cannotConnectNow, adminShutdown, crashShutdown:
			return definite
		case tooManyConnections, notInThatState:
			return neutral
		}
	}
	return counts
}

func roleName(r rib.Role) string {
	switch r {
	case rib.Primary:
		return "primary"
	case rib.Replica:
		return "replica"
	}
	return "unknown"
}
