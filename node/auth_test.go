package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

const authPassword, adminPassword = "auth-secret", "admin-secret"

// authRig is one node beside two shards that ask everybody for scram-sha-256 (or what the user's role says). Users are looked up.
type authRig struct {
	*testNode
	shards [2]*pgtest.Server
}

func newAuthRig(t *testing.T, hba []string, edit func(*Config), ca ...*pgtest.Authority) *authRig {
	t.Helper()
	r := new(authRig)
	cfg := testConfig(t, "fra")
	for i := range r.shards {
		var pair pgtest.KeyPair
		for _, a := range ca {
			pair = a.Issue(t, time.Time{}, "127.0.0.1")
		}
		s := pgtest.NewPrimary(t, pgtest.Options{Auth: "scram-sha-256", HBA: hba, TLS: pair, Params: map[string]string{"log_statement": "all", "log_min_duration_statement": "0"}})
		r.shards[i] = s
		if err := errors.Join(
			s.CreateUser(t.Context(), "probe", probePassword, ""), s.CreateUser(t.Context(), "authn", authPassword, ""),
			s.CreateUser(t.Context(), "admin", adminPassword, "SUPERUSER"),
			s.Exec(t.Context(), "CREATE DATABASE app", "GRANT SELECT ON pg_authid TO authn"),
		); err != nil {
			t.Fatal(err)
		}
		if err := s.ExecIn(t.Context(), "app", "CREATE TABLE t (id bigint PRIMARY KEY, shard int DEFAULT "+fmt.Sprint(i+1)+"); GRANT ALL ON t TO PUBLIC; GRANT SELECT ON pg_authid TO authn"); err != nil {
			t.Fatal(err)
		}
		cfg.Backends = append(cfg.Backends, Backend{Name: fmt.Sprint("db-", i+1), Shard: fmt.Sprint("shard_", i+1), Address: s.Addr()})
	}
	cfg.Databases = []Listing{{Name: "app", Shard: "shard_1"}}
	cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
	cfg.Admin.User, cfg.Admin.PasswordEnv = "admin", "ADMIN_PASSWORD"
	cfg.Auth.User, cfg.Auth.PasswordEnv = "authn", "AUTH_PASSWORD"
	edit(&cfg)
	env := clusterEnv()
	env["AUTH_PASSWORD"], env["ADMIN_PASSWORD"] = authPassword, adminPassword
	r.testNode = newNode(t, cfg, env).open(t)
	r.settled(t, 1, 2)
	code, out, errs := r.admin("keyspace", "create", "app.t", "--key", "id", "--type", "bigint", "--method", "range", "--range", "..1000=shard_1", "--range", "1000..=shard_2")
	if code != 0 {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	r.sees(t, "app.t")
	return r
}

// onAll runs a statement on both shards, as the superuser.
func (r *authRig) onAll(t *testing.T, sql string) {
	t.Helper()
	for _, s := range r.shards {
		if err := s.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
}

// stored is what a shard keeps of a user's password.
func (r *authRig) stored(t *testing.T, shard int, user string) (text string) {
	t.Helper()
	conn, err := r.shards[shard].Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), "SELECT rolpassword FROM pg_authid WHERE rolname = $1", user).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}

// alike makes a role that may log in, with the same verifier on both shards.
func (r *authRig) alike(t *testing.T, user, password string) {
	t.Helper()
	if err := r.shards[0].Exec(t.Context(), fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", user, password)); err != nil {
		t.Fatal(err)
	}
	if err := r.shards[1].Exec(t.Context(), fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", user, r.stored(t, 0, user))); err != nil {
		t.Fatal(err)
	}
}

func (r *authRig) login(t *testing.T, user, password string) (*pgx.Conn, error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://%s:%s@%s/app?sslmode=disable", user, password, r.pgLn.Addr()))
	if err == nil {
		t.Cleanup(func() { conn.Close(context.Background()) })
	}
	return conn, err
}

