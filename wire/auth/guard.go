package auth

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/wire/pg"
)

// Guard holds the policy in force, and what was learned of users meanwhile. Its methods are safe for concurrent use.
type Guard struct {
	// constant
	ask   Ask
	now   func() time.Time
	turns chan struct{} // capacity maxQuestions: questions that are being asked

	// atomic
	policy atomic.Pointer[inForce]

	// guarded by mu
	mu      sync.Mutex
	listed  map[string]pg.Credential // what logins of listed users have shown, by name
	known   lru[*found]              // users of backends
	unknown lru[*found]              // names that backends did not know
	asked   map[scope]*question      // being asked
	bucket  bucket
	mimic   pg.Shadow // see like
	mimicAt time.Time
}

// inForce is a policy with what follows from it.
type inForce struct {
	*Policy
	mimic pg.Shadow
}

// NewGuard returns a guard that goes by p and asks backends by ask, which may be nil if p has no Query.
func NewGuard(p *Policy, ask Ask) *Guard {
	g := &Guard{ask: ask, now: time.Now, turns: make(chan struct{}, maxQuestions), listed: map[string]pg.Credential{}, asked: map[scope]*question{}}
	g.known.max, g.unknown.max = maxUsers, maxUsers
	g.Set(p)
	return g
}

// Set puts another policy in force: logins that begin from now on go by it, sessions that are there go on. What was learned of users
// is looked up again; keys that a user has shown stay as long as they fit what is kept of his password.
func (g *Guard) Set(p *Policy) {
	g.mu.Lock()
	defer g.mu.Unlock()
	listed := make([]pg.Shadow, 0, len(p.Users))
	for _, u := range p.Users {
		listed = append(listed, u.Shadow)
	}
	g.policy.Store(&inForce{p, most(listed)})
	for name, shown := range g.listed {
		if u, ok := p.Users[name]; !ok || u.Credential.Set() || !u.Shadow.Admits(shown) {
			delete(g.listed, name)
		}
	}
	if p.Query == nil {
		g.known, g.unknown = lru[*found]{max: maxUsers}, lru[*found]{max: maxUsers}
		return
	}
	expire := func(_ scope, f *found) { f.at = time.Time{} }
	g.known.all(expire)
	g.unknown.all(expire)
}

// Policy returns the policy in force, which must not be changed.
func (g *Guard) Policy() *Policy { return g.policy.Load().Policy }

// Rule is pg.AcceptConfig's.
func (g *Guard) Rule(p *pg.Peer) (method string, refusal *pg.Error) { return g.policy.Load().Rule(p) }

// Lookup is pg.AcceptConfig's.
func (g *Guard) Lookup(ctx context.Context, p *pg.Peer) (pg.Shadow, error) {
	policy := g.policy.Load()
	u, listed := policy.Users[p.User]
	var s pg.Shadow
	err := pg.ErrUnknownUser
	switch {
	case listed && u.Shadow.Set():
		return u.Shadow, nil
	case listed:
		err = errors.New("the user is listed without a password, and the rule asks for one")
	case policy.Query != nil:
		s, err = g.find(ctx, policy.Query, p)
	}
	if err != nil {
		s = g.like(policy)
	}
	return s, err
}

// Wrong is pg.AcceptConfig's: somebody's password did not fit. It may have changed: the user is looked up again for the next try, but
// not more than once in doubtAfter.
func (g *Guard) Wrong(p *pg.Peer) {
	if q := g.policy.Load().Query; q != nil {
		g.doubt(scope{p.User, q.database(p.Database)})
	}
}

// Admitted keeps what a login has shown, for backends: of users of whom no password is known here.
func (g *Guard) Admitted(user, database string, shown pg.Credential) {
	if !shown.Set() {
		return
	}
	policy := g.policy.Load()
	g.mu.Lock()
	defer g.mu.Unlock()
	if u, ok := policy.Users[user]; ok {
		if !u.Credential.Set() && u.Shadow.Admits(shown) {
			g.listed[user] = shown
		}
		return
	}
	if policy.Query == nil {
		return
	}
	if f, ok := g.known.get(scope{user, policy.Query.database(database)}); ok && f.shadow.Admits(shown) {
		f.shown = shown
	}
}

// Credential is what a user proves to backends who he is with. Zero: nothing is known of him here.
func (g *Guard) Credential(user, database string) pg.Credential {
	policy := g.policy.Load()
	u, listed := policy.Users[user]
	if u.Credential.Set() {
		return u.Credential
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if listed {
		return g.listed[user]
	}
	if policy.Query == nil {
		return pg.Credential{}
	}
	if f, ok := g.known.get(scope{user, policy.Query.database(database)}); ok {
		return f.shown
	}
	return pg.Credential{}
}

// Asking is what Ask proves to backends who it is with.
func (g *Guard) Asking() pg.Credential {
	if q := g.policy.Load().Query; q != nil {
		return q.Credential
	}
	return pg.Credential{}
}

// Refused tells that a backend did not take what a user has shown. The user is looked up again, at once: what he has shown is dropped
// unless it is still what is kept of his password there. So another password that is on one shard alone, by mistake, closes that
// shard to him and no other.
func (g *Guard) Refused(ctx context.Context, user, database string) {
	policy := g.policy.Load()
	if _, listed := policy.Users[user]; listed || policy.Query == nil {
		return
	}
	p := &pg.Peer{User: user, Database: database}
	g.Wrong(p)
	_, _ = g.find(ctx, policy.Query, p)
}

// Forget looks a user up again before the next login, in whatever database.
func (g *Guard) Forget(user string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	expire := func(s scope, f *found) {
		if s.user == user {
			f.at = time.Time{}
		}
	}
	g.known.all(expire)
	g.unknown.all(expire)
}
