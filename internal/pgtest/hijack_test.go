package pgtest_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
)

// slowConn is the socket of a process that is kept from running in the middle of its writes: they return when the answer has come and
// somebody reads again.
type slowConn struct {
	net.Conn

	// guarded by mu
	mu      sync.Mutex
	changed sync.Cond
	reading bool
	reads   int
	quick   bool // writes are not slow any more
}

func (c *slowConn) Read(p []byte) (int, error) {
	c.set(func() { c.reading = true })
	defer c.set(func() { c.reading = false; c.reads++ })
	return c.Conn.Read(p)
}

func (c *slowConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.reads
	n, err := c.Conn.Write(p)
	for err == nil && !c.quick && (c.reads == before || !c.reading) {
		c.changed.Wait()
	}
	return n, err
}

func (c *slowConn) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	c.changed.Broadcast()
}

// A client whose writes took long while it logged in gets the answer to what it sends first on the hijacked socket.
func TestHijackAfterASlowWrite(t *testing.T) {
	server := pgtest.NewPrimary(t, pgtest.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cfg, err := pgconn.ParseConfig(server.DSN("", ""))
	if err != nil {
		t.Fatal(err)
	}
	var slow *slowConn
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		slow = &slowConn{Conn: conn}
		slow.changed.L = &slow.mu
		return slow, nil
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	slow.set(func() {
		slow.quick = true
		if !slow.reading {
			t.Error("pgx does not read in the background: this test shows nothing")
		}
	})
	socket := pgtest.Hijack(ctx, t, conn)
	if _, err := socket.Write([]byte("Q\x00\x00\x00\x0eSELECT 1;\x00")); err != nil {
		t.Fatal(err)
	}
	socket.SetReadDeadline(time.Now().Add(5 * time.Second))
	var answer [5]byte
	if _, err := io.ReadFull(socket, answer[:]); err != nil || answer[0] != 'T' {
		t.Errorf("the first answer begins with %q: %v", answer, err)
	}
}
