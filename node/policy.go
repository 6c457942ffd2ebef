package node

import (
	"context"
	"fmt"

	"rangefinder/wire/auth"
	"rangefinder/wire/pg"
)

// newPolicy makes what a checked configuration says about who may come in. It takes about a millisecond for each password that is
// not what it was in old; old may be nil.
func newPolicy(cfg *Config, secrets Secrets, old *setup) *auth.Policy {
	p := &auth.Policy{Users: make(map[string]auth.User, len(cfg.Users))}
	for _, h := range cfg.HBA {
		if r, err := h.rule(); err == nil { // checked before
			p.Rules = append(p.Rules, r)
		}
	}
	for name, secret := range secrets.Users {
		if old != nil && old.secrets.Users[name] == secret {
			p.Users[name] = old.policy.Users[name] // its salt is what clients have seen
			continue
		}
		p.Users[name] = auth.User{Shadow: pg.NewShadow(name, secret.Reveal(), secrets.salts()), Credential: pg.Password(secret.Reveal())}
	}
	for name, secret := range secrets.Verifiers {
		if s, err := pg.ParseShadow(secret.Reveal()); err == nil { // checked before
			p.Users[name] = auth.User{Shadow: s}
		}
	}
	if cfg.Auth.User != "" {
		p.Query = &auth.Query{
			User: cfg.Auth.User, Credential: pg.Password(secrets.Auth.Reveal()), SQL: cfg.Auth.Query, Database: cfg.Auth.Database,
			Lifetime: cfg.Auth.Lifetime.Duration, Timeout: cfg.Auth.Timeout.Duration,
		}
		for _, d := range cfg.Databases {
			p.Query.Databases = append(p.Query.Databases, d.Name)
		}
	}
	return p
}

// warnPolicy says loudly whom the rules let in without asking for anything.
func (n *Node) warnPolicy(s *setup) {
	for i := range s.policy.Rules {
		if s.policy.Rules[i].Open() {
			h := s.cfg.HBA[i]
			n.log.Warn(fmt.Sprintf("hba[%d] trusts whoever connects from beyond this machine", i), "databases", h.Databases, "users", h.Users, "address", h.Address)
		}
	}
}

// setPolicy puts a policy in force. What went wrong with the old one is over.
func (n *Node) setPolicy(p *auth.Policy) {
	n.guard.Set(p)
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.alarms, lookupAlarm)
}

// lookupAlarm is the subject of the alarm that users cannot be looked up.
const lookupAlarm = "auth"

// askStored asks a backend what it keeps of a user's password. That nobody can be asked is an alarm, until somebody can.
func (n *Node) askStored(ctx context.Context, q *auth.Query, database, user string) (stored string, found bool, err error) {
	stored, found, err = n.server.AskStored(ctx, q, database, user) // the server is there since before anybody could ask
	outcome := lookupUnknown
	switch {
	case err != nil:
		outcome = lookupFailed
	case found:
		outcome = lookupFound
	}
	n.metrics.LookedUp(outcome)
	n.mu.Lock()
	defer n.mu.Unlock()
	_, alarmed := n.alarms[lookupAlarm]
	switch {
	case err != nil && !alarmed:
		n.log.Warn("users cannot be looked up", "error", err)
		fallthrough
	case err != nil:
		n.alarms[lookupAlarm] = "users who are not listed cannot log in: " + err.Error()
	case alarmed:
		delete(n.alarms, lookupAlarm)
		n.log.Info("users can be looked up again")
	}
	return stored, found, err
}
