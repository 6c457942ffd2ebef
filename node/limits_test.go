package node

import (
	"testing"
	"time"

	"rangefinder/wire"
)

// What stands in the file reaches the sessions: a database's or user's own value where there is one, 0 included.
func TestLimitsOfTheConfiguration(t *testing.T) {
	cfg, err := Load(writeConfig(t, goodConfig+`
[limits]
clients = 7
user_clients = 6
database_clients = 5
handshakes = 4
logins = 3
statement_timeout = "30s"
idle_timeout = "1h"
idle_in_transaction_timeout = "1m"

[[users]]
name = "free"
password_env = "X"
max_clients = 0

[[databases]]
name = "reports"
max_clients = 2
statement_timeout = "0s"
idle_in_transaction_timeout = "10m"
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	l := cfg.clientLimits()
	if l.Clients != 7 || l.User != 6 || l.Database != 5 || l.Handshakes != 4 || l.Logins != 3 {
		t.Errorf("%+v", l)
	}
	if n, ok := l.Users["free"]; !ok || n != 0 || len(l.Users) != 1 {
		t.Errorf("users: %v", l.Users)
	}
	if l.Databases["reports"] != 2 || len(l.Databases) != 1 {
		t.Errorf("databases: %v", l.Databases)
	}
	if want := (wire.Timeouts{Statement: 30 * time.Second, Idle: time.Hour, IdleInTransaction: time.Minute}); l.Timeouts != want || l.DatabaseTimeouts["app"] != want {
		t.Errorf("timeouts: %v, of app %v", l.Timeouts, l.DatabaseTimeouts["app"])
	}
	if got, want := l.DatabaseTimeouts["reports"], (wire.Timeouts{Idle: time.Hour, IdleInTransaction: 10 * time.Minute}); got != want {
		t.Errorf("timeouts of reports: %v, want %v", got, want)
	}
}
