package wire

import (
	"time"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// Scatter is what becomes of a statement that is run on several shards because nothing binds it to one.
type Scatter uint32

// The policies.
const (
	ScatterAllow  Scatter = iota // it runs
	ScatterWarn                  // it runs, and the log tells of it
	ScatterForbid                // it is refused
)

var scatters = [...]string{"allow", "warn", "forbid"}

func (s Scatter) String() string { return scatters[s] }

// ParseScatter reads one by its name.
func ParseScatter(name string) (Scatter, bool) {
	return byName[Scatter](scatters[:], name)
}

// Scatter is scatter.Host's.
func (h *host) Scatter(plan *sqlkey.Plan, sql string, shards int) *pg.Error {
	c := h.core()
	fan := plan.Fan
	if shards < 2 || fan.Everywhere || fan.Split != nil || fan.Copy != nil {
		return nil
	}
	policy := c.own.scatter()
	if policy == ScatterForbid {
		c.env.metrics.Refused(pg.CodeFeatureNotSupported)
		return Forbidden(plan)
	}
	c.env.metrics.Scattered(shards)
	if policy == ScatterWarn {
		h.server.warnOfScatter(h.id.Database, h.id.User, sql, shards)
	}
	return nil
}

// Forbidden is the error for a statement that would run on several shards where that is forbidden. Explanations say the same.
func Forbidden(plan *sqlkey.Plan) *pg.Error {
	return pg.NewError(pg.CodeFeatureNotSupported, "the statement would run on several shards, which is forbidden").
		WithDetail("Why it needs them: " + plan.Fan.Why + ".").
		WithHint("Bind it to one shard by its key, or SET rangefinder.scatter = 'allow'.")
}

// warnOfScatter has the log tell of a statement, unless it has just been told of another.
func (s *Server) warnOfScatter(database, user, sql string, shards int) {
	others, due := s.scatterLog.due(time.Since(s.made))
	if !due {
		return
	}
	s.log.Warn("a statement ran on several shards", "database", database, "user", user, "shards", shards, "statement", s.cfg.Planner.Form(sql), "others", others)
}
