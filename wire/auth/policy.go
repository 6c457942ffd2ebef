package auth

import "rangefinder/wire/pg"

// Policy is what the configuration says about who may come in. It is not changed once it is in use.
type Policy struct {
	Rules []Rule          // empty: SCRAM-SHA-256 for everybody
	Users map[string]User // by name
}

// User is somebody whom the configuration lists.
type User struct {
	Shadow pg.Shadow // by which a login is checked; zero: not by a password
	// Credential is what backends are met with. Zero: with what the user's own logins at this node have shown.
	Credential pg.Credential
}