// reaches asks both shards who the user is.
func reaches(t *testing.T, conn *pgx.Conn, user string) {
	t.Helper()
	for _, id := range []int{7, 1007} {
		var who string
		if err := conn.QueryRow(t.Context(), fmt.Sprintf("SELECT current_user FROM (SELECT count(*) FROM t WHERE id = %d) x", id)).Scan(&who); err != nil || who != user {
			t.Errorf("key %d: %q, %v", id, who, err)
		}
	}
}

func wantRefusal(t *testing.T, err error, code, message, hint string) {
	t.Helper()
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != code || !strings.Contains(pe.Message, message) || !strings.Contains(pe.Hint, hint) {
		t.Errorf("got %v (hint %q), want SQLSTATE %s, %q, hint %q", err, hintOf(err), code, message, hint)
	}
}

func hintOf(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Hint
	}
	return ""
}

// TestLookedUpUsers: users whom the configuration does not list come in with what the backends keep of their password, and go on to
// every shard with what their login has shown.
func TestLookedUpUsers(t *testing.T) {
	r := newAuthRig(t, []string{"host all old all md5", "host all all all scram-sha-256"}, func(cfg *Config) {
		cfg.HBA = []HBA{{Users: []string{"old"}, Method: "md5"}, {Users: []string{"typed"}, Address: "127.0.0.0/8", Method: "password"}, {Method: "scram-sha-256"}}
		cfg.Console.Users = []string{"ann"}
	})
	r.alike(t, "ann", "first")
	r.alike(t, "typed", "in-clear")
	r.onAll(t, "SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'md5-secret'")
	r.onAll(t, "CREATE ROLE late LOGIN PASSWORD 'x' VALID UNTIL '2020-01-01'; CREATE ROLE nologin PASSWORD 'x'; CREATE ROLE nothing LOGIN")

	t.Run("verifier", func(t *testing.T) {
		conn, err := r.login(t, "ann", "first")
		if err != nil {
			t.Fatal(err)
		}
		reaches(t, conn, "ann")
		if out, err := r.psql(t, "user=ann password=first", "SELECT current_user"); err != nil || out != "ann\n" {
			t.Errorf("psql: %v\n%s", err, out)
		}
		if out, err := r.psql(t, "user=ann password=first dbname=rangefinder", "SHOW VERSION"); err != nil || !strings.HasPrefix(out, "Rangefinder") {
			t.Errorf("the console: %v\n%s", err, out)
		}
	})
	t.Run("hash", func(t *testing.T) {
		conn, err := r.login(t, "old", "md5-secret")
		if err != nil {
			t.Fatal(err)
		}
		reaches(t, conn, "old")
		_, err = r.login(t, "old", "wrong")
		wantRefusal(t, err, "28P01", `password authentication failed for user "old"`, "")
	})
	t.Run("password in clear text", func(t *testing.T) {
		conn, err := r.login(t, "typed", "in-clear")
		if err != nil {
			t.Fatal(err)
		}
		reaches(t, conn, "typed")
	})
	t.Run("who does not come in", func(t *testing.T) {
		for _, user := range []string{"nobody", "late", "nologin", "nothing", "ann", strings.Repeat("x", 64), "ann'--"} {
			_, err := r.login(t, strings.ReplaceAll(user, "'", "%27"), "x")
			wantRefusal(t, err, "28P01", fmt.Sprintf("password authentication failed for user \"%s\"", user), "")
		}
	})
	t.Run("changed password", func(t *testing.T) {
		if err := r.shards[0].Exec(t.Context(), "ALTER ROLE ann PASSWORD 'second'"); err != nil {
			t.Fatal(err)
		}
		if err := r.shards[1].Exec(t.Context(), "ALTER ROLE ann PASSWORD '"+r.stored(t, 0, "ann")+"'"); err != nil {
			t.Fatal(err)
		}
		pgtest.Eventually(t, 10*time.Second, func() error { // long before auth.lifetime is over
			conn, err := r.login(t, "ann", "second")
			if err == nil {
				reaches(t, conn, "ann")
			}
			return err
		})
		_, err := r.login(t, "ann", "first")
		wantRefusal(t, err, "28P01", `password authentication failed for user "ann"`, "")
	})
	t.Run("nobody can be asked", func(t *testing.T) {
		r.onAll(t, "REVOKE SELECT ON pg_authid FROM authn")
		for _, s := range r.shards {
			if err := s.ExecIn(t.Context(), "app", "REVOKE SELECT ON pg_authid FROM authn"); err != nil {
				t.Fatal(err)
			}
		}
		_, err := r.login(t, "somebody", "x")
		wantRefusal(t, err, "57P03", "users cannot be looked up now", "log says why")
		if !strings.Contains(r.log.String(), "permission denied for table pg_authid") {
			t.Error("the log does not say why")
		}
		if alarms := strings.Join(r.View().Alarms, "\n"); !strings.Contains(alarms, "users who are not listed cannot log in: backend db-") {
			t.Errorf("alarms: %s", alarms)
		}
		for _, s := range r.shards {
			if err := s.ExecIn(t.Context(), "app", "GRANT SELECT ON pg_authid TO authn"); err != nil {
				t.Fatal(err)
			}
		}
		_, err = r.login(t, "somebody", "x")
		wantRefusal(t, err, "28P01", `password authentication failed for user "somebody"`, "")
		if alarms := r.View().Alarms; len(alarms) != 0 {
			t.Errorf("alarms: %s", alarms)
		}
		_, metrics := r.get(t, "/metrics")
		for _, want := range []string{`rangefinder_user_lookups_total{outcome="found"} `, `rangefinder_user_lookups_total{outcome="unknown"} `, `rangefinder_user_lookups_total{outcome="failed"} 1`} {
			if !strings.Contains(metrics, "\n"+want) {
				t.Errorf("no %q in the metrics", want)
			}
		}
	})
	for _, secret := range []string{"SCRAM-SHA-256$", "in-clear", "md5-secret", authPassword, r.stored(t, 0, "old")} {
		if strings.Contains(r.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// TestVerifierInsteadOfPassword: a listed user of whom only the verifier is known.
func TestVerifierInsteadOfPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ann.verifier")
	replaceFile(t, file, []byte(annVerifier+"\n"))
	r := newAuthRig(t, nil, func(cfg *Config) {
		cfg.Auth = Defaults().Auth
		cfg.Users = []User{{Name: "ann", VerifierFile: file}, {Name: "app", SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}}}
	})
	r.onAll(t, "CREATE ROLE ann LOGIN PASSWORD '"+annVerifier+"'; CREATE ROLE app LOGIN PASSWORD 'another'")
	_, err := r.login(t, "ann", "wrong")
	wantRefusal(t, err, "28P01", `password authentication failed for user "ann"`, "")
	conn, err := r.login(t, "ann", "pencil")
	if err != nil {
		t.Fatal(err)
	}
	reaches(t, conn, "ann")
	_, err = r.login(t, "app", appPassword) // right here, and wrong there
	wantRefusal(t, err, "28P01", `shard_1 does not take the password of user "app"`, "[[users]]")

	// One shard has another password of the same user: that shard is closed to him, and named.
	if err := r.shards[1].Exec(t.Context(), "ALTER ROLE ann PASSWORD 'pencil'", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ann'"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 10*time.Second, func() error {
		_, err := conn.Exec(t.Context(), "SELECT * FROM t WHERE id = 1007")
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != pg.CodeInvalidPassword {
			return fmt.Errorf("still %v", err)
		}
		wantRefusal(t, err, "28P01", `shard_2 keeps another password for user "ann" than the one that was logged in with`, "rangefinder user copy ann --from SHARD")
		return nil
	})
	if _, err := conn.Exec(t.Context(), "SELECT * FROM t WHERE id = 7"); err != nil {
		t.Errorf("the other shard: %v", err)
	}
	if again, err := r.login(t, "ann", "pencil"); err != nil {
		t.Error(err)
	} else if _, err := again.Exec(t.Context(), "SELECT * FROM t WHERE id = 7"); err != nil {
		t.Error(err)
	}
	if v := r.View(); len(v.Backends) != 2 || v.Backends[0].Evidence != "" || v.Backends[1].Evidence != "" {
		t.Errorf("a wrong password counts as out of reach: %+v", v.Backends)
	}
	if strings.Contains(r.log.String(), "SCRAM-SHA-256$") {
		t.Error("the log holds a verifier")
	}
}

