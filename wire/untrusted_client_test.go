package wire_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
)

// Clients that do not trust a node's certificate are in the log, by their address and with why, once for a while, and each is counted.
func TestClientThatDoesNotTrustTheNode(t *testing.T) {
	var logged buffer
	r := newRig(t, rigOptions{tls: true, log: &logged})
	cfg, err := pgconn.ParseConfig(r.dsn())
	if err != nil {
		t.Fatal(err)
	}
	cfg.TLSConfig = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	cfg.Fallbacks = nil
	const times = 30
	for range times {
		if conn, err := pgconn.ConnectConfig(ctxOf(t), cfg); err == nil {
			conn.Close(ctxOf(t))
			t.Fatal("it trusts everybody")
		}
	}
	pgtest.Eventually(t, patience, func() error {
		if s := r.server.Stats(); s.NoTLS != times || s.Clients != 0 {
			return fmt.Errorf("%+v, want %d that have failed", s, times)
		}
		return nil
	})
	text := logged.String()
	lines := strings.Count(text, "no TLS with a client")
	if lines == 0 || lines > times/10 || !strings.Contains(text, `level=WARN msg="no TLS with a client" client=127.0.0.1 err="remote error: tls: bad certificate" times=1`) && !strings.Contains(text, `unknown certificate authority" times=1`) {
		t.Errorf("%d lines of %d clients: %s", lines, times, text)
	}
	if strings.Contains(text, "client refused") {
		t.Errorf("they are told of twice: %s", text)
	}
	conn, err := r.login(t, "app")
	if err != nil {
		t.Fatalf("a client that does trust it: %v", err)
	}
	if _, err := conn.Exec(ctxOf(t), "SELECT 1").ReadAll(); err != nil {
		t.Error(err)
	}
	if n := r.server.Stats().NoTLS; n != times {
		t.Errorf("%d have failed", n)
	}
}
