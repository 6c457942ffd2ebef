package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// goodConfig is a whole file that has nothing wrong with it; the tests below break one thing each.
const goodConfig = `region = "fra"
data_dir = "data/fra"

[[databases]]
name = "app"
shard = "shard_1"

[[users]]
name = "app"
password_env = "APP_PASSWORD"

[[backends]]
name = "fra-1"
shard = "shard_1"
address = "127.0.0.1:5501"

[probe]
user = "probe"
password_env = "PROBE_PASSWORD"
interval = "500ms"
`

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "node.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestLoadReadsAWholeFile(t *testing.T) {
	file := writeConfig(t, goodConfig)
	cfg, err := Load(file, func(c *Config) { c.Region = "iad" })
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Region != "iad" {
		t.Errorf("region = %q, want the flag's iad over the file's fra", cfg.Region)
	}
	if got, want := cfg.Probe.Interval.Duration, 500*time.Millisecond; got != want {
		t.Errorf("probe.interval = %v, want %v", got, want)
	}
	if got, want := cfg.DataDir, filepath.Join(filepath.Dir(file), "data/fra"); got != want {
		t.Errorf("data_dir = %q, want it relative to the file: %q", got, want)
	}
	if got := cfg.Users[0].PasswordEnv; got != "APP_PASSWORD" {
		t.Errorf("users[0].password_env = %q", got)
	}
	if got := cfg.Ports.Postgres; got != 6432 {
		t.Errorf("ports.postgres = %d, want the default 6432", got)
	}
}

// wantMistakes loads a configuration and holds what is wrong with it, its file's name written as F, to what is wanted.
func wantMistakes(t *testing.T, text, want string) {
	t.Helper()
	file := writeConfig(t, text)
	_, err := Load(file, nil)
	var bad *ConfigError
	if !errors.As(err, &bad) {
		t.Errorf("%q: Load gave %v, want a *ConfigError", text, err)
		return
	}
	if got := strings.ReplaceAll(err.Error(), file, "F"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Error("the message repeats a password")
	}
}

