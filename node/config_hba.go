package node

import (
	"errors"
	"fmt"
	"strings"

	"rangefinder/wire/auth"
	"rangefinder/wire/pg"
)

// rule is a rule as package auth has it.
func (h HBA) rule() (auth.Rule, error) {
	return auth.ParseRule(h.Connection, h.Databases, h.Users, h.Address, h.Method)
}

// hba checks who may come in how.
func (c *checker) hba(cfg *Config) {
	for i, h := range cfg.HBA {
		key := fmt.Sprintf("hba[%d]", i)
		r, err := h.rule()
		var bad *auth.RuleError
		if errors.As(err, &bad) {
			c.fail(key+"."+bad.Field, key+"."+bad.Field+": "+bad.Text, bad.Hint)
			continue
		}
		for j, name := range r.Databases {
			c.pgName(fmt.Sprintf("%s.databases[%d]", key, j), name)
		}
		for j, name := range r.Users {
			c.pgName(fmt.Sprintf("%s.users[%d]", key, j), name)
		}
		switch {
		case r.Method == pg.MethodCert && cfg.TLS.ClientCAFile == "":
			c.fail(key+".method", key+".method: cert needs authorities that sign clients' certificates", "give tls.client_ca_file")
		case r.Connection == auth.Encrypted && cfg.TLS.CertFile == "":
			c.fail(key+".connection", key+".connection: hostssl matches nobody without TLS", "give tls.cert_file and tls.key_file")
		}
	}
}

// auth checks how users are found that are not listed.
func (c *checker) auth(cfg *Config) {
	a := cfg.Auth
	c.secret("auth", a.SecretRef)
	if a.User == "" {
		if a.given() || a.Database != "" || a.Query != defaultAuthQuery {
			c.fail("auth.user", "auth.user is missing: who asks the backends?", "name a PostgreSQL user that may run auth.query")
		}
		return
	}
	c.pgName("auth.user", a.User)
	if a.Database != "" {
		c.pgName("auth.database", a.Database)
	}
	if !strings.Contains(a.Query, "$1") {
		c.fail("auth.query", "auth.query does not ask about anybody", "write $1 where the user's name belongs")
	}
	if a.Lifetime.Duration <= 0 {
		c.fail("auth.lifetime", "auth.lifetime must be more than 0s", "")
	}
	if a.Timeout.Duration <= 0 {
		c.fail("auth.timeout", "auth.timeout must be more than 0s", "")
	}
}
