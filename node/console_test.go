package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

const opsPassword = "ops-secret"

// startConsole is startOne with a user ops, who alone may use the console, and who is known to no backend.
func startConsole(t *testing.T) *testNode {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ops.password")
	if err := os.WriteFile(file, []byte(opsPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	return startOne(t, func(cfg *Config) {
		cfg.Users = append(cfg.Users, User{Name: "ops", SecretRef: SecretRef{PasswordFile: file}})
		cfg.Console.Users = []string{"ops"}
		cfg.Pool.Size = 7
	})
}

func (n *testNode) consolePsql(t *testing.T, user, password, in string) (string, error) {
	t.Helper()
	return psqlAt(t, n.pgLn.Addr().String(), user, password, in)
}

// psqlAt runs commands in the console at an address.
func psqlAt(t *testing.T, addr, user, password, in string) (string, error) {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	cmd := exec.CommandContext(t.Context(), filepath.Join(pgtest.Shared(t).Bin(), "psql"), "-X", "-A", "-h", host, "-p", port, "-U", user, "-d", "rangefinder", "-v", "ON_ERROR_STOP=1")
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password, "LC_ALL=C", "PSQLRC=/dev/null")
	cmd.Stdin = strings.NewReader(in + "\n")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestConsole(t *testing.T) {
	n := startConsole(t)
	app := n.connect(t)
	if _, err := app.Exec(t.Context(), "INSERT INTO t (id) VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	t.Run("psql", func(t *testing.T) { testConsolePsql(t, n, app) })
	t.Run("pgx", func(t *testing.T) { testConsolePgx(t, n) })
	t.Run("refused", func(t *testing.T) { testConsoleRefused(t, n) })
	t.Run("hostile", func(t *testing.T) { testConsoleHostile(t, n) })
}

func testConsolePsql(t *testing.T, n *testNode, app *pgx.Conn) {
	local := app.PgConn().Conn().LocalAddr().(*net.TCPAddr)
	for _, c := range []struct {
		in    string
		want  []string
		fails bool
	}{
		{"SHOW POOLS;", []string{"database|user|cl_active|cl_waiting|sv_active|sv_idle|sv_login|maxwait|maxwait_us|pool_mode", "app|app|1|0|0|1|0|0|0|transaction", "rangefinder|ops|1|0|0|0|0|0|0|transaction", "(2 rows)"}, false},
		{"show clients;", []string{fmt.Sprintf("C|app|app|idle|127.0.0.1|%d|127.0.0.1|", local.Port), "C|ops|rangefinder|active|"}, false},
		{"SHOW SERVERS;", []string{"S|app|app|idle|127.0.0.1|", "|iad-db|shard_1", "(1 row)"}, false},
		{"SHOW STATS;", []string{"database|total_xact_count|total_query_count|total_received|total_sent|total_wait_time|avg_xact_count|avg_query_count|avg_recv|avg_sent|avg_wait_time", "app|1|1|"}, false},
		{"SHOW STATS_TOTALS;\nSHOW STATS_AVERAGES;", []string{"database|xact_count|query_count|bytes_received|bytes_sent|wait_time", "app|1|1|"}, false},
		{"SHOW LISTS;", []string{"list|items\ndatabases|1\nusers|2\npools|2\nused_clients|2\nlogin_clients|0\nfree_servers|1\nused_servers|0\n(7 rows)"}, false},
		{"SHOW STATE;", []string{"active|yes\npaused|no\nsuspended|no"}, false},
		{"\\x\nSHOW VERSION;", []string{"version|Rangefinder devel"}, false},
		{"DISABLE app;\nSHOW DATABASES;\nENABLE app;", []string{"DISABLE\n", "app|app|shard_1|transaction|1|1|0|1", "ENABLE\n"}, false},
		{"DISABLE;", []string{"ERROR:  DISABLE wants the name of one database", "HINT:  Write it as DISABLE database"}, true},
		{"SHOW DATABASES;", []string{"app|app|shard_1|transaction|1|1|0|0"}, false},
		{"SHOW USERS;", []string{"app|1|1", "ops|0|1"}, false},
		{"SHOW CONFIG;", []string{"region|iad||no", "pool.size|7|20|yes", "pool.wait|5s|5s|yes", "databases[0].shard|shard_1||yes", "users[0].password_env|APP_PASSWORD||yes", "console.users|ops||yes", "log.level|info|info|yes", "log.format|text|text|no"}, false},
		{"SHOW VERSION;", []string{"Rangefinder devel"}, false},
		{"SHOW HELP;", []string{"PAUSE [database]|"}, false},
		{"PAUSE app;\nSHOW DATABASES;\nRESUME app;\nRECONNECT;", []string{"PAUSE", "app|app|shard_1|transaction|0|1|1|0", "RESUME", "RECONNECT"}, false},
		{"RELOAD now;", []string{`ERROR:  the console has no command "RELOAD now"`, "HINT:  Commands are SHOW POOLS"}, true},
		{"RELOAD;", []string{"ERROR:  there is nothing to reload"}, true},
		{"\\d", []string{"ERROR:  the console has no command"}, true},
		{"PAUSE nowhere;", []string{`ERROR:  there is no database "nowhere"`, "HINT:  Databases are app."}, true},
	} {
		out, err := n.consolePsql(t, "ops", opsPassword, c.in)
		if (err != nil) != c.fails {
			t.Errorf("%s: %v", c.in, err)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", c.in, want, out)
			}
		}
		for _, secret := range []string{opsPassword, appPassword, probePassword} {
			if strings.Contains(out, secret) {
				t.Errorf("%s shows a password", c.in)
			}
		}
	}
}

func (n *testNode) consoleDSN(user, password string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/rangefinder?sslmode=disable", user, password, n.pgLn.Addr())
}

func testConsolePgx(t *testing.T, n *testNode) {
	conn, err := pgx.Connect(t.Context(), n.consoleDSN("ops", opsPassword))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	rows, err := conn.Query(t.Context(), "SHOW STATS")
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToMap)
	if err != nil || len(all) != 1 || all[0]["database"] != "app" || all[0]["total_query_count"] != int64(1) {
		t.Errorf("%v %v", all, err)
	}
}

func testConsoleRefused(t *testing.T, n *testNode) {
	var pe *pgconn.PgError
	_, err := pgx.Connect(t.Context(), n.consoleDSN("app", appPassword))
	if !errors.As(err, &pe) || pe.Code != pg.CodeInsufficientPrivilege || pe.Severity != "FATAL" || !strings.Contains(pe.Hint, "[console] users") {
		t.Errorf("a user who is not listed: %v", err)
	}
	// Who cannot log in learns nothing of who may use the console.
	for _, user := range []string{"ops", "app", "nobody"} {
		if _, err := pgx.Connect(t.Context(), n.consoleDSN(user, "wrong")); !errors.As(err, &pe) || pe.Code != pg.CodeInvalidPassword {
			t.Errorf("%s with a wrong password: %v", user, err)
		}
	}
}

// testConsoleHostile sends what no client would; whoever else uses the console does not notice.
func testConsoleHostile(t *testing.T, n *testNode) {
	other, err := pgx.Connect(t.Context(), n.consoleDSN("ops", opsPassword))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	big := func(typ byte, size uint32) []byte {
		return []byte{typ, byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)}
	}
	for _, c := range []struct {
		name string
		in   []byte
		want string // somewhere in the answer
	}{
		{"a frame of a gigabyte", big('Q', 1<<30), pg.CodeProtocolViolation},
		{"a negative length", big('Q', 0xfffffff0), pg.CodeProtocolViolation},
		{"a length below its own", big('S', 3), pg.CodeProtocolViolation},
		{"a type that does not exist", big('!', 4), pg.CodeProtocolViolation},
		{"a query without an end", append(big('Q', 8), "SHOW"...), pg.CodeProtocolViolation},
		{"bytes that are no text", append(append(big('Q', 9), 0xff, 0xfe, ';', '"'), 0), pg.CodeSyntaxError},
		{"64 KiB of quotes", append(append(big('Q', 60005), bytes.Repeat([]byte{'"'}, 60000)...), 0), pg.CodeSyntaxError},
	} {
		conn, err := pgconn.Connect(t.Context(), n.consoleDSN("ops", opsPassword))
		if err != nil {
			t.Fatal(err)
		}
		socket := pgtest.Hijack(t.Context(), t, conn)
		socket.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := socket.Write(c.in); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var answer [4096]byte
		k, err := socket.Read(answer[:])
		if !bytes.Contains(answer[:k], []byte("C"+c.want+"\x00")) {
			t.Errorf("%s: %q, %v", c.name, answer[:k], err)
		}
		socket.Close()
	}
	if err := other.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := other.Prepare(t.Context(), "two", "SHOW POOLS; SHOW POOLS"); err == nil {
		t.Error("two commands in one prepared statement")
	}
}

func TestConsoleConfiguration(t *testing.T) {
	cfg := testConfig(t, "iad")
	cfg.Probe.User = "probe"
	cfg.Databases = []Listing{{Name: "rangefinder"}}
	cfg.Console.Users = []string{"ghost"}
	var all []string
	for _, p := range cfg.check(nil) {
		all = append(all, p.Key+": "+p.Message)
	}
	want := []string{`databases[0].name: database "rangefinder" is the console`, `console.users[0]: console.users: nobody can log in as "ghost"`}
	if strings.Join(all, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q, want %q", all, want)
	}
}
