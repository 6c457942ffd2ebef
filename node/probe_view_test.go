package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// What a node's own probe fails with is shown, also where it says nothing against the backend.
func TestTroubleOfAProbeIsShown(t *testing.T) {
	n, s := startOneOn(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	shows := func() (string, error) {
		var v struct{ Backends []BackendView }
		status, body := n.get(t, "/debug/rib")
		if err := json.Unmarshal([]byte(body), &v); status != 200 || err != nil || len(v.Backends) != 1 {
			return "", fmt.Errorf("%d %v %s", status, err, body)
		}
		if b := v.Backends[0]; b.ForAll != "up" || b.ForUs != "up" || b.Role != "primary" {
			return "", fmt.Errorf("%+v", b)
		}
		return v.Backends[0].Probe, nil
	}
	if why, err := shows(); err != nil || why != "" {
		t.Fatal(why, err)
	}
	if err := s.Exec(ctx, "ALTER ROLE probe CONNECTION LIMIT 0"); err != nil {
		t.Fatal(err)
	}
	if _, metrics := n.get(t, "/metrics"); !strings.Contains(metrics, "rangefinder_probe_failures_total{backend=\"") {
		t.Error("a backend whose probes have all had answers is not in /metrics")
	}
	n.prober().Renew()
	pgtest.Eventually(t, 20*time.Second, func() error {
		why, err := shows()
		if err == nil && !strings.Contains(why, "SQLSTATE 53300") {
			err = errors.New("its probe has " + why)
		}
		return err
	})
	if _, page := n.get(t, "/debug"); !strings.Contains(page, "this node's probe: too many connections for role") {
		t.Error("the page does not show it")
	}
	if _, metrics := n.get(t, "/metrics"); !regexp.MustCompile(`(?m)^rangefinder_probe_failures_total\{backend="[^"]+"\} [1-9]`).MatchString(metrics) {
		t.Error("/metrics does not count it")
	}
}
