package node

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// certOptions writes a client's certificate and returns libpq's options for it.
func certOptions(t *testing.T, p pgtest.KeyPair) string {
	t.Helper()
	dir := t.TempDir()
	replaceFile(t, filepath.Join(dir, "c.crt"), p.Cert)
	replaceFile(t, filepath.Join(dir, "c.key"), p.Key)
	return " sslmode=require sslcert=" + filepath.Join(dir, "c.crt") + " sslkey=" + filepath.Join(dir, "c.key")
}

// TestRules: each method lets in whom it should and nobody else; the first rule that matches counts; the console has no other door.
func TestRules(t *testing.T) {
	ca, stranger := pgtest.NewAuthority(t), pgtest.NewAuthority(t)
	dir := t.TempDir()
	root := filepath.Join(dir, "root.crt")
	replaceFile(t, root, ca.PEM)
	pair := writePair(t, dir, ca.Issue(t, time.Time{}, "localhost"))
	n, s := startBeside(t, pgtest.Options{HBA: []string{
		"host all trusty,certy,ops 127.0.0.0/8 trust", "host all clear,hashed,probe,app 127.0.0.0/8 scram-sha-256", "host all untold 127.0.0.0/8 scram-sha-256",
	}}, func(cfg *Config) {
		cfg.TLS = pair
		cfg.TLS.ClientCAFile = root
		for _, name := range []string{"clear", "hashed", "banned"} {
			cfg.Users = append(cfg.Users, User{Name: name, SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}})
		}
		cfg.Console.Users = []string{"ops"}
		cfg.HBA = []HBA{
			{Connection: "hostssl", Users: []string{"certy", "ops"}, Method: "cert"},
			{Users: []string{"trusty", "untold", "nobody"}, Address: "127.0.0.0/8", Databases: []string{"app"}, Method: "trust"},
			{Users: []string{"clear"}, Address: "127.0.0.1", Method: "password"},
			{Users: []string{"hashed"}, Method: "md5"},
			{Users: []string{"banned"}, Method: "reject"},
			{Users: []string{"elsewhere"}, Address: "10.0.0.0/8", Method: "trust"},
			{Connection: "hostssl", Users: []string{"app", "eve"}, Method: "scram-sha-256"},
		}
	})
	if err := errors.Join(
		s.CreateUser(t.Context(), "trusty", "x", ""), s.CreateUser(t.Context(), "certy", "x", ""), s.CreateUser(t.Context(), "untold", "x", ""),
		s.CreateUser(t.Context(), "clear", appPassword, ""), s.CreateUser(t.Context(), "hashed", appPassword, ""),
	); err != nil {
		t.Fatal(err)
	}
	n.settled(t, 1, 1)
	good := certOptions(t, ca.IssueTo(t, "certy"))
	for name, c := range map[string]struct{ options, want string }{
		"cert":                          {"user=certy" + good, "certy\n"},
		"cert, another user's":          {"user=certy" + certOptions(t, ca.IssueTo(t, "app")), `certificate authentication failed for user "certy"`},
		"cert, two names":               {"user=certy" + certOptions(t, ca.IssueTo(t, "certy", "app")), `certificate authentication failed for user "certy"`},
		"cert, the other way round":     {"user=certy" + certOptions(t, ca.IssueTo(t, "app", "certy")), `certificate authentication failed for user "certy"`},
		"cert, a stranger's":            {"user=certy" + certOptions(t, stranger.IssueTo(t, "certy")), "unknown ca"},
		"cert, none":                    {"user=certy sslmode=require", "connection requires a valid client certificate"},
		"cert, clear text":              {"user=certy sslmode=disable", `no [[hba]] rule for host "127.0.0.1", user "certy", database "app", no encryption`},
		"trust":                         {"user=trusty sslmode=disable", "trusty\n"},
		"trust, over TLS":               {"user=trusty sslmode=require", "trusty\n"},
		"trust, another database":       {"user=trusty dbname=postgres sslmode=require", `no [[hba]] rule for host "127.0.0.1", user "trusty", database "postgres", SSL encryption`},
		"trust, the console":            {"user=trusty dbname=rangefinder sslmode=require", `database "rangefinder", SSL encryption`},
		"trust, backends ask for more":  {"user=untold sslmode=disable", "HINT:  Give the user a password under [[users]]"},
		"trust, unknown to backends":    {"user=nobody sslmode=disable", "no pg_hba.conf entry"},
		"trust, from elsewhere":         {"user=elsewhere sslmode=disable", `no [[hba]] rule for host "127.0.0.1", user "elsewhere"`},
		"password":                      {"user=clear sslmode=disable", "clear\n"},
		"password, wrong":               {"user=clear sslmode=disable password=wrong", `password authentication failed for user "clear"`},
		"md5":                           {"user=hashed sslmode=disable", "hashed\n"},
		"md5, wrong":                    {"user=hashed sslmode=disable password=wrong", `password authentication failed for user "hashed"`},
		"reject":                        {"user=banned sslmode=disable", `an [[hba]] rule rejects connection for host "127.0.0.1", user "banned", database "app", no encryption`},
		"scram":                         {"user=app sslmode=require channel_binding=require", "app\n"},
		"scram, wrong":                  {"user=app sslmode=require password=wrong", `password authentication failed for user "app"`},
		"scram, unknown":                {"user=eve sslmode=require", `password authentication failed for user "eve"`},
		"scram, in clear text":          {"user=app sslmode=disable", `no [[hba]] rule for host "127.0.0.1", user "app", database "app", no encryption`},
		"scram, with a certificate too": {"user=app" + good, "app\n"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := n.psql(t, c.options, "SELECT current_user")
			if !strings.Contains(out, c.want) || (err == nil) != strings.HasSuffix(c.want, "\n") {
				t.Errorf("%v\n%s, want %q", err, out, c.want)
			}
		})
	}
	if out, err := n.psql(t, "user=ops dbname=rangefinder"+certOptions(t, ca.IssueTo(t, "ops")), "SHOW VERSION"); err != nil || !strings.HasPrefix(out, "Rangefinder") {
		t.Errorf("the console by certificate: %v\n%s", err, out)
	}
	for user, options := range map[string]string{
		"certy": strings.Join(strings.Fields(good), "&"), "trusty": "sslmode=disable", "clear": "sslmode=disable", "hashed": "sslmode=disable", "app": "sslmode=require&channel_binding=require",
	} {
		conn, err := pgx.Connect(t.Context(), "postgres://"+user+":"+appPassword+"@"+n.pgLn.Addr().String()+"/app?"+options)
		if err != nil {
			t.Errorf("pgx, %s: %v", user, err)
			continue
		}
		var who string
		if err := conn.QueryRow(t.Context(), "SELECT current_user").Scan(&who); err != nil || who != user {
			t.Errorf("pgx: %s is %q, %v", user, who, err)
		}
		conn.Close(t.Context())
	}
	for user, want := range map[string]string{"elsewhere": "28000", "banned": "28000", "hashed": "28P01"} {
		_, err := pgx.Connect(t.Context(), "postgres://"+user+":wrong@"+n.pgLn.Addr().String()+"/app?sslmode=disable")
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != want || pe.Severity != "FATAL" {
			t.Errorf("%s: %v, want SQLSTATE %s", user, err, want)
		}
	}
	if out := allAtOnce(t, n.pgLn.Addr().String(), "trusty"); !strings.Contains(out, "\x00\x06trusty") || strings.Count(out, "Z\x00\x00\x00\x05I") != 2 {
		t.Errorf("startup, query and end in one packet: %q", out)
	}
	if log := n.log.String(); strings.Count(log, "trusts whoever connects") != 1 || !strings.Contains(log, "hba[5] trusts") {
		t.Error("the log does not warn of the one trust rule beyond loopback")
	}
	if strings.Contains(n.log.String(), appPassword) {
		t.Error("the log holds a password")
	}
}

