package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/internal/program"
)

// afterFault is how long errors are excused after a server is back: the node hears of it by its probes.
const afterFault = 20 * time.Second

// soak is many clients on one node that do all that clients do, for a long time.
type soak struct {
	// constant
	out     io.Writer
	length  time.Duration
	clients int
	think   time.Duration
	large   int // MiB
	farm    *pgtest.Farm
	servers *servers
	node    *program.Process
	addr    string
	admin   string
	log     string // file

	unhurried func(context.Context) error // takes the node's statement_timeout away

	// atomic
	counts         counts
	disturbedUntil atomic.Int64 // nanoseconds since 1970

	faults faults // its own guard
}

// disturbed reports whether a fault may explain an error.
func (s *soak) disturbed() bool { return time.Now().UnixNano() < s.disturbedUntil.Load() }

// runSoak runs `bench soak`.
func runSoak(ctx context.Context, args []string) error {
	s := &soak{out: os.Stdout}
	f := flag.NewFlagSet("bench soak", flag.ContinueOnError)
	f.DurationVar(&s.length, "time", 30*time.Minute, "how long clients are at it")
	f.IntVar(&s.clients, "clients", 1000, "clients at a time")
	f.DurationVar(&s.think, "think", 2*time.Second, "what a client waits between two operations, on average")
	f.IntVar(&s.large, "large", 1024, "MiB that go through the node in one piece each way, at the end; 0: none")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 || s.length < 10*time.Second || s.clients < 1 || s.large < 0 {
		return errors.New("soak wants -time of 10s or more, -clients of 1 or more, and nothing else but its flags")
	}
	return s.run(ctx)
}

func (s *soak) printf(format string, args ...any) { fmt.Fprintf(s.out, format, args...) }

func (s *soak) run(ctx context.Context) error {
	if err := raiseFiles(); err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	s.printf("starting two shards with replicas, and a node\n")
	farm, err := pgtest.Open(ctx, "")
	if err != nil {
		return err
	}
	s.farm = farm
	defer farm.Close()
	if s.servers, err = soakServers(ctx, farm, s.clients*keysEach); err != nil {
		return err
	}
	if err := s.startNode(ctx); err != nil {
		return err
	}
	rest, err := s.outside(ctx)
	if err != nil {
		return err
	}
	before, err := s.queries(ctx)
	if err != nil {
		return err
	}
	soakers := make([]*soaker, s.clients)
	for i := range soakers {
		if soakers[i], err = newSoaker(s, i); err != nil {
			return err
		}
	}
	early, err := s.soak(ctx, soakers)
	if err != nil {
		return err
	}
	s.check(ctx, soakers, rest, early, before)
	if s.large > 0 {
		s.stream(ctx)
	}
	if err := s.stopNode(); err != nil {
		s.faults.add(err.Error())
	}
	return s.verdict()
}

// soak lets the clients at it, disturbs them twice, and waits until they have left. It returns what was seen after a tenth of the time.
func (s *soak) soak(ctx context.Context, soakers []*soaker) (early outside, err error) {
	run, cancel := context.WithTimeout(ctx, s.length)
	defer cancel()
	var wg sync.WaitGroup
	for i, c := range soakers {
		wg.Go(func() {
			_ = pause(run, time.Duration(i)*5*time.Millisecond) // logins cost the most
			c.run(run)
		})
	}
	wg.Go(func() {
		for _, x := range []struct {
			server *pgtest.Server
			crash  bool
		}{{s.servers.replicas[0], true}, {s.servers.primaries[1], false}} {
			if pause(run, s.length/3) != nil {
				return
			}
			how := map[bool]string{true: "crashes", false: "is restarted"}[x.crash]
			s.printf("-- %s %s\n", x.server.Name(), how)
			if err := s.restart(ctx, x.server, x.crash); err != nil {
				s.faults.add("restart: " + err.Error())
			}
			s.printf("-- %s is back\n", x.server.Name())
		}
	})
	begin := time.Now()
	ops := uint64(0)
	for tick, seen := time.NewTicker(10*time.Second), false; run.Err() == nil; {
		select {
		case <-tick.C:
		case <-run.Done():
			tick.Stop()
			continue
		}
		x, err := s.outside(ctx)
		if err != nil {
			s.faults.add("the node cannot be looked at: " + err.Error())
			continue
		}
		if took := time.Since(begin); !seen && took >= s.length/10 {
			seen, early = true, x
		}
		now, n := s.counts.ops.Load(), 0
		for _, k := range x.servers {
			n += k
		}
		_, wrong := s.faults.all()
		s.printf("%5.0fs  %4d clients  %5.0f ops/s  %d logins  %d died  %d canceled  %d too slow  %d excused  %d refused  %d wrong | node: %.1f MiB, %d goroutines, %d server connections\n",
			time.Since(begin).Seconds(), s.counts.connected.Load(), float64(now-ops)/10, s.counts.logins.Load(), s.counts.deaths.Load(), s.counts.cancels.Load(),
			s.counts.timeouts.Load(), s.counts.excused.Load(), s.counts.full.Load(), wrong, float64(x.rss)/(1<<20), x.goroutines, n)
		ops = now
	}
	wg.Wait()
	return early, ctx.Err()
}

