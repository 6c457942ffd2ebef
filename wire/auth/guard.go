package auth

import (
	"context"
	"errors"
	"sync/atomic"

	"rangefinder/wire/pg"
)

// Guard holds the policy in force. Its methods are safe for concurrent use.
type Guard struct {
	// atomic
	policy atomic.Pointer[Policy]
}

// NewGuard returns a guard that goes by p.
func NewGuard(p *Policy) *Guard {
	g := new(Guard)
	g.Set(p)
	return g
}

// Set puts another policy in force: logins that begin from now on go by it, sessions that are there go on.
func (g *Guard) Set(p *Policy) { g.policy.Store(p) }

// Policy returns the policy in force, which must not be changed.
func (g *Guard) Policy() *Policy { return g.policy.Load() }

// Rule is pg.AcceptConfig's.
func (g *Guard) Rule(p *pg.Peer) (method string, refusal *pg.Error) { return g.policy.Load().Rule(p) }

// Lookup is pg.AcceptConfig's.
func (g *Guard) Lookup(_ context.Context, p *pg.Peer) (pg.Shadow, error) {
	u, ok := g.policy.Load().Users[p.User]
	switch {
	case !ok:
		return pg.Shadow{}, pg.ErrUnknownUser
	case !u.Shadow.Set():
		return pg.Shadow{}, errors.New("the user is listed without a password, and the rule asks for one")
	}
	return u.Shadow, nil
}

// Credential is what a user proves to backends who he is with. Zero: nothing is known of him here.
func (g *Guard) Credential(user, _ string) pg.Credential {
	return g.policy.Load().Users[user].Credential
}
