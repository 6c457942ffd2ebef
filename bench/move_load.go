package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// moveLoad is clients that write rows with numbers of their own, read, and do both in transactions.
type moveLoad struct {
	w    *moveWorld
	stop context.CancelFunc
	done sync.WaitGroup

	// atomic
	next   atomic.Int64
	count  atomic.Int64 // statements that succeeded
	calm   atomic.Bool  // nothing is being killed: every statement must succeed
	failed atomic.Int64 // while it was calm
	hold   atomic.Bool  // stop-copy-start: clients wait

	// guarded by mu
	mu       sync.Mutex
	acked    map[int64]bool
	unknown  map[int64]bool
	took     []moveTook
	failures []string
}

// moveTook is how long one statement took.
type moveTook struct {
	end  time.Time
	took time.Duration
}

func (w *moveWorld) load(ctx context.Context, clients int) *moveLoad {
	ctx, stop := context.WithCancel(ctx)
	l := &moveLoad{w: w, stop: stop, acked: map[int64]bool{}, unknown: map[int64]bool{}}
	l.calm.Store(true)
	for n := range clients {
		l.done.Go(func() { l.client(ctx, n) })
	}
	return l
}

func (l *moveLoad) end() {
	l.stop()
	l.done.Wait()
}

func (l *moveLoad) client(ctx context.Context, number int) {
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for turn := number; ctx.Err() == nil; turn++ {
		if l.hold.Load() {
			_ = pause(ctx, time.Millisecond)
			continue
		}
		if conn == nil || conn.IsClosed() {
			node := l.w.nodes[turn%len(l.w.nodes)]
			c, err := pgx.Connect(ctx, fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable&connect_timeout=5", benchUser, benchPassword, node.addr, benchDatabase))
			if err != nil {
				l.fail(ctx, err)
				conn = nil
				_ = pause(ctx, 50*time.Millisecond)
				continue
			}
			conn = c
		}
		id, customer := l.next.Add(1), rand.Int64N(moveCustomers)
		began := time.Now()
		wrote, unsure, err := l.one(ctx, conn, turn, customer, id)
		took := time.Since(began)
		l.mu.Lock()
		switch {
		case err == nil:
			l.count.Add(1)
			l.took = append(l.took, moveTook{time.Now(), took})
			if wrote {
				l.acked[id] = true
			}
		case unsure:
			l.unknown[id] = true
		}
		l.mu.Unlock()
		if err != nil {
			l.fail(ctx, err)
			if conn.PgConn().TxStatus() != 'I' {
				_ = conn.Close(context.WithoutCancel(ctx))
			}
		}
	}
}

// one is one statement, or one transaction. unsure: it may have taken effect although it failed.
func (l *moveLoad) one(ctx context.Context, c *pgx.Conn, turn int, customer, id int64) (wrote, unsure bool, err error) {
	switch turn % 4 {
	case 0, 1:
		_, err = c.Exec(ctx, "INSERT INTO parcels (customer, id, note) VALUES ($1, $2, 'new')", customer, id)
		return true, definite(err), err
	case 2:
		var n int
		err = c.QueryRow(ctx, "SELECT count(*) FROM parcels WHERE customer = $1", customer).Scan(&n)
		return false, false, err
	}
	if _, err = c.Exec(ctx, "BEGIN"); err != nil {
		return false, false, err
	}
	if _, err = c.Exec(ctx, "INSERT INTO parcels (customer, id, note) VALUES ($1, $2, 'first')", customer, id); err == nil {
		_, err = c.Exec(ctx, "UPDATE parcels SET note = 'second' WHERE customer = $1 AND id = $2", customer, id)
	}
	if err != nil {
		_, _ = c.Exec(ctx, "ROLLBACK")
		return false, false, err
	}
	_, err = c.Exec(ctx, "COMMIT")
	return true, definite(err), err
}

// definite tells whether an error leaves open what became of the statement: all but one that the server itself has told.
func definite(err error) (unsure bool) {
	var pe *pgconn.PgError
	return err != nil && !(errors.As(err, &pe) && pe.Code[:2] != "08" && pe.Code[:2] != "57")
}

func (l *moveLoad) fail(ctx context.Context, err error) {
	if ctx.Err() != nil || !l.calm.Load() {
		return
	}
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failures) < 5 {
		l.failures = append(l.failures, err.Error())
	}
}

// rate is how many statements succeed in a second, over some time.
func (l *moveLoad) rate(ctx context.Context, d time.Duration) (float64, error) {
	from, began := l.count.Load(), time.Now()
	err := pause(ctx, d)
	return float64(l.count.Load()-from) / time.Since(began).Seconds(), err
}

// slowest returns the 99th percentile and the maximum of what ended in a time, in milliseconds.
func (l *moveLoad) slowest(from, to time.Time) (p99, longest float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []time.Duration
	for _, t := range l.took {
		if t.end.After(from) && t.end.Before(to) {
			list = append(list, t.took)
		}
	}
	if len(list) == 0 {
		return 0, 0
	}
	slices.Sort(list)
	milli := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return milli(list[len(list)*99/100]), milli(list[len(list)-1])
}

// check counts rows that were acknowledged before it began and are nowhere, and rows that are there more than once or that nobody wrote. The
// last ones are known only when the clients have ended.
func (l *moveLoad) check(ctx context.Context) (lost, duplicated int, err error) {
	l.mu.Lock()
	before := maps.Clone(l.acked)
	l.mu.Unlock()
	found := map[int64]int{}
	for _, s := range l.w.shards {
		c, err := s.ConnTo(ctx, benchDatabase, "")
		if err != nil {
			return 0, 0, err
		}
		rows, err := c.Query(ctx, "SELECT id FROM parcels WHERE id > 0")
		var id int64
		if err == nil {
			_, err = pgx.ForEachRow(rows, []any{&id}, func() error {
				found[id]++
				return nil
			})
		}
		c.Close(ctx)
		if err != nil {
			return 0, 0, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range before {
		if found[id] == 0 {
			lost++
		}
	}
	for id, n := range found {
		if n > 1 || !l.acked[id] && !l.unknown[id] {
			duplicated++
		}
	}
	return lost, duplicated, nil
}
