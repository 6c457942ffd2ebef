package lab_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"rangefinder/internal/lab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	near = &net.TCPAddr{IP: net.IPv4(127, 0, 9, 1), Port: 5432}
	far  = &net.TCPAddr{IP: net.IPv4(127, 0, 2, 1), Port: 5432}
	rule = lab.Rules{{Net: netip.MustParsePrefix("127.0.2.0/24"), RTT: 100 * time.Millisecond}}
)

// addressed is a pipe's end that claims a remote address, so that virtual time can be used.
type addressed struct {
	net.Conn
	remote net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.remote }

// dialPipe dials one end of a pipe through the rules and returns both ends.
func dialPipe(t *testing.T, remote net.Addr) (here, there net.Conn) {
	t.Helper()
	a, b := net.Pipe()
	d := lab.Dialer{Rules: rule, Dial: func(context.Context, string, string) (net.Conn, error) { return addressed{a, remote}, nil }}
	here, err := d.DialContext(t.Context(), "tcp", remote.String())
	if err != nil {
		t.Fatal(err)
	}
	return here, b
}

func TestLongestNetworkWins(t *testing.T) {
	rules := lab.Rules{
		{netip.MustParsePrefix("127.0.0.0/8"), time.Millisecond},
		{netip.MustParsePrefix("127.0.2.0/24"), 2 * time.Millisecond},
		{netip.MustParsePrefix("127.0.0.0/16"), 3 * time.Millisecond},
	}
	for addr, want := range map[string]time.Duration{
		"127.0.2.9": 2 * time.Millisecond, "127.0.3.9": 3 * time.Millisecond, "127.9.9.9": time.Millisecond, "10.0.0.1": 0,
		"::ffff:127.0.2.9": 2 * time.Millisecond, "::1": 0,
	} {
		if got := rules.RTT(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
}

func TestEachWayTakesHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		here, there := dialPipe(t, far)
		if took := time.Since(begin); took != 100*time.Millisecond {
			t.Errorf("connect took %v, want one round trip", took)
		}

		begin = time.Now()
		if n, err := here.Write([]byte("question")); n != 8 || err != nil {
			t.Fatal(n, err)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("a write blocked for %v", took)
		}
		buf := make([]byte, 64)
		n, err := there.Read(buf)
		if string(buf[:n]) != "question" || err != nil || time.Since(begin) != 50*time.Millisecond {
			t.Errorf("%q, %v after %v, want 50ms", buf[:n], err, time.Since(begin))
		}
		_, _ = there.Write([]byte("answer"))
		pending := here.(interface{ Pending() bool }).Pending
		synctest.Wait()
		if pending() {
			t.Error("an answer that is still on its way is pending")
		}
		n, err = here.Read(buf[:3]) // in two pieces
		if string(buf[:n]) != "ans" || err != nil || time.Since(begin) != 100*time.Millisecond {
			t.Errorf("%q, %v after %v, want 100ms", buf[:n], err, time.Since(begin))
		}
		if !pending() {
			t.Error("the rest of the answer is not pending")
		}
		n, err = here.Read(buf)
		if string(buf[:n]) != "wer" || err != nil || time.Since(begin) != 100*time.Millisecond {
			t.Errorf("%q, %v after %v, want 100ms", buf[:n], err, time.Since(begin))
		}

		begin = time.Now()
		_ = there.Close()
		for range 2 {
			if _, err := here.Read(buf); err != io.EOF || time.Since(begin) != 50*time.Millisecond {
				t.Errorf("end of file: %v after %v, want 50ms", err, time.Since(begin))
			}
		}
		_ = here.Close()
	})
}

// What is written later travels behind what was written before, not after it has arrived.
func TestWritesOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := dialPipe(t, far)
		begin := time.Now()
		var sent []byte
		for i := range 100 {
			piece := []byte{byte(i), byte(i)}
			sent = append(sent, piece...)
			_, _ = here.Write(piece)
		}
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(there, got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%v: order was not kept: %v", err, got)
		}
		if took := time.Since(begin); took != 50*time.Millisecond {
			t.Errorf("100 writes took %v, want 50ms together", took)
		}
		_, _ = here.Close(), there.Close()
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := dialPipe(t, far)
		buf := make([]byte, 8)
		begin := time.Now()
		_ = here.SetReadDeadline(begin.Add(30 * time.Millisecond))
		_, err := here.Read(buf)
		var netErr net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &netErr) || !netErr.Timeout() || time.Since(begin) != 30*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		// A deadline set while a Read waits reaches it, as the pools of pgx and of net/http do to wake one.
		_ = here.SetReadDeadline(time.Time{})
		failed := make(chan error)
		go func() {
			_, err := here.Read(buf)
			failed <- err
		}()
		synctest.Wait()
		_ = here.SetReadDeadline(time.Unix(1, 0))
		if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		// A later deadline makes it readable again, and nothing was lost.
		_ = here.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = there.Write([]byte("late"))
		if n, err := here.Read(buf); string(buf[:n]) != "late" || err != nil {
			t.Errorf("%q, %v", buf[:n], err)
		}
		// A full line blocks the writer until its deadline: nobody reads on the other side.
		_ = here.SetWriteDeadline(time.Now().Add(time.Second))
		begin = time.Now()
		n, err := here.Write(make([]byte, 64<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n > 32<<20 || time.Since(begin) != time.Second {
			t.Errorf("%d bytes, %v after %v", n, err, time.Since(begin))
		}
		_ = there.Close()
		_ = here.Close()
	})
}

