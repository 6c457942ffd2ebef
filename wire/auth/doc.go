// Package auth decides who may come in, and what a session proves to the backends who its user is.
//
// A Policy is what the configuration says: rules as in pg_hba.conf, the users that are listed, and a query for those who are not.
// It is immutable; a Guard holds the one in force behind an atomic pointer, so that a reload swaps it whole, and beside it what
// is learned while the node runs: the answers of backends about users, and the keys that logins have shown.
//
// It knows wire/pg and nothing else: how a backend is asked is a function that it is given. Secrets come in as values that print as
// nothing, and stay that.
package auth
