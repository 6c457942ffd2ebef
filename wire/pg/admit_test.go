package pg

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
)

// Whoever may not log in now is told so as it expects to be spoken to, before it is asked for a password; or nothing at all.
func TestAcceptTurnsAway(t *testing.T) {
	server, client := certificate(t)
	server.NextProtos = []string{ALPN}
	full := NewError(CodeTooManyConnections, "full").WithHint("wait")
	hush := errors.New("hush")
	asked := 0
	says := func(err error) *AcceptConfig {
		asked = 0
		return &AcceptConfig{TLS: always(server), Login: func(net.Addr) error { asked++; return err }, Lookup: func(context.Context, *Peer) (Shadow, error) {
			t.Error("its password was looked up")
			return Shadow{}, ErrUnknownUser
		}}
	}
	toldFull := func(t *testing.T, err error) {
		t.Helper()
		var e *Error
		if !errors.As(err, &e) || e.Code != CodeTooManyConnections || e.Severity != "FATAL" || e.Hint != "wait" {
			t.Errorf("told %v", err)
		}
	}
	t.Run("clear text", func(t *testing.T) {
		conn, done := acceptOne(t, says(full))
		send(t, conn, appStartup)
		toldFull(t, receiveError(t, conn))
		toldFull(t, (<-done).err)
	})
	t.Run("TLS", func(t *testing.T) {
		conn, done := acceptOne(t, says(full))
		_, err := Connect(t.Context(), conn, &ConnectConfig{User: "app", Credential: Password("secret"), TLS: client})
		toldFull(t, err)
		toldFull(t, (<-done).err)
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
	})
	t.Run("direct TLS", func(t *testing.T) {
		conn, done := acceptOne(t, says(full))
		mine := client.Clone()
		mine.NextProtos = []string{ALPN}
		c := tls.Client(conn, mine)
		_, err := Connect(t.Context(), c, &ConnectConfig{User: "app", Credential: Password("secret")})
		toldFull(t, err)
		toldFull(t, (<-done).err)
	})
	t.Run("a cancel request over TLS", func(t *testing.T) {
		conn, done := acceptOne(t, says(full))
		sent := make(chan error, 1)
		go func() { sent <- Cancel(t.Context(), conn, client, 7, []byte{1, 2, 3, 4}) }()
		got := <-done
		if got.err != nil || got.client.Startup.PID != 7 {
			t.Fatalf("got %+v", got)
		}
		got.client.Conn.Close()
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
	for name, first := range map[string][]byte{"a startup": appStartup, "a request for TLS": AppendSSLRequest(nil)} {
		t.Run("hushed: "+name, func(t *testing.T) {
			conn, done := acceptOne(t, says(hush))
			send(t, conn, first)
			if b, _ := io.ReadAll(conn); len(b) != 0 {
				t.Errorf("told %q", b)
			}
			if got := <-done; !errors.Is(got.err, hush) {
				t.Errorf("ended with %v", got.err)
			}
		})
	}
	t.Run("a cancel request is asked nothing", func(t *testing.T) {
		conn, done := acceptOne(t, says(hush))
		send(t, conn, AppendCancelRequest(nil, 7, []byte{1, 2, 3, 4}))
		if got := <-done; got.err != nil || asked != 0 {
			t.Errorf("ended with %v, asked %d times", got.err, asked)
		}
	})
	t.Run("not admitted", func(t *testing.T) {
		cfg := says(nil)
		cfg.Admit = func(user, database string) error {
			if user != "app" || database != "d" {
				t.Errorf("asked for %s at %s", user, database)
			}
			return full
		}
		conn, done := acceptOne(t, cfg)
		send(t, conn, appStartup)
		toldFull(t, receiveError(t, conn))
		toldFull(t, (<-done).err)
	})
}