// TestMistakesAreNamed is the golden list of what a person reads when the file is wrong: each line says where, what, and
// how to mend it.
func TestMistakesAreNamed(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"unknown key", `regoin = "fra"`,
			`F:1:1: unknown key "regoin"; did you mean "region"?`},
		{"unknown key in a list", "region = \"fra\"\n[[backends]]\n  adress = \"x\"",
			`F:3:3: unknown key "backends[0].adress"; did you mean "address"?`},
		{"unknown table", "[probes]\nuser = \"x\"\nbogus = 1",
			`F:1:2: unknown key "probes"; did you mean "probe"?`},
		{"nothing near", "[ports]\nfrobnicate = 1",
			`F:2:1: unknown key "ports.frobnicate"; the keys here are postgres, cluster, http`},
		{"inline password", "[[users]]\nname = \"app\"\npassword = \"hunter2\"",
			`F:3:1: unknown key "users[0].password"; secrets are never written in this file: use password_env or password_file`},
		{"inline table", `ports = { postgres = 1, htpp = 2 }`,
			`F:1:25: unknown key "ports.htpp"; did you mean "http"?`},
		{"wrong types, all of them", "region = 7\ndrain_timeout = 10\ninsecure = \"yes\"\njoin = \"a:1\"\nports.http = 1.5",
			"F:1:10: region must be a string in quotes, not a whole number\n" +
				"F:2:17: drain_timeout must be a duration in quotes, such as \"10s\", not a whole number\n" +
				"F:3:12: insecure must be true or false, not a string\n" +
				"F:4:8: join must be a list of strings, such as [\"a\", \"b\"], not a string\n" +
				"F:5:14: ports.http must be a whole number, not a decimal number"},
		{"list element", "join = [\"a:1\", 2]",
			`F:1:16: join[1] must be a string in quotes, not a whole number`},
		{"no unit", `drain_timeout = "10"`,
			`F:1:17: drain_timeout: "10" has no unit: write "10s" or "10ms"`},
		{"negative", `drain_timeout = "-1s"`,
			`F:1:17: drain_timeout: "-1s" is negative`},
		{"a wait for ever", "region = \"fra\"\nfailover_wait = \"1h\"",
			`F:2:1: failover_wait must be at most 10m0s; clients give up before that, and their statements would run for nobody`},
		{"watchdog in a hurry", "region = \"fra\"\nwatchdog_timeout = \"1s\"",
			`F:2:1: watchdog_timeout must be at least 2s, or 0s; a busy machine may let a process wait for a second`},
		{"no size", "[limits]\nframe = \"64\"",
			`F:2:9: limits.frame: "64" is not a size: write a whole number with a unit, for example "64KiB", "16MiB" or "1GiB"`},
		{"one bracket", "[users]\nname = \"app\"",
			`F:1:2: users is a list; write [[users]], with two brackets, once for each`},
		{"two brackets", "[[probe]]\nuser = \"app\"",
			`F:1:3: probe is one table, not a list; write [probe], with one bracket`},
		{"twice", "region = \"a\"\nregion = \"b\"",
			`F:2:1: region is set twice; keep one of them`},
		{"syntax", "region = \"fra",
			`F:1:13: unterminated basic string`},
		{"empty file", "",
			`F: region is missing; say where this node stands: region = "fra", or --region fra`},
		{"names", "region = \"fra nkfurt\"\nname = \"a/b\"",
			"F:1:1: region: \"fra nkfurt\" is not a name; use up to 64 letters, digits, '-', '_' and '.'\n" +
				"F:2:1: name: \"a/b\" is not a name; use up to 64 letters, digits, '-', '_' and '.'"},
		{"ports", "region = \"fra\"\n[ports]\npostgres = 70000\ncluster = 8080",
			"F:3:1: ports.postgres: 70000 is not a port; ports are 1 to 65535; 0 takes any free one\n" +
				"F:2:2: ports.cluster and ports.http are both 8080; give each listener a port of its own"},
		{"addresses", "region = \"fra\"\nbind = \"localhost\"\nhttp_bind = \"10.0.0.1\"\njoin = [\"10.0.0.1\"]",
			"F:2:1: bind: \"localhost\" is not an IP address; for example 127.0.0.1, 10.0.0.5 or 0.0.0.0\n" +
				"F:3:1: http_bind: 10.0.0.1 is not loopback, and the HTTP port asks nobody for a password; give [api] a token_file or a client_ca_file; or keep it on 127.0.0.1 and reach it by ssh -L; or give --insecure\n" +
				"F:4:1: join[0]: \"10.0.0.1\" is not host:port; give the cluster port of a node, for example 10.0.0.1:7946"},
		{"wildcard", "region = \"fra\"\nbind = \"0.0.0.0\"",
			`F: advertise is missing: bind is 0.0.0.0, which other nodes cannot dial; give this machine's own address: advertise = "10.0.0.5"`},
		{"user without password", "region = \"fra\"\n\n[[users]]\nname = \"app\"",
			`F:3:3: user "app" has no password; add password_env or password_file`},
		{"duplicates", goodConfig + "[[backends]]\nname = \"fra-1\"\nshard = \"shard_2\"\naddress = \"127.0.0.1:5501\"",
			"F:22:1: backend \"fra-1\" is listed twice; backend names are unique in the whole cluster\n" +
				"F:24:1: backends \"fra-1\" and \"fra-1\" have the same address 127.0.0.1:5501"},
		{"backend", "region = \"fra\"\n[[backends]]\nname = \"fra-1\"\naddress = \"10.0.0.1\"",
			"F:2:3: backend \"fra-1\" has no shard; say which shard it holds a copy of: shard = \"shard_1\"\n" +
				"F:4:1: backends[0].address: \"10.0.0.1\" is not host:port; give host:port of a PostgreSQL server, for example 10.0.0.7:5432\n" +
				"F: probe.user is missing: who looks at the backends?; name a PostgreSQL user that may connect; it wants pg_read_all_stats, and no right on any table"},
		{"numbers", "region = \"fra\"\n[pool]\nsize = 0\nconnect_timeout = \"0s\"\nstandby = -1\n[probe]\nfall = 0\ninterval = \"0s\"",
			"F:8:1: probe.interval must be more than 0s\n" +
				"F:7:1: probe.fall must be at least 1, not 0\n" +
				"F:3:1: pool.size must be at least 1, not 0\n" +
				"F:4:1: pool.connect_timeout must be more than 0s\n" +
				"F:5:1: pool.standby must be at least 0, not -1"},
		{"prepared statements", "region = \"fra\"\n[pool]\nprepared = 99", "F:3:1: pool.prepared must be at least 100, not 99"},
		{"scatter", "region = \"fra\"\n[[databases]]\nname = \"app\"\nscatter = \"never\"",
			"F:4:1: databases[0].scatter: \"never\" is unknown; use one of allow, warn, forbid\n" +
				"F: probe.user is missing: who looks at the backends?; name a PostgreSQL user that may connect; it wants pg_read_all_stats, and no right on any table"},
		{"cross-shard writes", "region = \"fra\"\n[[databases]]\nname = \"app\"\ncross_shard_writes = \"3pc\"",
			"F:4:1: databases[0].cross_shard_writes: \"3pc\" is unknown; use one of refuse, 2pc\n" +
				"F: probe.user is missing: who looks at the backends?; name a PostgreSQL user that may connect; it wants pg_read_all_stats, and no right on any table"},
		{"read consistency", "region = \"fra\"\n[[databases]]\nname = \"app\"\nread_consistency = \"strong\"",
			"F:4:1: databases[0].read_consistency: \"strong\" is unknown; use one of session, eventual, primary\n" +
				"F: probe.user is missing: who looks at the backends?; name a PostgreSQL user that may connect; it wants pg_read_all_stats, and no right on any table"},
		{"pool mode", "region = \"fra\"\n[[databases]]\nname = \"app\"\npool_mode = \"statement\"",
			"F:4:1: databases[0].pool_mode: \"statement\" is unknown; use one of transaction, session\n" +
				"F: probe.user is missing: who looks at the backends?; name a PostgreSQL user that may connect; it wants pg_read_all_stats, and no right on any table"},
		{"limits", goodConfig + "[limits]\nclients = -1\nuser_clients = -1\ndatabase_clients = -1\nhandshakes = -1\nlogins = -1\n[[users]]\nname = \"x\"\npassword_env = \"X\"\nmax_clients = -1\n[[databases]]\nname = \"y\"\nmax_clients = \"many\"",
			"F:33:15: databases[1].max_clients must be a whole number, not a string"},
		{"negative limits", goodConfig + "[limits]\nclients = -1\nuser_clients = -1\ndatabase_clients = -1\nhandshakes = -1\nlogins = -1\n[[users]]\nname = \"x\"\npassword_env = \"X\"\nmax_clients = -1\n[[databases]]\nname = \"y\"\nmax_clients = -1",
			"F:22:1: limits.clients must be at least 0, not -1\n" +
				"F:23:1: limits.user_clients must be at least 0, not -1\n" +
				"F:24:1: limits.database_clients must be at least 0, not -1\n" +
				"F:25:1: limits.handshakes must be at least 0, not -1\n" +
				"F:26:1: limits.logins must be at least 0, not -1\n" +
				"F:30:1: users[1].max_clients must be at least 0, not -1\n" +
				"F:33:1: databases[1].max_clients must be at least 0, not -1"},
		{"pools", "region = \"fra\"\n[pool]\nsize = 2\nmin = 3\n[keepalive]\nidle = \"1500ms\"\ninterval = \"0s\"",
			"F:4:1: pool.min is 3, and pool.size only 2\n" +
				"F:6:1: keepalive.idle must be whole seconds: TCP counts in them\n" +
				"F:7:1: keepalive.interval must be more than 0s"},
		{"reads", goodConfig + "[reads]\nmax_lag = \"10\"\nmax_lag_bytes = \"1MB\"",
			"F:22:11: reads.max_lag: \"10\" has no unit: write \"10s\" or \"10ms\"\n" +
				"F:23:17: reads.max_lag_bytes: \"1MB\" is not a size: write a whole number with a unit, for example \"64KiB\", \"16MiB\" or \"1GiB\""},
		{"limits of load and ejections", goodConfig + "[reads]\nload_soft = 90\nload_hard = 80\neject_errors = -1\neject_slow = 1\neject_time = \"1m\"\neject_max = \"30s\"",
			"F:22:1: reads.load_soft is 90, and reads.load_hard only 80\n" +
				"F:24:1: reads.eject_errors must be at least 0, not -1\n" +
				"F:25:1: reads.eject_slow must be at least 2, not 1\n" +
				"F:27:1: reads.eject_max is 30s, and reads.eject_time 1m0s"},
		{"percentages", goodConfig + "[reads]\nload_soft = -1\nload_hard = 101",
			"F:22:1: reads.load_soft must be between 0 and 100 percent, not -1\n" +
				"F:23:1: reads.load_hard must be between 0 and 100 percent, not 101"},
		{"regions of a database", goodConfig + "[[databases]]\nname = \"y\"\nregions = [\"fra\", \"a b\", \"fra\"]\n[[databases]]\nname = \"z\"\npinned = true",
			"F:23:1: databases[1].regions[1]: \"a b\" is not a name; use up to 64 letters, digits, '-', '_' and '.'\n" +
				"F:23:1: databases[1].regions: \"fra\" is there twice\n" +
				"F:26:1: databases[2].pinned: to which regions?; name them: regions = [\"fra\"]"},
		{"lab", "region = \"fra\"\n[[lab]]\nnet = \"127.0.2\"\nrtt = \"1h\"",
			"F:3:1: lab[0].net: \"127.0.2\" is not a network; write one as 127.0.2.0/24\n" +
				"F:4:1: lab[0].rtt must be more than 0s and at most 10s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantMistakes(t, c.file, c.want)
		})
	}
}

