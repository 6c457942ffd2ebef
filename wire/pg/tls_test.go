package pg

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/xdg-go/scram"
)

func TestDirectTLS(t *testing.T) {
	server, client := certificate(t)
	server.NextProtos = []string{ALPN}
	begin := func(t *testing.T, cfg *AcceptConfig, protocols ...string) (*tls.Conn, <-chan accepted, error) {
		conn, done := acceptOne(t, cfg)
		mine := client.Clone()
		mine.NextProtos = protocols
		c := tls.Client(conn, mine)
		return c, done, c.Handshake()
	}
	cfg := func() *AcceptConfig { return &AcceptConfig{Lookup: users, TLS: always(server), RequireTLS: true} }
	t.Run("a session", func(t *testing.T) {
		c, done, err := begin(t, cfg(), "h2", ALPN)
		if err != nil {
			t.Fatal(err)
		}
		go serveReady(done, t)
		s, err := Connect(t.Context(), c, &ConnectConfig{User: "app", Credential: Password("secret")})
		if err != nil || s.PID != 5 {
			t.Fatalf("got %+v, %v", s, err)
		}
	})
	t.Run("a request for TLS inside", func(t *testing.T) {
		c, done, err := begin(t, cfg(), ALPN)
		if err != nil {
			t.Fatal(err)
		}
		send(t, c, AppendSSLRequest(nil))
		typ, b := receive(t, c)
		if e, err := DecodeError(b); typ != 'E' || err != nil || e.Message != "encryption was requested twice" {
			t.Fatalf("received %q %q", typ, b)
		}
		c.Close()
		wantCode(t, (<-done).err, "08P01")
	})
	t.Run("another protocol", func(t *testing.T) {
		if _, _, err := begin(t, cfg(), "http/1.1"); err == nil || !strings.Contains(err.Error(), "no application protocol") {
			t.Fatalf("error %v", err)
		}
	})
	t.Run("no protocol", func(t *testing.T) {
		// The client may be a browser that was led here: not a byte is said to it.
		c, done, err := begin(t, cfg())
		if err == nil {
			var b []byte
			if b, _ = io.ReadAll(c); len(b) > 0 {
				t.Fatalf("told %q", b)
			}
		}
		if err := (<-done).err; err == nil || !strings.Contains(err.Error(), "without the ALPN protocol") {
			t.Fatalf("error %v", err)
		}
	})
	t.Run("where there is no TLS", func(t *testing.T) {
		_, done, err := begin(t, &AcceptConfig{Lookup: users}, ALPN)
		if err == nil {
			t.Fatal("a handshake")
		}
		wantCode(t, (<-done).err, "08P01")
	})
	t.Run("behind another request", func(t *testing.T) {
		conn, done := acceptOne(t, cfg())
		send(t, conn, startupPacket(1234, 5680, ""))
		if _, err := io.CopyN(io.Discard, conn, 1); err != nil {
			t.Fatal(err)
		}
		go conn.Write([]byte{tlsHandshake, 3, 1, 0, 200, 1, 0, 0, 0}) // refused before its end, perhaps
		if e := receiveError(t, conn); e.Code != "08P01" {
			t.Fatalf("told %v", e)
		}
		<-done
	})
}

