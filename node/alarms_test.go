package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// A shard whose primary is gone takes no writes: that is the first thing that a person should be told.
func TestADeadPrimaryIsAnAlarm(t *testing.T) {
	s := pgtest.NewPrimary(t, pgtest.Options{Name: "shard_1", Auth: "scram-sha-256"})
	if err := s.CreateUser(t.Context(), "probe", probePassword, ""); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, "fra")
	cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
	cfg.Backends = []Backend{{Name: "fra-db", Shard: "shard_1", Address: s.Addr()}}
	n := newNode(t, cfg, clusterEnv()).open(t)
	n.settled(t, 1, 1)
	alarms := func(want ...string) {
		t.Helper()
		pgtest.Eventually(t, 30*time.Second, func() error {
			if got := n.View().Alarms; !slices.Equal(got, want) {
				return fmt.Errorf("alarms %q, want %q", got, want)
			}
			return nil
		})
	}
	alarms()
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	alarms("writes to shard_1 fail: the primary fra-db looks dead: nobody can reach it")
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	alarms()
}

func TestAlarmsAreLoggedOnce(t *testing.T) {
	n := newNode(t, testConfig(t, "fra"), nil).open(t)
	set := func(text string) {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.alarms, "x")
		if text != "" {
			n.alarms["x"] = text
		}
	}
	set("first")
	logged(t, n, "alarm=first")
	set("second")
	logged(t, n, "alarm=second")
	set("")
	logged(t, n, `"alarm is over" alarm=second`)
	if got := strings.Count(n.log.String(), "msg=alarm alarm=first"); got != 1 {
		t.Errorf("the first alarm was logged %d times", got)
	}
}

// A node that does not lead forgets what a leader worries about, and nothing else.
func TestFollowersKeepTheirOwnAlarms(t *testing.T) {
	n := &Node{
		shards: map[string]time.Time{"shard_1": time.Now()},
		alarms: map[string]string{shardAlarm + "shard_1": "no primary yet", lookupAlarm: "users who are not listed cannot log in"},
	}
	n.forgetShards()
	if _, ok := n.alarms[lookupAlarm]; !ok || len(n.alarms) != 1 || len(n.shards) != 0 {
		t.Errorf("alarms %v, shards %v", n.alarms, n.shards)
	}
}
