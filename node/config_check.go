package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"rangefinder/wire"
	"rangefinder/wire/console"
	"rangefinder/wire/pool"
)

// Problem is one mistake in a configuration, and how to mend it.
type Problem struct {
	Key          string // "users[0].password_env", "" if the file as a whole
	Line, Column int    // from 1; 0 if the key is not in the file
	Message      string
	Hint         string
}

// ConfigError is every mistake found in one configuration.
type ConfigError struct {
	File     string // "" without a file
	Problems []Problem
}

// Error is one line a problem, "file:line:column: message; hint", as editors and CI systems follow it.
func (e *ConfigError) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		switch {
		case e.File != "" && p.Line > 0:
			fmt.Fprintf(&b, "%s:%d:%d: ", e.File, p.Line, p.Column)
		case e.File != "":
			fmt.Fprintf(&b, "%s: ", e.File)
		}
		b.WriteString(p.Message)
		if p.Hint != "" {
			b.WriteString("; ")
			b.WriteString(p.Hint)
		}
	}
	return b.String()
}

// summary is one line about all of them, after a reload.
func (e *ConfigError) summary() string {
	if len(e.Problems) == 1 {
		return "the configuration has a mistake, and nothing has changed"
	}
	return fmt.Sprintf("the configuration has %d mistakes, and nothing has changed", len(e.Problems))
}

// checker collects what is wrong with a decoded configuration; it never stops at the first problem.
type checker struct {
	at       map[string]position
	problems []Problem
}

func (c *checker) fail(key, message, hint string) {
	// A key that is not in the file is best shown where its table begins.
	pos := c.at[key]
	for k := key; pos.line == 0 && strings.Contains(k, "."); {
		k = k[:strings.LastIndexByte(k, '.')]
		pos = c.at[k]
	}
	c.problems = append(c.problems, Problem{Key: key, Line: pos.line, Column: pos.column, Message: message, Hint: hint})
}

// failed reports whether something is wrong with a table already.
func (c *checker) failed(table string) bool {
	return slices.ContainsFunc(c.problems, func(p Problem) bool { return strings.HasPrefix(p.Key, table+".") })
}

// failure takes over an error that says more than a sentence.
func (c *checker) failure(key string, err error) {
	hint := ""
	var f *Failure
	if errors.As(err, &f) {
		hint = f.Hint
	}
	c.fail(key, err.Error(), hint)
}

// check validates a whole configuration. at says where the file's keys stand, nil if there is no file.
func (cfg *Config) check(at map[string]position) []Problem {
	c := &checker{at: at}
	if cfg.Region == "" {
		c.fail("region", "region is missing", `say where this node stands: region = "fra", or --region fra`)
	} else {
		c.name("region", cfg.Region)
	}
	if cfg.Name != "" {
		c.name("name", cfg.Name)
	}
	c.addresses(cfg)
	if cfg.DataDir == "" {
		c.fail("data_dir", "data_dir is empty", "name a directory that only this node uses")
	}
	for i, addr := range cfg.Join {
		c.hostPort(fmt.Sprintf("join[%d]", i), addr, "the cluster port of a node, for example 10.0.0.1:7946")
	}
	if cfg.ClusterKeyFile != "" && cfg.ClusterKeyEnv != "" {
		c.fail("cluster_key_env", "cluster_key_file and cluster_key_env are both given", "keep one of them")
	}
	c.oneOf("log.level", cfg.Log.Level, "debug", "info", "warn", "error")
	c.oneOf("log.format", cfg.Log.Format, "text", "json")
	c.clients(cfg)
	c.tls(cfg)
	c.api(cfg)
	c.hba(cfg)
	c.auth(cfg)
	c.backends(cfg)
	c.numbers(cfg)
	for i, lab := range cfg.Lab {
		key := fmt.Sprintf("lab[%d]", i)
		if _, err := netip.ParsePrefix(lab.Net); err != nil {
			c.fail(key+".net", fmt.Sprintf("%s.net: %q is not a network", key, lab.Net), "write one as 127.0.2.0/24")
		}
		if lab.RTT.Duration <= 0 || lab.RTT.Duration > 10*time.Second {
			c.fail(key+".rtt", fmt.Sprintf("%s.rtt must be more than 0s and at most 10s", key), "")
		}
	}
	return c.problems
}

