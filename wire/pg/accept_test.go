package pg

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"
)

const pgTimeout = 20 * time.Second

// users admits app with the password secret to any database.
func users(_ context.Context, p *Peer) (Shadow, error) {
	if p.User != "app" {
		return Shadow{}, ErrUnknownUser
	}
	return appShadow, nil
}

var appShadow = NewShadow("app", "secret", nil)

// by is one rule for everybody; "" is none.
func by(method string) func(*Peer) (string, *Error) {
	if method == "" {
		return nil
	}
	return func(*Peer) (string, *Error) { return method, nil }
}

type accepted struct {
	client *Client
	err    error
}

// acceptOne accepts over one of a pair of in-memory connections and hands out the other.
func acceptOne(t testing.TB, cfg *AcceptConfig) (net.Conn, <-chan accepted) {
	t.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = pgTimeout
	}
	ours, theirs := pipe(t)
	done := make(chan accepted, 1)
	go func() {
		c, err := Accept(ours, cfg)
		done <- accepted{c, err}
	}()
	if err := theirs.SetDeadline(time.Now().Add(pgTimeout)); err != nil {
		t.Fatal(err)
	}
	return theirs, done
}

func send(t testing.TB, conn net.Conn, b []byte) {
	t.Helper()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
}

// receive reads one frame.
func receive(t testing.TB, conn net.Conn) (typ byte, b []byte) {
	t.Helper()
	head := make([]byte, HeaderSize)
	if _, err := io.ReadFull(conn, head); err != nil {
		t.Fatal(err)
	}
	b = make([]byte, Want(head)-HeaderSize)
	if _, err := io.ReadFull(conn, b); err != nil {
		t.Fatal(err)
	}
	return head[0], b
}

// receiveError reads a FATAL ErrorResponse and the end of the connection.
func receiveError(t testing.TB, conn net.Conn) *Error {
	t.Helper()
	typ, b := receive(t, conn)
	e, err := DecodeError(b)
	if typ != TypeErrorResponse || err != nil || e.Severity != "FATAL" {
		t.Fatalf("received %q %q, want a FATAL error", typ, b)
	}
	if n, err := io.Copy(io.Discard, conn); n != 0 || err != nil {
		t.Fatalf("behind the error came %d bytes, %v", n, err)
	}
	return e
}

func passwordMessage(text string) []byte {
	b, start := begin(nil, TypePassword)
	return finish(append(b, text...), start)
}

func sasl(mechanism, text string) []byte {
	b, start := begin(nil, TypePassword)
	b = cstring(b, mechanism)
	return finish(append(binary.BigEndian.AppendUint32(b, uint32(len(text))), text...), start)
}

var appStartup = AppendStartup(nil, []Param{{"user", "app"}, {"database", "d"}, {"application_name", "x"}})

func TestAcceptPassword(t *testing.T) {
	conn, done := acceptOne(t, &AcceptConfig{Lookup: users, Rule: by(MethodPassword)})
	send(t, conn, appStartup)
	if typ, b := receive(t, conn); typ != 'R' || !bytes.Equal(b, []byte{0, 0, 0, 3}) {
		t.Fatalf("received %q %x", typ, b)
	}
	send(t, conn, passwordMessage("secret\x00"))
	if typ, b := receive(t, conn); typ != 'R' || !bytes.Equal(b, []byte{0, 0, 0, 0}) {
		t.Fatalf("received %q %x", typ, b)
	}
	got := <-done
	if got.err != nil {
		t.Fatal(got.err)
	}
	c := got.client
	if name, _ := c.Startup.Param("application_name"); c.User != "app" || c.Database != "d" || name != "x" || c.Minor != 0 {
		t.Fatalf("client is %+v", c)
	}
	// What the client sends next is not lost, and no deadline is left.
	go conn.Write(AppendSync(nil)) // the reading side tells
	if typ, _ := receive(t, c.Conn); typ != TypeSync {
		t.Fatalf("read %q", typ)
	}
}

