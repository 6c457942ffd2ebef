package port

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

func modes(t *testing.T, test func(t *testing.T, key []byte)) {
	t.Run("plain", func(t *testing.T) { test(t, nil) })
	t.Run("key", func(t *testing.T) { test(t, testKey('k')) })
}

func TestStreamsByKind(t *testing.T) {
	modes(t, func(t *testing.T, key []byte) {
		a, b := open(t, Config{Key: key}), open(t, Config{Key: key})
		echo(t, b, KindPull)
		api := b.Listener(KindAPI)
		c, err := a.Dial(within(t, 10*time.Second), KindPull, b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got := says(t, c, "which ranges?"); got != "which ranges?" {
			t.Errorf("%q", got)
		}
		d, err := a.Dial(within(t, 10*time.Second), KindAPI, b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		served, err := api.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Write([]byte("call")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4)
		if _, err := io.ReadFull(served, buf); err != nil || string(buf) != "call" {
			t.Errorf("%q, %v", buf, err)
		}
		until(t, "two were accepted", func() bool { s := b.Stats(); return s.Accepted == 2 && s.Streams == 2 && s.HalfOpen == 0 })
		served.Close()
		c.Close()
		until(t, "closed streams are forgotten", func() bool { return a.Stats().Streams == 1 && b.Stats().Streams == 0 })
		if api.Addr().String() != b.Addr() {
			t.Errorf("the listener's address is %s", api.Addr())
		}
	})
}

func TestProtectedStreamsAreTLS13(t *testing.T) {
	a, b := open(t, Config{Key: testKey('k'), Node: "a"}), open(t, Config{Key: testKey('k'), Node: "b"})
	ln := b.Listener(KindAPI)
	c, err := a.Dial(within(t, 10*time.Second), KindAPI, b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	served, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]net.Conn{"b": c, "a": served} {
		s := conn.(*stream).Conn.(*tls.Conn).ConnectionState()
		if s.Version != tls.VersionTLS13 || len(s.PeerCertificates) != 1 || s.PeerCertificates[0].Subject.CommonName != name {
			t.Errorf("peer %s: version %x, certificates %v", name, s.Version, s.PeerCertificates)
		}
	}
	// An older TLS is refused, also with the right certificate.
	old := a.id.client.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if conn, err := tls.Dial("tcp", b.Addr(), old); err == nil {
		conn.Close()
		t.Error("TLS 1.2 was taken")
	}
}

// TestWrongKeys: each mismatch has an error on the dialing side that says what to do, soon.
func TestWrongKeys(t *testing.T) {
	for _, c := range []struct {
		name         string
		dial, listen []byte
		want         error
		text         string
	}{
		{"another key", testKey('a'), testKey('b'), ErrKeyMismatch, "the cluster key does not match that of 127.0.0.1:"},
		{"no key there", testKey('a'), nil, ErrNotProtected, "runs without a cluster key"},
		{"no key here", nil, testKey('b'), ErrKeyNeeded, "has a cluster key and this node has none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := &lines{}
			a, b := open(t, Config{Key: c.dial, Node: "a"}), open(t, Config{Key: c.listen, Node: "b", Logger: log.logger()})
			serveHello(t, b, Hello{ClusterID: "c1", Name: "b"})
			start := time.Now()
			_, err := a.Hello(within(t, 10*time.Second), b.Addr(), Hello{Name: "a"})
			if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.text) {
				t.Errorf("%v", err)
			}
			if took := time.Since(start); took > 8*time.Second { // and not until ctx ends
				t.Errorf("it took %v", took)
			}
			until(t, "the other side counted it", func() bool {
				s := b.Stats()
				return s.KeyMismatches+s.BadHandshakes+s.UnknownKinds == 1 && s.HalfOpen == 0 && s.Accepted == 0
			})
			if c.want == ErrKeyMismatch && b.Stats().KeyMismatches != 1 {
				t.Errorf("%+v", b.Stats())
			}
		})
	}
}

// TestStrangerWithoutCertificate: whoever speaks TLS and has no key is not let in.
func TestStrangerWithoutCertificate(t *testing.T) {
	p := open(t, Config{Key: testKey('k')})
	echo(t, p, KindPull)
	conn, err := tls.Dial("tcp", p.Addr(), &tls.Config{InsecureSkipVerify: true})
	if err == nil { // in TLS 1.3 the client is done before the server has judged its certificate
		conn.Write([]byte{byte(KindPull), 'x'})
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("it was served %d bytes", n)
		}
		conn.Close()
	}
	until(t, "it was refused", func() bool { s := p.Stats(); return s.BadHandshakes+s.KeyMismatches == 1 && s.Accepted == 0 })
}