// What was written before Close arrives, then the end; and a blocked Read is woken.
func TestCloseDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := dialPipe(t, far)
		failed := make(chan error)
		go func() {
			_, err := here.Read(make([]byte, 1))
			failed <- err
		}()
		begin := time.Now()
		_, _ = here.Write([]byte("goodbye"))
		if err := here.Close(); err != nil {
			t.Error(err)
		}
		if err := <-failed; !errors.Is(err, net.ErrClosed) || time.Since(begin) != 0 {
			t.Errorf("the reader got %v after %v", err, time.Since(begin))
		}
		if all, err := io.ReadAll(there); string(all) != "goodbye" || err != nil || time.Since(begin) != 50*time.Millisecond {
			t.Errorf("%q, %v after %v", all, err, time.Since(begin))
		}
		if _, err := here.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after close: %v", err)
		}
		if err := here.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second close: %v", err)
		}
		_ = there.Close()
	})
}

// A closed connection whose peer reads nothing ends within a bound.
func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := dialPipe(t, far)
		_, _ = here.Write([]byte("nobody reads this"))
		_ = here.Close()
		<-time.After(5 * time.Second)
		synctest.Wait()
		if _, err := there.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the peer still has an open connection: %v", err)
		}
	})
}

func TestRefusalTravels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		d := lab.Dialer{Rules: rule, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, refused }}
		begin := time.Now()
		if _, err := d.DialContext(t.Context(), "tcp", far.String()); !errors.Is(err, refused) || time.Since(begin) != 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		begin = time.Now()
		if _, err := d.DialContext(t.Context(), "tcp", near.String()); !errors.Is(err, refused) || time.Since(begin) != 0 {
			t.Errorf("no rule: %v after %v", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		begin = time.Now()
		if _, err := d.DialContext(ctx, "tcp", far.String()); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 10*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

// A connection that is delayed must not let anyone read around the delay; one that is not stays what it was.
func TestFileDescriptorIsHidden(t *testing.T) {
	here, there := dialPipe(t, far)
	if _, ok := here.(syscall.Conn); ok {
		t.Error("a delayed connection offers its file descriptor")
	}
	_, _ = here.Close(), there.Close()
	plain, there := dialPipe(t, near)
	if _, ok := plain.(addressed); !ok {
		t.Errorf("a connection that no rule matches was wrapped as %T", plain)
	}
	_, _ = plain.Close(), there.Close()
}

// Over real TCP, 32 MiB each way at once: the delay does not limit throughput, and a half-closed connection works.
func TestThroughputOverTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.2.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	go func() { // echo
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(conn, conn)
		_ = conn.Close()
	}()
	d := lab.Dialer{Rules: rule}
	conn, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 2<<20)
	begin := time.Now()
	var wg sync.WaitGroup
	wg.Go(func() {
		if n, err := conn.Write(sent); n != len(sent) || err != nil {
			t.Error(n, err)
		}
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	got, err := io.ReadAll(conn)
	wg.Wait()
	took := time.Since(begin)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%v: %d bytes came back of %d", err, len(got), len(sent))
	}
	t.Logf("%d MiB there and back in %v", len(sent)>>20, took)
	if took < 100*time.Millisecond {
		t.Errorf("took %v, less than one round trip", took)
	}
	if took > 25*time.Second { // one 64 KiB piece a round trip would take 51 s, two would take 25.6 s
		t.Errorf("took %v: pieces do not overlap", took)
	}
}

// packets is a packet connection that notes when what was sent.
type packets struct {
	net.PacketConn
	begin  time.Time
	closed chan struct{}
	mu     sync.Mutex
	log    []sent
}

type sent struct {
	after time.Duration
	data  string
}

func (p *packets) WriteTo(b []byte, _ net.Addr) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, sent{time.Since(p.begin), string(b)})
	return len(b), nil
}

func (p *packets) Close() error { close(p.closed); return nil }

func TestPacketsGoHalfARoundTripLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &packets{begin: time.Now(), closed: make(chan struct{})}
		rules := append(lab.Rules{{netip.MustParsePrefix("127.0.3.0/24"), 20 * time.Millisecond}}, rule...)
		pc := lab.WrapPacketConn(inner, rules)
		buf := []byte("far")
		_, _ = pc.WriteTo(buf, &net.UDPAddr{IP: net.IPv4(127, 0, 2, 1), Port: 7946})
		copy(buf, "xxx") // the caller may use its buffer again
		_, _ = pc.WriteTo([]byte("mid"), &net.UDPAddr{IP: net.IPv4(127, 0, 3, 1), Port: 7946})
		_, _ = pc.WriteTo([]byte("mid2"), &net.UDPAddr{IP: net.IPv4(127, 0, 3, 1), Port: 7946})
		_, _ = pc.WriteTo([]byte("near"), &net.UDPAddr{IP: net.IPv4(127, 0, 9, 1), Port: 7946})
		<-time.After(time.Second)
		_, _ = pc.WriteTo([]byte("lost"), &net.UDPAddr{IP: net.IPv4(127, 0, 2, 1), Port: 7946})
		_ = pc.Close()
		<-inner.closed
		if _, err := pc.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(127, 0, 2, 1)}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after close: %v", err)
		}
		want := []sent{{0, "near"}, {10 * time.Millisecond, "mid"}, {10 * time.Millisecond, "mid2"}, {50 * time.Millisecond, "far"}}
		if len(inner.log) != len(want) {
			t.Fatalf("sent %v, want %v", inner.log, want)
		}
		for i, w := range want {
			if inner.log[i] != w {
				t.Errorf("packet %d: %v, want %v", i, inner.log[i], w)
			}
		}
	})
}