// TestEveryKeyIsDescribed holds the house rule: every key says what it is. Names alone may do without.
func TestEveryKeyIsDescribed(t *testing.T) {
	self := map[string]bool{"log": true, "users.name": true}
	var walk func(t reflect.Type, path string) (missing []string)
	walk = func(typ reflect.Type, path string) (missing []string) {
		for _, f := range reflect.VisibleFields(typ) {
			key := f.Tag.Get("toml")
			if key == "" {
				continue
			}
			here := join(path, key)
			if f.Tag.Get("comment") == "" && !self[here] {
				missing = append(missing, here)
			}
			if want := isText(held(f.Type)) || held(f.Type).Kind() == reflect.Int; want && here != "lab.rtt" && here != "limits.frame" && f.Tag.Get("comment") == "" {
				missing = append(missing, here+" (unit and zero)")
			}
			inner := held(f.Type)
			if inner.Kind() == reflect.Slice {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct && !isText(inner) {
				missing = append(missing, walk(inner, here)...)
			}
		}
		return missing
	}
	if missing := walk(reflect.TypeFor[Config](), ""); len(missing) > 0 {
		t.Errorf("keys without a description: %v", missing)
	}
}

func TestPrintCanBeReadAgain(t *testing.T) {
	first, err := Load(writeConfig(t, goodConfig), nil)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := first.Print(&text); err != nil {
		t.Fatal(err)
	}
	if want := "# Name of the environment variable that holds the password."; !strings.Contains(text.String(), want) {
		t.Errorf("the printed configuration does not describe its keys:\n%s", text.String())
	}
	second, err := Load(writeConfig(t, text.String()), nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, text.String())
	}
	var again strings.Builder
	if err := second.Print(&again); err != nil {
		t.Fatal(err)
	}
	if text.String() != again.String() {
		t.Errorf("printed twice, it differs:\n%s\n---\n%s", text.String(), again.String())
	}
}