// allAtOnce sends a whole session before it reads anything of it, and returns what came.
func allAtOnce(t *testing.T, addr, user string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	out := pg.AppendStartup(nil, []pg.Param{{Key: "user", Value: user}, {Key: "database", Value: "app"}})
	if _, err := conn.Write(pg.AppendTerminate(pg.AppendQuery(out, "SELECT current_user"))); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(conn)
	if err != nil {
		t.Error(err)
	}
	return string(said)
}

func TestRuleMistakesAreNamed(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"[[hba]]\nusers = [\"app\"]", `F:2:3: hba[0].method: "" is unknown; use one of trust, password, md5, scram-sha-256, cert, reject`},
		{"[[hba]]\nmethod = \"peer\"", `F:3:1: hba[0].method: "peer" is unknown; use one of trust, password, md5, scram-sha-256, cert, reject`},
		{"[[hba]]\nmethod = \"trust\"\nconnection = \"local\"", `F:4:1: hba[0].connection: "local" is unknown; use one of any, hostssl, hostnossl`},
		{"[[hba]]\nmethod = \"trust\"\naddress = \"10.0.0\"", `F:4:1: hba[0].address: "10.0.0" is not a network; write one as 10.0.0.0/8 or fd00::/8, one address as it is, or "all"`},
		{"[[hba]]\nmethod = \"password\"\naddress = \"10.0.0.0/8\"", `F:3:1: hba[0].method: password would send passwords over a network in clear text; use scram-sha-256, or add connection = "hostssl"`},
		{"[[hba]]\nmethod = \"cert\"", `F:3:1: hba[0].method: cert needs encrypted connections; add connection = "hostssl"`},
		{"[[hba]]\nmethod = \"cert\"\nconnection = \"hostssl\"", `F:3:1: hba[0].method: cert needs authorities that sign clients' certificates; give tls.client_ca_file`},
		{"[[hba]]\nmethod = \"md5\"\nconnection = \"hostssl\"", `F:4:1: hba[0].connection: hostssl matches nobody without TLS; give tls.cert_file and tls.key_file`},
		{"[[hba]]\nmethod = \"md5\"\nusers = [\"\"]", `F:4:1: hba[0].users[0] is missing`},
	} {
		wantMistakes(t, "region = \"fra\"\n"+c.file, c.want)
	}
	file := writeConfig(t, "region = \"fra\"\n[[hba]]\nmethod = \"reject\"\nusers = [\"all\"]\naddress = \"::ffff:10.0.0.0/104\"\n")
	cfg, err := Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := cfg.HBA[0].rule(); err != nil || r.Address.String() != "10.0.0.0/8" || r.Users != nil {
		t.Errorf("%+v, %v", r, err)
	}
}