// TestAcceptReadsAhead: what a client sends with its startup packet is its password, and what follows its login.
func TestAcceptReadsAhead(t *testing.T) {
	query := AppendQuery(nil, "SELECT '"+strings.Repeat("x", startupBuffer)+"'")
	for _, method := range []string{MethodTrust, MethodPassword} {
		conn, done := acceptOne(t, &AcceptConfig{Lookup: users, Rule: by(method), Hold: method == MethodTrust})
		all := slices.Clone(appStartup)
		if method == MethodPassword {
			all = append(all, passwordMessage("secret\x00")...)
			go io.CopyN(io.Discard, conn, 18) // what it is asked, and that it may come in
		}
		all = append(all, query...)
		go conn.Write(all)
		got := <-done
		if got.err != nil {
			t.Fatal(got.err)
		}
		rest := got.client.Rest
		if len(rest) == 0 || len(rest) >= len(query) {
			t.Errorf("%s: %d bytes were read ahead", method, len(rest))
		}
		rest = append(slices.Clone(rest), make([]byte, len(query)-len(rest))...)
		if _, err := io.ReadFull(got.client.Conn, rest[len(got.client.Rest):]); err != nil || !bytes.Equal(rest, query) {
			t.Errorf("%s: %v, the query is %q", method, err, rest)
		}
	}
}

