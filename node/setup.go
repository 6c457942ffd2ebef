package node

import (
	"crypto/tls"
	"slices"
	"time"

	"rangefinder/gossip/probe"
	"rangefinder/wire"
	"rangefinder/wire/auth"
	"rangefinder/wire/sqlkey"
)

// setup is one configuration, and what is made of it before any part of the node hears of it: files read, keys derived. It is
// immutable. A reload makes another one, or fails and changes nothing.
type setup struct {
	cfg     Config
	secrets Secrets
	tls     *clientTLS // nil: clients have none
	backend *backendTLS
	api     *clientTLS // of the HTTP port; nil: clear text
	policy  *auth.Policy
}

// cfg is the configuration in force. Whoever looks at several keys that belong together holds on to one.
func (n *Node) cfg() *Config { return &n.setup.Load().cfg }

// newSetup checks a configuration and makes a setup of it. Every mistake is in the error, a *ConfigError but for the refusal to
// listen without a cluster key. old is what is in force; nil at the start.
func newSetup(cfg Config, o Options, old *setup) (*setup, error) {
	s := &setup{cfg: cfg}
	c := &checker{at: cfg.from.at, problems: cfg.check(cfg.from.at)}
	var warnings []string
	s.secrets, warnings = cfg.readSecrets(o.Getenv, c)
	for _, w := range warnings {
		o.Logger.Warn(w)
	}
	var err error
	if !c.failed("tls") {
		if s.tls, err = newClientTLS(cfg.TLS, o.Logger, time.Now); err != nil {
			c.failure("tls.cert_file", err)
		}
	}
	if !c.failed("api") {
		api := TLS{CertFile: cfg.API.CertFile, KeyFile: cfg.API.KeyFile, ClientCAFile: cfg.API.ClientCAFile}
		if s.api, err = newServerTLS(api, "callers of the API", "api", "http/1.1", o.Logger, time.Now); err != nil {
			c.failure("api.cert_file", err)
		}
	}
	if !c.failed("backend_tls") {
		if s.backend, err = newBackendTLS(cfg.BackendTLS, o.Logger, time.Now); err != nil {
			c.failure("backend_tls.ca_file", err)
		}
	}
	if len(c.problems) > 0 {
		return nil, &ConfigError{File: cfg.from.file, Problems: c.problems}
	}
	if err := cfg.checkExposure(s.secrets.ClusterKey); err != nil {
		return nil, err
	}
	s.policy = newPolicy(&cfg, s.secrets, old)
	return s, nil
}

// serverLive is what the Postgres port takes of a setup.
func (n *Node) serverLive(s *setup) wire.Live {
	consistency := make(map[string]wire.Consistency, len(s.cfg.Databases))
	across, scatter := make(map[string]bool, len(s.cfg.Databases)), make(map[string]wire.Scatter, len(s.cfg.Databases))
	isolated := make(map[string]wire.Isolated, len(s.cfg.Databases))
	for _, d := range s.cfg.Databases {
		isolated[d.Name], _ = wire.ParseIsolated(d.Isolated) // likewise
		consistency[d.Name], across[d.Name] = d.consistency(), d.CrossShardWrites == writesTwoPhase
		scatter[d.Name], _ = wire.ParseScatter(d.Scatter) // checked; nothing is ScatterAllow
	}
	return wire.Live{
		Databases: s.cfg.databaseRules(), Consistency: consistency, Across: across, Isolated: isolated,
		Scatter: scatter, QueryMemory: s.cfg.Scatter.QueryMemory.Bytes, ScatterMemory: s.cfg.Scatter.Memory.Bytes,
		Limits: s.cfg.clientLimits(), MaxFrame: int(s.cfg.Limits.Frame.Bytes), StartupTimeout: s.cfg.Limits.StartupTimeout.Duration,
		TLS: s.tls.serverConfig(func() bool { return len(s.policy.Rules) > 0 }), RequireTLS: s.cfg.TLS.Require, Console: n.consoleConfig(&s.cfg),
		FailoverWait: s.cfg.FailoverWait.Duration,
	}
}

// databaseRules says how each database is served: among the rest where its tables are that no keyspace names.
func (cfg *Config) databaseRules() map[string]sqlkey.DatabaseRule {
	rules := make(map[string]sqlkey.DatabaseRule, len(cfg.Databases))
	for _, d := range cfg.Databases {
		rules[d.Name] = sqlkey.DatabaseRule{Shard: d.Shard, OwnConnections: d.PoolMode == poolSession}
	}
	return rules
}

// consistency is what reads of the database must see, unless a session says otherwise.
func (l *Listing) consistency() wire.Consistency {
	c, _ := wire.ParseConsistency(l.ReadConsistency) // checked; nothing is Session
	return c
}

// probes is what the prober takes of a setup.
func (s *setup) probes() probe.Settings {
	p := s.cfg.Probe
	out := probe.Settings{
		User: p.User, Password: s.secrets.Probe.Reveal(), Database: p.Database,
		Interval: p.Interval.Duration, Timeout: p.Timeout.Duration, Fall: p.Fall, Rise: p.Rise,
		Soft: s.cfg.Reads.LoadSoft, Hard: s.cfg.Reads.LoadHard,
	}
	for _, b := range s.cfg.Backends {
		region := b.Region
		if region == "" {
			region = s.cfg.Region
		}
		out.Backends = append(out.Backends, probe.Target{Name: b.Name, Shard: b.Shard, Region: region, Addr: b.Address})
	}
	return out
}

// tellsPlain says whether the backend at addr may be told a password in clear text, should it ask for it so: an address that only
// other nodes have named may be anybody's.
func (n *Node) tellsPlain(addr string) bool {
	s := n.setup.Load()
	return s.backend.verifies() || slices.ContainsFunc(s.cfg.Backends, func(b Backend) bool { return b.Address == addr })
}

// backendTLS is for one new connection to the backend at addr; nil: clear text.
func (n *Node) backendTLS(addr string) *tls.Config { return n.setup.Load().backend.config(addr) }