func TestRequireTLS(t *testing.T) {
	server, client := certificate(t)
	cfg := &AcceptConfig{Lookup: users, TLS: always(server), RequireTLS: true}
	t.Run("clear text", func(t *testing.T) {
		conn, done := acceptOne(t, cfg)
		send(t, conn, appStartup)
		if e := receiveError(t, conn); e.Code != "28000" || !strings.Contains(e.Message, "requires TLS") || !strings.Contains(e.Hint, "sslmode=require") {
			t.Fatalf("told %#v", e)
		}
		wantCode(t, (<-done).err, "28000")
	})
	t.Run("TLS", func(t *testing.T) {
		conn, done := acceptOne(t, cfg)
		go serveReady(done, t)
		if _, err := Connect(t.Context(), conn, &ConnectConfig{User: "app", Credential: Password("secret"), TLS: client}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a cancel request in clear text", func(t *testing.T) {
		conn, done := acceptOne(t, cfg)
		send(t, conn, AppendCancelRequest(nil, 1, []byte("1234")))
		if got := <-done; got.err != nil || got.client.Startup.Kind != KindCancel {
			t.Fatalf("got %+v", got)
		}
	})
}

// TestChannelBinding plays a client whose word on channel binding is right, wrong, or was tampered with on the way.
func TestChannelBinding(t *testing.T) {
	server, client := certificate(t)
	other, _ := certificate(t)
	right, ok := serverBinding(server)
	wrong, _ := serverBinding(other)
	if !ok || right.Type != "tls-server-end-point" || len(right.Data) != 32 {
		t.Fatalf("binding %v %v", right, ok)
	}
	with := func(cb scram.ChannelBinding) func(*scram.Client) *scram.ClientConversation {
		return func(c *scram.Client) *scram.ClientConversation { return c.NewConversationWithChannelBinding(cb) }
	}
	for _, c := range []struct {
		name      string
		mechanism string
		conv      func(*scram.Client) *scram.ClientConversation
		code      string // "": let in
		detail    string
	}{
		{"bound", scramPlus, with(right), "", ""},
		{"not bound", scramMechanism, (*scram.Client).NewConversation, "", ""},
		{"bound to another certificate", scramPlus, with(wrong), "28000", ""},
		{"the offer was taken away", scramMechanism, (*scram.Client).NewConversationAdvertisingChannelBinding, "28000", "this server does support channel binding"},
		{"bound, by the plain mechanism", scramMechanism, with(right), "08P01", "without channel binding, but"},
		{"not bound, by PLUS", scramPlus, (*scram.Client).NewConversation, "08P01", "does not include channel binding data"},
		{"not offered, by PLUS", scramPlus, (*scram.Client).NewConversationAdvertisingChannelBinding, "08P01", "does not include channel binding data"},
		{"another kind of binding", scramPlus, with(scram.NewTLSUniqueBinding([]byte("x"))), "08P01", "Only tls-server-end-point"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, done := acceptOne(t, &AcceptConfig{Lookup: users, TLS: always(server)})
			secure, err := requestTLS(conn, client)
			if err != nil {
				t.Fatal(err)
			}
			send(t, secure, appStartup)
			if typ, b := receive(t, secure); typ != 'R' || string(b) != "\x00\x00\x00\x0aSCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00" {
				t.Fatalf("offered %q %q", typ, b)
			}
			maker, err := scram.SHA256.NewClient("", "secret", "")
			if err != nil {
				t.Fatal(err)
			}
			conv := c.conv(maker)
			in := ""
			for {
				out, err := conv.Step(in)
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case in == "":
					send(t, secure, sasl(c.mechanism, out))
				case !conv.Valid():
					send(t, secure, passwordMessage(out))
				}
				typ, b := receive(t, secure)
				if typ == 'E' {
					e, err := DecodeError(b)
					if err != nil || e.Code != c.code || !strings.Contains(e.Detail, c.detail) {
						t.Fatalf("told %#v, %v; want %s", e, err, c.code)
					}
					secure.Close()
					wantCode(t, (<-done).err, c.code)
					return
				}
				if in = string(b[4:]); b[3] == authOK {
					break
				}
			}
			if got := <-done; got.err != nil || c.code != "" {
				t.Fatalf("let in, %v; want %q", got.err, c.code)
			}
		})
	}
}

// TestConnectIsBound: who stands in the middle with a certificate of his own cannot pass on what Connect proves, even if
// Connect does not look at certificates.
func TestConnectIsBound(t *testing.T) {
	server, client := certificate(t)
	middle, _ := certificate(t)
	careless := &tls.Config{InsecureSkipVerify: true}
	for _, honest := range []bool{true, false} {
		t.Run(fmt.Sprintf("honest %v", honest), func(t *testing.T) {
			conn, done := acceptOne(t, &AcceptConfig{Lookup: users, TLS: always(server)})
			if !honest {
				behind, err := requestTLS(conn, client)
				if err != nil {
					t.Fatal(err)
				}
				front, theirs := pipe(t)
				go relay(theirs, behind, middle)
				conn = front
			}
			results := make(chan accepted, 1)
			go func() {
				got := <-done
				results <- got
				if got.err == nil {
					serveReady(results, t)
				}
			}()
			_, err := Connect(t.Context(), conn, &ConnectConfig{User: "app", Credential: Password("secret"), TLS: careless})
			if honest {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if e := wantCode(t, err, "28000"); e.Message != "SCRAM channel binding check failed" {
				t.Fatalf("told %v", e)
			}
		})
	}
}

// relay answers a request for TLS with a certificate of its own and then passes bytes both ways.
func relay(client net.Conn, server net.Conn, own *tls.Config) {
	defer client.Close()
	defer server.Close()
	if s, err := startupFrom(client); err != nil || s.Kind != KindSSL {
		return
	}
	client.Write([]byte{'S'}) // a failure shows in the handshake
	secure := tls.Server(client, own)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer client.Close()
		io.Copy(secure, server)
	}()
	io.Copy(server, secure)
	server.Close()
	<-ended
}

