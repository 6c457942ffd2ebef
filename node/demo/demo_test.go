package demo_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rangefinder/node/demo"
)

// TestMain: memberlist waits for the answer to its last ping for up to a second after its Shutdown.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// build builds the program that the demo starts its nodes from.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "rangefinder")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "rangefinder").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// The whole demo: it is the acceptance test of the main path, from the command line to PostgreSQL and back.
func TestOnce(t *testing.T) {
	var out bytes.Buffer
	err := demo.Run(t.Context(), demo.Options{Once: true, Binary: build(t), Out: &out})
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, must := range []string{
		"0 rows on a shard that does not own them",
		"the first answer from elsewhere came",
		" 0 wrong answers of ",
		"Every step showed what it should",
	} {
		if !strings.Contains(out.String(), must) {
			t.Errorf("the demo does not say %q", must)
		}
	}
	if strings.Contains(out.String(), "WRONG") {
		t.Error("the demo says WRONG and returns no error")
	}
}

// Ctrl-C in the middle ends the demo soon and leaves nothing behind.
func TestInterrupted(t *testing.T) {
	dir, err := os.MkdirTemp("", "demo-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &trigger{word: "2. Start three nodes", hit: cancel}
	begin := time.Now()
	err = demo.Run(ctx, demo.Options{Once: true, Binary: build(t), Out: out, Dir: dir})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the demo returned %v", err)
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("it took %v to end", took)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// trigger calls hit when the word was written.
type trigger struct {
	word string
	hit  func()
}

func (w *trigger) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(w.word)) {
		w.hit()
	}
	return len(b), nil
}
