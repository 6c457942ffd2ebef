//go:build linux

package epoll_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"rangefinder/wire/epoll"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) *epoll.Set {
	t.Helper()
	set := epoll.Open(true)
	if set == nil {
		t.Fatal("no set")
	}
	t.Cleanup(set.Close)
	return set
}

// ends returns the two ends of a TCP connection. Both are closed in the end.
func ends(t *testing.T) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if far, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	if near, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	return near, far
}

// pair returns a socket of the set and its other side.
func pair(t *testing.T, set *epoll.Set) (*epoll.Socket, *net.TCPConn) {
	t.Helper()
	near, far := ends(t)
	sock := set.Adopt(near)
	if sock == nil {
		t.Fatal("the set takes no socket")
	}
	if _, err := near.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the connection as it was before is not closed: %v", err)
	}
	t.Cleanup(func() { sock.Close() })
	return sock, far.(*net.TCPConn)
}

// told passes on what it is told.
type told chan bool

func (c told) Told(inSet bool) { c <- inSet }

// tell has a channel told of the socket's events.
func tell(sock *epoll.Socket) told {
	c := make(told, 100)
	l := epoll.Listener(c)
	sock.Tell(&l)
	return c
}

// A socket is a net.Conn like others: what is written arrives, also if it is more than buffers take, and the end is told.
func TestSocketIsConn(t *testing.T) {
	sock, far := pair(t, open(t))
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // 8 MiB
	var wg sync.WaitGroup
	wg.Go(func() {
		if n, err := sock.Write(want); n != len(want) || err != nil {
			t.Errorf("wrote %d: %v", n, err)
		}
		if err := sock.CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() { io.Copy(far, far); far.CloseWrite() }) // an echo
	got, err := io.ReadAll(sock)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes came back: %v", len(got), len(want), err)
	}
	wg.Wait()
	if !sock.Ended() {
		t.Error("its end is not known")
	}
}

// A deadline ends a read that waits; one that is taken back ends none.
func TestSocketDeadlines(t *testing.T) {
	sock, far := pair(t, open(t))
	events := tell(sock)
	for _, d := range []time.Duration{-time.Hour, 20 * time.Millisecond} {
		sock.SetReadDeadline(time.Now().Add(d))
		if _, err := sock.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("in %s: %v", d, err)
		}
		if inSet := <-events; inSet {
			t.Error("a deadline was told by the set")
		}
		if _, err := sock.TryRead(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("TryRead after it: %v", err)
		}
	}
	read := make(chan error)
	go func() { _, err := sock.Read(make([]byte, 1)); read <- err }()
	if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	sock.SetReadDeadline(time.Now().Add(time.Hour))
	sock.SetReadDeadline(time.Time{})
	far.Write([]byte("x"))
	if n, err := sock.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	go func() { _, err := sock.Read(make([]byte, 1)); read <- err }()
	sock.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read of a socket that is closed: %v", err)
	}
}

// The end of the stream is found, whether it came with the last bytes or behind them.
func TestTryReadFindsTheEnd(t *testing.T) {
	set := open(t)
	for i := range 50 {
		sock, far := pair(t, set)
		events := tell(sock)
		if _, err := sock.TryRead(make([]byte, 10)); err != syscall.EAGAIN {
			t.Fatalf("nothing is there: %v", err)
		}
		far.Write([]byte("bye"))
		if i%2 == 0 {
			<-events
		}
		far.Close()
		for got := 0; ; {
			n, err := sock.TryRead(make([]byte, 10))
			if err == syscall.EAGAIN {
				select {
				case <-events:
				case <-time.After(10 * time.Second):
					t.Fatalf("after %d bytes nothing is told any more", got)
				}
				continue
			}
			if n == 0 && err == nil && got == 3 {
				break
			}
			if got += n; err != nil || got > 3 {
				t.Fatalf("%d %v", got, err)
			}
		}
	}
}