// TestPassthroughOverTLS: TLS and channel binding on both sides; and what the node itself is to backends is nobody's who comes in by
// trust.
func TestPassthroughOverTLS(t *testing.T) {
	ca := pgtest.NewAuthority(t)
	dir := t.TempDir()
	root := filepath.Join(dir, "root.crt")
	replaceFile(t, root, ca.PEM)
	pair := writePair(t, dir, ca.Issue(t, time.Time{}, "node.test"))
	r := newAuthRig(t, nil, func(cfg *Config) {
		cfg.TLS, cfg.TLS.ClientCAFile = pair, root
		cfg.BackendTLS = BackendTLS{Mode: "verify-full", CAFile: root}
		cfg.HBA = []HBA{
			{Users: []string{"authn"}, Address: "127.0.0.1", Method: "trust"},
			{Connection: "hostssl", Users: []string{"certy"}, Method: "cert"},
			{Connection: "hostssl", Method: "scram-sha-256"},
		}
	}, ca)
	r.alike(t, "ann", "secret")
	r.alike(t, "certy", "secret")
	for _, options := range []string{"channel_binding=require", "channel_binding=disable"} {
		if out, err := r.psql(t, "user=ann password=secret sslmode=verify-full host=node.test sslrootcert="+root+" "+options, "SELECT current_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"); err != nil || out != "ann|t\n" {
			t.Errorf("%s: %v\n%s", options, err, out)
		}
	}
	out, err := r.psql(t, "user=authn sslmode=disable", "SELECT 1")
	if err == nil || !strings.Contains(out, `asks user "authn" for a password, and this node knows none`) {
		t.Errorf("by trust as the user who asks the backends: %v\n%s", err, out)
	}
	out, err = r.psql(t, "user=certy"+certOptions(t, ca.IssueTo(t, "certy")), "SELECT 1")
	if err == nil || !strings.Contains(out, `asks user "certy" for a password, and this node knows none`) || !strings.Contains(out, "HINT:  Give the user a password under [[users]]") {
		t.Errorf("by certificate, without a password anywhere: %v\n%s", err, out)
	}
}

