package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// TestPasswordsAreNotToldToWhomOthersName: a node tells a password in clear text to a backend that its own configuration lists, and not to
// one of which it has only heard from another node: neither a client's, nor the probe's, nor the administrator's.
func TestPasswordsAreNotToldToWhomOthersName(t *testing.T) {
	lists, s := startBeside(t, pgtest.Options{HBA: []string{"host all all all password"}}, func(*Config) {})
	lists.settled(t, 1, 1)
	if out, err := lists.psql(t, "", "SELECT 6 * 7"); err != nil || out != "42\n" {
		t.Fatalf("by the node that lists it: %q, %v", out, err)
	}

	cfg := lists.cfg
	cfg.Name, cfg.DataDir, cfg.Backends, cfg.Join = "heard", t.TempDir(), nil, []string{lists.port().Addr()}
	hears := newNode(t, cfg, clusterEnv()).open(t)
	want := "asks for the password"
	pgtest.Eventually(t, 20*time.Second, func() error {
		out, err := hears.psql(t, "", "SELECT 6 * 7")
		if err == nil {
			t.Fatalf("it was told the password: %q", out)
		}
		if !strings.Contains(out, want) || !strings.Contains(out, "List the backend under [[backends]] of this node") {
			return errors.New(out)
		}
		return nil
	})
	if _, err := hears.Node.connect(t.Context(), s.Addr(), "app"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("as the administrator: %v", err)
	}
	pgtest.Eventually(t, 20*time.Second, func() error { // an observer of it
		if got := hears.prober().Trouble("fra-db"); !strings.Contains(got, want) {
			return errors.New("the probe's trouble is " + got)
		}
		return nil
	})
}
