package rib

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Role is PostgreSQL's role, as the server itself states it (pg_is_in_recovery).
type Role uint8

// The roles. A backend that no observer has reached yet has RoleUnknown.
const (
	RoleUnknown Role = iota
	Primary
	Replica
)

// State is one observer's verdict on one backend.
type State uint8

// The states. Withdrawn is a tombstone: the observer no longer watches the backend.
const (
	StateUnknown State = iota
	Up
	Down
	Withdrawn
)

// Stamp orders what one observer says: the larger (Incarnation, Seq) wins. No clock takes part.
type Stamp struct {
	Incarnation uint32 // boots of the observer, counted on its disk
	Seq         uint64 // statements of that boot
}

// Compare returns -1, 0 or +1 as s is older than, the same as, or newer than o.
func (s Stamp) Compare(o Stamp) int {
	if c := cmp.Compare(s.Incarnation, o.Incarnation); c != 0 {
		return c
	}
	return cmp.Compare(s.Seq, o.Seq)
}

// Backend is what an announcer says one PostgreSQL server is.
type Backend struct {
	Name     string
	Shard    string
	Region   string
	Addr     string // host:port
	SystemID uint64 // PostgreSQL's system identifier; 0 until first reached
}

// at tells whether that is said of the same place: a server there may have been reached before.
func (b *Backend) at(o *Backend) bool {
	return b.Shard == o.Shard && b.Region == o.Region && b.Addr == o.Addr
}

// Announcement makes a backend known to the cluster. The node that lists the backend is its author.
type Announcement struct {
	Backend  Backend
	Observer string // the announcing node's name
	Stamp    Stamp
	Gone     bool // withdrawn by its author
}

// LoadClass is how busy a backend is: a class, so that it rarely changes.
type LoadClass uint8

// The load classes.
const (
	LoadBelow LoadClass = iota
	LoadBetween
	LoadAtLimit
)

// LagUnknown is the Lag of a replica that could not tell how far it is behind.
const LagUnknown = time.Duration(-1)

// Route is what one observer believes about one backend.
type Route struct {
	Backend  string
	Observer string
	Stamp    Stamp
	State    State
	Role     Role
	Timeline uint32        // PostgreSQL's timeline, 0 if unknown
	Latency  time.Duration // of the observer's probe, smoothed
	Lag      time.Duration // a replica's replay lag; 0 on a primary; LagUnknown
	LagBytes int64         // WAL that a replica has still to replay; 0 on a primary; LagBytesUnknown
	Load     LoadClass
}

// Member is one live node of the cluster.
type Member struct {
	Name        string
	Region      string
	Addr        string // cluster port, host:port
	Incarnation uint32
}

var (
	roleNames  = [...]string{"unknown", "primary", "replica"}
	stateNames = [...]string{"unknown", "up", "down", "withdrawn"}
	loadNames  = [...]string{"below", "between", "at limit"}
)

func nameOf(names []string, i uint8) string {
	if int(i) < len(names) {
		return names[i]
	}
	return "invalid"
}

// String is the role in PostgreSQL's words.
func (r Role) String() string { return nameOf(roleNames[:], uint8(r)) }

// String is the state in lower case.
func (s State) String() string { return nameOf(stateNames[:], uint8(s)) }

// String is the class in lower case.
func (l LoadClass) String() string { return nameOf(loadNames[:], uint8(l)) }

// MarshalText makes a Role its name in JSON.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// MarshalText makes a State its name in JSON.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalText makes a LoadClass its name in JSON.
func (l LoadClass) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is MarshalText's inverse.
func (r *Role) UnmarshalText(b []byte) error { return byNameOf(roleNames[:], b, (*uint8)(r)) }

// UnmarshalText is MarshalText's inverse.
func (s *State) UnmarshalText(b []byte) error { return byNameOf(stateNames[:], b, (*uint8)(s)) }

// UnmarshalText is MarshalText's inverse.
func (l *LoadClass) UnmarshalText(b []byte) error { return byNameOf(loadNames[:], b, (*uint8)(l)) }

func byNameOf(names []string, b []byte, v *uint8) error {
	i := slices.Index(names, string(b))
	if i < 0 {
		return fmt.Errorf("rib: %.20q is none of %v", b, names)
	}
	*v = uint8(i)
	return nil
}
