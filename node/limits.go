package node

import (
	"net"
	"time"

	"rangefinder/wire"
	"rangefinder/wire/pool"
)

// clientLimits is the part of the configuration that bounds clients.
func (cfg *Config) clientLimits() wire.Limits {
	l := wire.Limits{
		Clients: cfg.Limits.Clients, User: cfg.Limits.UserClients, Database: cfg.Limits.DatabaseClients,
		Handshakes: cfg.Limits.Handshakes, Logins: cfg.Limits.Logins,
		Users: map[string]int{}, Databases: map[string]int{}, DatabaseTimeouts: map[string]wire.Timeouts{},
		Timeouts: wire.Timeouts{
			Statement: cfg.Limits.StatementTimeout.Duration, Idle: cfg.Limits.IdleTimeout.Duration,
			IdleInTransaction: cfg.Limits.IdleInTransactionTimeout.Duration,
		},
	}
	l.KeepAlive = cfg.keepAlive()
	for _, u := range cfg.Users {
		if u.MaxClients != nil {
			l.Users[u.Name] = *u.MaxClients
		}
	}
	for _, d := range cfg.Databases {
		t := l.Timeouts
		for _, x := range []struct {
			own *Duration
			to  *time.Duration
		}{{d.StatementTimeout, &t.Statement}, {d.IdleTimeout, &t.Idle}, {d.IdleInTransactionTimeout, &t.IdleInTransaction}} {
			if x.own != nil {
				*x.to = x.own.Duration
			}
		}
		l.DatabaseTimeouts[d.Name] = t
		if d.MaxClients != nil {
			l.Databases[d.Name] = *d.MaxClients
		}
	}
	return l
}

// poolLimits is the part of the configuration that bounds server connections; a share of the budget comes on top of it.
func (cfg *Config) poolLimits() pool.Limits {
	p := &cfg.Pool
	return pool.Limits{
		Size: p.Size, Wait: p.Wait.Duration, Idle: p.Idle.Duration, Lifetime: p.Lifetime.Duration, Min: p.Min, Standby: p.Standby, Prepared: p.Prepared,
		Connect: p.Connect.Duration, KeepAlive: cfg.keepAlive(),
	}
}

func (cfg *Config) keepAlive() net.KeepAliveConfig {
	k := &cfg.KeepAlive
	return net.KeepAliveConfig{Enable: k.Idle.Duration > 0, Idle: k.Idle.Duration, Interval: k.Interval.Duration, Count: -1}
}
