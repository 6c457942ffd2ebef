package pg

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

func TestCancel(t *testing.T) {
	server, client := certificate(t)
	for name, cfg := range map[string]*tls.Config{"clear text": nil, "TLS": client} {
		t.Run(name, func(t *testing.T) {
			conn, done := acceptOne(t, &AcceptConfig{Lookup: users, TLS: always(server)})
			ended := make(chan error, 1)
			go func() { ended <- Cancel(t.Context(), conn, cfg, 7, []byte("a longer secret")) }()
			got := <-done
			if got.err != nil || got.client.Startup.Kind != KindCancel || got.client.Startup.PID != 7 || string(got.client.Startup.Secret) != "a longer secret" {
				t.Fatalf("got %+v", got)
			}
			if _, encrypted := got.client.Conn.(*tls.Conn); encrypted != (cfg != nil) {
				t.Errorf("encrypted: %v", encrypted)
			}
			select {
			case err := <-ended:
				t.Errorf("it did not wait until the request was taken: %v", err)
			default:
			}
			got.client.Conn.Close()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("no answer", func(t *testing.T) {
		ours, theirs := pipe(t)
		go io.Copy(io.Discard, theirs)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := Cancel(ctx, ours, nil, 7, []byte("1234")); err == nil {
			t.Error("no error")
		}
	})
	t.Run("no TLS", func(t *testing.T) {
		conn, _ := acceptOne(t, &AcceptConfig{Lookup: users})
		if err := Cancel(t.Context(), conn, client, 7, []byte("1234")); !errors.Is(err, ErrNoTLS) {
			t.Errorf("error %v: the key must not go out in clear text", err)
		}
	})
}

// TestConnectIsBoundToPostgres: PostgreSQL's own check of the binding fails if somebody stands in the middle.
func TestConnectIsBoundToPostgres(t *testing.T) {
	ca := pgtest.NewAuthority(t)
	s := pgtest.NewPrimary(t, pgtest.Options{Auth: "scram-sha-256", TLS: ca.Issue(t, time.Time{}, "127.0.0.1")})
	ctx, cancel := context.WithTimeout(t.Context(), pgTimeout)
	defer cancel()
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	careless := &ConnectConfig{User: "postgres", Credential: Password(s.Password()), TLS: &tls.Config{InsecureSkipVerify: true}}
	if _, err := Connect(ctx, dial(), careless); err != nil {
		t.Fatal(err)
	}
	middle, _ := certificate(t)
	behind, err := requestTLS(dial(), &tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	front, theirs := pipe(t)
	go relay(theirs, behind, middle)
	_, err = Connect(ctx, front, careless)
	if e := wantCode(t, err, "28000"); e.Message != "SCRAM channel binding check failed" {
		t.Errorf("told %v", e)
	}
}
