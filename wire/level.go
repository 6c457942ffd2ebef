package wire

import (
	"slices"
	"time"

	"rangefinder/wire/pool"
	"rangefinder/wire/sqlkey"
)

// A hot standby runs no statement in a transaction that is serializable, not even one that sets another default. So such transactions, and sessions
// that are so by default, are on primaries, and what may make a session so as well.

const (
	serializable     = "serializable"
	defaultIsolation = "default_transaction_isolation"
)

// shuns reports whether a read is not for the connection that was got for it: its server is a hot standby that takes none, as its own file has
// them serializable, or what ALTER ROLE has set since the session began. So the read goes on to the next candidate.
func (c *core) shuns(conn *pool.Conn) bool { return !c.need.write && conn.Strict && conn.Standby() }

// outgrown reports whether such a connection is to be closed: what its server says by default may be something else by now.
func outgrown(conn *pool.Conn) bool { return time.Since(conn.Connected) > keepFresh }

// defaultLevel is the isolation of the session's transactions that do not say another one; "": read committed.
func (c *core) defaultLevel() string {
	if c.settings.level != "" {
		return c.settings.level
	}
	return c.freshLevel
}

// serializable reports whether what the session sends now is, or may be, in a transaction that is serializable.
func (c *core) serializable() bool {
	return c.tx.isolation == serializable || c.defaultLevel() == serializable
}

// setsLevel reports whether a statement sets, or may set, the isolation of the session's transactions.
func (c *core) setsLevel(plan *sqlkey.Plan) bool {
	switch {
	case plan.Session == sqlkey.SessNone:
		return false
	case plan.Session == sqlkey.SessReset:
		return c.base.level == serializable || c.freshLevel == serializable
	case plan.Setting == defaultIsolation:
		return true
	}
	return slices.ContainsFunc(plan.Sets, func(a sqlkey.Assignment) bool { return a.Name == defaultIsolation || a.NameParam > 0 }) ||
		slices.ContainsFunc(plan.Parts, c.setsLevel)
}