// refusals are what a client may send, as pieces that each wait for an answer before the next, and what it is told.
var refusals = []struct {
	name    string
	method  string
	send    [][]byte
	skip    int // bytes of answers that are not the error
	code    string
	message string
}{
	{"1 GiB", "", [][]byte{{0x40, 0, 0, 0}}, 0, "08P01", "invalid length of startup packet"},
	{"HTTP", "", [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n")[:4]}, 0, "08P01", "invalid length of startup packet"},
	{"protocol 2", "", [][]byte{startupPacket(2, 0, "")}, 0, "0A000", "unsupported frontend protocol 2.0: only protocol 3 is supported"},
	{"no user", "", [][]byte{startupPacket(3, 0, "database\x00d\x00\x00")}, 0, "28000", "no PostgreSQL user name specified in startup packet"},
	{"empty user", "", [][]byte{startupPacket(3, 0, "user\x00\x00\x00")}, 0, "28000", "no PostgreSQL user name specified in startup packet"},
	{"TLS twice", "", [][]byte{AppendSSLRequest(nil), AppendSSLRequest(nil)}, 1, "08P01", "encryption was requested twice"},
	{"GSSAPI twice", "", [][]byte{startupPacket(1234, 5680, ""), startupPacket(1234, 5680, "")}, 1, "08P01", "encryption was requested twice"},
	{"a query instead of a password", MethodPassword, [][]byte{appStartup, AppendQuery(nil, "select 1")[:5]}, 9, "08P01", "expected password response, got message type 81"},
	{"a password of 1 GiB", MethodPassword, [][]byte{appStartup, header('p', 1<<30)}, 9, "08P01", "invalid message length"},
	{"a password of negative length", MethodPassword, [][]byte{appStartup, header('p', 0xffffffff)}, 9, "08P01", "invalid message length"},
	{"a password without NUL", MethodPassword, [][]byte{appStartup, passwordMessage("secret")}, 9, "08P01", "invalid password packet size"},
	{"a password with a NUL inside", MethodPassword, [][]byte{appStartup, passwordMessage("secret\x00x\x00")}, 9, "08P01", "invalid password packet size"},
	{"wrong password", MethodPassword, [][]byte{appStartup, passwordMessage("sesame\x00")}, 9, "28P01", `password authentication failed for user "app"`},
	{"empty password", MethodPassword, [][]byte{appStartup, passwordMessage("\x00")}, 9, "28P01", `password authentication failed for user "app"`},
	{"unknown user", MethodPassword, [][]byte{AppendStartup(nil, []Param{{"user", "eve"}}), passwordMessage("secret\x00")}, 9, "28P01", `password authentication failed for user "eve"`},
	{"another mechanism", "", [][]byte{appStartup, sasl("SCRAM-SHA-1", "n,,n=,r=abc")}, 24, "08P01", "client selected an invalid SASL authentication mechanism"},
	{"channel binding", "", [][]byte{appStartup, sasl("SCRAM-SHA-256", "p=tls-server-end-point,,n=,r=abc")}, 24, "08P01", "malformed SCRAM message"},
	{"no nonce", "", [][]byte{appStartup, sasl("SCRAM-SHA-256", "n,,n=")}, 24, "08P01", "malformed SCRAM message"},
	{"SASL noise", "", [][]byte{appStartup, sasl("SCRAM-SHA-256", "\xff\x00,,,")}, 24, "08P01", "malformed SCRAM message"},
	{"SASL length too long", "", [][]byte{appStartup, passwordMessage("SCRAM-SHA-256\x00\x00\x00\x00\x09n")}, 24, "08P01", "insufficient data left in message"},
	{"SASL length negative", "", [][]byte{appStartup, passwordMessage("SCRAM-SHA-256\x00\xff\xff\xff\xfe")}, 24, "08P01", "insufficient data left in message"},
	{"SASL body missing", "", [][]byte{appStartup, passwordMessage("SCRAM-SHA-256")}, 24, "08P01", "invalid string in message"},
	{"authorization identity", "", [][]byte{appStartup, sasl("SCRAM-SHA-256", "n,a=admin,n=,r=abc")}, 24, "0A000", "client uses authorization identity, but it is not supported"},
}

func TestAcceptRefuses(t *testing.T) {
	for _, c := range refusals {
		t.Run(c.name, func(t *testing.T) {
			conn, done := acceptOne(t, &AcceptConfig{Lookup: users, Rule: by(c.method)})
			for i, b := range c.send {
				send(t, conn, b)
				if i < len(c.send)-1 {
					if _, err := io.CopyN(io.Discard, conn, int64(c.skip)); err != nil {
						t.Fatal(err)
					}
				}
			}
			e := receiveError(t, conn)
			if e.Code != c.code || e.Message != c.message {
				t.Fatalf("told %v, want %s %q", e, c.code, c.message)
			}
			got := <-done
			if wantCode(t, got.err, c.code); got.client != nil {
				t.Fatal("and let in")
			}
		})
	}
}

// TestAcceptRefusesOverTCP: the message arrives even if the client sent more than was read.
func TestAcceptRefusesOverTCP(t *testing.T) {
	for name, first := range map[string][]byte{
		"1 GiB":                    append([]byte{0x40, 0, 0, 0}, make([]byte, 30_000)...),
		"HTTP":                     []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"stuffed behind a request": append(AppendSSLRequest(nil), appStartup...),
	} {
		t.Run(name, func(t *testing.T) {
			ln, done := listen(t, &AcceptConfig{Lookup: users})
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			send(t, conn, first)
			if e := receiveError(t, conn); e.Code != "08P01" {
				t.Fatalf("told %v", e)
			}
			wantCode(t, (<-done).err, "08P01")
		})
	}
}

// listen accepts connections over TCP until the test's end; the results come in order.
func listen(t testing.TB, cfg *AcceptConfig) (net.Listener, <-chan accepted) {
	t.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = pgTimeout
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan accepted, 16)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			c, err := Accept(conn, cfg)
			results <- accepted{c, err}
		}
	}()
	t.Cleanup(func() { ln.Close(); <-stopped })
	return ln, results
}

func TestAcceptUnknownUsersLookAlike(t *testing.T) {
	cfg := &AcceptConfig{Lookup: users}
	exchange := func(user, nonce string) (salt string) {
		conn, done := acceptOne(t, cfg)
		send(t, conn, AppendStartup(nil, []Param{{"user", user}}))
		receive(t, conn)
		send(t, conn, sasl("SCRAM-SHA-256", "n,,n=,r="+nonce))
		typ, b := receive(t, conn)
		if typ != 'R' || b[3] != authSASLContinue {
			t.Fatalf("received %q %q", typ, b)
		}
		fields := strings.Split(string(b[4:]), ",")
		proof := strings.Repeat("A", 43) + "="
		send(t, conn, passwordMessage("c=biws,"+fields[0]+",p="+proof))
		if e := receiveError(t, conn); e.Code != "28P01" || e.Message != fmt.Sprintf("password authentication failed for user %q", user) || e.Detail+e.Hint != "" {
			t.Fatalf("told %#v", e)
		}
		err := (<-done).err
		if known := user == "app"; errors.Is(err, ErrUnknownUser) == known {
			t.Fatalf("the log of %s says %v", user, err)
		}
		if fields[2] != "i=4096" {
			t.Fatalf("iterations %q", fields[2])
		}
		return fields[1]
	}
	app, eve := exchange("app", "n1"), exchange("eve", "n2")
	if exchange("app", "n3") != app || exchange("eve", "n4") != eve {
		t.Fatal("a user's salt changes")
	}
	if bob := exchange("bob", "n5"); bob == eve || len(bob) != len(app) {
		t.Fatalf("salts: app %s, eve %s, bob %s", app, eve, bob)
	}
}