// TestUserCopy: what one shard keeps of a password is shown to differ, copied to the others, and opens them at once, to sessions that
// are there already too.
func TestUserCopy(t *testing.T) {
	r := newAuthRig(t, nil, func(*Config) {})
	r.onAll(t, "CREATE ROLE ann LOGIN PASSWORD 'secret'") // two verifiers of one password
	if err := r.shards[0].Exec(t.Context(), "CREATE ROLE alone LOGIN PASSWORD 'x'", "CREATE ROLE \"o'hara\" LOGIN PASSWORD 'x'"); err != nil {
		t.Fatal(err)
	}
	if err := r.shards[1].Exec(t.Context(), "CREATE ROLE \"o'hara\" LOGIN"); err != nil {
		t.Fatal(err)
	}
	check := func(want string, exit int, args ...string) {
		t.Helper()
		code, out, errs := r.admin(append([]string{"user"}, args...)...)
		if code != exit || !strings.Contains(strings.Join(strings.Fields(out+errs), " "), want) {
			t.Errorf("%v: exit %d, want %d and %q\n%s%s", args, code, exit, want, out, errs)
		}
	}
	check("ann no shard_1: SCRAM-SHA-256 verifier A, shard_2: SCRAM-SHA-256 verifier B", 1, "check", "ann")
	check("alone no shard_1: SCRAM-SHA-256 verifier A, shard_2: no such role", 0, "check")
	check("o'hara no shard_1: SCRAM-SHA-256 verifier A, shard_2: no password", 0, "check")
	check("nobody no shard_1: no such role, shard_2: no such role", 1, "check", "nobody")

	_, err := r.login(t, "ann", "secret") // a login goes to the closest shard's verifier, and then to the shard of the catalogs
	if err != nil {
		wantRefusal(t, err, "28P01", "keeps another password for user \"ann\"", "rangefinder user copy ann")
	}
	before := r.stored(t, 0, "ann")
	check("ann yes shard_1: SCRAM-SHA-256 verifier A, shard_2: SCRAM-SHA-256 verifier A", 0, "copy", "ann", "--from", "shard_1")
	check("ann yes", 0, "check", "ann")
	if a, b := r.stored(t, 0, "ann"), r.stored(t, 1, "ann"); a != before || b != before {
		t.Error("the shards keep something else than shard_1 did")
	}
	log, err := os.ReadFile(r.shards[1].LogFile())
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{before, before[len(before)-20:], "ALTER ROLE \"ann\""} {
		if strings.Contains(string(log), part) || strings.Contains(r.log.String(), part) {
			t.Errorf("%q is in a log", part)
		}
	}
	var conn *pgx.Conn
	pgtest.Eventually(t, 10*time.Second, func() (err error) {
		conn, err = r.login(t, "ann", "secret")
		return err
	})
	reaches(t, conn, "ann")

	// The same again with a session that is there: shard_2 changes, is named, and is mended without another login.
	if err := r.shards[1].Exec(t.Context(), "ALTER ROLE ann PASSWORD 'secret'", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ann'"); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, 10*time.Second, func() error {
		_, err := conn.Exec(t.Context(), "SELECT * FROM t WHERE id = 1007")
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || !strings.HasPrefix(pe.Message, "shard_2 keeps another password") {
			return fmt.Errorf("still %v", err)
		}
		return nil
	})
	check("ann yes", 0, "copy", "ann", "--from", "shard_1")
	reaches(t, conn, "ann")

	check("o'hara yes", 0, "copy", "o'hara", "--from", "shard_1")
	check("Nothing was changed", 1, "copy", "alone", "--from", "shard_2")
	check("shard_2: no such role: make it first", 1, "copy", "alone", "--from", "shard_1")
	check("Shards are shard_1, shard_2", 1, "copy", "ann", "--from", "shard_9")
	r.onAll(t, "ALTER ROLE admin NOSUPERUSER")
	check("name one under [admin]", 1, "copy", "ann", "--from", "shard_1")
	check("could not be asked: permission denied for table pg_authid", 1, "check", "ann")
}

