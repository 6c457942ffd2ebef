package wire

import (
	"errors"
	"fmt"

	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// loginRefused is what a client is told whose user a backend did not take as this node proved him to be; nil if err is something
// else.
func loginRefused(err error) *pg.Error {
	var ce *pool.ConnectError
	if !errors.As(err, &ce) || !ce.Login() {
		return nil
	}
	user, who := ce.Identity.User, fmt.Sprintf("Backend %s: %v", ce.Backend, ce.Err)
	switch {
	case errors.Is(err, pg.ErrOtherVerifier):
		return pg.Errorf(pg.CodeInvalidPassword, "%s keeps another password for user \"%s\" than the one that was logged in with", ce.Shard, user).
			WithDetail(who + ".").
			WithHint(fmt.Sprintf("Make all shards alike, then log in again: rangefinder user check %s; rangefinder user copy %[1]s --from SHARD.", user))
	case errors.Is(err, pg.ErrNoPassword):
		return pg.Errorf(pg.CodeInvalidAuthorization, "%s asks user \"%s\" for a password, and this node knows none", ce.Shard, user).
			WithDetail(who + ".").
			WithHint("Give the user a password under [[users]], let him log in by scram-sha-256 once, or let pg_hba.conf of the backends trust this node.")
	case errors.Is(err, pg.ErrPlain):
		return pg.Errorf(pg.CodeInvalidAuthorization, "%s asks for the password of user \"%s\" in clear text, and this node does not tell it", ce.Shard, user).
			WithDetail(who + fmt.Sprintf(". Its address, %s, is known from other nodes alone.", ce.Addr)).
			WithHint("List the backend under [[backends]] of this node, or set backend_tls.mode = \"verify-full\" and its ca_file, or let pg_hba.conf of the backend ask for scram-sha-256.")
	case errors.Is(err, pg.ErrWrongKind):
		return pg.Errorf(pg.CodeInvalidAuthorization, "%s asks user \"%s\" for a proof of the password that this node cannot give", ce.Shard, user).
			WithDetail(who + ".").
			WithHint("What a login shows is good for backends that keep the same of the password, and whose pg_hba.conf asks for it: scram-sha-256, or md5. Or give the user a password under [[users]].")
	}
	return pg.Errorf(pg.CodeInvalidPassword, "%s does not take the password of user \"%s\"", ce.Shard, user).
		WithDetail(who + ".").
		WithHint("The password that this node knows is not the one that the shard keeps: see under [[users]], and rangefinder user check.")
}

// misbehaved is what a client is told whose backend does not do what a server does at a login, or says that this node does not: the client has no
// part in that. nil if err is something else.
func misbehaved(backend string, err error) *pg.Error {
	var pe *pg.Error
	switch {
	case errors.As(err, &pe) && pe.Code == pg.CodeProtocolViolation:
	case pe == nil && (errors.Is(err, pg.ErrGarbled) || errors.Is(err, pg.ErrAuthentication)):
	default:
		return nil
	}
	return pg.NewError(pg.CodeConnectionFailure, "backend "+backend+" cannot be logged in to").
		WithDetail("The login ended with: " + err.Error() + ".").
		WithHint("Nothing was sent: the statement can be tried again. Is it PostgreSQL that listens there, and does its pg_hba.conf ask for a password by a method that is known here?")
}
