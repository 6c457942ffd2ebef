package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
)

// faultCrowd are the clients that go through one of the two.
type faultCrowd struct {
	name    string
	readers []*faultClient
	writers []*faultClient
	wg      sync.WaitGroup
}

// faultClient runs one statement after another and notes what becomes of them. A connection that is lost it makes anew.
type faultClient struct {
	side        string
	number      int
	write, read string // addresses; of a reader write is empty

	// atomic
	answers atomic.Int64
	marked  atomic.Bool

	// its own until it has ended
	conn, other *pgx.Conn // other: for reading, if that is somewhere else
	last        time.Time // of the last answer
	gap         time.Duration
	answered    []time.Time // the answers since the fault, of a reader
	errors      map[string]int
	acked       []entry
	stale       int
}

func newFaultCrowd(ctx context.Context, name, write, read string, n int) *faultCrowd {
	c := &faultCrowd{name: name}
	for i := range n {
		c.readers = append(c.readers, &faultClient{side: name, number: i, read: read, errors: map[string]int{}})
		c.writers = append(c.writers, &faultClient{side: name, number: i, write: write, read: read, errors: map[string]int{}})
	}
	for _, f := range c.all() {
		c.wg.Go(func() { f.run(ctx) })
	}
	return c
}

func (c *faultCrowd) all() []*faultClient {
	return append(append([]*faultClient{}, c.readers...), c.writers...)
}
func (c *faultCrowd) wait() { c.wg.Wait() }

// begun waits until every client has had answers.
func (c *faultCrowd) begun(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return pgtest.Wait(ctx, 10*time.Millisecond, func() error {
		for _, f := range c.all() {
			if f.answers.Load() < 10 {
				return fmt.Errorf("a client of %s has had %d answers", c.name, f.answers.Load())
			}
		}
		return nil
	})
}

// mark says that the fault comes now: what was before it does not count.
func (c *faultCrowd) mark() {
	for _, f := range c.all() {
		f.marked.Store(true)
	}
}

func (f *faultClient) run(ctx context.Context) {
	defer func() {
		for _, conn := range []*pgx.Conn{f.conn, f.other} {
			if conn != nil {
				closing, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
				_ = conn.Close(closing)
				cancel()
			}
		}
		f.note()
	}()
	for id := int64(1); ctx.Err() == nil; id++ {
		if err := f.step(ctx, id); err != nil && ctx.Err() == nil {
			if f.marked.Load() {
				var pe *pgconn.PgError
				if errors.As(err, &pe) {
					f.errors[pe.Code]++
				} else {
					f.errors["connection"]++
				}
			}
			_ = pause(ctx, 10*time.Millisecond)
		}
	}
}

// note ends a time without an answer.
func (f *faultClient) note() {
	now := time.Now()
	if f.marked.Load() {
		f.gap = max(f.gap, now.Sub(f.last))
		if f.write == "" {
			f.answered = append(f.answered, now)
		}
	}
	f.last = now
}

func (f *faultClient) step(ctx context.Context, id int64) error {
	main := f.write
	if main == "" {
		main = f.read
	}
	if err := connectFault(ctx, &f.conn, main); err != nil {
		return err
	}
	if f.write == "" {
		var body string
		if err := f.conn.QueryRow(ctx, "SELECT body FROM facts WHERE id = $1", id%1000+1).Scan(&body); err != nil {
			return err
		}
		if body != fmt.Sprint("fact ", id%1000+1) {
			return fmt.Errorf("a wrong answer: %q", body)
		}
		f.note()
		f.answers.Add(1)
		return pause(ctx, time.Millisecond)
	}
	if _, err := f.conn.Exec(ctx, "INSERT INTO ledger VALUES ($1, $2, $3)", f.side, f.number, id); err != nil {
		return err
	}
	f.acked = append(f.acked, entry{f.side, f.number, id})
	f.note()
	f.answers.Add(1)
	reader := f.conn
	if f.read != f.write {
		if err := connectFault(ctx, &f.other, f.read); err != nil {
			return err
		}
		reader = f.other
	}
	var found bool
	if err := reader.QueryRow(ctx, "SELECT EXISTS (SELECT FROM ledger WHERE side = $1 AND writer = $2 AND id = $3)", f.side, f.number, id).Scan(&found); err != nil {
		return err
	}
	if !found {
		f.stale++
	}
	f.last = time.Now() // that read is not what the gap is about
	return pause(ctx, 5*time.Millisecond)
}

// connectFault makes a connection if there is none.
func connectFault(ctx context.Context, conn **pgx.Conn, addr string) (err error) {
	if *conn != nil && !(*conn).IsClosed() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	*conn, err = pgx.Connect(ctx, fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable&default_query_exec_mode=exec", benchUser, benchPassword, addr, benchDatabase))
	return err
}

// connectsAtOnce is how long n clients take until each has a connection of its own to a server, and an answer over it: what any router
// that has no connections there must wait for.
func connectsAtOnce(ctx context.Context, addr string, n int) (time.Duration, error) {
	conns, errs := make([]*pgx.Conn, n), make([]error, n)
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range n {
		wg.Go(func() {
			if errs[i] = connectFault(ctx, &conns[i], addr); errs[i] == nil {
				_, errs[i] = conns[i].Exec(ctx, "SELECT body FROM facts WHERE id = 1")
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	for _, conn := range conns {
		if conn != nil {
			errs = append(errs, conn.Close(ctx))
		}
	}
	return took, errors.Join(errs...)
}

// gaps are the median and the longest of the clients' longest times without an answer, in milliseconds.
func (c *faultCrowd) gaps(writers bool) (p50, most float64) {
	clients := c.readers
	if writers {
		clients = c.writers
	}
	var all []float64
	for _, f := range clients {
		ms := float64(f.gap.Round(100*time.Microsecond).Microseconds()) / 1000
		all, most = append(all, ms), max(most, ms)
	}
	return median(all), most
}

// answeredSince is how long it took from then on, in milliseconds, until every reader had had an answer.
func (c *faultCrowd) answeredSince(at time.Time) (most float64) {
	for _, f := range c.readers {
		took := float64(time.Since(at).Milliseconds()) // it has had none
		if i := slices.IndexFunc(f.answered, at.Before); i >= 0 {
			took = float64(f.answered[i].Sub(at).Microseconds()) / 1000
		}
		most = max(most, took)
	}
	return most
}

// refused tells when an address first refuses a connect; it asks each millisecond.
func refused(ctx context.Context, addr string) <-chan time.Time {
	told := make(chan time.Time, 1)
	go func() {
		var d net.Dialer
		for ctx.Err() == nil {
			conn, err := d.DialContext(ctx, "tcp", addr)
			if errors.Is(err, syscall.ECONNREFUSED) {
				break
			}
			if err == nil {
				_ = conn.Close()
			}
			_ = pause(ctx, time.Millisecond)
		}
		told <- time.Now()
	}()
	return told
}

func (c *faultCrowd) errors() map[string]int {
	sum := map[string]int{}
	for _, f := range c.all() {
		for code, n := range maps.All(f.errors) {
			sum[code] += n
		}
	}
	return sum
}

// lost counts the writes that were acknowledged and are not there.
func (c *faultCrowd) lost(there map[entry]bool) (n int) {
	for _, f := range c.writers {
		for _, e := range f.acked {
			if !there[e] {
				n++
			}
		}
	}
	return n
}

func (c *faultCrowd) stale() (n int) {
	for _, f := range c.writers {
		n += f.stale
	}
	return n
}
