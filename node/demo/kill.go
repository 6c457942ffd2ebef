package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// The load: clients that read rows of all shards through the node in fra, at this pace each, with every answer checked.
const (
	loadClients = 8
	loadPace    = 4 * time.Millisecond
	loadBefore  = 2 * time.Second
	loadAfter   = 4 * time.Second
	// failoverBound is what a failover may take for the demo to be right. What it took is printed.
	failoverBound = 3 * time.Second
)

// answer is one answered read under load.
type answer struct {
	at    time.Time // of the answer
	waits time.Duration
	shard int
	by    *backend
}

// client is one client of the load. It is owned by its goroutine until that has ended.
type client struct {
	answers []answer
	wrong   []string
	errors  []error
}

// killUnderLoad kills the replica that fra reads shard_1 from.
func (d *demo) killUnderLoad(ctx context.Context) error {
	const shard = 1
	r := d.routers[1]
	victim := d.backend(shard, r.region)
	next := d.backend(shard, home(shard)) // the closest of the others: iad
	d.report.step("Kill the closest replica under load: %d clients read through %s, %s dies by SIGKILL", loadClients, r.region.name, victim.name)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	clients := make([]client, loadClients)
	var wg sync.WaitGroup
	for i := range clients {
		conn, err := d.connect(ctx, r)
		if err != nil {
			close(stop)
			wg.Wait()
			return err
		}
		wg.Go(func() { clients[i].run(ctx, d, r, conn, uint64(i), stop) })
	}
	wait := func(long time.Duration) bool {
		select {
		case <-time.After(long):
			return true
		case <-ctx.Done():
			return false
		}
	}
	var killed, dead time.Time
	ok := wait(loadBefore)
	if ok {
		killed = time.Now()
		if err := victim.Kill(); err != nil {
			cancel()
			close(stop)
			wg.Wait()
			return err
		}
		dead = time.Now()
		ok = wait(loadAfter)
	}
	close(stop)
	wg.Wait()
	if !ok {
		return ctx.Err()
	}
	d.judge(clients, shard, victim, next, killed, dead)
	return nil
}

// run reads until told to stop. A read that failed is tried again at once, on a new connection if the old one is gone.
func (c *client) run(ctx context.Context, d *demo, r *router, conn *pgx.Conn, seed uint64, stop <-chan struct{}) {
	random := rand.New(rand.NewPCG(seed, 1))
	pace := time.NewTicker(loadPace)
	defer pace.Stop()
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		key := random.Int64N(customers) + 1
		begin := time.Now()
		for try := 0; ; try++ {
			s, err := d.ask(ctx, conn, readOrder, key)
			if err == nil {
				c.answers = append(c.answers, answer{time.Now(), time.Since(begin), d.shardOf[key], s.by})
				if s.value != d.notes[key] || s.by.shard != d.shardOf[key] {
					c.wrong = append(c.wrong, fmt.Sprintf("customer %d: %q from %s, should be %q from %s", key, s.value, s.by.name, d.notes[key], shardName(d.shardOf[key])))
				}
				break
			}
			if ctx.Err() != nil {
				return
			}
			c.errors = append(c.errors, err)
			if try == 20 {
				return // judged by the answers that are missing
			}
			if conn.IsClosed() {
				if again, err := d.connect(ctx, r); err == nil {
					conn = again
				}
			}
		}
	}
}