func (c *checker) addresses(cfg *Config) {
	bind, err := netip.ParseAddr(cfg.Bind)
	if err != nil {
		c.fail("bind", fmt.Sprintf("bind: %q is not an IP address", cfg.Bind), "for example 127.0.0.1, 10.0.0.5 or 0.0.0.0")
	}
	switch {
	case cfg.Advertise != "":
		host, port, err := net.SplitHostPort(cfg.Advertise)
		if err != nil {
			host = cfg.Advertise
		} else if !validPort(port) {
			c.fail("advertise", fmt.Sprintf("advertise: %q has no port between 1 and 65535", cfg.Advertise), "")
		}
		if ip, err := netip.ParseAddr(host); host == "" || (err == nil && ip.IsUnspecified()) {
			c.fail("advertise", fmt.Sprintf("advertise: other nodes cannot reach %q", cfg.Advertise), "give this machine's own address")
		}
	case err == nil && bind.IsUnspecified():
		c.fail("advertise", "advertise is missing: bind is "+cfg.Bind+", which other nodes cannot dial", "give this machine's own address: advertise = \"10.0.0.5\"")
	}
	if cfg.HTTPBind != "" {
		ip, err := netip.ParseAddr(cfg.HTTPBind)
		switch {
		case err != nil:
			c.fail("http_bind", fmt.Sprintf("http_bind: %q is not an IP address", cfg.HTTPBind), "")
		case !ip.IsLoopback() && !cfg.Insecure && !cfg.API.guarded():
			c.fail("http_bind", fmt.Sprintf("http_bind: %s is not loopback, and the HTTP port asks nobody for a password", cfg.HTTPBind),
				"give [api] a token_file or a client_ca_file; or keep it on 127.0.0.1 and reach it by ssh -L; or give --insecure")
		}
	}
	seen := map[int]string{}
	for _, p := range []struct {
		key  string
		port int
	}{{"ports.postgres", cfg.Ports.Postgres}, {"ports.cluster", cfg.Ports.Cluster}, {"ports.http", cfg.Ports.HTTP}} {
		if p.port < 0 || p.port > 65535 {
			c.fail(p.key, fmt.Sprintf("%s: %d is not a port", p.key, p.port), "ports are 1 to 65535; 0 takes any free one")
		} else if other := seen[p.port]; other != "" && p.port != 0 {
			c.fail(p.key, fmt.Sprintf("%s and %s are both %d", other, p.key, p.port), "give each listener a port of its own")
		}
		seen[p.port] = p.key
	}
}

func (c *checker) clients(cfg *Config) {
	databases := map[string]bool{}
	for i, d := range cfg.Databases {
		key := fmt.Sprintf("databases[%d]", i)
		if c.pgName(key+".name", d.Name); databases[d.Name] {
			c.fail(key+".name", fmt.Sprintf("database %q is listed twice", d.Name), "")
		}
		databases[d.Name] = true
		if d.Name == console.Name {
			c.fail(key+".name", fmt.Sprintf("database %q is the console", d.Name), "clients cannot reach a database of that name through a node")
		}
		if d.Shard != "" {
			c.name(key+".shard", d.Shard)
		}
		for j, region := range d.Regions {
			at := fmt.Sprintf("%s.regions[%d]", key, j)
			if c.name(at, region); slices.Contains(d.Regions[:j], region) {
				c.fail(at, fmt.Sprintf("%s.regions: %q is there twice", key, region), "")
			}
		}
		if d.Pinned && len(d.Regions) == 0 {
			c.fail(key+".pinned", key+".pinned: to which regions?", `name them: regions = ["fra"]`)
		}
		if d.PoolMode != "" {
			c.oneOf(key+".pool_mode", d.PoolMode, poolTransaction, poolSession)
		}
		if d.CrossShardWrites != "" {
			c.oneOf(key+".cross_shard_writes", d.CrossShardWrites, writesRefuse, writesTwoPhase)
		}
		if d.Isolated != "" {
			c.oneOf(key+".isolated", d.Isolated, wire.IsolatedServe.String(), wire.IsolatedRefuseWrites.String(), wire.IsolatedRefuse.String())
		}
		if d.Scatter != "" {
			c.oneOf(key+".scatter", d.Scatter, wire.ScatterAllow.String(), wire.ScatterWarn.String(), wire.ScatterForbid.String())
		}
		if d.ReadConsistency != "" {
			c.oneOf(key+".read_consistency", d.ReadConsistency, wire.Session.String(), wire.Eventual.String(), wire.Primary.String())
		}
	}
	users := map[string]bool{}
	for i, u := range cfg.Users {
		key := fmt.Sprintf("users[%d]", i)
		if c.pgName(key+".name", u.Name); users[u.Name] {
			c.fail(key+".name", fmt.Sprintf("user %q is listed twice", u.Name), "")
		}
		users[u.Name] = true
		c.secret(key, u.SecretRef)
		verifier := u.VerifierEnv != "" || u.VerifierFile != ""
		switch {
		case !u.given() && !verifier:
			c.fail(key+".password_env", fmt.Sprintf("user %q has no password", u.Name), "add password_env or password_file")
		case u.given() && verifier:
			c.fail(key+".verifier_file", fmt.Sprintf("user %q has a password and a verifier", u.Name), "keep one of them")
		case u.VerifierEnv != "" && u.VerifierFile != "":
			c.fail(key+".verifier_file", key+": verifier_env and verifier_file are both given", "keep one of them")
		}
	}
	for i, name := range cfg.Console.Users {
		if !users[name] && len(cfg.HBA) == 0 && cfg.Auth.User == "" { // rules may let in by other means, backends may know him
			c.fail(fmt.Sprintf("console.users[%d]", i), fmt.Sprintf("console.users: nobody can log in as %q", name), "list the user under [[users]] too")
		}
	}
}

