package node

import "rangefinder/wire"

// clientLimits is the part of the configuration that bounds clients.
func (cfg *Config) clientLimits() wire.Limits {
	l := wire.Limits{
		Clients: cfg.Limits.Clients, User: cfg.Limits.UserClients, Database: cfg.Limits.DatabaseClients,
		Handshakes: cfg.Limits.Handshakes, Logins: cfg.Limits.Logins,
		Users: map[string]int{}, Databases: map[string]int{},
	}
	for _, u := range cfg.Users {
		if u.MaxClients != nil {
			l.Users[u.Name] = *u.MaxClients
		}
	}
	for _, d := range cfg.Databases {
		if d.MaxClients != nil {
			l.Databases[d.Name] = *d.MaxClients
		}
	}
	return l
}
