package pg

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// TestConnectPostgreSQL logs in to a real server by every method, runs a query, and cancels one.
func TestConnectPostgreSQL(t *testing.T) {
	for _, auth := range []string{"trust", "password", "md5", "scram-sha-256"} {
		t.Run(auth, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), pgTimeout)
			defer cancel()
			server := pgtest.NewPrimary(t, pgtest.Options{Auth: auth, Password: "pass wörd"})
			cfg := &ConnectConfig{User: "postgres", Credential: Password("pass wörd"), Params: []Param{{"application_name", "rf"}, {"datestyle", "German"}}}
			dial := func(cfg *ConnectConfig) (*Server, error) {
				conn, err := net.Dial("tcp", server.Addr())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				return Connect(ctx, conn, cfg)
			}
			s, err := dial(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(s.Params["DateStyle"], "German") || s.Params["application_name"] != "rf" || s.Params["server_version"] == "" {
				t.Fatalf("parameters %v", s.Params)
			}
			if s.PID == 0 || len(s.Secret) != 4 || s.Rest != nil {
				t.Fatalf("process %d, secret of %d bytes, rest %q", s.PID, len(s.Secret), s.Rest)
			}
			if got := ask(t, s.Conn, "select current_user || current_database()"); got != "postgrespostgres" {
				t.Fatalf("answer %q", got)
			}
			cancelOne(t, server.Addr(), s)

			_, err = dial(&ConnectConfig{User: "postgres", Credential: Password("pass wörd"), Database: "nowhere"})
			if e := wantCode(t, err, "3D000"); e.Severity != "FATAL" || !strings.Contains(e.Message, "nowhere") {
				t.Fatalf("error %v", e)
			}
			if auth == "trust" {
				return
			}
			_, err = dial(&ConnectConfig{User: "postgres", Credential: Password("wrong")})
			wantCode(t, err, "28P01")
			_, err = dial(&ConnectConfig{User: "nobody", Credential: Password("wrong")})
			wantCode(t, err, "28P01")
			if _, err = dial(&ConnectConfig{User: "postgres"}); !errors.Is(err, ErrNoPassword) {
				t.Fatalf("without a password: %v", err)
			}
			_, err = dial(&ConnectConfig{User: "postgres", Credential: Password("pass wörd"), TLS: tlsAny(t)})
			if !errors.Is(err, ErrNoTLS) {
				t.Fatalf("TLS with a server that has none: %v", err)
			}
		})
	}
}

// ask runs a query that yields one value and returns it.
func ask(t testing.TB, conn net.Conn, sql string) (value string) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(pgTimeout)); err != nil {
		t.Fatal(err)
	}
	send(t, conn, AppendQuery(nil, sql))
	for {
		switch typ, b := receive(t, conn); typ {
		case TypeDataRow:
			value = string(b[6:])
		case TypeErrorResponse:
			e, err := DecodeError(b)
			t.Fatal(e, err)
		case TypeReadyForQuery:
			return value
		}
	}
}

// cancelOne starts a long query and cancels it with the key that Connect brought.
func cancelOne(t testing.TB, addr string, s *Server) {
	t.Helper()
	send(t, s.Conn, AppendQuery(nil, "select pg_sleep(60)"))
	// A request that comes before the query has begun is lost: so until it counts.
	answered := make(chan []byte, 1)
	go func() {
		var all []byte
		buf := make([]byte, 4096)
		for {
			n, err := s.Conn.Read(buf)
			all = append(all, buf[:n]...)
			if err != nil || bytes.HasSuffix(all, AppendReady(nil, StatusIdle)) {
				answered <- all
				return
			}
		}
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		send(t, conn, AppendCancelRequest(nil, s.PID, s.Secret))
		io.Copy(io.Discard, conn) // PostgreSQL closes it
		conn.Close()
		select {
		case all := <-answered:
			if !bytes.Contains(all, []byte("57014")) {
				t.Fatalf("the answer is %q", all)
			}
			return
		case <-tick.C:
		}
	}
}

// script plays a server that answers the startup packet with the given bytes and then holds the line.
func script(t testing.TB, answer []byte) net.Conn {
	t.Helper()
	ours, theirs := pipe(t)
	done := make(chan struct{})
	t.Cleanup(func() { ours.Close(); <-done })
	go func() {
		defer close(done)
		if _, err := startupFrom(theirs); err != nil {
			return
		}
		if _, err := theirs.Write(answer); err == nil {
			io.Copy(io.Discard, theirs) // until closed
		}
	}()
	return ours
}

func authRequest(kind uint32, data string) []byte {
	b, start := begin(nil, TypeAuthentication)
	return finish(append(binary.BigEndian.AppendUint32(b, kind), data...), start)
}

