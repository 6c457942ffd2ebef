package wire_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"runtime/metrics"
	"slices"
	"syscall"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// halfOpen begins a login in one of several ways, and says no more. It returns the client's socket: a bare one, so that all the memory
// that can be measured is the node's.
func halfOpen(t *testing.T, port, way int) (fd int) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		err = syscall.Connect(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port})
	}
	if err != nil {
		t.Fatal(err)
	}
	say := func(b []byte) {
		if _, err := syscall.Write(fd, b); err != nil {
			t.Fatal(err)
		}
	}
	answered := func() {
		var b [1]byte
		if n, err := syscall.Read(fd, b[:]); n != 1 || err != nil {
			t.Fatalf("no answer: %d, %v", n, err)
		}
	}
	switch way % 5 {
	case 0: // nothing at all
	case 1:
		say([]byte{0, 0, 0})
	case 2: // the head of the longest startup packet
		say([]byte{0, 0, pg.MaxStartup >> 8, pg.MaxStartup & 0xff, 0, 3, 0, 0, 'u'})
	case 3: // TLS, and the beginning of a long ClientHello
		say(pg.AppendSSLRequest(nil))
		answered()
		say(append([]byte{22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3}, make([]byte, 4000)...))
	case 4: // up to the question for the password
		say(pg.AppendStartup(nil, []pg.Param{{Key: "user", Value: testUser}, {Key: "database", Value: "app"}}))
		answered()
	}
	return fd
}

// inUse is the memory that this process's objects and stacks take, in bytes, once what is not used any more is given up.
func inUse() int64 {
	runtime.GC() //revive:disable-line:call-to-gc memory in use is what is measured
	runtime.GC() //revive:disable-line:call-to-gc what the first one has found
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() + s[1].Value.Uint64())
}

// Ten thousand connections that begin a login and say no more, without a limit for them: each costs the node little, whoever means it
// gets in at once, they end when their time is over, and nothing of them is kept.
func TestTenThousandHalfOpenConnections(t *testing.T) {
	const (
		most    = 24 << 10 // bytes that one may cost: its goroutine, and the longest startup packet there is
		kept    = 2 << 10  // bytes that may be left of one: what Go keeps of a goroutine for the next one, which does not add up
		timeout = 500 * time.Millisecond
	)
	n := 10_000
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	files.Cur = files.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if can := (int(files.Max) - 400) / 2; can < n { // both ends are in this process
		t.Logf("%d connections instead of %d: no more than %d files may be open", can, n, files.Max)
		n = can
	}
	r := newRig(t, rigOptions{tls: true, startup: 10 * time.Minute})
	r.live.RequireTLS = false
	r.server.Reload(r.live)
	var open []int
	closeAll := func() {
		for _, fd := range open {
			syscall.Close(fd)
		}
		open = open[:0]
	}
	defer closeAll()
	flood := func() {
		addr, err := netip.ParseAddrPort(r.addr)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			open = append(open, halfOpen(t, int(addr.Port()), i))
		}
	}
	clients := func(want int) {
		t.Helper()
		pgtest.Eventually(t, patience, func() error {
			if got := r.server.Stats().Clients; got != want {
				return fmt.Errorf("%d connections, want %d", got, want)
			}
			return nil
		})
	}
	// login is how long it takes to get in and ask something: the median of some.
	login := func() time.Duration {
		t.Helper()
		var took []time.Duration
		for range 9 {
			began := time.Now()
			conn, err := r.login(t, "app")
			if err != nil {
				t.Fatalf("a client that logs in: %v", err)
			}
			if err := conn.Ping(ctxOf(t)); err != nil {
				t.Fatal(err)
			}
			conn.Close(ctxOf(t))
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		return took[len(took)/2]
	}
	alone := login()
	clients(0)
	before, goroutines := inUse(), runtime.NumGoroutine()

	flood()
	clients(n)
	among := login()
	clients(n)
	each := (inUse() - before) / int64(n)
	if each > most {
		t.Errorf("each takes %d bytes, want at most %d", each, most)
	}
	if more := runtime.NumGoroutine() - goroutines; more > n+100 {
		t.Errorf("%d goroutines for %d connections", more, n)
	}
	closeAll()
	clients(0)

	// The same again, and now it is the node that ends them.
	r.live.StartupTimeout = timeout
	r.server.Reload(r.live)
	flood()
	clients(0)
	for i, fd := range open {
		var b [4096]byte
		k, err := syscall.Read(fd, b[:])
		for k > 0 {
			k, err = syscall.Read(fd, b[:])
		}
		if err != nil && err != syscall.ECONNRESET {
			t.Fatalf("connection %d is not at its end: %v", i, err)
		}
	}
	closeAll()
	var left int64
	pgtest.Eventually(t, patience, func() error { // goroutines have told of their end before it
		if left = (inUse() - before) / int64(n); left > kept {
			return fmt.Errorf("%d bytes are left of each", left)
		}
		if more := runtime.NumGoroutine() - goroutines; more > 100 {
			return fmt.Errorf("%d goroutines are left", more)
		}
		return nil
	})
	t.Logf("%d connections: %d bytes each, %d left of each afterwards; a login takes %v, and %v without them", n, each, left, among, alone)
}