// TestNoise: bytes that mean nothing are counted, logged rarely, and hurt nobody.
func TestNoise(t *testing.T) {
	modes(t, func(t *testing.T, key []byte) {
		log := &lines{}
		p := open(t, Config{Key: key, Logger: log.logger(), HandshakeTimeout: 2 * time.Second})
		echo(t, p, KindPull)
		noise := rand.NewChaCha8([32]byte{1})
		const strangers = 60
		for i := range strangers {
			conn, err := net.Dial("tcp", p.Addr())
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 1+i*40)
			noise.Read(b)
			b[0] &= 0x1f // no kind of ours
			conn.Write(b)
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if rest, err := io.ReadAll(conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("stranger %d was kept: %q, %v", i, rest, err)
			}
			conn.Close()
		}
		until(t, "all are counted", func() bool {
			s := p.Stats()
			return s.BadHandshakes+s.UnknownKinds+s.KeyMismatches+s.TooSlow == strangers && s.HalfOpen == 0 && s.Streams == 0
		})
		if n := log.with("cluster port"); n < 1 || n > 4 {
			t.Errorf("%d strangers made %d lines", strangers, n)
		}
		c, err := p.Dial(within(t, 10*time.Second), KindPull, p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		says(t, c, "still here")
	})
}

// TestSilentStrangers: they are let go in time, and only so many are held meanwhile; a quarter of the room from one address.
func TestSilentStrangers(t *testing.T) {
	modes(t, func(t *testing.T, key []byte) {
		p := open(t, Config{Key: key, HandshakeTimeout: 700 * time.Millisecond, MaxHandshakes: 8})
		echo(t, p, KindPull)
		var conns []net.Conn
		for range 6 {
			conn, err := net.Dial("tcp", p.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conns = append(conns, conn)
		}
		until(t, "four are refused at once", func() bool { return p.Stats().Refused == 4 })
		if got := p.Stats().HalfOpen; got > 2 {
			t.Errorf("%d half-open", got)
		}
		until(t, "two are too slow", func() bool { s := p.Stats(); return s.TooSlow == 2 && s.HalfOpen == 0 })
		for _, conn := range conns {
			conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a silent stranger was kept: %v", err)
			}
		}
		c, err := p.Dial(within(t, 10*time.Second), KindPull, p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		says(t, c, "there is room again")
	})
}

// TestDialIsBounded: a side that accepts and says nothing does not hold a dialer.
func TestDialIsBounded(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p := open(t, Config{Key: testKey('k'), HandshakeTimeout: 300 * time.Millisecond})
	start := time.Now()
	if _, err := p.Dial(t.Context(), KindRaft, ln.Addr().String()); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "raft stream to "+ln.Addr().String()) {
		t.Errorf("%v", err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestCloseEndsEverything: listeners, streams on both sides, half-open ones and dials under way.
func TestCloseEndsEverything(t *testing.T) {
	modes(t, func(t *testing.T, key []byte) {
		a, b := open(t, Config{Key: key}), open(t, Config{Key: key})
		ln := b.Listener(KindPull)
		c, err := a.Dial(within(t, 10*time.Second), KindPull, b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		served, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		half, err := net.Dial("tcp", b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer half.Close()
		until(t, "one is half-open", func() bool { return b.Stats().HalfOpen == 1 })
		silent, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		ended := make(chan error, 3)
		go func() { _, err := ln.Accept(); ended <- err }()
		go func() { _, err := served.Read(make([]byte, 1)); ended <- err }()
		go func() {
			conn, err := b.Dial(context.Background(), KindRaft, silent.Addr().String())
			if key == nil && err == nil { // a plain dial does not wait for the other side
				conn.Close()
				err = ErrClosed
			}
			ended <- err
		}()
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			select {
			case err := <-ended:
				if err == nil {
					t.Error("something went on")
				}
			case <-time.After(5 * time.Second):
				t.Fatal("something hangs")
			}
		}
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the other side's stream is open")
		}
		if _, err := b.Dial(t.Context(), KindPull, a.Addr()); !errors.Is(err, ErrClosed) {
			t.Errorf("a dial after Close: %v", err)
		}
		if s := b.Stats(); s.Streams != 0 && s.HalfOpen != 0 {
			t.Errorf("%+v", s)
		}
		again, err := Listen(Config{Port: b.BoundAddr().(*net.TCPAddr).Port})
		if err != nil {
			t.Fatal("the port is not free:", err)
		}
		again.Close()
	})
}

func TestNobodyListens(t *testing.T) {
	a, b := open(t, Config{}), open(t, Config{})
	ln := b.Listener(KindPull)
	ln.Close()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	c, err := a.Dial(within(t, 10*time.Second), KindPull, b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("somebody answered")
	}
	until(t, "it is counted", func() bool { return b.Stats().NobodyListens == 1 })
	b.Listener(KindPull) // a closed listener makes room for another
	defer func() {
		if recover() == nil {
			t.Error("two listeners of one kind")
		}
	}()
	b.Listener(KindPull)
}

func TestAdvertise(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string // with %d for the bound port
		err  string
	}{
		{Config{}, "127.0.0.1:%d", ""},
		{Config{Bind: "127.0.0.2"}, "127.0.0.2:%d", ""},
		{Config{Bind: "0.0.0.0", Advertise: "10.1.2.3"}, "10.1.2.3:%d", ""},
		{Config{Advertise: "10.1.2.3:7000"}, "10.1.2.3:7000", ""},
		{Config{Advertise: "localhost:7000"}, "localhost:7000", ""},
		{Config{Bind: "0.0.0.0"}, "", "set advertise"},
		{Config{Advertise: "10.1.2.3:0"}, "", "from 1 to 65535"},
		{Config{Advertise: "10.1.2.3:x"}, "", "from 1 to 65535"},
		{Config{Advertise: "0.0.0.0:5"}, "", "others can reach"},
		{Config{Bind: "no address"}, "", "listen for the cluster"},
		{Config{Key: []byte("short")}, "", "must hold 32"},
	} {
		p, err := Listen(c.cfg)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%+v: %v", c.cfg, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c.cfg, err)
			continue
		}
		want := c.want
		if strings.Contains(want, "%d") {
			want = fmt.Sprintf(want, p.BoundAddr().(*net.TCPAddr).Port)
		}
		if p.Addr() != want {
			t.Errorf("%+v: advertises %s, want %s", c.cfg, p.Addr(), want)
		}
		p.Close()
	}
}

func TestHello(t *testing.T) {
	modes(t, func(t *testing.T, key []byte) {
		a, b := open(t, Config{Key: key}), open(t, Config{Key: key})
		serveHello(t, b, Hello{ClusterID: "c1", Name: "b", Region: "fra"})
		ask := func(h Hello) (HelloReply, error) { return a.Hello(within(t, 10*time.Second), b.Addr(), h) }
		for _, id := range []string{"", "c1"} {
			if r, err := ask(Hello{Name: "a", Region: "iad", ClusterID: id}); err != nil || r.ClusterID != "c1" || r.Name != "b" || r.Region != "fra" {
				t.Errorf("%+v, %v", r, err)
			}
		}
		var refused *RefusedError
		if _, err := ask(Hello{Name: "a", ClusterID: "c2"}); !errors.As(err, &refused) || refused.Reply.Retry ||
			!strings.Contains(err.Error(), "cluster c2") || !strings.Contains(err.Error(), "cluster c1") {
			t.Errorf("another cluster: %v", err)
		}
		if _, err := ask(Hello{Name: "b"}); !errors.As(err, &refused) || !strings.Contains(err.Error(), `itself named "b"`) {
			t.Errorf("the same name: %v", err)
		}
		if _, err := ask(Hello{}); !errors.As(err, &refused) {
			t.Errorf("no name: %v", err)
		}

		young := open(t, Config{Key: key})
		serveHello(t, young, Hello{Name: "young"})
		if _, err := a.Hello(within(t, 10*time.Second), young.Addr(), Hello{Name: "a"}); !errors.As(err, &refused) || !refused.Reply.Retry {
			t.Errorf("a node of no cluster: %v", err)
		}
		deaf := open(t, Config{Key: key})
		if _, err := a.Hello(within(t, 10*time.Second), deaf.Addr(), Hello{Name: "a"}); err == nil {
			t.Error("nobody answers hellos there, and one was accepted")
		}
	})
}

// TestHelloIsBounded: a hello of noise, or none, is let go; and so is an answer.
func TestHelloIsBounded(t *testing.T) {
	a, b := open(t, Config{}), open(t, Config{HandshakeTimeout: 500 * time.Millisecond})
	serveHello(t, b, Hello{ClusterID: "c1", Name: "b"})
	for _, text := range []string{"", "\x00\x00", "\xff\xff" + strings.Repeat("x", 1000), "\x00\x02xx", "\x00\x04{}"} {
		c, err := a.Dial(within(t, 10*time.Second), KindHello, b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(text))
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q: %d bytes, %v", text, n, err)
		}
		c.Close()
	}
	ln := open(t, Config{})
	answers := ln.Listener(KindHello)
	go func() {
		for _, text := range []string{"\x15\x03\x03\x00\x02", "\x00\x02{}", "\x00\x11" + `{"accepted":true}`} {
			c, err := answers.Accept()
			if err != nil {
				return
			}
			readJSON(c, &Hello{})
			c.Write([]byte(text))
			c.Close()
		}
	}()
	for _, want := range []string{"has a cluster key", "refused without a reason", "named no cluster"} {
		if _, err := a.Hello(within(t, 10*time.Second), ln.Addr(), Hello{Name: "a"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func serveHello(t testing.TB, p *Port, self Hello) {
	ln := p.Listener(KindHello)
	done := make(chan error, 1)
	go func() { done <- p.ServeHello(ln, func(h Hello) HelloReply { return AnswerHello(self, h) }) }()
	t.Cleanup(func() {
		ln.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkDial(b *testing.B) {
	for name, key := range map[string][]byte{"plain": nil, "key": testKey('k')} {
		b.Run(name, func(b *testing.B) {
			p := open(b, Config{Key: key})
			echo(b, p, KindPull)
			for b.Loop() {
				c, err := p.Dial(b.Context(), KindPull, p.Addr())
				if err != nil {
					b.Fatal(err)
				}
				says(b, c, "x")
				c.Close()
			}
		})
	}
}
