package pg

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"rangefinder/internal/pgtest"
)

func TestVerifier(t *testing.T) {
	v := NewVerifier("secret")
	if !v.Check("secret") || v.Check("Secret") || v.Check("") {
		t.Fatal("Check is wrong")
	}
	if w := NewVerifier("secret"); w.salt == v.salt || w.storedKey == v.storedKey {
		t.Fatal("two verifiers of one password are alike")
	}
	if (Verifier{}).Check("") {
		t.Fatal("the zero verifier admits somebody")
	}
}

func TestParseVerifier(t *testing.T) {
	// RFC 7677's example: user "user", password "pencil".
	const stored = "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
	const server = "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
	v, err := ParseVerifier("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$" + stored + ":" + server)
	if err != nil || !v.Check("pencil") || v.Check("pen") {
		t.Fatalf("RFC 7677's verifier: %v", err)
	}
	if made, _ := v.derive("pencil"); base64.StdEncoding.EncodeToString(made.serverKey[:]) != server {
		t.Fatalf("the server key is %x", made.serverKey)
	}
	short := base64.StdEncoding.EncodeToString(make([]byte, 31))
	for _, bad := range []string{
		"", "md5abc", "SCRAM-SHA-256", "SCRAM-SHA-256$4096", "SCRAM-SHA-256$4096:c2FsdA==$" + stored,
		"SCRAM-SHA-256$0:c2FsdA==$" + stored + ":" + server,
		"SCRAM-SHA-256$99999999:c2FsdA==$" + stored + ":" + server,
		"SCRAM-SHA-256$x:c2FsdA==$" + stored + ":" + server,
		"SCRAM-SHA-256$4096:$" + stored + ":" + server,
		"SCRAM-SHA-256$4096:!$" + stored + ":" + server,
		"SCRAM-SHA-256$4096:c2FsdA==$" + short + ":" + server,
		"SCRAM-SHA-256$4096:c2FsdA==$" + stored + ":" + server + "AAAA",
	} {
		_, err := ParseVerifier(bad)
		if !errors.Is(err, ErrVerifier) || strings.Contains(err.Error(), stored) {
			t.Errorf("ParseVerifier(%q): %v", bad, err)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	v := NewVerifier("hunter2")
	cfg := ConnectConfig{User: "app", Credential: Password("hunter2"), Database: "d"}
	var b bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&b, nil))
	log.Info("x", "v", v, "pv", &v, "cfg", cfg, "pcfg", &cfg)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&b, verb+verb+verb+verb+"\n", v, &v, cfg, &cfg)
	}
	fmt.Fprintf(&b, "%+v %#v", struct{ V Verifier }{v}, struct{ C *ConnectConfig }{&cfg})
	out := b.String()
	for _, secret := range []string{"hunter2", fmt.Sprintf("%x", v.storedKey[:4]), fmt.Sprint(v.storedKey[:4])[1:8], fmt.Sprintf("0x%x, 0x%x", v.serverKey[0], v.serverKey[1]), fmt.Sprintf("%x", "hunter2")} {
		if strings.Contains(out, secret) {
			t.Errorf("%q is in the output", secret)
		}
	}
	if !strings.Contains(out, "SCRAM-SHA-256 verifier") || !strings.Contains(out, "user=app database=d") {
		t.Errorf("the output does not say what things are:\n%s", out)
	}
}

func TestMockVerifier(t *testing.T) {
	a, again, b := mockVerifier([]byte("k"), "ann"), mockVerifier([]byte("k"), "ann"), mockVerifier([]byte("k"), "bob")
	if a != again {
		t.Error("one user is shown two salts")
	}
	if a.salt == b.salt || a.salt == mockVerifier([]byte("other"), "ann").salt {
		t.Error("two users, or two secrets, have one salt")
	}
	if v := NewVerifier("x"); len(a.salt) != len(v.salt) || a.iterations != v.iterations {
		t.Error("a mock looks different from a verifier")
	}
	if a.Check("") || a.Check("ann") {
		t.Error("a mock admits somebody")
	}
}

// oddPasswords meet each rule of SASLprep, and where PostgreSQL departs from it.
var oddPasswords = map[string]string{
	"ascii":                          "pencil",
	"ascii control":                  "a\x01b",
	"non-ASCII space":                "a\u00a0b",
	"U+200B, space or nothing":       "a\u200bb",
	"mapped to nothing":              "a\u00adb",
	"nothing left":                   "\u00ad",
	"compatibility forms":            "\u2168\ufb01\u00aa",
	"combining":                      "e\u0301",
	"prohibited":                     "a\u2028b",
	"private use":                    "a\ue000b",
	"tag":                            "a\U000e0041b",
	"prohibited until normalized":    "a\u0340b",
	"unassigned in Unicode 3.2":      "a\u0221b",
	"emoji":                          "pass\U0001f600",
	"right to left":                  "\u0627\u0628\u0629",
	"right to left, digit last":      "\u06271",
	"right to left and left":         "\u0627a\u0628",
	"astral letter":                  "\U00010400\u00e9",
	"Hangul":                         "\u1100\u1161",
	"long":                           strings.Repeat("\u00e9", 200),
	"normalizes to a prohibited one": "a\u037eb\u2000c",
}

// TestPasswordsAsPostgreSQL: a verifier that PostgreSQL made of a password fits that password here.
func TestPasswordsAsPostgreSQL(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), pgTimeout)
	defer cancel()
	server := pgtest.NewPrimary(t, pgtest.Options{})
	conn, err := server.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for name, password := range oddPasswords {
		t.Run(name, func(t *testing.T) {
			var stored string
			// U&'' cannot hold everything that a password may: so by a parameter, quoted by the server.
			if err := conn.QueryRow(ctx, "select format('create role odd login password %L', $1::text)", password).Scan(&stored); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(ctx, stored); err != nil {
				t.Fatal(err)
			}
			defer conn.Exec(ctx, "drop role odd") // the next one's creation would fail
			if err := conn.QueryRow(ctx, "select rolpassword from pg_authid where rolname = 'odd'").Scan(&stored); err != nil {
				t.Fatal(err)
			}
			v, err := ParseVerifier(stored)
			if err != nil {
				t.Fatal(err)
			}
			if !v.Check(password) {
				t.Fatalf("%+q is prepared as %+q, which PostgreSQL does not", password, saslprep(password))
			}
			if v.Check(password + "x") {
				t.Fatal("another password fits too")
			}
		})
	}
}

func TestSASLprepLeavesBytesAlone(t *testing.T) {
	for _, s := range []string{"a\xffb", "\xc3", "\u00ad", "a\u2028b"} {
		if got := saslprep(s); got != s {
			t.Errorf("saslprep(%+q) = %+q", s, got)
		}
	}
	if got := saslprep("I\u00adX\u2168"); got != "IXIX" {
		t.Errorf("got %q", got)
	}
}
