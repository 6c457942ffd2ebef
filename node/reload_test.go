package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
)

// fileNode is a node that was started from a file.
type fileNode struct {
	*testNode
	file    string
	primary *pgtest.Server
}

// fileConfig is its file at the start; tests replace parts of it.
const fileConfig = `region = "iad"
name = "iad-1"
data_dir = "data"
drain_timeout = "2s"

[ports]
postgres = 0
cluster = 0
http = 0

[log]
level = "debug"

[probe]
user = "probe"
password_file = "probe.password"
interval = "100ms"

[pool]
size = 5

[console]
users = ["ops"]

[[databases]]
name = "app"
shard = "shard_1"

[[users]]
name = "app"
password_file = "app.password"

[[users]]
name = "ops"
password_file = "ops.password"

[[backends]]
name = "iad-db"
shard = "shard_1"
address = "ADDRESS"
`

// newFile is the file, and the primary that it names.
func newFile(t *testing.T) *fileNode {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := pgtest.NewPrimary(t, pgtest.Options{Name: "shard_1"})
	if err := errors.Join(
		s.CreateUser(ctx, "app", appPassword, ""), s.CreateUser(ctx, "probe", probePassword, ""), s.CreateUser(ctx, "late", "late-secret", ""),
		s.Exec(ctx, "CREATE DATABASE app OWNER app"), s.Exec(ctx, "CREATE DATABASE more OWNER app"),
		s.ExecIn(ctx, "app", "CREATE TABLE t (id int PRIMARY KEY); GRANT ALL ON t TO app"),
	); err != nil {
		t.Fatal(err)
	}
	f := &fileNode{primary: s, file: filepath.Join(t.TempDir(), "node.toml")}
	f.write(t, "app.password", appPassword)
	f.write(t, "ops.password", opsPassword)
	f.write(t, "probe.password", probePassword)
	f.write(t, "late.password", "late-secret")
	f.change(t)
	return f
}

// startFile is a node that was started from newFile.
func startFile(t *testing.T) *fileNode {
	t.Helper()
	f := newFile(t)
	load := func() (Config, error) { return Read(f.file, nil) }
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	log, level := new(logBuffer), new(slog.LevelVar)
	level.Set(slog.LevelDebug)
	n, err := New(cfg, Options{Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level})), Level: level, Load: load})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", log)
		}
	})
	f.testNode = (&testNode{Node: n, cfg: cfg, log: log}).open(t)
	f.settled(t, 1, 1)
	return f
}

// write puts a file beside the configuration.
func (f *fileNode) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(filepath.Dir(f.file), name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// change writes the file of the start with some parts replaced.
func (f *fileNode) change(t *testing.T, oldnew ...string) {
	t.Helper()
	text := fileConfig
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(text, oldnew[i]) {
			t.Fatalf("no %q in the file", oldnew[i])
		}
		text = strings.Replace(text, oldnew[i], oldnew[i+1], 1)
	}
	f.write(t, filepath.Base(f.file), strings.Replace(text, "ADDRESS", f.primary.Addr(), 1))
}

// reload reloads over HTTP.
func (f *fileNode) reload(t *testing.T) ReloadAnswer {
	t.Helper()
	status, body := f.post(t, "/api/v1/reload", "{}")
	var answer ReloadAnswer
	if err := json.Unmarshal([]byte(body), &answer); status != 200 || err != nil {
		t.Fatalf("reload: %d %s", status, body)
	}
	return answer
}

func (f *fileNode) login(t *testing.T, user, password, database string) (*pgx.Conn, error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", user, password, f.pgLn.Addr(), database))
	if err == nil {
		t.Cleanup(func() { conn.Close(context.Background()) })
	}
	return conn, err
}

