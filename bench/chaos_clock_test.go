package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// A library in which time.Now looks otherwise is refused: a node's clock would never be set.
func TestShiftNow(t *testing.T) {
	const now = "package time\n\nfunc Now() Time {\n\tsec, nsec, mono := runtimeNow()\n\treturn Time{sec, nsec, mono}\n}\n"
	got, err := shiftNow([]byte(now))
	if want := strings.Replace(now, "runtimeNow()", "shifted(runtimeNow())", 1); err != nil || string(got) != want {
		t.Errorf("got\n%s%v", got, err)
	}
	for what, source := range map[string]string{
		"nothing":                  "package time\n",
		"no Go":                    "package",
		"a method Now":             "package time\n\nfunc (c Clock) Now() Time {\n\tsec, nsec, mono := runtimeNow()\n\treturn Time{sec, nsec, mono}\n}\n",
		"Now in assembly":          "package time\n\nfunc Now() Time\n",
		"Now does nothing":         "package time\n\nfunc Now() {}\n",
		"Now asks for two":         strings.Replace(now, ", mono :=", " :=", 1),
		"Now asks with a clock":    strings.Replace(now, "runtimeNow()", "runtimeNow(wall)", 1),
		"Now asks another package": strings.Replace(now, "runtimeNow()", "runtime.Now()", 1),
		"Now asks later":           strings.Replace(now, "sec, nsec", "begin()\n\tsec, nsec", 1),
		"somebody else asks":       now + "\nfunc Since(t Time) Duration {\n\tsec, _, _ := runtimeNow()\n\treturn sec - t.sec\n}\n",
		"somebody asks the old":    now + "\nfunc Since(t Time) Duration {\n\tsec, _, _ := now()\n\treturn sec - t.sec\n}\n",
	} {
		if got, err := shiftNow([]byte(source)); err == nil {
			t.Errorf("%s: taken:\n%s", what, got)
		}
	}
}

// clockProgram tells, for each line that it reads, the wall clock's time, and how long it has run. For a line "timer" it says so and sets
// one of 300 ms first.
const clockProgram = `package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"time"
)

func main() {
	begun := time.Now()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() == "timer" {
			ctx, cancel := context.WithDeadline(context.Background(), time.Now().Add(300*time.Millisecond))
			fmt.Println("set")
			<-ctx.Done()
			cancel()
		}
		fmt.Println(time.Now().Unix(), time.Since(begun).Milliseconds())
	}
}
`