// TestAcceptSCRAM plays the client's side of exchanges that differ from what Connect does.
func TestAcceptSCRAM(t *testing.T) {
	for _, c := range []struct {
		name     string
		conv     func(*scram.Client) *scram.ClientConversation
		deferred bool // the first message is left out of SASLInitialResponse
	}{
		{"no channel binding", (*scram.Client).NewConversation, false},
		{"channel binding, but the server has none", (*scram.Client).NewConversationAdvertisingChannelBinding, false},
		{"first message when asked", (*scram.Client).NewConversation, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, err := scram.SHA256.NewClient("whoever", "secret", "")
			if err != nil {
				t.Fatal(err)
			}
			conv := c.conv(client)
			next := func(in string) string {
				out, err := conv.Step(in)
				if err != nil {
					t.Fatal(err)
				}
				return out
			}
			conn, done := acceptOne(t, &AcceptConfig{Lookup: users})
			send(t, conn, appStartup)
			if typ, b := receive(t, conn); typ != 'R' || string(b) != "\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00" {
				t.Fatalf("received %q %q", typ, b)
			}
			if c.deferred {
				send(t, conn, passwordMessage("SCRAM-SHA-256\x00\xff\xff\xff\xff"))
				if typ, b := receive(t, conn); typ != 'R' || string(b) != "\x00\x00\x00\x0b" {
					t.Fatalf("received %q %q", typ, b)
				}
				send(t, conn, passwordMessage(next("")))
			} else {
				send(t, conn, sasl("SCRAM-SHA-256", next("")))
			}
			_, b := receive(t, conn)
			send(t, conn, passwordMessage(next(string(b[4:]))))
			_, b = receive(t, conn)
			if next(string(b[4:])); !conv.Valid() {
				t.Fatal("the server did not prove itself")
			}
			if typ, b := receive(t, conn); typ != 'R' || string(b) != "\x00\x00\x00\x00" {
				t.Fatalf("received %q %q", typ, b)
			}
			if got := <-done; got.err != nil || got.client.User != "app" {
				t.Fatalf("got %+v, %v", got.client, got.err)
			}
		})
	}
}

// TestAcceptDoomed: whoever Lookup does not vouch for stays out, even if the password fits.
func TestAcceptDoomed(t *testing.T) {
	for name, lookup := range map[string]func(context.Context, *Peer) (Shadow, error){
		"verifier with an error": func(context.Context, *Peer) (Shadow, error) { return appShadow, errors.New("locked") },
		"zero verifier":          func(context.Context, *Peer) (Shadow, error) { return Shadow{}, nil },
		"nobody asked":           nil,
	} {
		for _, method := range []string{MethodSCRAM, MethodPassword} {
			t.Run(name+", "+method, func(t *testing.T) {
				conn, done := acceptOne(t, &AcceptConfig{Lookup: lookup, Rule: by(method)})
				_, err := Connect(t.Context(), conn, &ConnectConfig{User: "app", Credential: Password("secret")})
				wantCode(t, err, "28P01")
				wantCode(t, (<-done).err, "28P01")
			})
		}
	}
}

func TestAcceptCancelRequest(t *testing.T) {
	conn, done := acceptOne(t, &AcceptConfig{Lookup: users})
	send(t, conn, AppendCancelRequest(nil, 42, []byte("longer than four")))
	got := <-done
	if got.err != nil || got.client.Startup.Kind != KindCancel || got.client.Startup.PID != 42 || string(got.client.Startup.Secret) != "longer than four" || got.client.User != "" {
		t.Fatalf("got %+v, %v", got.client, got.err)
	}
}