// queries is what the node says it has answered.
func (s *soak) queries(ctx context.Context) (n uint64, err error) {
	err = s.console(ctx, "SHOW STATS", func(r map[string]any) {
		if r["database"] == benchDatabase {
			_, err := fmt.Sscan(fmt.Sprint(r["total_query_count"]), &n)
			if err != nil {
				s.faults.add("SHOW STATS: " + err.Error())
			}
		}
	})
	return n, err
}

// What may be left of a soak.
const (
	settleLimit     = 60 * time.Second
	moreGoroutines  = 20
	moreMemory      = 24 << 20 // bytes, beyond a fifth of what there was early on
	moreWhileStream = 64 << 20 // bytes, while something large passes
)

// check finds what has leaked and what does not add up.
func (s *soak) check(ctx context.Context, soakers []*soaker, rest, early outside, before uint64) {
	s.printf("-- all clients have left\n")
	settle, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	var last outside
	err := pgtest.Wait(settle, 500*time.Millisecond, func() (err error) {
		if last, err = s.outside(settle); err != nil {
			return err
		}
		switch {
		case last.sessions > 0:
			return fmt.Errorf("%d sessions are left", last.sessions)
		case len(last.working) > 0:
			return fmt.Errorf("servers still work for nobody, or transactions are open: %s", strings.Join(last.working, "; "))
		case last.goroutines > rest.goroutines+moreGoroutines:
			return fmt.Errorf("%d goroutines, %d before the clients came", last.goroutines, rest.goroutines)
		case early.rss > 0 && last.rss > early.rss+early.rss/5+moreMemory:
			return fmt.Errorf("%.1f MiB resident, %.1f early on", float64(last.rss)/(1<<20), float64(early.rss)/(1<<20))
		}
		for name, n := range last.servers {
			if n > soakPool {
				return fmt.Errorf("%d connections to %s", n, name)
			}
		}
		return nil
	})
	if err != nil {
		s.faults.add("leak: " + err.Error())
	}
	s.printf("at rest   %.1f MiB, %d goroutines\nearly     %.1f MiB, %d goroutines\nafterward %.1f MiB, %d goroutines, server connections %v\n",
		float64(rest.rss)/(1<<20), rest.goroutines, float64(early.rss)/(1<<20), early.goroutines, float64(last.rss)/(1<<20), last.goroutines, last.servers)

	after, err := s.queries(ctx)
	if err != nil {
		s.faults.add("SHOW STATS: " + err.Error())
	}
	asked, answered, said := s.counts.asked.Load(), s.counts.answered.Load(), after-before
	s.printf("requests: clients sent %d and saw %d answered; the node says %d\n", asked, answered, said)
	if said < answered || said > asked {
		s.faults.add(fmt.Sprintf("the node says that it answered %d requests: clients saw %d answered of %d", said, answered, asked))
	}
	s.checkRows(ctx, soakers)
}

// checkRows compares every row with what its client was told.
func (s *soak) checkRows(ctx context.Context, soakers []*soaker) {
	held := make(map[int]int64)
	for _, p := range s.servers.primaries {
		conn, err := p.ConnTo(ctx, benchDatabase, "")
		if err != nil {
			s.faults.add(err.Error())
			return
		}
		rows, _ := conn.Query(ctx, "SELECT id, n FROM counters")
		var id int
		var n int64
		_, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error {
			held[id] = n
			return nil
		})
		var prepared int
		err = errors.Join(err, conn.QueryRow(ctx, "SELECT count(*) FROM pg_prepared_xacts").Scan(&prepared), conn.Close(ctx))
		if err != nil || prepared != 0 {
			s.faults.add(fmt.Sprintf("%s: %d prepared transactions, %v", p.Name(), prepared, err))
		}
	}
	var sum account
	for _, c := range soakers {
		for i, a := range c.rows {
			sum.acknowledged += a.acknowledged
			sum.unknown += a.unknown
			if n, ok := held[c.id(i)]; !ok || !a.holds(n) {
				s.faults.add(fmt.Sprintf("row %d holds %d (there: %v): %d increments were acknowledged, of %d more nobody knows", c.id(i), n, ok, a.acknowledged, a.unknown))
			}
		}
	}
	s.printf("increments: %d acknowledged; the fate of %d was not told\n", sum.acknowledged, sum.unknown)
}

