package pg

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"rangefinder/internal/pgtest"
)

// storedAs is what a server keeps of the password secret, user app.
var storedAs = map[string]string{
	"verifier": "SCRAM-SHA-256$1000:c2FsdHNhbHQ=$",
	"hash":     "md5" + md5Hex("secretapp"),
}

func init() {
	v, _ := Verifier{iterations: 1000, salt: "saltsalt"}.derive("secret")
	storedAs["verifier"] += base64.StdEncoding.EncodeToString(v.storedKey[:]) + ":" + base64.StdEncoding.EncodeToString(v.serverKey[:])
}

func shadowOf(t testing.TB, kind string) Shadow {
	t.Helper()
	if kind == "password" {
		return NewShadow("app", "secret", nil)
	}
	s, err := ParseShadow(storedAs[kind])
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParseShadow(t *testing.T) {
	for kind, want := range map[string]string{"verifier": "SCRAM-SHA-256 verifier", "hash": "MD5 hash"} {
		if s := shadowOf(t, kind); !s.Set() || s.String() != want {
			t.Errorf("%s: %v", kind, s)
		}
	}
	hash := storedAs["hash"]
	for _, bad := range []string{"", "md5", hash[:34], hash + "0", strings.ToUpper(hash[:3]) + hash[3:], "md5" + strings.ToUpper(hash[3:]), "secret", storedAs["verifier"][1:]} {
		if s, err := ParseShadow(bad); !errors.Is(err, ErrShadow) || s.Set() || len(bad) > 6 && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v, %v", bad, s, err)
		}
	}
}

// TestStored goes through what may be kept of a password and how it may be asked for: who gets in, and what a login shows.
func TestStored(t *testing.T) {
	server, client := certificate(t)
	for _, c := range []struct {
		kept, method string
		in           bool
		shown        string
	}{
		{"password", MethodSCRAM, true, "SCRAM-SHA-256 keys"},
		{"password", MethodPassword, true, "SCRAM-SHA-256 keys"},
		{"password", MethodMD5, true, "MD5 hash"},
		{"verifier", MethodSCRAM, true, "SCRAM-SHA-256 keys"},
		{"verifier", MethodPassword, true, "SCRAM-SHA-256 keys"},
		{"verifier", MethodMD5, true, "SCRAM-SHA-256 keys"},
		{"hash", MethodSCRAM, false, ""},
		{"hash", MethodPassword, true, "MD5 hash"},
		{"hash", MethodMD5, true, "MD5 hash"},
	} {
		shadow := shadowOf(t, c.kept)
		lookup := func(_ context.Context, p *Peer) (Shadow, error) {
			if p.User != "app" {
				return shadow, ErrUnknownUser
			}
			return shadow, nil
		}
		login := func(user, password string, secure *tls.Config) (accepted, error) {
			conn, done := acceptOne(t, &AcceptConfig{Lookup: lookup, Rule: by(c.method), TLS: always(server)})
			results := make(chan accepted, 1)
			go func() {
				got := <-done
				results <- got
				if got.err == nil {
					got.client.Conn.Write(AppendReady(nil, StatusIdle)) // the client's end tells
				}
			}()
			_, err := Connect(t.Context(), conn, &ConnectConfig{User: user, Credential: Password(password), TLS: secure})
			return <-results, err
		}
		t.Run(c.kept+" by "+c.method, func(t *testing.T) {
			got, err := login("app", "secret", nil)
			if !c.in {
				wantCode(t, err, "28P01")
				wantCode(t, got.err, "28P01")
				return
			}
			if err != nil || got.err != nil {
				t.Fatal(err, got.err)
			}
			shown := got.client.Shown
			if shown.String() != c.shown || !shadow.Admits(shown) {
				t.Errorf("shown %v", shown)
			}
			if got, err = login("app", "secret", client); err != nil || got.err != nil { // bound to the connection
				t.Fatal(err, got.err)
			}
			if again := got.client.Shown; again.String() != c.shown || !shadow.Admits(again) {
				t.Errorf("shown over TLS %v", again)
			} else if shown.keys != nil && *again.keys != *shown.keys {
				t.Error("the same password shows other keys over TLS")
			}
			if other := shadowOf(t, c.kept); c.kept == "password" && other.Admits(shown) && shown.keys != nil {
				t.Error("keys of one verifier pass for another's")
			}
			got, err = login("app", "Secret", nil)
			wantCode(t, err, "28P01")
			if !errors.Is(got.err, ErrWrongPassword) {
				t.Errorf("a wrong password: %v", got.err)
			}
			got, err = login("eve", "secret", nil)
			wantCode(t, err, "28P01")
			if !errors.Is(got.err, ErrUnknownUser) {
				t.Errorf("an unknown user: %v", got.err)
			}
		})
	}
}

