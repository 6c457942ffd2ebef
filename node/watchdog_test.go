package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// stuckNodeEnv makes the test binary a node that gets stuck, with its value as data_dir.
const stuckNodeEnv = "RANGEFINDER_TEST_STUCK_NODE"

// fullLog is a log that takes nothing more from a certain time on, as a pipe that nobody reads.
type fullLog struct{ full atomic.Bool }

func (l *fullLog) Write(p []byte) (int, error) {
	if l.full.Load() {
		select {}
	}
	return len(p), nil
}

// stuckNode runs a node whose FIB cannot be brought up to date any more: the goroutine that does it waits for the log.
func stuckNode(dir string) int {
	cfg, log := Defaults(), new(fullLog)
	cfg.Region, cfg.DataDir, cfg.Ports, cfg.Watchdog = "fra", dir, Ports{}, Duration{leastWatchdog}
	n, err := New(cfg, Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err == nil {
		err = n.Open(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	log.full.Store(true)
	next := *n.table.Owners().Get()
	next.Epoch.Index++
	next.Keyspaces = []rib.Keyspace{{ID: 1, Name: "app.bad"}} // it does not compile, which is logged
	n.table.Owners().Set(&next)
	<-time.After(time.Minute)
	return 3
}

// A process that cannot bring its routing table up to date ends, with the stacks of all goroutines, though its log is stuck, too.
func TestStuckProcessEnds(t *testing.T) {
	t.Parallel()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Env, cmd.Stderr = append(os.Environ(), stuckNodeEnv+"="+filepath.Join(t.TempDir(), "data")), &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitStuck {
		t.Fatalf("it ended with %v\n%s", err, &stderr)
	}
	for _, want := range []string{
		"rangefinder: dispatch does not work: stuck for more than 2s while asking whether the table is kept up to date; stacks of all goroutines:\n\ngoroutine ",
		"rangefinder/node.(*fullLog).Write", "rangefinder/fib.(*Maintainer).update", "main.main()",
	} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("standard error lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(stderr.String())
	}
}

// What is said at the end, where the log works.
func TestDie(t *testing.T) {
	var log, stderr bytes.Buffer
	code := 0
	die(slog.New(slog.NewTextHandler(&log, nil)), "stuck", &stderr, func(c int) { code = c })
	if code != exitStuck || !strings.Contains(stderr.String(), "node.TestDie") || !strings.Contains(log.String(), "level=ERROR msg=\"dispatch does not work: this process ends\" reason=stuck status=70") {
		t.Errorf("status %d, log %q, standard error:\n%s", code, &log, &stderr)
	}
}

// A node's watchdog goes its rounds as long as the node runs, and has nothing to say.
func TestNodeHasAWatchdog(t *testing.T) {
	t.Parallel()
	n := newNodeWith(t, testConfig(t, "fra"), Options{Die: func(why string) { t.Errorf("it would die: %s", why) }})
	n.open(t)
	pgtest.Eventually(t, 30*time.Second, func() error {
		if rounds := n.watchdog.Rounds(); rounds < 3 {
			return fmt.Errorf("%d rounds", rounds)
		}
		return nil
	})
}

// A table that cannot be made is told of wherever a person looks, while the last good one serves; and so is that it is over.
func TestFailedCompileIsSaid(t *testing.T) {
	t.Parallel()
	n := newNode(t, testConfig(t, "fra"), nil).open(t)
	good := n.fib.Load()
	bad := *n.table.Owners().Get()
	bad.Epoch.Index++
	bad.Keyspaces = []rib.Keyspace{{ID: 1, Name: "app.bad"}}
	said := func(want bool) {
		t.Helper()
		pgtest.Eventually(t, 20*time.Second, func() error {
			const why = "cannot compile the ranges: epoch"
			_, table := n.get(t, "/debug/fib")
			_, page := n.get(t, "/debug?fragment=1")
			_, out, _ := n.admin("status")
			for where, text := range map[string]string{"/debug/fib": table, "the page": page, "rangefinder status": out} {
				if strings.Contains(text, why) != want {
					return fmt.Errorf("%s: %s", where, text)
				}
			}
			if _, metrics := n.get(t, "/metrics"); !strings.Contains(metrics, "rangefinder_fib_compile_failures_total 1\n") {
				return errors.New("/metrics counts no failure")
			}
			return nil
		})
	}
	n.table.Owners().Set(&bad)
	said(true)
	if n.fib.Load() != good {
		t.Error("the last good table is gone")
	}
	logged(t, n, `"the routing table is not up to date: the last good one stays"`)
	mended := bad
	mended.Epoch.Index++
	mended.Keyspaces = nil
	n.table.Owners().Set(&mended)
	said(false)
	logged(t, n, `"the routing table is up to date again"`)
}
