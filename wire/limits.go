package wire

import (
	"fmt"
	"net"
	"sync"

	"rangefinder/wire/pg"
)

// Limits bounds what clients may do. It is not changed once it is in use: see Live. Zero is
// always: no limit.
type Limits struct {
	Clients    int            // logged in at a time
	User       int            // of one user
	Users      map[string]int // of these users instead
	Database   int            // of one database
	Databases  map[string]int // of these databases instead
	Handshakes int            // connections that have not logged in yet: beyond it the oldest one is closed
	Logins     int            // a second from one address

	KeepAlive net.KeepAliveConfig // of client connections

	Timeouts         Timeouts            // of all sessions
	DatabaseTimeouts map[string]Timeouts // of these databases' instead
}

// Refusal is a kind of limit that a client has met.
type Refusal string

// The kinds, as metrics name them.
const (
	RefusedClients   Refusal = "clients"
	RefusedUser      Refusal = "user"
	RefusedDatabase  Refusal = "database"
	RefusedHandshake Refusal = "handshakes" // closed, for a newer one to have its place
	RefusedLogin     Refusal = "logins"

	RefusedStatement Refusal = "statement_timeout"
	RefusedIdle      Refusal = "idle_timeout"
	RefusedInBlock   Refusal = "idle_in_transaction_timeout"

	RefusedWait     Refusal = "pool_wait"     // no server connection came free in time
	RefusedFailover Refusal = "failover_wait" // no primary was there in time
)

// Refusals are all kinds.
func Refusals() []Refusal {
	return []Refusal{RefusedClients, RefusedUser, RefusedDatabase, RefusedHandshake, RefusedLogin, RefusedStatement, RefusedIdle, RefusedInBlock, RefusedWait, RefusedFailover}
}

// operatorReserve is how many clients of the console are let in beyond Limits.Clients: when a node is full, somebody must be able
// to look.
const operatorReserve = 5

// refusedBy counts a refusal.
func (s *Server) refusedBy(kind Refusal) { s.cfg.Metrics.Limited(kind) }

// seats counts the clients that are logged in.
type seats struct {
	// guarded by mu
	mu        sync.Mutex
	all       int            // of the console too
	users     map[string]int // without those of the console
	databases map[string]int
}

// full is the error for a client that finds no seat whoever it is; nil: there is one.
func (s *seats) full(l *Limits, reserve int) *pg.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.noSeat(l, reserve)
}

func (s *seats) noSeat(l *Limits, reserve int) *pg.Error {
	if l.Clients == 0 || s.all < l.Clients+reserve {
		return nil
	}
	return pg.NewError(pg.CodeTooManyConnections, "sorry, too many clients already").
		WithDetail(fmt.Sprintf("%d clients are logged in to this node, and limits.clients is %d.", s.all, l.Clients)).
		WithHint("Close connections that are not used, or raise limits.clients.")
}

// take gives a client its seat, or says why not. Whoever got one calls leave.
func (s *seats) take(l *Limits, user, database string) (Refusal, *pg.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.noSeat(l, 0); e != nil {
		return RefusedClients, e
	}
	if most, own := limitOf(user, l.Users, l.User); most > 0 && s.users[user] >= most {
		return RefusedUser, pg.Errorf(pg.CodeTooManyConnections, "too many connections for role %q", user).
			WithDetail(fmt.Sprintf("The user has %d sessions on this node, and may have %d.", s.users[user], most)).
			WithHint("Close connections that are not used, or raise " + own.key("[[users]]", "user_clients") + ".")
	}
	if most, own := limitOf(database, l.Databases, l.Database); most > 0 && s.databases[database] >= most {
		return RefusedDatabase, pg.Errorf(pg.CodeTooManyConnections, "too many connections for database %q", database).
			WithDetail(fmt.Sprintf("It has %d sessions on this node, and may have %d.", s.databases[database], most)).
			WithHint("Close connections that are not used, or raise " + own.key("[[databases]]", "database_clients") + ".")
	}
	s.all++
	s.users[user]++
	s.databases[database]++
	return "", nil
}

func (s *seats) leave(user, database string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	less(s.users, user)
	less(s.databases, database)
}

// takeOperator is take for the console: nothing but the reserve bounds it.
func (s *seats) takeOperator(l *Limits) *pg.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.noSeat(l, operatorReserve); e != nil {
		return e
	}
	s.all++
	return nil
}

func (s *seats) leaveOperator() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
}

// less keeps no entry for whom nobody is left.
func less(m map[string]int, key string) {
	if m[key]--; m[key] == 0 {
		delete(m, key)
	}
}

// isOwn says whether a limit was set for this user or database alone.
type isOwn bool

// key names what to change in the configuration.
func (own isOwn) key(table, common string) string {
	if own {
		return "max_clients in " + table
	}
	return "limits." + common
}

func limitOf(name string, own map[string]int, common int) (int, isOwn) {
	if n, ok := own[name]; ok {
		return n, true
	}
	return common, false
}