// TestNoBindingForEd25519: such a certificate names no hash, so PLUS is not offered and everybody still gets in.
func TestNoBindingForEd25519(t *testing.T) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	server := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	if _, ok := serverBinding(server); ok {
		t.Fatal("there is a binding")
	}
	conn, done := acceptOne(t, &AcceptConfig{Lookup: users, TLS: always(server)})
	go serveReady(done, t)
	if _, err := Connect(t.Context(), conn, &ConnectConfig{User: "app", Credential: Password("secret"), TLS: &tls.Config{InsecureSkipVerify: true}}); err != nil {
		t.Fatal(err)
	}
}

func TestClientsDemandBinding(t *testing.T) {
	server, client := certificate(t)
	server.NextProtos = []string{ALPN}
	ctx, cancel := context.WithTimeout(t.Context(), pgTimeout)
	defer cancel()
	bound := answering(t, &AcceptConfig{Lookup: users, Timeout: pgTimeout, TLS: always(server)})
	unbound := answering(t, &AcceptConfig{Lookup: users, Timeout: pgTimeout, TLS: always(server), Rule: by(MethodPassword)})
	for addr, want := range map[string]string{bound: "app@shop 3.0 *tls.Conn\n", unbound: "channel binding required"} {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(ctx, "psql", "-XAtq", "-c", "select 1",
			fmt.Sprintf("user=app hostaddr=%s port=%s dbname=shop sslmode=require channel_binding=require", host, port))
		cmd.Env = append(os.Environ(), "PGPASSWORD=secret")
		if out, err := cmd.CombinedOutput(); !strings.Contains(string(out), want) {
			t.Errorf("psql: %v\n%s, want %q", err, out, want)
		}
	}
	for _, negotiation := range []string{"postgres", "direct"} {
		cfg, err := pgconn.ParseConfig("postgres://app:secret@" + bound + "/shop?sslmode=require&channel_binding=require&sslnegotiation=" + negotiation)
		if err != nil {
			t.Fatal(err)
		}
		cfg.TLSConfig.RootCAs, cfg.TLSConfig.ServerName, cfg.TLSConfig.InsecureSkipVerify = client.RootCAs, client.ServerName, false
		conn, err := pgconn.ConnectConfig(ctx, cfg)
		if err != nil {
			t.Fatalf("pgx, %s: %v", negotiation, err)
		}
		res, err := conn.Exec(ctx, "select 1").ReadAll()
		if err != nil || !bytes.Equal(res[0].Rows[0][0], []byte("app@shop 3.0 *tls.Conn")) {
			t.Errorf("pgx, %s: %v, %v", negotiation, res, err)
		}
		conn.Close(ctx)
	}
}

// TestBindingFlagFirst: the flag is judged before the message is parsed, so a stranger's bytes cannot get around it.
func TestBindingFlagFirst(t *testing.T) {
	noise := base64.StdEncoding.EncodeToString([]byte("noise"))
	for _, first := range []string{"y", "y,", "y,,", "y,,n=,r=" + noise} {
		wantCode(t, checkBindingFlag(scramMechanism, first, true), "28000")
	}
	for _, first := range []string{"", ",", "n", "n,,n=,r=x", "yy,,"} {
		if err := checkBindingFlag(scramMechanism, first, true); err != nil {
			t.Errorf("%q: %v", first, err)
		}
	}
}