// TestUnknownLooksKnown: what a client sees of an exchange does not tell whether the user exists.
func TestUnknownLooksKnown(t *testing.T) {
	for kind := range storedAs {
		for _, method := range []string{MethodSCRAM, MethodPassword, MethodMD5} {
			shadow := shadowOf(t, kind)
			cfg := &AcceptConfig{Rule: by(method), Lookup: func(_ context.Context, p *Peer) (Shadow, error) {
				if p.User != "app" {
					return shadow, ErrUnknownUser
				}
				return shadow, nil
			}}
			asked := map[string]string{}
			for _, user := range []string{"app", "eve"} {
				conn, done := acceptOne(t, cfg)
				send(t, conn, AppendStartup(nil, []Param{{"user", user}}))
				typ, b := receive(t, conn)
				if len(b) == 8 && b[3] == authMD5 {
					b = b[:4] // its salt is random
				}
				asked[user] = fmt.Sprintf("%c %x", typ, b)
				conn.Close()
				<-done
			}
			if asked["app"] != asked["eve"] {
				t.Errorf("%s by %s: a known user is asked %s, an unknown one %s", kind, method, asked["app"], asked["eve"])
			}
		}
	}
}

// TestCredentialsWithPostgreSQL: what a login has shown is as good as the password for a server that keeps the same of it, and nothing
// is shown to one that does not.
func TestCredentialsWithPostgreSQL(t *testing.T) {
	ca := pgtest.NewAuthority(t)
	s := pgtest.NewPrimary(t, pgtest.Options{Auth: "trust", TLS: ca.Issue(t, time.Time{}, "127.0.0.1"), HBA: []string{
		"host all scram all scram-sha-256", "host all hashed all md5", "host all clear all password", "host all other all scram-sha-256",
	}})
	v := shadowOf(t, "verifier")
	keys, ok := v.check("app", "secret")
	if !ok {
		t.Fatal("the password does not fit")
	}
	hash := "md5" + md5Hex("secrethashed")
	if err := s.Exec(t.Context(),
		"CREATE ROLE scram LOGIN PASSWORD '"+storedAs["verifier"]+"'", "CREATE ROLE hashed LOGIN PASSWORD '"+hash+"'",
		"CREATE ROLE clear LOGIN PASSWORD '"+hash+"'", "CREATE ROLE other LOGIN PASSWORD 'secret'",
	); err != nil {
		t.Fatal(err)
	}
	md5, err := ParseShadow(hash)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		user       string
		credential Credential
		want       error
		code       string
	}{
		{"scram", keys, nil, ""},
		{"scram", md5.Hashed(), ErrWrongKind, ""},
		{"scram", Credential{}, ErrNoPassword, ""},
		{"scram", Credential{keys: &scramKeys{of: v.scram, client: sha256.Sum256(nil)}}, nil, "28P01"},
		{"other", keys, ErrOtherVerifier, ""},
		{"other", Password("secret"), nil, ""},
		{"hashed", md5.Hashed(), nil, ""},
		{"hashed", keys, ErrWrongKind, ""},
		{"clear", md5.Hashed(), ErrWrongKind, ""},
		{"clear", keys, ErrWrongKind, ""},
	} {
		for _, secure := range []*tls.Config{nil, {RootCAs: ca.Pool(), ServerName: "127.0.0.1"}} {
			conn, err := net.Dial("tcp", s.Addr())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			server, err := Connect(t.Context(), conn, &ConnectConfig{User: c.user, Database: "postgres", Credential: c.credential, TLS: secure})
			switch {
			case c.code != "":
				wantCode(t, err, c.code)
			case !errors.Is(err, c.want):
				t.Errorf("%s with %v: %v, want %v", c.user, c.credential, err, c.want)
			case c.want == nil:
				if got := ask(t, server.Conn, "select current_user"); got != c.user {
					t.Errorf("logged in as %q", got)
				}
			}
		}
	}
}

