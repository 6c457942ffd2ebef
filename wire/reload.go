package wire

import (
	"crypto/tls"
	"maps"
	mrand "math/rand/v2"
	"time"

	"rangefinder/wire/console"
	"rangefinder/wire/oids"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// Live is the part of a server's configuration that Reload replaces while it serves; the Guard has a part of its own. It is not changed once it is handed over.
type Live struct {
	Databases      map[string]sqlkey.DatabaseRule // by the name that clients connect to
	Limits         Limits                         // who is there already stays, also beyond them
	MaxFrame       int                            // bytes of one message, of clients that log in from now on
	StartupTimeout time.Duration                  // for the whole handshake
	Consistency    map[string]Consistency         // of reads, by database; those not in it: Session. Sessions that go on follow it too
	Scatter        map[string]Scatter             // what becomes of statements on several shards, by database; those not in it: ScatterAllow. Sessions that go on follow it too
	QueryMemory    int64                          // bytes that one statement over several shards may keep of its rows; 0: no limit
	ScatterMemory  int64                          // bytes that all of them may keep; 0: no limit
	Isolated       map[string]Isolated            // what databases get of this node while it has no lease. Sessions that go on follow it too
	Across         map[string]bool                // databases whose transactions may write on several shards. Sessions that go on follow it too
	TLS            func() *tls.Config             // see pg.AcceptConfig
	RequireTLS     bool                           // see pg.AcceptConfig
	Console        ConsoleConfig
	FailoverWait   time.Duration // how long a request waits for its shard's next primary, from when it came; 0: not at all
}

// live is a Live, and what the server makes of it. It is immutable. Logins and whatever takes several looks hold on to one.
type live struct {
	Live
	accept *pg.AcceptConfig
	env    env
	rules  map[string]sqlkey.DatabaseRule // Databases, and the removed ones: sessions may still be on them

	dependents map[string][]sqlkey.Dependent // see SetDependents
}

// Reload puts another configuration in force: for every login from now on, and for statements as far as databases are
// concerned. Sessions go on, also those of users and databases that are not there any more.
func (s *Server) Reload(next Live) {
	l := &live{Live: next, rules: make(map[string]sqlkey.DatabaseRule)}
	l.accept = &pg.AcceptConfig{
		Rule: s.cfg.Guard.Rule, Lookup: s.cfg.Guard.Lookup, Wrong: s.cfg.Guard.Wrong, Timeout: next.StartupTimeout, TLS: next.TLS, RequireTLS: next.RequireTLS,
		MaxMinor: newestMinor, Hold: true, SaltSecret: s.salts, Login: s.mayLogIn, Begun: s.begins, Admit: s.mayTry,
	}
	l.env = env{
		fib: s.cfg.FIB, planner: s.cfg.Planner, catalog: s.catalogFor, metrics: s.cfg.Metrics,
		recheck: s.cfg.Recheck, explain: s.cfg.Explain, unique: s.cfg.Unique, defines: s.cfg.Defined != nil, positions: s.cfg.Positions,
		types: &s.types, learns: s.cfg.Learn != nil,
		moves: s.cfg.Moves, heat: s.cfg.Heat, leased: s.cfg.Leased, alone: s.cfg.Alone, fenced: s.cfg.Fenced, zone: isZone,
		made: s.made, now: func() time.Duration { return time.Since(s.made) + 1 }, random: mrand.Uint32, maxFrame: next.MaxFrame,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.live.Load(); old != nil {
		l.rules, l.dependents = maps.Clone(old.rules), old.dependents
	}
	maps.Copy(l.rules, next.Databases)
	for name := range l.rules {
		if s.gates[name] == nil {
			s.gates[name], s.ended[name] = new(gate), new(console.Totals)
		}
		s.gates[name].consistency.Store(uint32(next.Consistency[name]))
		s.gates[name].across.Store(next.Across[name])
		s.gates[name].isolated.Store(uint32(next.Isolated[name]))
		s.gates[name].scatter.Store(uint32(next.Scatter[name]))
		if _, ok := l.Databases[name]; !ok {
			s.unsuspend(name, s.gates[name]) // nobody could RESUME it any more
		}
	}
	s.scattered.Memory.SetLimits(next.QueryMemory, next.ScatterMemory)
	s.live.Store(l)
	for _, own := range s.listeners {
		if own != nil {
			setInherited(own, l.Limits.KeepAlive)
		}
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
	clear(s.proven)
	clear(s.fresh) // whom backends let in may have changed with a password
}

// SetDependents says which relations depend on sharded tables, by database: statements that name them are refused from now on. The map
// is kept, and must not be changed any more.
func (s *Server) SetDependents(dependents map[string][]sqlkey.Dependent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := *s.live.Load()
	next.dependents = dependents
	s.live.Store(&next) // a statement looks at one pointer, not at two
}

// SetTypes says what is known of the types of databases that have several shards, by database. The map is kept, and must not be changed any more.
func (s *Server) SetTypes(types map[string]*oids.Database) { s.types.Store(&types) }

// gateOf returns the gate of a database that is configured, or was.
func (s *Server) gateOf(name string) *gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gates[name]
}