// judge looks at what the clients saw.
func (d *demo) judge(clients []client, shard int, victim, next *backend, killed, dead time.Time) {
	var before, after, elsewhere []answer // reads of the shard: before the kill, after it, and those of them from another server
	var total, wrong, failed int
	var others = map[string]int{} // shards that have nothing to do with it, served from another region
	for i := range clients {
		c := &clients[i]
		total, wrong, failed = total+len(c.answers), wrong+len(c.wrong), failed+len(c.errors)
		for _, a := range c.answers {
			switch {
			case a.shard != shard:
				if a.by.region != victim.region {
					others[a.by.name]++
				}
			case a.at.Before(killed):
				before = append(before, a)
			default:
				after = append(after, a)
				if a.by != victim {
					elsewhere = append(elsewhere, a)
				}
			}
		}
		for _, w := range c.wrong[:min(len(c.wrong), 3)] {
			d.report.say("wrong answer: %s", w)
		}
		for _, err := range c.errors[:min(len(c.errors), 3)] {
			d.report.say("a client was told: %v", err)
		}
	}
	byTime := func(a, b answer) int { return a.at.Compare(b.at) }
	slices.SortFunc(before, byTime)
	slices.SortFunc(after, byTime)
	slices.SortFunc(elsewhere, byTime)
	r := d.report
	if !r.check(len(before) > 100 && len(elsewhere) > 0, "%d reads, %d of them of %s before the kill and %d elsewhere after it", total, len(before), shardName(shard), len(elsewhere)) {
		return
	}
	home := 0
	for _, a := range before {
		if a.by == victim {
			home++
		}
	}
	r.check(home == len(before), "before: %d of %d reads of %s came from %s, half of them within %s", home, len(before), shardName(shard), victim.name, millis(median(before)))

	first := elsewhere[0].at.Sub(killed)
	gap := longestGap(append(before[len(before)-1:], after...))
	slowest := slices.MaxFunc(after, func(a, b answer) int { return int(a.waits - b.waits) })
	r.check(first < failoverBound, "the first answer from elsewhere came %s after the kill (the kill itself took %s)", millis(first), millis(dead.Sub(killed)))
	r.check(gap < failoverBound, "the longest time without an answer of %s was %s; the longest that one client waited, tries again included, %s", shardName(shard), millis(gap), millis(slowest.waits))

	settled := slices.IndexFunc(elsewhere, func(a answer) bool { return a.at.Sub(killed) > failoverBound })
	if settled >= 0 {
		late := elsewhere[settled:]
		there := 0
		for _, a := range late {
			if a.by == next {
				there++
			}
		}
		r.check(there == len(late), "after: %d of %d reads of %s come from %s, the next closest, half of them within %s", there, len(late), shardName(shard), next.name, millis(median(late)))
	} else {
		r.check(false, "no read of %s was answered %v after the kill", shardName(shard), failoverBound)
	}
	r.check(len(others) == 0, "reads of the other shards stayed in %s (elsewhere: %d servers)", victim.region.name, len(others))
	r.check(wrong == 0, "%d wrong answers of %d", wrong, total)
	r.check(failed <= loadClients, "%d statements of %d failed and were tried again; at most those in flight may, one a client", failed, total+failed)
}

func median(answers []answer) time.Duration {
	waits := make([]time.Duration, len(answers))
	for i, a := range answers {
		waits[i] = a.waits
	}
	slices.Sort(waits)
	return waits[len(waits)/2]
}

func longestGap(answers []answer) (gap time.Duration) {
	for i := 1; i < len(answers); i++ {
		gap = max(gap, answers[i].at.Sub(answers[i-1].at))
	}
	return gap
}

// bringBack starts the killed replica again: reads come home by themselves.
func (d *demo) bringBack(ctx context.Context) error {
	const shard = 1
	r := d.routers[1]
	victim := d.backend(shard, r.region)
	d.report.step("Start %s again", victim.name)
	if err := victim.Start(ctx); err != nil {
		return err
	}
	begin := time.Now()
	conn, err := d.session(ctx, r)
	if err != nil {
		return err
	}
	key := d.customerOn(shard, 1)
	err = d.until(ctx, 60*time.Second, func() error {
		s, err := d.ask(ctx, conn, readOrder, key)
		if err == nil && s.by != victim {
			err = fmt.Errorf("reads still come from %s", s.by.name)
		}
		return err
	})
	if err != nil {
		return err
	}
	d.report.check(true, "reads of %s come from %s again, %.1f s after it took connections", shardName(shard), victim.name, time.Since(begin).Seconds())
	return nil
}