func (c *checker) backends(cfg *Config) {
	names, addrs := map[string]bool{}, map[string]string{}
	for i, b := range cfg.Backends {
		key := fmt.Sprintf("backends[%d]", i)
		if c.name(key+".name", b.Name); names[b.Name] {
			c.fail(key+".name", fmt.Sprintf("backend %q is listed twice", b.Name), "backend names are unique in the whole cluster")
		}
		names[b.Name] = true
		if b.Shard == "" {
			c.fail(key+".shard", fmt.Sprintf("backend %q has no shard", b.Name), `say which shard it holds a copy of: shard = "shard_1"`)
		} else {
			c.name(key+".shard", b.Shard)
		}
		c.hostPort(key+".address", b.Address, "host:port of a PostgreSQL server, for example 10.0.0.7:5432")
		if other := addrs[b.Address]; other != "" && b.Address != "" {
			c.fail(key+".address", fmt.Sprintf("backends %q and %q have the same address %s", other, b.Name, b.Address), "")
		}
		addrs[b.Address] = b.Name
		if b.Region != "" {
			c.name(key+".region", b.Region)
		}
	}
	c.secret("probe", cfg.Probe.SecretRef)
	if len(cfg.Backends)+len(cfg.Databases) > 0 && cfg.Probe.User == "" {
		c.fail("probe.user", "probe.user is missing: who looks at the backends?", "name a PostgreSQL user that may connect; it wants pg_read_all_stats, and no right on any table")
	}
	if cfg.Probe.Database == "" {
		c.fail("probe.database", "probe.database is empty", "")
	}
	c.secret("admin", cfg.Admin.SecretRef)
	if cfg.Admin.User == "" && cfg.Admin.given() {
		c.fail("admin.user", "admin has a password but no user", "")
	}
}

// leastWatchdog keeps a healthy node on a busy machine from being ended.
const leastWatchdog = 2 * time.Second

// longestFailoverWait is for operators who promote by hand.
const longestFailoverWait = 10 * time.Minute

