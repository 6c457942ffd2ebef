package wire_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/wire"
)

// asleep waits until sessions have gone to sleep n times more.
func (r *rig) asleep(n int64) func() {
	before := r.server.Dozed()
	return func() {
		r.t.Helper()
		pgtest.Eventually(r.t, 10*time.Second, func() error {
			if got := r.server.Dozed() - before; got < n {
				return fmt.Errorf("%d of %d sessions sleep", got, n)
			}
			return nil
		})
	}
}

// Sessions whose clients say nothing have no goroutine, and go on as if they had.
func TestIdleSessionsSleep(t *testing.T) {
	r := newRig(t, rigOptions{sleepAfter: 50 * time.Millisecond})
	ctx := ctxOf(t)
	key := r.keyOn("shard_2", 1)
	const clients = 40
	before := runtime.NumGoroutine()
	sleep := r.asleep(clients)
	var conns []*pgx.Conn
	for range clients {
		conn := r.connect(pgx.QueryExecModeCacheStatement)
		if _, err := conn.Exec(ctx, "SET application_name = 'sleeper'"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(ctx, "SELECT item FROM orders WHERE customer_id = $1", key); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	sleep()
	pgtest.Eventually(t, 5*time.Second, func() error {
		if n := runtime.NumGoroutine() - before; n > clients/2 {
			return fmt.Errorf("%d goroutines for %d clients that sleep", n, clients)
		}
		return nil
	})
	if n := r.server.Stats().Sessions; n != clients {
		t.Errorf("%d sessions, want %d", n, clients)
	}
	sleep = r.asleep(clients)
	for i, conn := range conns {
		var name string
		if err := conn.QueryRow(ctx, "SHOW application_name").Scan(&name); err != nil || name != "sleeper" {
			t.Fatalf("client %d after its sleep: %q %v", i, name, err)
		}
		if _, err := conn.Exec(ctx, "SELECT item FROM orders WHERE customer_id = $1", key); err != nil {
			t.Fatalf("client %d: a prepared statement after its sleep: %v", i, err)
		}
	}
	sleep()
	for _, conn := range conns[:clients/2] { // some say goodbye, others just vanish
		conn.Close(ctx)
	}
	for _, conn := range conns[clients/2:] {
		conn.PgConn().Conn().Close()
	}
	pgtest.Eventually(t, 5*time.Second, func() error {
		if s := r.server.Stats(); s.Sessions != 0 || s.Clients != 0 {
			return fmt.Errorf("%d sessions, %d connections are left", s.Sessions, s.Clients)
		}
		return nil
	})
}

// What comes to a session that sleeps, and not from its client, wakes it.
func TestSleepingSessionsAreWoken(t *testing.T) {
	r := newRig(t, rigOptions{sleepAfter: 50 * time.Millisecond})
	ctx := ctxOf(t)
	listener := r.connect(pgx.QueryExecModeCacheStatement)
	sleep := r.asleep(1)
	if _, err := listener.Exec(ctx, "LISTEN news"); err != nil {
		t.Fatal(err)
	}
	sleep()
	if _, err := r.connect(pgx.QueryExecModeCacheStatement).Exec(ctx, "NOTIFY news, 'x'"); err != nil {
		t.Fatal(err)
	}
	if n, err := listener.WaitForNotification(ctx); err != nil || n.Payload != "x" {
		t.Fatalf("notification %v %v", n, err)
	}
	r.asleep(1)()
	end, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := r.server.Shutdown(end); err != nil {
		t.Fatalf("the node does not stop while a session sleeps: %v", err)
	}
	_, err := listener.WaitForNotification(ctx)
	if err == nil || !strings.Contains(err.Error(), "57P01") && !strings.Contains(err.Error(), "the node is stopping") {
		t.Errorf("the client is told %v", err)
	}
}

// A session that sleeps is ended by idle_timeout as any other one.
func TestSleepersTimeOut(t *testing.T) {
	r := newRig(t, rigOptions{sleepAfter: 20 * time.Millisecond, limits: wire.Limits{Timeouts: wire.Timeouts{Idle: 400 * time.Millisecond}}})
	sleep := r.asleep(1)
	conn := r.connect(pgx.QueryExecModeExec)
	sleep()
	_, err := conn.WaitForNotification(ctxOf(t)) // whatever comes
	if err == nil || !strings.Contains(err.Error(), "57P05") {
		t.Errorf("the client is told %v", err)
	}
}

// Sessions that fall asleep just when their clients speak lose nothing: pauses are as long as it takes to fall asleep.
func TestSleepRaces(t *testing.T) {
	r := newRig(t, rigOptions{sleepAfter: 2 * time.Millisecond})
	key := r.keyOn("shard_1", 1)
	ctx := ctxOf(t)
	var wg sync.WaitGroup
	for i := range 8 {
		conn := r.connect(pgx.QueryExecModeExec)
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			for n := range 60 {
				var got int
				if err := conn.QueryRow(ctx, "SELECT count(*) FROM orders WHERE customer_id = $1", key).Scan(&got); err != nil {
					t.Errorf("client %d, query %d: %v", i, n, err)
					return
				}
				pause := time.NewTimer(time.Duration(rnd.IntN(6000)) * time.Microsecond)
				<-pause.C
			}
		})
	}
	wg.Wait()
	if r.server.Dozed() == 0 {
		t.Error("nobody slept")
	}
}

// A client that opens, says nothing and leaves while its session sleeps leaves nothing behind; nor does one that is cut off.
func TestSleepersAreCutOff(t *testing.T) {
	r := newRig(t, rigOptions{sleepAfter: 20 * time.Millisecond})
	sleep := r.asleep(3)
	for range 3 {
		r.connect(pgx.QueryExecModeExec)
	}
	sleep()
	now, cancel := context.WithCancel(context.Background())
	cancel() // no time at all
	if err := r.server.Shutdown(now); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := r.server.Stats().Sessions; n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	if c, err := net.Dial("tcp", r.addr); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}
