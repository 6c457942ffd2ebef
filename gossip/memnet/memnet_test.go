package memnet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pairOf makes two hosts 100 ms apart and a stream between them.
func pairOf(t *testing.T, n *Net) (near, far net.Conn) {
	t.Helper()
	n.SetRTT("iad", "syd", 100*time.Millisecond)
	a, b := n.Host("a", "iad"), n.Host("b", "syd")
	l, err := b.Listen(5432)
	if err != nil {
		t.Fatal(err)
	}
	near, err = a.Dial(t.Context(), "tcp", b.Addr(5432))
	if err != nil {
		t.Fatal(err)
	}
	far, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return near, far
}

func since(t *testing.T, start time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(start); got != want {
		t.Fatalf("took %v, want %v", got, want)
	}
}

func TestStreamTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		defer n.Close()
		start := time.Now()
		near, far := pairOf(t, n)
		since(t, start, 100*time.Millisecond)

		start = time.Now()
		if _, err := near.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		since(t, start, 0)
		buf := make([]byte, 16)
		k, err := far.Read(buf)
		if err != nil || string(buf[:k]) != "hello" {
			t.Fatalf("read %q, %v", buf[:k], err)
		}
		since(t, start, 50*time.Millisecond)

		if err := near.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := far.Read(buf); err != io.EOF {
			t.Fatalf("after close: %v, want EOF", err)
		}
		since(t, start, 100*time.Millisecond)
		if _, err := near.Read(buf); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("read of a closed conn: %v", err)
		}
		if _, err := far.Write(buf); !errors.Is(err, syscall.EPIPE) {
			t.Fatalf("write to a closed peer: %v", err)
		}
	})
}

func TestStreamKeepsOrderUnderLossAndBackpressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(7)
		defer n.Close()
		n.SetJitter(0.5)
		near, far := pairOf(t, n)
		n.SetLoss(Everyone, Everyone, 0.25)
		const size = 5 << 20
		want := sha256.New()
		go func() {
			chunk := make([]byte, 64<<10)
			for sent := 0; sent < size; sent += len(chunk) {
				for i := range chunk {
					chunk[i] = byte(sent>>16 + i)
				}
				want.Write(chunk)
				if _, err := near.Write(chunk); err != nil {
					t.Errorf("write: %v", err)
				}
			}
			_ = near.Close()
		}()
		got := sha256.New()
		k, err := io.Copy(got, far)
		if err != nil || k != size {
			t.Fatalf("copied %d, %v; want %d", k, err, size)
		}
		if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
			t.Fatal("bytes differ")
		}
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		defer n.Close()
		near, far := pairOf(t, n)
		start := time.Now()
		_ = far.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
		_, err := far.Read(make([]byte, 1))
		var ne net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
			t.Fatalf("read: %v", err)
		}
		since(t, start, 30*time.Millisecond)

		// A deadline set from elsewhere wakes a reader, as pgconn and Raft need.
		_ = far.SetReadDeadline(time.Time{})
		time.AfterFunc(time.Second, func() { _ = far.SetDeadline(time.Unix(1, 0)) })
		start = time.Now()
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read: %v", err)
		}
		since(t, start, time.Second)

		// A writer that nobody reads from waits until its deadline.
		_ = near.SetWriteDeadline(time.Now().Add(time.Second))
		start = time.Now()
		if k, err := near.Write(make([]byte, 2*window)); !errors.Is(err, os.ErrDeadlineExceeded) || k != window {
			t.Fatalf("wrote %d: %v", k, err)
		}
		since(t, start, time.Second)
	})
}

func TestCutStallsAndHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		defer n.Close()
		near, far := pairOf(t, n)
		n.Cut("iad", "syd")
		if _, err := near.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		_ = near.Close() // the FIN is behind the data
		start := time.Now()
		time.AfterFunc(10*time.Second, func() { n.Heal("iad", "syd") })
		got, err := io.ReadAll(far)
		if err != nil || string(got) != "late" {
			t.Fatalf("%q, %v", got, err)
		}
		since(t, start, 10*time.Second+50*time.Millisecond)

		n.Isolate("iad")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		_, err = n.Host("a", "iad").Dial(ctx, "tcp", n.Host("b", "syd").Addr(5432))
		if !errors.Is(err, syscall.ETIMEDOUT) {
			t.Fatalf("dial over a cut: %v", err)
		}
		since(t, start, time.Second)
		n.Rejoin("iad")
		start = time.Now()
		if _, err = n.Host("a", "iad").DialTimeout(n.Host("b", "syd").Addr(5433), time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("dial of a closed port: %v", err)
		}
		since(t, start, 100*time.Millisecond)
	})
}

func TestHostDeathResets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		defer n.Close()
		near, _ := pairOf(t, n)
		start := time.Now()
		n.Host("b", "syd").Close()
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("read: %v", err)
		}
		since(t, start, 50*time.Millisecond)
		if _, err := n.Host("b", "syd").Listen(5432); err != nil {
			t.Fatalf("listen after restart: %v", err)
		}
	})
}

