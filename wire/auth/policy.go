package auth

import (
	"slices"
	"time"

	"rangefinder/wire/pg"
)

// Policy is what the configuration says about who may come in. It is not changed once it is in use.
type Policy struct {
	Rules []Rule          // empty: SCRAM-SHA-256 for everybody
	Users map[string]User // by name
	Query *Query          // nil: nobody but these
}

// User is somebody whom the configuration lists.
type User struct {
	Shadow pg.Shadow // by which a login is checked; zero: not by a password
	// Credential is what backends are met with. Zero: with what the user's own logins at this node have shown.
	Credential pg.Credential
}

// Query is how users are found whom the configuration does not list: a backend is asked.
type Query struct {
	User       string // who asks, a user of the backends
	Credential pg.Credential
	SQL        string        // $1 is the name; one row of name and stored password, or none
	Database   string        // where; "": in the database that the client names
	Databases  []string      // that clients may name; another one counts as the first
	Lifetime   time.Duration // how long an answer holds
	Timeout    time.Duration // of one question, with the wait for its turn
}

// database is where a user is looked up: one of few, whatever a stranger names.
func (q *Query) database(named string) string {
	switch {
	case q.Database != "":
		return q.Database
	case slices.Contains(q.Databases, named) || len(q.Databases) == 0:
		return named
	}
	return q.Databases[0]
}

// most is one of the kind that most are of: what an exchange with somebody unknown is to look like.
func most(all []pg.Shadow) (like pg.Shadow) {
	kinds := map[string]int{}
	for _, s := range all {
		if kind := s.String(); s.Set() {
			if kinds[kind]++; kinds[kind] > kinds[like.String()] {
				like = s
			}
		}
	}
	return like
}