// FuzzDataRow: whatever a row says of itself, it is read within its bounds, and one that is read is written as it came.
func FuzzDataRow(f *testing.F) {
	f.Add(AppendDataRow(nil, [][]byte{[]byte("app"), nil, {}})[HeaderSize:])
	f.Add([]byte{0xff, 0xff})
	f.Add([]byte{0, 1, 0xff, 0xff, 0xff, 0xfe})
	f.Fuzz(func(t *testing.T, body []byte) {
		values, err := DecodeDataRow(body)
		if err != nil {
			return
		}
		if got := AppendDataRow(nil, values)[HeaderSize:]; !bytes.Equal(got, body) {
			t.Fatalf("%x was read as %x", body, got)
		}
	})
}

func TestCredentialsAreNotPrinted(t *testing.T) {
	s := NewShadow("app", "hunter2", nil)
	keys, _ := s.check("app", "hunter2")
	hash, _ := ParseShadow("md5" + s.md5)
	var b bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&b, nil))
	for _, x := range []any{s, &s, keys, &keys, hash, hash.Hashed(), Password("hunter2"), Client{Shown: keys}, struct{ C Credential }{keys}} {
		log.Info("x", "x", x)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&b, verb+"\n", x)
		}
	}
	out := b.String()
	client := keys.keys.client
	for _, secret := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), s.md5, s.md5[:8], fmt.Sprintf("%x", client[:4]), strings.Trim(fmt.Sprint(client[:4]), "[]"), fmt.Sprintf("0x%x, 0x%x", client[0], client[1])} {
		if strings.Contains(out, secret) {
			t.Errorf("%q is in the output", secret)
		}
	}
	if !strings.Contains(out, "SCRAM-SHA-256 keys") || !strings.Contains(out, "MD5 hash") {
		t.Error("the output does not say what things are")
	}
}

// FuzzChallenge: whatever a server says to a client of SCRAM, nothing is proved but to its own question.
func FuzzChallenge(f *testing.F) {
	f.Add("x,s=c2FsdHNhbHQ=,i=1000", "v=AAAA")
	f.Add("x,s=c2FsdHNhbHQ=,i=1000,ext", "e=other-error")
	f.Add(",s=,i=-1", "v=")
	f.Add("x,i=1,s=YQ==", "")
	shadow, err := ParseShadow(storedAs["verifier"])
	if err != nil {
		f.Fatal(err)
	}
	keys, _ := shadow.check("app", "secret")
	f.Fuzz(func(t *testing.T, challenge, final string) {
		c := newScramClient(keys, scram.ChannelBinding{}, false)
		answer, err := c.answer("r=" + c.nonce + challenge)
		if err != nil {
			if answer != "" || c.signature != nil || !errors.Is(err, ErrAuthentication) && !errors.Is(err, ErrOtherVerifier) {
				t.Fatalf("%q: %q, %v", challenge, answer, err)
			}
			return
		}
		if _, v, err := parseChallenge("r=" + c.nonce + challenge); err != nil || v.salt != "saltsalt" || v.iterations != 1000 {
			t.Fatalf("keys were used for %q", challenge)
		}
		if c.finish(final) == nil || c.valid {
			t.Fatalf("%q passed for a proof", final)
		}
	})
}

// FuzzShadow: what is read of a stored password is what stands there, or an error that does not quote it.
func FuzzShadow(f *testing.F) {
	for _, text := range storedAs {
		f.Add(text)
	}
	f.Add("SCRAM-SHA-256$1:YQ==$:")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseShadow(text)
		if (err == nil) != s.Set() {
			t.Fatalf("%q: %v, %v", text, s, err)
		}
		if err == nil && s.md5 != "" && text != "md5"+s.md5 {
			t.Fatalf("%q was read as %q", text, s.md5)
		}
		if s.scram.iterations < 10_000 { // more takes a fuzzer's time
			_, _ = s.check("app", "secret")
		}
	})
}
