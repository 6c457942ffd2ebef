package node

import (
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
		p.Users[name] = auth.User{Shadow: pg.NewShadow(name, secret.Reveal()), Credential: pg.Password(secret.Reveal())}
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
