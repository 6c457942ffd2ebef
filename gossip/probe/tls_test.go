package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// TestTLS: a probe is encrypted, and a server that cannot prove who it is counts as one that does not answer.
func TestTLS(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ca := pgtest.NewAuthority(t)
	s := pgtest.NewPrimary(t, pgtest.Options{Auth: "scram-sha-256", TLS: ca.Issue(t, time.Time{}, "127.0.0.1")})
	if err := s.CreateUser(ctx, "prober", "pr0be", ""); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		roots *x509.CertPool
		want  rib.State
	}{
		"trusted":           {ca.Pool(), rib.Up},
		"another authority": {pgtest.NewAuthority(t).Pool(), rib.Down},
	} {
		t.Run(name, func(t *testing.T) {
			sink := newSeen()
			p := New(Config{
				Settings: Settings{
					Backends: []Target{{Name: "p", Shard: "shard_1", Region: "fra", Addr: s.Addr()}},
					User:     "prober", Password: "pr0be", Database: "postgres", Interval: 50 * time.Millisecond, Fall: 2,
				},
				TLS: func(addr string) *tls.Config {
					if addr != s.Addr() {
						t.Errorf("asked for %s", addr)
					}
					return &tls.Config{RootCAs: c.roots, ServerName: "127.0.0.1"}
				},
				Sink: sink, Logger: quiet(),
			})
			if err := p.Open(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = p.Close() }()
			sink.await(t, 0, "p", "its state", is(c.want))
			if c.want != rib.Up {
				return
			}
			conn, err := s.Conn(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(ctx) }()
			var encrypted bool
			err = conn.QueryRow(ctx, "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'prober'").Scan(&encrypted)
			if err != nil || !encrypted {
				t.Errorf("encrypted: %v, %v", encrypted, err)
			}
		})
	}
}