func (c *checker) numbers(cfg *Config) {
	positive := func(key string, d Duration) {
		if d.Duration <= 0 {
			c.fail(key, key+" must be more than 0s", "")
		}
	}
	atLeast := func(key string, n, least int) {
		if n < least {
			c.fail(key, fmt.Sprintf("%s must be at least %d, not %d", key, least, n), "")
		}
	}
	if d := cfg.Watchdog.Duration; d > 0 && d < leastWatchdog {
		c.fail("watchdog_timeout", fmt.Sprintf("watchdog_timeout must be at least %s, or 0s", leastWatchdog), "a busy machine may let a process wait for a second")
	}
	if cfg.FailoverWait.Duration > longestFailoverWait {
		c.fail("failover_wait", fmt.Sprintf("failover_wait must be at most %s", longestFailoverWait), "clients give up before that, and their statements would run for nobody")
	}
	positive("probe.interval", cfg.Probe.Interval)
	positive("probe.timeout", cfg.Probe.Timeout)
	atLeast("probe.fall", cfg.Probe.Fall, 1)
	atLeast("probe.rise", cfg.Probe.Rise, 1)
	atLeast("pool.size", cfg.Pool.Size, 1)
	positive("pool.connect_timeout", cfg.Pool.Connect)
	atLeast("pool.budget", cfg.Pool.Budget, 0)
	atLeast("pool.min", cfg.Pool.Min, 0)
	atLeast("pool.standby", cfg.Pool.Standby, 0)
	if cfg.Pool.Min > cfg.Pool.Size {
		c.fail("pool.min", fmt.Sprintf("pool.min is %d, and pool.size only %d", cfg.Pool.Min, cfg.Pool.Size), "")
	}
	for _, d := range []struct {
		key string
		Duration
	}{{"keepalive.idle", cfg.KeepAlive.Idle}, {"keepalive.interval", cfg.KeepAlive.Interval}} {
		if d.Duration.Duration%time.Second != 0 {
			c.fail(d.key, d.key+" must be whole seconds: TCP counts in them", "")
		}
	}
	if cfg.KeepAlive.Idle.Duration > 0 {
		positive("keepalive.interval", cfg.KeepAlive.Interval)
	}
	if cfg.Pool.Prepared != 0 {
		atLeast("pool.prepared", cfg.Pool.Prepared, pool.MinPrepared)
	}
	for _, d := range []struct {
		key string
		n   int
	}{{"reads.load_soft", cfg.Reads.LoadSoft}, {"reads.load_hard", cfg.Reads.LoadHard}} {
		if d.n < 0 || d.n > 100 {
			c.fail(d.key, fmt.Sprintf("%s must be between 0 and 100 percent, not %d", d.key, d.n), "")
		}
	}
	if soft, hard := cfg.Reads.LoadSoft, cfg.Reads.LoadHard; hard > 0 && soft > hard {
		c.fail("reads.load_soft", fmt.Sprintf("reads.load_soft is %d, and reads.load_hard only %d", soft, hard), "")
	}
	atLeast("reads.eject_errors", cfg.Reads.EjectErrors, 0)
	if cfg.Reads.EjectSlow != 0 {
		atLeast("reads.eject_slow", cfg.Reads.EjectSlow, 2)
	}
	if first, longest := cfg.Reads.EjectTime.Duration, cfg.Reads.EjectMax.Duration; longest > 0 && first > longest {
		c.fail("reads.eject_max", fmt.Sprintf("reads.eject_max is %v, and reads.eject_time %v", longest, first), "")
	}
	atLeast("limits.clients", cfg.Limits.Clients, 0)
	atLeast("limits.user_clients", cfg.Limits.UserClients, 0)
	atLeast("limits.database_clients", cfg.Limits.DatabaseClients, 0)
	atLeast("limits.handshakes", cfg.Limits.Handshakes, 0)
	atLeast("limits.logins", cfg.Limits.Logins, 0)
	for i, u := range cfg.Users {
		if u.MaxClients != nil {
			atLeast(fmt.Sprintf("users[%d].max_clients", i), *u.MaxClients, 0)
		}
	}
	for i, d := range cfg.Databases {
		if d.MaxClients != nil {
			atLeast(fmt.Sprintf("databases[%d].max_clients", i), *d.MaxClients, 0)
		}
	}
	positive("limits.startup_timeout", cfg.Limits.StartupTimeout)
	if f := cfg.Limits.Frame.Bytes; f < 1<<10 || f > 1<<30 {
		c.fail("limits.frame", fmt.Sprintf("limits.frame must be between 1KiB and 1GiB, not %s", cfg.Limits.Frame), "")
	}
}

// name checks a word that travels in gossip and the ledger: short, and without surprises in logs and URLs.
func (c *checker) name(key, s string) {
	if s == "" {
		c.fail(key, key+" is missing", "")
		return
	}
	if len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.", r))
	}) {
		c.fail(key, fmt.Sprintf("%s: %q is not a name", key, s), "use up to 64 letters, digits, '-', '_' and '.'")
	}
}

// pgName checks a name that PostgreSQL knows: anything of up to 63 bytes.
func (c *checker) pgName(key, s string) {
	switch {
	case s == "":
		c.fail(key, key+" is missing", "")
	case len(s) > 63 || strings.ContainsRune(s, 0):
		c.fail(key, fmt.Sprintf("%s: PostgreSQL has no names longer than 63 bytes", key), "")
	}
}

func (c *checker) secret(key string, r SecretRef) {
	if r.PasswordEnv != "" && r.PasswordFile != "" {
		c.fail(key+".password_file", key+": password_env and password_file are both given", "keep one of them")
	}
}

func (c *checker) hostPort(key, s, example string) {
	host, port, err := net.SplitHostPort(s)
	switch {
	case s == "":
		c.fail(key, key+" is missing", "give "+example)
	case err != nil || host == "":
		c.fail(key, fmt.Sprintf("%s: %q is not host:port", key, s), "give "+example)
	case !validPort(port):
		c.fail(key, fmt.Sprintf("%s: %q has no port between 1 and 65535", key, s), "give "+example)
	}
}

func (c *checker) oneOf(key, s string, words ...string) {
	for _, w := range words {
		if s == w {
			return
		}
	}
	c.fail(key, fmt.Sprintf("%s: %q is unknown", key, s), "use one of "+strings.Join(words, ", "))
}

func validPort(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= 1 && n <= 65535
}

// exposed returns the first address this node would listen on that is not loopback, or "".
func (cfg *Config) exposed() string {
	for _, s := range []string{cfg.Bind, cfg.httpBind()} {
		if ip, err := netip.ParseAddr(s); err == nil && !ip.IsLoopback() {
			return s
		}
	}
	return ""
}

// httpBind is the address of the HTTP port once the default is filled in.
func (cfg *Config) httpBind() string {
	if cfg.HTTPBind != "" {
		return cfg.HTTPBind
	}
	if ip, err := netip.ParseAddr(cfg.Bind); err == nil && ip.IsLoopback() {
		return cfg.Bind
	}
	return "127.0.0.1"
}
