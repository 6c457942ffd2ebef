package pgtest_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// A process that dies without a word takes its servers with it, and the next Open removes its folder.
func TestServersDieWithTheirProcess(t *testing.T) {
	const inChild = "RANGEFINDER_PGTEST_CHILD"
	if dir := os.Getenv(inChild); dir != "" {
		farm, err := pgtest.Open(context.Background(), dir)
		must(t, err)
		s, err := farm.Primary(context.Background(), pgtest.Options{})
		must(t, err)
		fmt.Printf("ready %s %s\n", farm.Dir(), s.Addr())
		select {} // until killed
	}

	dir, err := os.MkdirTemp("", "pgtest-test-")
	must(t, err)
	defer func() { _ = os.RemoveAll(dir) }()
	must(t, os.Chmod(dir, 0o755))
	cmd := exec.Command(os.Args[0], "-test.run=^TestServersDieWithTheirProcess$")
	cmd.Env = append(os.Environ(), inChild+"="+dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }()
	var folder, addr string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
			folder, addr, _ = strings.Cut(rest, " ")
			break
		}
	}
	if folder == "" || addr == "" {
		t.Fatal("the child made no server")
	}
	if n := len(inside(t, folder)); n < 4 {
		t.Fatalf("%d processes in %s: does this see any?", n, folder)
	}

	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // "signal: killed"
	pgtest.Eventually(t, 10*time.Second, func() error {
		if left := inside(t, folder); len(left) > 0 {
			return fmt.Errorf("processes left: %v", left)
		}
		return nil
	})
	farm, err := pgtest.Open(t.Context(), dir)
	must(t, err)
	defer func() { must(t, farm.Close()) }()
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("folder left: %v", err)
	}
}
