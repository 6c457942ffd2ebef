package pg

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"os"
	"testing"
	"time"
)

func TestAcceptTLS(t *testing.T) {
	server, client := certificate(t)
	cfg := &AcceptConfig{Lookup: users, TLS: always(server)}
	t.Run("asked for GSSAPI first", func(t *testing.T) {
		conn, done := acceptOne(t, cfg)
		send(t, conn, startupPacket(1234, 5680, ""))
		answer := make([]byte, 1)
		if _, err := io.ReadFull(conn, answer); err != nil || answer[0] != 'N' {
			t.Fatalf("answer %q, %v", answer, err)
		}
		go serveReady(done, t)
		s, err := Connect(t.Context(), conn, &ConnectConfig{User: "app", Credential: Password("secret"), TLS: client})
		if err != nil {
			t.Fatal(err)
		}
		if state := s.Conn.(*tls.Conn).ConnectionState(); !state.HandshakeComplete {
			t.Fatal("no TLS")
		}
	})
	t.Run("clear text is still taken", func(t *testing.T) {
		conn, done := acceptOne(t, cfg)
		go serveReady(done, t)
		if _, err := Connect(t.Context(), conn, &ConnectConfig{User: "app", Credential: Password("secret")}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("clear text behind the request", func(t *testing.T) {
		conn, done := acceptOne(t, cfg)
		send(t, conn, append(AppendSSLRequest(nil), appStartup...)[:9])
		if e := receiveError(t, conn); e.Code != "08P01" || e.Message != "received unencrypted data after SSL request" {
			t.Fatalf("told %v", e)
		}
		<-done
	})
	t.Run("clear text instead of a handshake", func(t *testing.T) {
		conn, done := acceptOne(t, cfg)
		send(t, conn, AppendSSLRequest(nil))
		go conn.Write(appStartup) // it is not read to its end
		if b, _ := io.ReadAll(conn); len(b) == 0 || b[0] != 'S' || bytes.IndexByte(b, 'R') >= 0 {
			t.Fatalf("told %q", b)
		}
		if got := <-done; got.err == nil {
			t.Fatal("let in")
		}
	})
	t.Run("errors arrive encrypted", func(t *testing.T) {
		conn, done := acceptOne(t, cfg)
		_, err := Connect(t.Context(), conn, &ConnectConfig{User: "app", Credential: Password("wrong"), TLS: client})
		wantCode(t, err, "28P01")
		wantCode(t, (<-done).err, "28P01")
	})
	t.Run("TLS inside TLS", func(t *testing.T) {
		conn, done := acceptOne(t, cfg)
		send(t, conn, AppendSSLRequest(nil))
		if _, err := io.CopyN(io.Discard, conn, 1); err != nil {
			t.Fatal(err)
		}
		inner := tls.Client(conn, client)
		send(t, inner, AppendSSLRequest(nil))
		typ, b := receive(t, inner)
		if e, err := DecodeError(b); typ != 'E' || err != nil || e.Message != "encryption was requested twice" {
			t.Fatalf("received %q %q", typ, b)
		}
		conn.Close()
		wantCode(t, (<-done).err, "08P01")
	})
}

// TestAcceptIsNotHeldUp: a client that finishes the TLS handshake and then neither sends nor reads cannot hold a refusal
// up, though TLS would wait five seconds to say goodbye.
func TestAcceptIsNotHeldUp(t *testing.T) {
	server, client := certificate(t)
	conn, done := acceptOne(t, &AcceptConfig{Lookup: users, Timeout: time.Second, TLS: always(server)})
	send(t, conn, AppendSSLRequest(nil))
	if _, err := io.CopyN(io.Discard, conn, 1); err != nil {
		t.Fatal(err)
	}
	// TLS 1.2: its handshake ends with the server's word, so nothing is left to be read.
	client.MaxVersion = tls.VersionTLS12
	inner := tls.Client(conn, client)
	if err := inner.Handshake(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := (<-done).err; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Fatalf("it took %v", took)
	}
}
