package pool_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// firsts notes what each connection begins with.
type firsts struct {
	mu  sync.Mutex
	all [][]byte
}

type noted struct {
	net.Conn
	f    *firsts
	once sync.Once
}

func (n *noted) Write(b []byte) (int, error) {
	n.once.Do(func() {
		n.f.mu.Lock()
		n.f.all = append(n.f.all, bytes.Clone(b))
		n.f.mu.Unlock()
	})
	return n.Conn.Write(b)
}

func (f *firsts) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &noted{Conn: c, f: f}, nil
}

// tlsPools are pools to a server that has TLS, which trust an authority.
func tlsPools(t *testing.T, s *pgtest.Server, dial pool.Dialer, roots *x509.CertPool) *rig {
	t.Helper()
	r := &rig{b: &rib.Backend{Name: "b", Shard: "s", Addr: s.Addr()}}
	r.Pools = pool.New(pool.Config{
		Limits: pool.Limits{Size: 4, Wait: time.Second, Connect: 10 * time.Second}, Dial: dial,
		TLS: func(addr string) *tls.Config {
			if addr != s.Addr() {
				t.Errorf("asked for %s", addr)
			}
			return &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
		},
		Credential: func(pool.Identity) pg.Credential { return pg.Password(s.Password()) },
		Report:     func(string, error) { r.reported.Add(1) },
	})
	r.Open()
	t.Cleanup(r.Close)
	return r
}

func (r *rig) lend(t *testing.T) *pool.Conn {
	t.Helper()
	c, err := r.Get(t.Context(), r.b, pool.Identity{User: "postgres", Database: "postgres"}, false)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ask runs a query on a lent connection: the first value, or the SQLSTATE of its error.
func ask(t *testing.T, c *pool.Conn, sql string) string {
	t.Helper()
	if _, err := c.Net.Write(pg.AppendQuery(nil, sql)); err != nil {
		t.Fatal(err)
	}
	var all []byte
	buf := make([]byte, 4096)
	for !bytes.HasSuffix(all, pg.AppendReady(nil, 'I')) {
		n, err := c.Net.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, buf[:n]...)
	}
	for len(all) > 0 {
		typ, n, err := pg.Next(all, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		body := all[pg.HeaderSize:n]
		switch typ {
		case 'D':
			return string(body[6:])
		case 'E':
			e, err := pg.DecodeError(body)
			if err != nil {
				t.Fatal(err)
			}
			return e.Code
		}
		all = all[n:]
	}
	return ""
}

func TestTLSToPostgres(t *testing.T) {
	ca := pgtest.NewAuthority(t)
	s := pgtest.NewPrimary(t, pgtest.Options{Auth: "scram-sha-256", TLS: ca.Issue(t, time.Time{}, "127.0.0.1")})

	t.Run("encrypted", func(t *testing.T) {
		r := tlsPools(t, s, new(net.Dialer).DialContext, ca.Pool())
		c := r.lend(t)
		defer c.Discard()
		if c.Raw() != nil {
			t.Error("what is encrypted is offered as a plain socket")
		}
		if got := ask(t, c, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"); got != "t" {
			t.Errorf("ssl = %q", got)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		var f firsts
		r := tlsPools(t, s, f.dial, ca.Pool())
		c := r.lend(t)
		defer c.Discard()
		got := make(chan string, 1)
		go func() { got <- ask(t, c, "SELECT pg_sleep(60)") }()
		pgtest.Eventually(t, 30*time.Second, func() error {
			if err := c.Cancel(t.Context()); err != nil { // in vain as long as the statement has not begun
				return err
			}
			select {
			case code := <-got:
				if code != pg.CodeQueryCanceled {
					t.Errorf("it ended with %q", code)
				}
				return nil
			default:
				return errors.New("it runs on")
			}
		})
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.all) < 2 {
			t.Fatalf("%d connections", len(f.all))
		}
		for i, b := range f.all {
			if !bytes.Equal(b, pg.AppendSSLRequest(nil)) {
				t.Errorf("connection %d begins in clear text: %x", i, b)
			}
		}
	})
	t.Run("ended by the server while idle", func(t *testing.T) {
		r := tlsPools(t, s, new(net.Dialer).DialContext, ca.Pool())
		c := r.lend(t)
		pid := c.PID
		if got := ask(t, c, "SELECT 1"); got != "1" {
			t.Fatal(got)
		}
		c.Release()
		if c := r.lend(t); c.PID != pid {
			t.Fatal("an idle connection was not used again")
		}
		c.Release()
		if err := s.Exec(t.Context(), fmt.Sprintf("SELECT pg_terminate_backend(%d, 10000)", pid)); err != nil {
			t.Fatal(err)
		}
		c = r.lend(t)
		if got := ask(t, c, "SELECT 1"); got != "1" || c.PID == pid {
			t.Errorf("got %q from %d, and %d was ended", got, c.PID, pid)
		}
		c.Release()
	})
	t.Run("another authority", func(t *testing.T) {
		r := tlsPools(t, s, new(net.Dialer).DialContext, pgtest.NewAuthority(t).Pool())
		_, err := r.Get(t.Context(), r.b, pool.Identity{User: "postgres", Database: "postgres"}, false)
		var ce *pool.ConnectError
		var ve *tls.CertificateVerificationError
		if !errors.As(err, &ce) || !errors.As(err, &ve) || !ce.Elsewhere() || r.reported.Load() != 1 {
			t.Errorf("%v, reported %d times", err, r.reported.Load())
		}
	})
}

func TestTLSRefusedByTheServer(t *testing.T) {
	s := pgtest.NewPrimary(t, pgtest.Options{})
	r := tlsPools(t, s, new(net.Dialer).DialContext, nil)
	_, err := r.Get(t.Context(), r.b, pool.Identity{User: "postgres", Database: "postgres"}, false)
	if !errors.Is(err, pg.ErrNoTLS) {
		t.Errorf("error %v: it must never go on in clear text", err)
	}
}