func TestSecretsAreFollowedAndNeverPrinted(t *testing.T) {
	cfg, err := Load(writeConfig(t, goodConfig), nil)
	if err != nil {
		t.Fatal(err)
	}
	passwordFile := filepath.Join(t.TempDir(), "probe")
	if err := os.WriteFile(passwordFile, []byte("pro be-secret\r\n\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg.Probe.SecretRef = SecretRef{PasswordFile: passwordFile}
	env := map[string]string{"APP_PASSWORD": "app-secret\n", "KEY": strings.Repeat("ab", 32)}
	cfg.ClusterKeyEnv = "KEY"
	secrets, warnings, err := cfg.LoadSecrets(func(k string) (string, bool) { v, ok := env[k]; return v, ok })
	if err != nil {
		t.Fatal(err)
	}
	if got := secrets.Users["app"].Reveal(); got != "app-secret" {
		t.Errorf("app's password = %q, want it without the newline", got)
	}
	if got := secrets.Probe.Reveal(); got != "pro be-secret" {
		t.Errorf("probe's password = %q", got)
	}
	if len(secrets.ClusterKey) != 32 || secrets.ClusterKey[0] != 0xab {
		t.Errorf("cluster key = %d bytes", len(secrets.ClusterKey))
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "can be read by every user") {
		t.Errorf("warnings = %q, want one about the file's mode", warnings)
	}
	var log strings.Builder
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(handler).Info("all", "config", cfg, "secrets", secrets, "one", secrets.Probe, "users", secrets.Users, "ptr", &secrets)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&log, verb+verb+verb+verb, cfg, secrets, secrets.Users, []any{secrets.Probe, &secrets})
	}
	for _, secret := range []string{"app-secret", "pro be-secret", "abab", "171 171", "171, 171", fmt.Sprintf("%x", "app-secret")} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q is in the log:\n%s", secret, log.String())
		}
	}
}