// Who could not write all hears when there is room again.
func TestRoomIsTold(t *testing.T) {
	sock, far := pair(t, open(t))
	events := tell(sock)
	chunk := make([]byte, 1<<20)
	wrote := 0
	for {
		n, err := sock.TryWrite(chunk)
		if err != nil || n < len(chunk) {
			wrote += max(n, 0)
			break
		}
		wrote += n
	}
	go io.Copy(io.Discard, far)
	for left := 4 * len(chunk); left > 0; {
		n, err := sock.TryWrite(chunk[:min(left, len(chunk))])
		if err == syscall.EAGAIN {
			select {
			case <-events:
			case <-time.After(10 * time.Second):
				t.Fatal("nobody says that there is room")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		left -= n
	}
}

// A set that is closed goes on for the sockets that it has, and takes no more.
func TestCloseWithSockets(t *testing.T) {
	set := epoll.Open(true)
	sock, far := pair(t, set)
	set.Close()
	far.Write([]byte("x"))
	if n, err := sock.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if set.Adopt(far) != nil {
		t.Error("it takes another socket")
	}
	if err := sock.Close(); err != nil {
		t.Error(err)
	}
	if err := sock.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed again: %v", err)
	}
	if raw, _ := sock.SyscallConn(); raw.Control(func(uintptr) {}) == nil {
		t.Error("its descriptor can still be had")
	}
}

// A socket that stays with Go's poller is watched for its end.
func TestWatch(t *testing.T) {
	set := open(t)
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if set.Adopt(a) != nil {
		t.Error("a pipe was adopted")
	}
	near, far := ends(t)
	raw, _ := near.(syscall.Conn).SyscallConn()
	w := set.Watch(raw)
	events := tell(w)
	far.Write([]byte("x"))
	if n, err := near.Read(make([]byte, 1)); n != 1 || err != nil || w.Ended() {
		t.Fatalf("%d %v, ended %v", n, err, w.Ended())
	}
	far.Close()
	<-events
	if !w.Ended() {
		t.Error("its end was not noticed")
	}
	set.Forget(w)
}

// Many sockets at once, whose listeners answer in the set's goroutines: nothing is lost.
func TestManySockets(t *testing.T) {
	set := open(t)
	var wg sync.WaitGroup
	for range 200 {
		sock, far := pair(t, set)
		e := &echo{sock: sock}
		l := epoll.Listener(e)
		sock.Tell(&l)
		wg.Go(func() {
			buf := make([]byte, 8)
			for i := range 100 {
				msg := []byte{byte(i), 1, 2, 3, 4, 5, 6, 7}
				if _, err := far.Write(msg); err != nil {
					t.Error(err)
					return
				}
				far.SetReadDeadline(time.Now().Add(20 * time.Second))
				if _, err := io.ReadFull(far, buf); err != nil || !bytes.Equal(buf, msg) {
					t.Errorf("answer %d: %v %v", i, buf, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

type echo struct {
	mu   sync.Mutex
	sock *epoll.Socket
}

func (e *echo) Told(bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		var buf [64]byte
		n, err := e.sock.TryRead(buf[:])
		if err != nil || n == 0 {
			return
		}
		e.sock.TryWrite(buf[:n])
	}
}

// An event that was taken before its socket was closed is not told to the next one that has its number.
func TestEventsOfAClosedSocket(t *testing.T) {
	set := open(t)
	number := func(sock *epoll.Socket) (fd uintptr) {
		raw, err := sock.SyscallConn()
		if err == nil {
			err = raw.Control(func(n uintptr) { fd = n })
		}
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	arrives := func(sock *epoll.Socket, event int16) { // by the kernel's word, not the set's
		t.Helper()
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(number(sock)), Events: event}}, 10_000)
			if err == unix.EINTR {
				continue
			}
			if n != 1 {
				t.Fatalf("nothing arrives: %v", err)
			}
			return
		}
	}
	next, _ := ends(t)
	busy, busyFar := pair(t, set)
	first, firstFar := pair(t, set)
	old, oldFar := pair(t, set)
	was := number(old)
	for fd := 0; fd < int(was); { // no lower number is free
		var err error
		if fd, err = syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
	}

	holds, may, made := make(chan struct{}), make(chan struct{}), make(chan *epoll.Socket, 1)
	call := func(sock *epoll.Socket, f func()) {
		var once sync.Once
		l := epoll.Listener(calls(func() { once.Do(f) }))
		sock.Tell(&l)
	}
	call(busy, func() {
		close(holds)
		<-may
	})
	call(first, func() { // it is told of first, of the two whose events are taken together
		old.Close()
		made <- set.Adopt(next)
	})
	busyFar.Write([]byte("x"))
	<-holds
	firstFar.Write([]byte("x"))
	arrives(first, unix.POLLIN) // the first one is the first in the kernel's list as well
	oldFar.CloseWrite()         // its own number is lower, and stays in use
	arrives(old, unix.POLLRDHUP)
	close(may)
	sock := <-made
	defer sock.Close()
	if number(sock) != was {
		t.Skip("the number was given to somebody else")
	}
	heard := tell(busy) // whose next event comes after all that were taken before
	busyFar.Write([]byte("x"))
	<-heard
	if sock.Ended() || sock.Readable() {
		t.Error("it is told of the end of the socket whose number it has")
	}
}

type calls func()

func (c calls) Told(bool) { c() }