func TestConnectRefuses(t *testing.T) {
	ok := authRequest(authOK, "")
	notice := AppendNotice(nil, NewError("00000", strings.Repeat("n", 60_000)))
	for _, c := range []struct {
		name   string
		answer []byte
		want   error  // or
		code   string // of an *Error
	}{
		{"ready before OK", AppendReady(nil, 'I'), ErrGarbled, ""},
		{"parameters before OK", AppendParameterStatus(nil, "a", "b"), ErrGarbled, ""},
		{"key before OK", AppendBackendKeyData(nil, 1, []byte{1, 2, 3, 4}), ErrGarbled, ""},
		{"OK twice", append(bytes.Clone(ok), ok...), ErrGarbled, ""},
		{"a row", append(bytes.Clone(ok), header('D', 4)...), ErrGarbled, ""},
		{"a message of 1 GiB", header('R', 1<<30), ErrGarbled, ""},
		{"a message of negative length", header('R', 0xffffffff), ErrGarbled, ""},
		{"an empty request", header('R', 4), ErrGarbled, ""},
		{"an error", AppendError(nil, NewError("53300", "too many clients already").Fatal()), nil, "53300"},
		{"an error that is none", header('E', 5, 'S'), ErrGarbled, ""},
		{"an error after OK", append(bytes.Clone(ok), AppendError(nil, NewError("57P03", "starting up"))...), nil, "57P03"},
		{"notices without end", bytes.Repeat(notice, 20), ErrGarbled, ""},
		{"a short key", append(bytes.Clone(ok), header('K', 8, 0, 0, 0, 1)...), ErrGarbled, ""},
		{"a bad status", append(bytes.Clone(ok), header('Z', 5, 'X')...), ErrGarbled, ""},
		{"Kerberos", authRequest(2, ""), ErrAuthentication, ""},
		{"MD5 without salt", authRequest(authMD5, "abc"), ErrGarbled, ""},
		{"no mechanism we know", authRequest(authSASL, "SCRAM-SHA-1\x00\x00"), ErrAuthentication, ""},
		{"no mechanism at all", authRequest(authSASL, "\x00\x00\x00"), ErrAuthentication, ""},
		{"SCRAM's middle first", authRequest(authSASLContinue, "r=a,s=YWJj,i=4096"), ErrAuthentication, ""},
		{"SCRAM's end first", authRequest(authSASLFinal, "v=YWJj"), ErrAuthentication, ""},
		{"SCRAM's end second", append(authRequest(authSASL, "SCRAM-SHA-256\x00\x00"), authRequest(authSASLFinal, "r=a,s=YWJj,i=2000000000")...), ErrAuthentication, ""},
		{"OK in the middle of SCRAM", append(authRequest(authSASL, "SCRAM-SHA-256\x00\x00"), ok...), ErrAuthentication, ""},
		{"clear text in the middle of SCRAM", append(authRequest(authSASL, "SCRAM-SHA-256\x00\x00"), authRequest(authCleartext, "")...), ErrAuthentication, ""},
		{"SCRAM twice", bytes.Repeat(authRequest(authSASL, "SCRAM-SHA-256\x00\x00"), 2), ErrAuthentication, ""},
		{"another nonce", append(authRequest(authSASL, "SCRAM-SHA-256\x00\x00"), authRequest(authSASLContinue, "r=abc,s=YWJj,i=4096")...), ErrAuthentication, ""},
		{"2 000 000 000 iterations", append(authRequest(authSASL, "SCRAM-SHA-256\x00\x00"), authRequest(authSASLContinue, "r=abc,s=YWJj,i=2000000000")...), ErrAuthentication, ""},
		{"0 iterations", append(authRequest(authSASL, "SCRAM-SHA-256\x00\x00"), authRequest(authSASLContinue, "r=abc,s=YWJj,i=0")...), ErrAuthentication, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), pgTimeout)
			defer cancel()
			conn := script(t, c.answer)
			_, err := Connect(ctx, conn, &ConnectConfig{User: "app", Credential: Password("secret")})
			if c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if c.code != "" {
				wantCode(t, err, c.code)
			}
			if _, err := conn.Write([]byte{0}); !errors.Is(err, io.ErrClosedPipe) {
				t.Fatalf("the connection is open: %v", err)
			}
		})
	}
}

// TestConnectServerMustProve: a server that knows nothing of the password but lets us in all the same is refused.
func TestConnectServerMustProve(t *testing.T) {
	for name, last := range map[string][]byte{
		"a wrong proof": authRequest(authSASLFinal, "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
		"an error":      authRequest(authSASLFinal, "e=other-error"),
		"no proof":      authRequest(authOK, ""),
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := pipe(t)
			done := make(chan error, 1)
			go func() {
				_, err := Connect(t.Context(), ours, &ConnectConfig{User: "app", Credential: Password("secret")})
				done <- err
			}()
			if _, err := startupFrom(theirs); err != nil {
				t.Fatal(err)
			}
			send(t, theirs, authRequest(authSASL, "SCRAM-SHA-256\x00\x00"))
			_, b := receive(t, theirs)
			nonce := string(b[bytes.Index(b, []byte("r="))+2:])
			send(t, theirs, authRequest(authSASLContinue, "r="+nonce+"x,s=YWJj,i=4096"))
			receive(t, theirs)
			send(t, theirs, append(last, AppendReady(authRequest(authOK, ""), StatusIdle)...))
			if err := <-done; !errors.Is(err, ErrAuthentication) {
				t.Fatalf("error %v", err)
			}
		})
	}
}