func TestMissingSecretsAreNamedTogether(t *testing.T) {
	file := writeConfig(t, goodConfig)
	cfg, err := Load(file, func(c *Config) { c.ClusterKeyFile = "/nonexistent/key" })
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = cfg.LoadSecrets(func(string) (string, bool) { return "", false })
	want := file + ": cluster_key: open /nonexistent/key: no such file or directory\n" +
		file + ":10:1: users[0] (app): environment variable APP_PASSWORD is not set\n" +
		file + ":19:1: probe: environment variable PROBE_PASSWORD is not set"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestBeyondLoopbackNeedsAKey(t *testing.T) {
	cfg := Defaults()
	cfg.Region, cfg.Bind = "fra", "10.1.2.3"
	err := cfg.checkExposure(nil)
	var failure *Failure
	if !errors.As(err, &failure) || !errors.Is(err, ErrNoKey) || !strings.Contains(failure.Hint, "rangefinder key > cluster.key") {
		t.Fatalf("without a key: %v, want a refusal that says how to make one", err)
	}
	if err := cfg.checkExposure(make([]byte, 32)); err != nil {
		t.Errorf("with a key: %v", err)
	}
	cfg.Insecure = true
	if err := cfg.checkExposure(nil); err != nil {
		t.Errorf("--insecure: %v", err)
	}
	cfg.Insecure, cfg.Bind = false, "127.0.3.1"
	if err := cfg.checkExposure(nil); err != nil {
		t.Errorf("loopback: %v", err)
	}
}

// TestExamplesLoad holds the files that README.md tells people to start: as they are, and with their delays uncommented.
func TestExamplesLoad(t *testing.T) {
	files, err := filepath.Glob("../examples/*.toml")
	if err != nil || len(files) != 3 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		region := strings.TrimSuffix(filepath.Base(file), ".toml")
		cfg, err := Load(file, nil)
		if err != nil || cfg.Region != region || len(cfg.Backends) != 3 || len(cfg.Lab) != 0 {
			t.Errorf("%s: region %q, %d backends, %d delays: %v", file, cfg.Region, len(cfg.Backends), len(cfg.Lab), err)
		}
		if err := cfg.checkExposure(nil); err != nil {
			t.Errorf("%s cannot be started as README.md says: %v", file, err)
		}
		uncommented := strings.NewReplacer("\n# [[lab]]", "\n[[lab]]", "\n# net", "\nnet", "\n# rtt", "\nrtt").Replace(string(text))
		if cfg, err = Load(writeConfig(t, uncommented), nil); err != nil || len(cfg.Lab) != 2 {
			t.Errorf("%s with its delays: %d of them, %v", file, len(cfg.Lab), err)
		}
	}
}

// FuzzConfig: whatever stands in the file, there is a configuration or a list of problems, and positions lie in the file.
func FuzzConfig(f *testing.F) {
	f.Add(goodConfig)
	f.Add("[[users]]\nname.x = {a = [1, {b = 2}]}\n'' = 1\n[a.b.\"c\"]")
	f.Add("ports = {postgres = 1}\n[ports]\nhttp = 2")
	f.Fuzz(func(t *testing.T, text string) {
		cfg := Defaults()
		o, problems := decode([]byte(text), &cfg)
		if len(problems) == 0 {
			problems = cfg.check(o.at)
		}
		lines := strings.Count(text, "\n") + 1
		for _, p := range problems {
			if p.Message == "" || p.Line < 0 || p.Line > lines {
				t.Errorf("problem %+v in a file of %d lines", p, lines)
			}
		}
	})
}