// A program that is built as the nodes are goes by its clock, at once, in what it takes for the time; what it waits for, and how long
// something took, goes by the monotonic clock.
func TestProgramsClock(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	overlay, err := timeOverlay(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	if err := os.WriteFile(source, []byte(clockProgram), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := command(ctx, "", "go", "build", overlay, "-o", binary, source); err != nil {
		t.Fatal(err)
	}
	var c *chaosClock
	say, told := talk(t, binary, func(asks func(context.Context) (time.Time, error)) []string {
		if c, err = newChaosClock(dir, "program", asks); err != nil {
			t.Fatal(err)
		}
		c.set(clockJump) // for who starts with a clock that is wrong
		return []string{c.env()}
	})
	if err := c.check(ctx); err != nil {
		t.Error(err)
	}
	if err := c.try(ctx); err != nil {
		t.Error(err)
	}
	for _, by := range []time.Duration{-clockJump, clockJump} {
		c.set(0)
		before := time.Now()
		say("timer")
		if line := told(); line != "set" {
			t.Fatalf("said %q", line)
		}
		c.set(by)
		var unix, ran int64
		if _, err := fmt.Sscan(told(), &unix, &ran); err != nil {
			t.Fatal(err)
		}
		if d := time.Unix(unix, 0).Sub(before); (d - by).Abs() > clockSlop {
			t.Errorf("set by %v, it is off by %v", by, d)
		}
		if d := time.Since(before); d < 250*time.Millisecond || d > clockSlop || ran < 250 || ran > clockSlop.Milliseconds() {
			t.Errorf("set by %v while a timer of 300 ms ran: that took %v, and it has run for %d ms", by, d, ran)
		}
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}

	// One that has been given none goes by the machine's, and one whose clock is not there does not start.
	machine, err := newChaosClock(dir, "machine", nil)
	if err != nil {
		t.Fatal(err)
	}
	talk(t, binary, func(asks func(context.Context) (time.Time, error)) []string { machine.asks = asks; return nil })
	if err := machine.check(ctx); err != nil {
		t.Error(err)
	}
	machine.set(clockJump)
	if err := machine.check(ctx); err == nil || errors.Is(err, errClockSilent) {
		t.Errorf("a program that does not go by its clock: %v", err)
	}
	without := exec.CommandContext(ctx, binary)
	without.Env = []string{clockEnv + "=" + filepath.Join(dir, "nowhere")}
	if out, err := without.CombinedOutput(); err == nil || !strings.Contains(string(out), "nowhere") {
		t.Errorf("a program whose clock is not there: %v: %s", err, out)
	}
}

// talk starts a clockProgram with what env returns, which gets a function that asks the program for the time. It ends with the test.
func talk(t *testing.T, binary string, env func(asks func(context.Context) (time.Time, error)) []string) (say func(string), told func() string) {
	cmd := exec.CommandContext(t.Context(), binary)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewScanner(pipe)
	say = func(line string) {
		if _, err := io.WriteString(in, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	told = func() string { out.Scan(); return out.Text() }
	cmd.Env = env(func(context.Context) (time.Time, error) {
		say("time")
		var unix int64
		_, err := fmt.Sscan(told(), &unix)
		return time.Unix(unix, 0), err
	})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return say, told
}

// A server with the library preloaded goes by its clock, all its processes do, also those that begin later and also after a crash; how long
// a statement took it tells by the monotonic clock.
func TestServersClock(t *testing.T) {
	ctx := t.Context()
	farm, err := pgtest.Open(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := farm.Close(); err != nil {
			t.Error(err)
		}
	}()
	preload, err := clockLibrary(ctx, farm.Dir())
	if err != nil {
		t.Fatal(err)
	}
	var server *pgtest.Server
	c, err := newChaosClock(farm.Dir(), "server", func(ctx context.Context) (time.Time, error) { return serverSays(ctx, server) })
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if server, err = farm.Primary(ctx, pgtest.Options{Env: []string{c.env(), preload}}); err != nil {
		t.Fatal(err)
	}
	if err := c.try(ctx); err != nil {
		t.Error(err)
	}
	conn, err := server.Conn(ctx) // it begins while the clock is right
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, by := range []time.Duration{clockJump, -clockJump} {
		c.set(by)
		var now float64 // seconds
		if err := conn.QueryRow(ctx, "SELECT extract(epoch FROM clock_timestamp())::float8").Scan(&now); err != nil {
			t.Fatal(err)
		}
		if off := time.Duration(now*float64(time.Second)) - time.Duration(time.Now().UnixNano()); (off - by).Abs() > clockSlop {
			t.Errorf("set by %v, a session of before is off by %v", by, off)
		}
		var plan []struct {
			Time float64 `json:"Execution Time"`
		}
		done := make(chan error, 1)
		go func() {
			done <- conn.QueryRow(ctx, "EXPLAIN (ANALYZE, FORMAT json) SELECT count(*) FROM generate_series(1, 1000000)").Scan(&plan)
		}()
		tick := time.NewTicker(10 * time.Millisecond)
		for right, ended := false, false; !ended; right = !right {
			if c.set(by); right {
				c.set(0)
			}
			select {
			case err := <-done:
				if ended = true; err != nil {
					t.Fatal(err)
				}
			case <-tick.C:
			}
		}
		tick.Stop()
		c.set(by)
		if took := plan[0].Time / 1000; took <= 0 || took > clockSlop.Seconds() {
			t.Errorf("set by %v, a statement took %v s", by, took)
		}
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.check(ctx); !errors.Is(err, errClockSilent) {
		t.Errorf("a server that is dead: %v", err)
	}
	if err := server.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.check(ctx); err != nil {
		t.Errorf("after a crash: %v", err)
	}
}