func TestConnectHonoursItsContext(t *testing.T) {
	silent := func() net.Conn { return script(t, authRequest(authOK, "")) }
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		if _, err := Connect(ctx, silent(), &ConnectConfig{User: "app"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	})
	t.Run("cancelled meanwhile", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		timer := time.AfterFunc(20*time.Millisecond, cancel)
		defer timer.Stop()
		if _, err := Connect(ctx, silent(), &ConnectConfig{User: "app"}); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
	t.Run("cancelled before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Connect(ctx, silent(), &ConnectConfig{User: "app"}); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
	t.Run("no deadline is left behind", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), pgTimeout)
		conn := script(t, AppendReady(authRequest(authOK, ""), StatusIdle))
		s, err := Connect(ctx, conn, &ConnectConfig{User: "app"})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Conn.Write([]byte{0}); err != nil {
			t.Fatalf("after the context's end: %v", err)
		}
	})
}

func TestConnectKeepsWhatCameBehind(t *testing.T) {
	answer := AppendReady(AppendParameterStatus(authRequest(authOK, ""), "a", "b"), StatusIdle)
	answer = AppendNotice(answer, NewError("00000", "hello"))
	s, err := Connect(t.Context(), script(t, answer), &ConnectConfig{User: "app"})
	if err != nil || s.Params["a"] != "b" || !bytes.Equal(s.Rest, AppendNotice(nil, NewError("00000", "hello"))) {
		t.Fatalf("got %+v, %v", s, err)
	}
	if s.PID != 0 || s.Secret != nil {
		t.Fatal("a key that was not given")
	}
}

func TestConnectRefusesParameters(t *testing.T) {
	for _, p := range []Param{{"a", "b\x00c"}, {"a\x00", "b"}, {"", "x"}, {"a", strings.Repeat("x", MaxStartup)}} {
		ours, _ := pipe(t)
		if _, err := Connect(t.Context(), ours, &ConnectConfig{User: "app", Params: []Param{p}}); err == nil || !strings.Contains(err.Error(), "startup parameter") {
			t.Errorf("%.20q: %v", fmt.Sprint(p), err)
		}
	}
}

// TestConnectToAccept: the two ends of this package understand each other, by every method, over TLS and without.
func TestConnectToAccept(t *testing.T) {
	server, client := certificate(t)
	for _, method := range []string{"", MethodSCRAM, MethodPassword} {
		for _, encrypted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %v", method, encrypted), func(t *testing.T) {
				cfg := &ConnectConfig{User: "app", Credential: Password("secret"), Database: "d", Params: []Param{{"_pq_.x", "1"}, {"application_name", "n"}}}
				if encrypted {
					cfg.TLS = client
				}
				conn, done := acceptOne(t, &AcceptConfig{Lookup: users, Rule: by(method), TLS: always(server)})
				results := make(chan accepted, 1)
				served := make(chan struct{})
				go func() {
					defer close(served)
					got := <-done
					results <- got
					serveReady(results, t)
				}()
				s, err := Connect(t.Context(), conn, cfg)
				<-served
				if err != nil {
					t.Fatal(err)
				}
				if s.PID != 5 || string(s.Secret) != "\x01\x02\x03\x04" || s.Params["server_version"] != "15.0" {
					t.Fatalf("got %+v", s)
				}
			})
		}
	}
}

// TestConnectTLSAnswers: what a server may answer to a request for TLS, and what it may not put behind it in clear text.
func TestConnectTLSAnswers(t *testing.T) {
	ready := AppendReady(authRequest(authOK, ""), StatusIdle)
	for name, c := range map[string]struct {
		answer []byte
		want   string
	}{
		"no":                         {[]byte{'N'}, "does not speak TLS"},
		"an error":                   {AppendError(nil, NewError("0A000", "old")), "answered 'E'"},
		"nothing":                    {nil, "unexpected EOF"},
		"yes, and more in clear":     {append([]byte{'S'}, ready...), "TLS handshake"},
		"no, and a session in clear": {append([]byte{'N'}, ready...), "does not speak TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := pipe(t)
			done := make(chan error, 1)
			go func() {
				_, err := Connect(t.Context(), ours, &ConnectConfig{User: "app", TLS: tlsAny(t)})
				done <- err
			}()
			if s, err := startupFrom(theirs); err != nil || s.Kind != KindSSL {
				t.Fatalf("read %+v, %v", s, err)
			}
			go io.Copy(io.Discard, theirs) // a ClientHello, if there is one
			theirs.Write(c.answer)         // refused after its first byte, mostly
			if len(c.answer) == 0 {
				theirs.Close()
			}
			if err := <-done; err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
		})
	}
}