func TestAcceptNegotiates(t *testing.T) {
	packet := startupPacket(3, 9999, "user\x00app\x00_pq_.grease\x00on\x00x\x00y\x00\x00")
	for _, c := range []struct {
		max  uint16
		want uint32
	}{{0, 3 << 16}, {2, 3<<16 | 2}} {
		conn, done := acceptOne(t, &AcceptConfig{Lookup: users, Rule: by(MethodPassword), MaxMinor: c.max})
		send(t, conn, packet)
		typ, b := receive(t, conn)
		want := append(binary.BigEndian.AppendUint32(nil, c.want), "\x00\x00\x00\x01_pq_.grease\x00"...)
		if typ != 'v' || !bytes.Equal(b, want) {
			t.Fatalf("received %q %q, want %q", typ, b, want)
		}
		receive(t, conn)
		send(t, conn, passwordMessage("secret\x00"))
		receive(t, conn)
		got := <-done
		if got.err != nil || got.client.Minor != c.max || got.client.Startup.Minor != 9999 || fmt.Sprint(got.client.Startup.Params) != "[{user app} {x y}]" || got.client.Database != "app" {
			t.Fatalf("got %+v, %v", got.client, got.err)
		}
	}
}

func TestAcceptTimesOut(t *testing.T) {
	const short = 50 * time.Millisecond
	t.Run("nothing is sent", func(t *testing.T) {
		conn, done := acceptOne(t, &AcceptConfig{Lookup: users, Timeout: short})
		if n, err := io.Copy(io.Discard, conn); n != 0 || err != nil {
			t.Fatalf("told %d bytes, %v", n, err)
		}
		if err := (<-done).err; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	})
	t.Run("half a packet", func(t *testing.T) {
		conn, done := acceptOne(t, &AcceptConfig{Lookup: users, Timeout: short})
		send(t, conn, appStartup[:20])
		if n, err := io.Copy(io.Discard, conn); n != 0 || err != nil {
			t.Fatalf("told %d bytes, %v", n, err)
		}
		if err := (<-done).err; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	})
	t.Run("no password", func(t *testing.T) {
		conn, done := acceptOne(t, &AcceptConfig{Lookup: users, Timeout: short})
		send(t, conn, appStartup)
		receive(t, conn)
		if e := receiveError(t, conn); e.Code != "57014" || e.Message != "canceling authentication due to timeout" {
			t.Fatalf("told %v", e)
		}
		if err := (<-done).err; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	})
	t.Run("no TLS handshake", func(t *testing.T) {
		server, _ := certificate(t)
		conn, done := acceptOne(t, &AcceptConfig{Lookup: users, Timeout: short, TLS: always(server)})
		send(t, conn, AppendSSLRequest(nil))
		if b, err := io.ReadAll(conn); string(b) != "S" || err != nil {
			t.Fatalf("told %q, %v: nothing may follow the S in clear text", b, err)
		}
		if err := (<-done).err; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	})
}

func TestAcceptClientLeaves(t *testing.T) {
	ln, done := listen(t, &AcceptConfig{Lookup: users})
	for n, want := range map[int]error{0: io.EOF, 5: io.ErrUnexpectedEOF, len(appStartup): io.ErrUnexpectedEOF} {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		send(t, conn, appStartup[:n])
		if n == len(appStartup) {
			receive(t, conn)
		}
		conn.Close()
		if err := (<-done).err; !errors.Is(err, want) {
			t.Errorf("left after %d bytes: %v, want %v", n, err, want)
		}
	}
}

// serveReady says ReadyForQuery to a client once it is accepted.
func serveReady(done <-chan accepted, t testing.TB) {
	got := <-done
	if got.err != nil {
		t.Errorf("Accept: %v", got.err)
		return
	}
	out := AppendParameterStatus(nil, "server_version", "15.0")
	out = AppendBackendKeyData(out, 5, []byte{1, 2, 3, 4})
	if _, err := got.client.Conn.Write(AppendReady(out, StatusIdle)); err != nil {
		t.Errorf("say ready: %v", err)
	}
}