// annVerifier is RFC 7677's example, of the password pencil.
const annVerifier = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

func TestAuthMistakesAreNamed(t *testing.T) {
	probe := "region = \"fra\"\n"
	for _, c := range []struct{ file, want string }{
		{"[auth]\npassword_env = \"X\"", `F:2:2: auth.user is missing: who asks the backends?; name a PostgreSQL user that may run auth.query`},
		{"[auth]\nuser = \"a\"\nquery = \"SELECT 1\"", `F:4:1: auth.query does not ask about anybody; write $1 where the user's name belongs`},
		{"[auth]\nuser = \"a\"\nlifetime = \"0s\"\ntimeout = \"0s\"", "F:4:1: auth.lifetime must be more than 0s\nF:5:1: auth.timeout must be more than 0s"},
		{"[[users]]\nname = \"a\"\npassword_env = \"X\"\nverifier_env = \"Y\"", `F:2:3: user "a" has a password and a verifier; keep one of them`},
		{"[[users]]\nname = \"a\"\nverifier_file = \"X\"\nverifier_env = \"Y\"", `F:4:1: users[0]: verifier_env and verifier_file are both given; keep one of them`},
	} {
		wantMistakes(t, probe+c.file, c.want)
	}
	file := writeConfig(t, probe+"[[users]]\nname = \"a\"\nverifier_file = \"a.verifier\"\n")
	replaceFile(t, filepath.Join(filepath.Dir(file), "a.verifier"), []byte("SCRAM-SHA-256$hunter2"))
	cfg, err := Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = cfg.LoadSecrets(os.LookupEnv)
	if err == nil || !strings.Contains(err.Error(), "not a stored password") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a file that holds no verifier: %v", err)
	}
}