// stream sends something large through the node each way and looks at its memory meanwhile.
func (s *soak) stream(ctx context.Context) {
	if err := s.unhurried(ctx); err != nil {
		s.faults.add("reload: " + err.Error())
		return
	}
	for _, x := range []struct {
		name string
		move func(context.Context, *pgx.Conn) (int64, error)
	}{
		{"COPY out", func(ctx context.Context, c *pgx.Conn) (int64, error) {
			return s.ask(ctx, c, fmt.Sprintf("COPY (SELECT repeat('x', 8191) FROM generate_series(1, %d)) TO STDOUT", s.large*128))
		}},
		{"SELECT, rows of 16 MiB", func(ctx context.Context, c *pgx.Conn) (int64, error) {
			return s.ask(ctx, c, fmt.Sprintf("SELECT repeat('x', 16 * 1024 * 1024) FROM generate_series(1, %d)", max(1, s.large/16)))
		}},
		{"COPY in", func(ctx context.Context, c *pgx.Conn) (int64, error) {
			line := "1\t" + strings.Repeat("x", 1<<20-3) + "\n"
			lines := &repeated{text: line, left: s.large}
			_, err := c.PgConn().CopyFrom(ctx, lines, "COPY sink FROM STDIN")
			return int64(len(line) * s.large), err
		}},
	} {
		if err := s.streamOne(ctx, x.name, x.move); err != nil {
			s.faults.add(x.name + ": " + err.Error())
		}
	}
}

func (s *soak) streamOne(ctx context.Context, name string, move func(context.Context, *pgx.Conn) (int64, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", benchUser, benchPassword, s.addr, benchDatabase))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	first, err := rss(tree(s.node.PID()))
	if err != nil {
		return err
	}
	most, stop, done := first, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if n, err := rss(tree(s.node.PID())); err == nil {
					most = max(most, n)
				}
			case <-stop:
				return
			}
		}
	}()
	begin := time.Now()
	n, err := move(ctx, conn)
	close(stop)
	<-done
	if err != nil {
		return err
	}
	s.printf("%s: %d MiB in %.1f s, the node's memory went from %.1f to %.1f MiB\n", name, n>>20, time.Since(begin).Seconds(), float64(first)/(1<<20), float64(most)/(1<<20))
	if n < int64(s.large)<<20 {
		return fmt.Errorf("only %d bytes came", n)
	}
	if most > first+moreWhileStream {
		return fmt.Errorf("the node's memory grew by %.1f MiB", float64(most-first)/(1<<20))
	}
	return nil
}

// ask sends a query and throws its answer away.
func (s *soak) ask(ctx context.Context, c *pgx.Conn, sql string) (int64, error) {
	if err := c.PgConn().SyncConn(ctx); err != nil { // after a slow write pgx still reads
		return 0, err
	}
	h, err := c.PgConn().Hijack()
	if err != nil {
		return 0, err
	}
	defer h.Conn.Close()
	if _, err := h.Conn.Write(query(sql)); err != nil {
		return 0, err
	}
	return drain(h.Conn)
}

// repeated reads as a text, again and again.
type repeated struct {
	text string
	at   int
	left int
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.text[r.at:])
	if r.at += n; r.at == len(r.text) {
		r.at = 0
		r.left--
	}
	return n, nil
}

// verdict prints what was found, as the last lines, and is an error if that was anything.
func (s *soak) verdict() error {
	list, n := s.faults.all()
	if n == 0 {
		s.printf("nothing leaked, and all adds up: %d operations, %d logins, %d deaths\n", s.counts.ops.Load(), s.counts.logins.Load(), s.counts.deaths.Load())
		return nil
	}
	slices.Sort(list)
	for _, f := range list {
		b, _ := json.Marshal(f) // one line each, whatever is in it
		s.printf("WRONG %s\n", b)
	}
	if b, err := os.ReadFile(s.log); err == nil {
		s.printf("the end of the node's log:\n%s\n", b[max(0, len(b)-4000):])
	}
	return fmt.Errorf("soak: %d things are wrong", n)
}
