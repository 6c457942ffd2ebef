package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel has one wall clock for all namespaces, so each node and server has one of its own made up: the machine's, and an offset that
// stands in a file. Nodes are built with a package time that adds it (see timeOverlay), servers have a library preloaded that does (see
// clockLibrary). Both have the file mapped, so an offset holds from the instant at which it is written, also for who is started later.
// Monotonic clocks, and timers with them, are everybody's own.

const (
	clockEnv  = "RANGEFINDER_CHAOS_CLOCK" // the file with the offset, in the environment of a node or server
	clockSize = 8                         // of that file: seconds, as the processor has its int64
	clockJump = time.Hour                 // how far a fault sets a clock
	clockSlop = time.Minute               // by which what somebody says that the time is may differ from what it was when asked
	clockAsk  = 2 * time.Second           // how long an answer may take
)

// chaosClock is the wall clock of a node or server.
type chaosClock struct {
	// constant
	whose string
	file  string
	asks  func(context.Context) (time.Time, error) // of whom it is: what time it is
	mem   []byte                                   // the file's content, shared with its owner
}

// newChaosClock makes the clock of whose in a folder. It is right.
func newChaosClock(dir, whose string, asks func(context.Context) (time.Time, error)) (*chaosClock, error) {
	c := &chaosClock{whose: whose, file: filepath.Join(dir, whose+".clock"), asks: asks}
	f, err := os.OpenFile(c.file, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644) // #nosec: servers run as another user
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(clockSize); err != nil {
		return nil, err
	}
	if c.mem, err = unix.Mmap(int(f.Fd()), 0, clockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map %s: %w", c.file, err)
	}
	return c, nil
}

// env is what the clock's owner is to find in its environment.
func (c *chaosClock) env() string { return clockEnv + "=" + c.file }

func (c *chaosClock) offset() *int64 { return (*int64)(unsafe.Pointer(&c.mem[0])) }

// set puts the clock ahead of the machine's, by whole seconds.
func (c *chaosClock) set(by time.Duration) { atomic.StoreInt64(c.offset(), int64(by/time.Second)) }

// check asks the clock's owner what time it is, and errs if that is not what the clock says. Who does not answer is errClockSilent.
func (c *chaosClock) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, clockAsk)
	defer cancel()
	says, err := c.asks(ctx)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", errClockSilent, c.whose, err)
	}
	want := time.Now().Add(time.Duration(atomic.LoadInt64(c.offset())) * time.Second)
	if d := says.Sub(want); d.Abs() > clockSlop {
		return fmt.Errorf("the clock of %s was set to %v, and it says that it is %v", c.whose, want.UTC().Format(time.TimeOnly), says.UTC().Format(time.TimeOnly))
	}
	return nil
}

var errClockSilent = errors.New("nobody says what time it is")

// try sets the clock to and fro. Its owner must be well.
func (c *chaosClock) try(ctx context.Context) error {
	defer c.set(0)
	for _, by := range []time.Duration{clockJump, -clockJump, 0} {
		c.set(by)
		if err := c.check(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *chaosClock) close() error { return unix.Munmap(c.mem) }

//go:embed clock/shift.go.txt
var shiftGo []byte

//go:embed clock/shift.c
var shiftC []byte

// timeOverlay makes, in a folder, the installed standard library's package time over again, with a wall clock that is off by what a file says.
// It returns the flag that has go build take it.
func timeOverlay(ctx context.Context, dir string) (flag string, err error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "time").Output()
	if err != nil {
		return "", fmt.Errorf("go list time: %w", err)
	}
	library := strings.TrimSpace(string(out))
	source, err := os.ReadFile(filepath.Join(library, "time.go"))
	if err == nil {
		source, err = shiftNow(source)
	}
	if err != nil {
		return "", fmt.Errorf("make a clock that can be set of Go's package time: %w", err)
	}
	now, shift, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "shift.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(library, "time.go"):              now,
		filepath.Join(library, "rangefinder_chaos.go"): shift,
	}})
	if err != nil {
		return "", err
	}
	return "-overlay=" + overlay, errors.Join(os.WriteFile(now, source, 0o600), os.WriteFile(shift, shiftGo, 0o600), os.WriteFile(overlay, list, 0o600))
}

// shiftNow has time.Now hand what the runtime says to shifted, in the text of the library's time.go:
//
//	sec, nsec, mono := runtimeNow()
//
// becomes shifted(runtimeNow()). It errs if there is anything else than that one call, so that no clock is left out by a later library.
func shiftNow(source []byte) ([]byte, error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "time.go", source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var asked *ast.CallExpr
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != "Now" || f.Recv != nil || f.Body == nil || len(f.Body.List) == 0 {
			continue
		}
		if a, ok := f.Body.List[0].(*ast.AssignStmt); ok && len(a.Lhs) == 3 && len(a.Rhs) == 1 {
			asked, _ = a.Rhs[0].(*ast.CallExpr)
		}
	}
	if asked == nil || len(asked.Args) > 0 {
		return nil, errors.New("time.Now does not begin by asking for seconds, nanoseconds and a monotonic reading")
	}
	runtime, ok := asked.Fun.(*ast.Ident)
	if !ok {
		return nil, errors.New("time.Now asks no function of its package")
	}
	var others []string
	ast.Inspect(file, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && call != asked {
			if id, ok := call.Fun.(*ast.Ident); ok && (id.Name == runtime.Name || id.Name == "now" || id.Name == "runtimeNow") {
				others = append(others, files.Position(call.Pos()).String())
			}
		}
		return true
	})
	if len(others) > 0 {
		return nil, fmt.Errorf("not only time.Now asks the runtime for the wall clock: %s", strings.Join(others, ", "))
	}
	from, to := files.Position(asked.Pos()).Offset, files.Position(asked.End()).Offset
	return slices.Concat(source[:from], []byte("shifted("), source[from:to], []byte(")"), source[to:]), nil
}

// clockLibrary builds, in a folder, the library that PostgreSQL servers are to have preloaded, and returns what has them do so.
func clockLibrary(ctx context.Context, dir string) (env string, err error) {
	cc, err := exec.CommandContext(ctx, "go", "env", "CC").Output()
	if err != nil {
		return "", fmt.Errorf("go env CC: %w", err)
	}
	library := filepath.Join(dir, "clock.so")
	args := append(strings.Fields(string(bytes.TrimSpace(cc))), "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-x", "c", "-o", library, "-", "-ldl")
	if err := command(ctx, string(shiftC), args[0], args[1:]...); err != nil {
		return "", fmt.Errorf("build a clock for servers: %w", err)
	}
	return "LD_PRELOAD=" + library, os.Chmod(library, 0o644) // #nosec: servers run as another user
}