func sqlstate(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

func changes(list []ConfigChange) []string {
	out := []string{}
	for _, c := range list {
		out = append(out, c.Key+": "+c.Was+" -> "+c.Now)
	}
	return out
}

func TestReload(t *testing.T) {
	f := startFile(t)
	t.Run("nothing", func(t *testing.T) {
		if a := f.reload(t); len(a.Changed)+len(a.Restart) != 0 {
			t.Errorf("%+v", a)
		}
	})
	t.Run("mistakes", func(t *testing.T) { testReloadMistakes(t, f) })
	t.Run("databases and users", func(t *testing.T) { testReloadWho(t, f) })
	t.Run("restart", func(t *testing.T) { testReloadRestart(t, f) })
	t.Run("numbers", func(t *testing.T) { testReloadNumbers(t, f) })
	t.Run("rules and timeouts", func(t *testing.T) { testReloadRules(t, f) })
	t.Run("console", func(t *testing.T) { testReloadConsole(t, f) })
	t.Run("command line", func(t *testing.T) { testReloadCommand(t, f) })
	for _, secret := range []string{appPassword, opsPassword, probePassword, "late-secret", "another-secret"} {
		if strings.Contains(f.log.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}

// testReloadMistakes: all mistakes are told, with their places, and nothing of the file is taken.
func testReloadMistakes(t *testing.T, f *fileNode) {
	f.change(t, `size = 5`, `size = 0`, `name = "app"
password_file = "app.password"`, `name = "app"
password_file = "nowhere"`, `interval = "100ms"`, `interval = "100ms"
[limits]
clients = 3
[tls]
cert_file = "no.crt"
key_file = "no.key"`)
	status, body := f.post(t, "/api/v1/reload", "{}")
	var v ErrorView
	if err := json.Unmarshal([]byte(body), &v); err != nil || status != 422 {
		t.Fatalf("%d %s", status, body)
	}
	var got []string
	for _, p := range v.Problems {
		if p.File != f.file {
			t.Errorf("in file %q", p.File)
		}
		got = append(got, fmt.Sprintf("%d:%d %s", p.Line, p.Column, p.Key))
	}
	if want := []string{"25:1 pool.size", "36:1 users[0].password_file", "21:1 tls.cert_file"}; !reflect.DeepEqual(got, want) {
		t.Errorf("problems %q, want %q\n%s", got, want, body)
	}
	if v.Error != "the configuration has 3 mistakes, and nothing has changed" || !strings.Contains(v.Detail, "node.toml:25:1: pool.size must be at least 1, not 0") {
		t.Errorf("%+v", v)
	}
	if l := f.Node.cfg().Limits.Clients; l != 10000 {
		t.Errorf("limits.clients = %d: a part of a bad file was taken", l)
	}
	if !strings.Contains(f.log.String(), "not reloaded: nothing has changed") {
		t.Error("the log does not tell")
	}
	f.write(t, filepath.Base(f.file), "region = \n")
	if status, body := f.post(t, "/api/v1/reload", "{}"); status != 422 || !strings.Contains(body, `"line": 1`) {
		t.Errorf("%d %s", status, body)
	}
	if err := os.Remove(f.file); err != nil {
		t.Fatal(err)
	}
	if status, body := f.post(t, "/api/v1/reload", "{}"); status != 422 || !strings.Contains(body, "no such file") {
		t.Errorf("without the file: %d %s", status, body)
	}
	if _, err := f.connect(t).Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("a client after all that: %v", err)
	}
}

// testReloadWho: databases and users come and go; whoever is in stays in.
func testReloadWho(t *testing.T, f *fileNode) {
	old, err := f.login(t, "app", appPassword, "app")
	if err != nil {
		t.Fatal(err)
	}
	tx, err := old.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.login(t, "app", appPassword, "more"); sqlstate(err) != "3D000" {
		t.Errorf("a database that is not configured yet: %v", err)
	}
	f.change(t, `name = "app"
shard = "shard_1"`, `name = "more"
shard = "shard_1"`, `name = "ops"
password_file = "ops.password"`, `name = "late"
password_file = "late.password"`, `users = ["ops"]`, `users = ["late"]`)
	a := f.reload(t)
	want := []string{
		"console.users: ops -> late",
		"databases[app]: shard = shard_1 -> removed", "databases[more]:  -> shard = shard_1",
		"users[ops]: password_file = " + filepath.Dir(f.file) + "/ops.password -> removed", "users[late]:  -> password_file = " + filepath.Dir(f.file) + "/late.password",
	}
	if got := changes(a.Changed); !reflect.DeepEqual(got, want) || len(a.Restart) != 0 {
		t.Errorf("changed %q, want %q; restart %v", got, want, a.Restart)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO t VALUES (2)"); err != nil {
		t.Errorf("in the transaction on a removed database: %v", err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Errorf("its commit: %v", err)
	}
	var n int
	if err := old.QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&n); err != nil || n != 2 {
		t.Errorf("a new statement on a removed database: %d %v", n, err)
	}
	if _, err := f.login(t, "app", appPassword, "app"); sqlstate(err) != "3D000" {
		t.Errorf("a new session on a removed database: %v", err)
	}
	if _, err := f.login(t, "app", appPassword, "more"); err != nil {
		t.Errorf("the new database: %v", err)
	}
	if _, err := f.login(t, "late", "late-secret", "rangefinder"); err != nil {
		t.Errorf("the new operator: %v", err)
	}
	if _, err := f.login(t, "ops", opsPassword, "rangefinder"); sqlstate(err) != "28P01" {
		t.Errorf("the removed user: %v", err)
	}

	f.write(t, "late.password", "another-secret")
	if got := changes(f.reload(t).Changed); !reflect.DeepEqual(got, []string{"users[late].password: (set) -> (another)"}) {
		t.Errorf("a new password: %q", got)
	}
	if _, err := f.login(t, "late", "late-secret", "rangefinder"); sqlstate(err) != "28P01" {
		t.Errorf("the old password: %v", err)
	}
	if _, err := f.login(t, "late", "another-secret", "rangefinder"); err != nil {
		t.Errorf("the new password: %v", err)
	}
	f.change(t)
	f.reload(t)
	if _, err := f.login(t, "app", appPassword, "app"); err != nil {
		t.Errorf("the database is back: %v", err)
	}
}

// testReloadRestart: what cannot change is named, and stays.
func testReloadRestart(t *testing.T, f *fileNode) {
	f.change(t, `name = "iad-1"`, `name = "iad-2"`, `region = "iad"`, `region = "fra"`, `data_dir = "data"`, `data_dir = "elsewhere"
cluster_key_file = "cluster.key"
join = ["127.0.0.1:1"]`, `http = 0`, `http = 18080`, `level = "debug"`, "level = \"warn\"\nformat = \"json\"")
	f.write(t, "cluster.key", strings.Repeat("ab", 32))
	a := f.reload(t)
	dir := filepath.Dir(f.file)
	want := []string{
		"region: iad -> fra", "name: iad-1 -> iad-2", "data_dir: " + dir + "/data -> " + dir + "/elsewhere", "join:  -> 127.0.0.1:1",
		"cluster_key_file:  -> " + dir + "/cluster.key", "ports.http: 0 -> 18080", "log.format: text -> json", "cluster_key: (not set) -> another key",
	}
	if got := changes(a.Restart); !reflect.DeepEqual(got, want) {
		t.Errorf("needs a restart %q, want %q", got, want)
	}
	if got := changes(a.Changed); !reflect.DeepEqual(got, []string{"log.level: debug -> warn"}) {
		t.Errorf("changed %q", got)
	}
	s := f.setup.Load()
	if s.cfg.Region != "iad" || s.cfg.Ports.HTTP != 0 || s.secrets.ClusterKey != nil || s.cfg.Log.Format != "text" {
		t.Errorf("taken: %+v", s.cfg)
	}
	if f.level.Level() != slog.LevelWarn {
		t.Errorf("level %v", f.level.Level())
	}
	if again := f.reload(t); !reflect.DeepEqual(changes(again.Restart), want) || len(again.Changed) != 0 {
		t.Errorf("the second time: %+v", again)
	}
	f.change(t)
	f.reload(t)
}

// testReloadNumbers: bounds of clients, pools and messages.
func testReloadNumbers(t *testing.T, f *fileNode) {
	f.change(t, `size = 5`, "size = 1\nwait = \"50ms\"\nconnect_timeout = \"20s\"\n[limits]\nclients = 3\nframe = \"1KiB\"", `drain_timeout = "2s"`, `drain_timeout = "3s"`, `interval = "100ms"`, `interval = "90ms"`)
	if got, want := changes(f.reload(t).Changed), []string{"drain_timeout: 2s -> 3s", "probe.interval: 100ms -> 90ms", "pool.size: 5 -> 1", "pool.wait: 5s -> 50ms", "pool.connect_timeout: 5s -> 20s", "limits.clients: 10000 -> 3", "limits.frame: 64MiB -> 1KiB"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
	pgtest.Eventually(t, 5*time.Second, func() error {
		if n := f.server.Stats().Clients; n != 0 {
			return fmt.Errorf("%d clients of the tests before", n)
		}
		return nil
	})
	one, two := f.connect(t), f.connect(t)
	tx, err := one.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT 1 FROM t"); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Exec(t.Context(), "SELECT 1 FROM t"); sqlstate(err) != "53300" {
		t.Errorf("beyond pool.size: %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	f.connect(t)
	if _, err := f.login(t, "app", appPassword, "app"); sqlstate(err) != "53300" {
		t.Errorf("beyond limits.clients: %v", err)
	}
	if _, err := two.Exec(t.Context(), "SELECT '"+strings.Repeat("x", 2000)+"'"); sqlstate(err) != "08P01" {
		t.Errorf("beyond limits.frame: %v", err)
	}
	f.change(t)
	f.reload(t)
}

// testReloadRules: who may come in, and how long a statement of a session that is there already may take.
func testReloadRules(t *testing.T, f *fileNode) {
	old := f.connect(t)
	f.change(t, `[pool]`, "[limits]\nstatement_timeout = \"100ms\"\nuser_clients = 2\n[pool]", `[[databases]]`, "[[hba]]\nusers = [\"app\"]\naddress = \"127.0.0.0/8\"\nmethod = \"trust\"\n\n[[databases]]")
	a := f.reload(t)
	want := []string{"limits.user_clients: 0 -> 2", "limits.statement_timeout: 0s -> 100ms"}
	for _, w := range append(want, "hba[0]") {
		if !strings.Contains(strings.Join(changes(a.Changed), "\n"), w) {
			t.Errorf("no %q in %q", w, changes(a.Changed))
		}
	}
	if _, err := old.Exec(t.Context(), "SELECT pg_sleep(60)"); sqlstate(err) != "57014" {
		t.Errorf("a long statement: %v", err)
	}
	if _, err := f.login(t, "app", "wrong", "app"); err != nil {
		t.Errorf("a trusted user: %v", err)
	}
	if _, err := f.login(t, "ops", opsPassword, "rangefinder"); sqlstate(err) != "28000" {
		t.Errorf("a user whom no rule names: %v", err)
	}
	if _, err := f.login(t, "app", "", "app"); sqlstate(err) != "53300" {
		t.Errorf("beyond limits.user_clients: %v", err)
	}
	f.change(t)
	f.reload(t)
	if _, err := f.login(t, "app", "wrong", "app"); sqlstate(err) != "28P01" {
		t.Errorf("without rules: %v", err)
	}
}

// testReloadConsole reloads from psql.
func testReloadConsole(t *testing.T, f *fileNode) {
	f.change(t, `size = 5`, `size = 6`, `http = 0`, `http = 18080`)
	out, err := f.consolePsql(t, "ops", opsPassword, "RELOAD;\nSHOW CONFIG;")
	if want := "key|was|now|in_force\npool.size|5|6|now\nports.http|0|18080|after a restart\n(2 rows)\n"; err != nil || !strings.HasPrefix(out, want) {
		t.Errorf("%v, want %q:\n%s", err, want, out)
	}
	if !strings.Contains(out, "pool.size|6|20|yes") || !strings.Contains(out, "ports.http|0|8080|no") {
		t.Errorf("SHOW CONFIG:\n%s", out)
	}
	f.change(t, `size = 5`, `size = 0`)
	out, err = f.consolePsql(t, "ops", opsPassword, "\\set VERBOSITY verbose\nRELOAD;")
	for _, want := range []string{"ERROR:  F0000: the configuration has a mistake, and nothing has changed", "DETAIL:  " + f.file + ":20:1: pool.size must be at least 1, not 0", "HINT:  Mend the file"} {
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	f.change(t)
	f.reload(t)
}

// testReloadCommand is `rangefinder reload`.
func testReloadCommand(t *testing.T, f *fileNode) {
	command := func(args ...string) (int, string) {
		var out strings.Builder
		code := run(append([]string{"reload", "--admin", f.url()}, args...), &env{ctx: t.Context(), stdout: &out, stderr: &out, getenv: os.LookupEnv})
		return code, out.String()
	}
	if code, out := command(); code != 0 || out != "nothing has changed\n" {
		t.Errorf("%d %s", code, out)
	}
	f.change(t, `size = 5`, `size = 7`, `http = 0`, `http = 18080`)
	want := "KEY         WAS  NOW    IN FORCE\npool.size   5    7      now\nports.http  0    18080  after a restart\n"
	if code, out := command(); code != 0 || out != want {
		t.Errorf("%d %s", code, out)
	}
	if code, out := command("--json"); code != 0 || !strings.Contains(out, `"changed": []`) || !strings.Contains(out, `"key": "ports.http"`) {
		t.Errorf("%d %s", code, out)
	}
	f.change(t, `size = 5`, `sise = 7`)
	if code, out := command(); code != 1 || !strings.Contains(out, f.file+`:20:1: unknown key "pool.sise"; did you mean "size"?`) {
		t.Errorf("%d %s", code, out)
	}
	f.change(t)
	f.reload(t)
}
