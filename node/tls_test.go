package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// startBeside is one node beside one server, which holds the database app; edit may change the node's configuration.
func startBeside(t *testing.T, o pgtest.Options, edit func(*Config)) (*testNode, *pgtest.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o.Auth = "scram-sha-256"
	s := pgtest.NewPrimary(t, o)
	if err := errors.Join(
		s.CreateUser(ctx, "app", appPassword, ""), s.CreateUser(ctx, "probe", probePassword, ""), s.Exec(ctx, "CREATE DATABASE app OWNER app"),
	); err != nil {
		t.Fatal(err)
	}
	if err := s.ExecIn(ctx, "app", schema); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, "fra")
	cfg.Databases = []Listing{{Name: "app", Shard: "shard_1"}}
	cfg.Users = []User{{Name: "app", SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}}}
	cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
	cfg.Backends = []Backend{{Name: "fra-db", Shard: "shard_1", Address: s.Addr()}}
	edit(&cfg)
	return newNode(t, cfg, clusterEnv()).open(t), s
}

// psql runs one statement; options are libpq's.
func (n *testNode) psql(t *testing.T, options, sql string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	host, port, err := net.SplitHostPort(n.pgLn.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "psql", "-XAtq", "-c", sql, fmt.Sprintf("user=app hostaddr=%s port=%s dbname=app %s", host, port, options))
	cmd.Env = append(os.Environ(), "PGPASSWORD="+appPassword)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// shownTo is the certificate that a client is shown, with an error if the node does not get that far.
func (n *testNode) shownTo(t *testing.T, client *tls.Config) (*tls.ConnectionState, error) {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", n.pgLn.Addr().String(), client)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	state := conn.ConnectionState()
	return &state, nil
}

func TestClientsOverTLS(t *testing.T) {
	ca, stranger := pgtest.NewAuthority(t), pgtest.NewAuthority(t)
	dir := t.TempDir()
	root, wrong := filepath.Join(dir, "root.crt"), filepath.Join(dir, "wrong.crt")
	replaceFile(t, root, ca.PEM)
	replaceFile(t, wrong, stranger.PEM)
	pair := writePair(t, dir, ca.Issue(t, time.Time{}, "node.test", "127.0.0.1"))
	n, _ := startBeside(t, pgtest.Options{}, func(cfg *Config) {
		cfg.TLS = pair
		cfg.TLS.Require = true
	})
	n.settled(t, 1, 1)
	for name, c := range map[string]struct {
		options string
		want    string // of the output; psql succeeds if it is "42\n"
	}{
		"require":                 {"sslmode=require", "42\n"},
		"verify-full":             {"sslmode=verify-full host=node.test sslrootcert=" + root, "42\n"},
		"verify-full, an address": {"sslmode=verify-full host=127.0.0.1 sslrootcert=" + root, "42\n"},
		"channel binding":         {"sslmode=require channel_binding=require", "42\n"},
		"both":                    {"sslmode=verify-full channel_binding=require host=node.test sslrootcert=" + root, "42\n"},
		"TLS 1.2":                 {"sslmode=require channel_binding=require ssl_max_protocol_version=TLSv1.2", "42\n"},
		"TLS 1.1":                 {"sslmode=require ssl_min_protocol_version=TLSv1 ssl_max_protocol_version=TLSv1.1", "protocol version"},
		"another authority":       {"sslmode=verify-ca sslrootcert=" + wrong, "certificate verify failed"},
		"another name":            {"sslmode=verify-full host=db.test sslrootcert=" + root, `does not match host name "db.test"`},
		"clear text":              {"sslmode=disable", "requires TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := n.psql(t, c.options, "SELECT 42")
			if !strings.Contains(out, c.want) || (err == nil) != (c.want == "42\n") {
				t.Errorf("%v\n%s, want %q", err, out, c.want)
			}
		})
	}
	t.Run("pgx, direct", func(t *testing.T) {
		cfg, err := pgconn.ParseConfig("postgres://app:" + appPassword + "@" + n.pgLn.Addr().String() + "/app?sslmode=verify-full&channel_binding=require&sslnegotiation=direct&sslrootcert=" + root)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pgconn.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		// More than one TLS record and one buffer, both ways.
		big := strings.Repeat("x", 3<<20)
		res := conn.ExecParams(t.Context(), "SELECT $1::text || 'y'", [][]byte{[]byte(big)}, nil, nil, nil).Read()
		if res.Err != nil || string(res.Rows[0][0]) != big+"y" {
			t.Errorf("%d rows, %v", len(res.Rows), res.Err)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Run("direct, with and without ALPN", func(t *testing.T) {
		state, err := n.shownTo(t, &tls.Config{RootCAs: ca.Pool(), ServerName: "node.test", NextProtos: []string{pg.ALPN}})
		if err != nil || state.NegotiatedProtocol != pg.ALPN {
			t.Fatalf("%+v, %v", state, err)
		}
		if _, err := n.shownTo(t, &tls.Config{RootCAs: ca.Pool(), ServerName: "node.test", NextProtos: []string{"http/1.1"}}); err == nil {
			t.Error("a client that speaks HTTP was let in")
		}
	})
	t.Run("reload", func(t *testing.T) {
		// A session that is open goes on; whoever comes next is shown the new certificate.
		held, err := pgconn.Connect(t.Context(), "postgres://app:"+appPassword+"@"+n.pgLn.Addr().String()+"/app?sslmode=require")
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close(context.Background())
		next := ca.Issue(t, time.Time{}, "node.test")
		writePair(t, dir, next)
		client := &tls.Config{RootCAs: ca.Pool(), ServerName: "node.test", NextProtos: []string{pg.ALPN}}
		pgtest.Eventually(t, 10*time.Second, func() error {
			state, err := n.shownTo(t, client)
			if err != nil {
				return err
			}
			if !state.PeerCertificates[0].Equal(next.TLS(t).Leaf) {
				return errors.New("still the old certificate")
			}
			return nil
		})
		if out, err := n.psql(t, "sslmode=verify-full channel_binding=require host=node.test sslrootcert="+root, "SELECT 42"); err != nil || out != "42\n" {
			t.Errorf("%v\n%s", err, out)
		}
		if _, err := held.Exec(t.Context(), "SELECT 1").ReadAll(); err != nil {
			t.Errorf("the open session: %v", err)
		}
	})
	t.Run("drain", func(t *testing.T) {
		idle, err := pgconn.Connect(t.Context(), "postgres://app:"+appPassword+"@"+n.pgLn.Addr().String()+"/app?sslmode=require")
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close(context.Background())
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		_, err = idle.Exec(t.Context(), "SELECT 1").ReadAll()
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != pg.CodeAdminShutdown {
			t.Errorf("the idle session was told %v", err)
		}
	})
	if strings.Contains(n.log.String(), appPassword) {
		t.Error("the log holds a password")
	}
}

func TestClientCertificates(t *testing.T) {
	ca, stranger := pgtest.NewAuthority(t), pgtest.NewAuthority(t)
	dir := t.TempDir()
	root := filepath.Join(dir, "root.crt")
	replaceFile(t, root, ca.PEM)
	pair := writePair(t, dir, ca.Issue(t, time.Time{}, "localhost"))
	n, _ := startBeside(t, pgtest.Options{}, func(cfg *Config) {
		cfg.TLS = pair
		cfg.TLS.Require, cfg.TLS.ClientCAFile, cfg.TLS.MinVersion = true, root, "1.3"
	})
	n.settled(t, 1, 1)
	for name, c := range map[string]struct {
		pair pgtest.KeyPair
		want string
	}{
		"good":     {ca.Issue(t, time.Time{}, "app"), "42\n"},
		"none":     {pgtest.KeyPair{}, "certificate required"},
		"stranger": {stranger.Issue(t, time.Time{}, "app"), "unknown ca"},
		"expired":  {ca.Issue(t, time.Now().Add(-time.Minute), "app"), "bad certificate|certificate expired|expired"},
	} {
		t.Run(name, func(t *testing.T) {
			options := "sslmode=require"
			if c.pair.Cert != nil {
				own := t.TempDir()
				replaceFile(t, filepath.Join(own, "c.crt"), c.pair.Cert)
				replaceFile(t, filepath.Join(own, "c.key"), c.pair.Key)
				options += " sslcert=" + filepath.Join(own, "c.crt") + " sslkey=" + filepath.Join(own, "c.key")
			}
			out, err := n.psql(t, options, "SELECT 42")
			found := false
			for _, want := range strings.Split(c.want, "|") {
				found = found || strings.Contains(out, want)
			}
			if !found || (err == nil) != (c.want == "42\n") {
				t.Errorf("%v\n%s, want %q", err, out, c.want)
			}
		})
	}
	if out, err := n.psql(t, "sslmode=require ssl_max_protocol_version=TLSv1.2", "SELECT 42"); err == nil || !strings.Contains(out, "protocol version") {
		t.Errorf("TLS 1.2: %v\n%s", err, out)
	}
}

func TestTLSMistakesAreNamed(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"[tls]\nkey_file = \"k\"", "F:2:2: tls.key_file is given without tls.cert_file; give both, or neither for no TLS"},
		{"[tls]\ncert_file = \"c\"", "F:2:2: tls.cert_file is given without tls.key_file; give both, or neither for no TLS"},
		{"[tls]\nrequire = true", "F:3:1: tls.require needs a certificate; give tls.cert_file and tls.key_file"},
		{"[tls]\ncert_file = \"c\"\nkey_file = \"k\"\nclient_ca_file = \"a\"", "F:5:1: tls.client_ca_file is of no use while clients may do without TLS; add require = true"},
		{"[backend_tls]\nmode = \"prefer\"", `F:3:1: backend_tls.mode: "prefer" is unknown; use one of disable, require, verify-ca, verify-full`},
		{"[backend_tls]\nmode = \"require\"\nca_file = \"a\"", `F:4:1: backend_tls.ca_file is given, and mode require looks at no certificate; set mode = "verify-full", or "verify-ca"`},
		{"[tls]\nmin_version = \"1.1\"", `F:3:1: tls.min_version: "1.1" is unknown; use one of 1.2, 1.3`},
	} {
		wantMistakes(t, "region = \"fra\"\n"+c.file, c.want)
	}
	cfg, err := Load(writeConfig(t, "region = \"fra\"\n[tls]\ncert_file = \"c\"\nkey_file = \"/k\"\n"), nil)
	if err != nil || !filepath.IsAbs(cfg.TLS.CertFile) || cfg.TLS.KeyFile != "/k" {
		t.Errorf("%+v, %v", cfg.TLS, err)
	}
}