// packets sends count packets from a to b and returns which arrived.
func packets(t *testing.T, n *Net, count int) (arrived []byte, last time.Duration) {
	t.Helper()
	n.SetRTT("iad", "syd", 100*time.Millisecond)
	a, err := n.Host("a", "iad").Transport(7946)
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.Host("b", "syd").Transport(7946)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for i := range count {
		if _, err := a.WriteTo([]byte{byte(i)}, b.Addr()); err != nil {
			t.Fatal(err)
		}
	}
	quiet := time.NewTimer(time.Second)
	for {
		select {
		case p := <-b.PacketCh():
			arrived = append(arrived, p.Buf[0])
			last = time.Since(start)
		case <-quiet.C:
			return arrived, last
		}
	}
}

func TestPacketsAreLostDelayedAndReorderedBySeed(t *testing.T) {
	run := func(seed uint64) (got []byte) {
		synctest.Test(t, func(t *testing.T) {
			n := New(seed)
			defer n.Close()
			n.SetJitter(0.1)
			n.SetLoss("iad", "syd", 0.25)
			var last time.Duration
			got, last = packets(t, n, 200)
			if last < 45*time.Millisecond || last > 55*time.Millisecond {
				t.Errorf("last packet after %v, want 50 ms +- 10 %%", last)
			}
		})
		return got
	}
	one := run(1)
	if len(one) < 130 || len(one) > 170 {
		t.Errorf("%d of 200 arrived at 25 %% loss", len(one))
	}
	if bytes.Equal(one, sorted(one)) {
		t.Error("jitter reordered nothing")
	}
	if again := run(1); !bytes.Equal(sorted(one), sorted(again)) {
		t.Error("one seed lost different packets in two runs")
	}
	if other := run(2); bytes.Equal(sorted(one), sorted(other)) {
		t.Error("another seed lost the same packets")
	}
}

func sorted(b []byte) []byte {
	b = bytes.Clone(b)
	for i := range b {
		for j := i; j > 0 && b[j] < b[j-1]; j-- {
			b[j], b[j-1] = b[j-1], b[j]
		}
	}
	return b
}

func TestOneWayCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		defer n.Close()
		n.CutOneWay("a", "b")
		if got, _ := packets(t, n, 3); len(got) != 0 {
			t.Fatalf("%d packets went over a cut", len(got))
		}
		if tr := n.Host("a", "iad").Traffic(); tr.Packets != 3 || tr.PacketsLost != 3 {
			t.Fatalf("traffic %+v", tr)
		}
	})
}

// Of a frozen host nothing comes; what is sent to it waits until it is thawed, as far as a socket holds it.
func TestFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(4)
		defer n.Close()
		near, far := pairOf(t, n)
		a, b := near.(*Conn).host, far.(*Conn).host
		ta, err := a.Transport(7946)
		if err != nil {
			t.Fatal(err)
		}
		tb, err := b.Transport(7946)
		if err != nil {
			t.Fatal(err)
		}
		n.Freeze(b)
		send := func(from, to *Transport, text string) {
			t.Helper()
			if _, err := from.WriteTo([]byte(text), to.Addr()); err != nil {
				t.Fatal(err)
			}
		}
		send(tb, ta, "from the frozen")
		for range socketDepth + 10 {
			send(ta, tb, "to the frozen")
		}
		if _, err := near.Write([]byte("to the frozen")); err != nil {
			t.Fatal(err)
		}
		if _, err := far.Write([]byte("from the frozen")); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		if len(ta.PacketCh()) != 0 || len(tb.PacketCh()) != 0 {
			t.Errorf("%d packets came from it, %d to it", len(ta.PacketCh()), len(tb.PacketCh()))
		}
		buf := make([]byte, 20)
		for _, c := range []net.Conn{near, far} {
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			if k, err := c.Read(buf); k != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%d bytes of a stalled stream, %v", k, err)
			}
			_ = c.SetReadDeadline(time.Time{})
		}
		dial, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Dial(dial, "tcp", b.Addr(5432)); !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("it answers: %v", err)
		}
		start := time.Now()
		n.Thaw(b)
		if len(tb.PacketCh()) != socketDepth || len(ta.PacketCh()) != 0 {
			t.Errorf("after the thaw %d packets, want %d; %d from it", len(tb.PacketCh()), socketDepth, len(ta.PacketCh()))
		}
		for _, c := range []net.Conn{near, far} {
			if k, err := c.Read(buf); k < 13 || err != nil {
				t.Errorf("%d bytes, %v", k, err)
			}
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("streams went on %v after the thaw", took)
		}
		send(tb, ta, "again")
		<-time.After(time.Second)
		if len(ta.PacketCh()) != 1 {
			t.Error("nothing comes from the thawed")
		}
	})
}
