package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"
)

// sample is one run of pgbench against one target.
type sample struct {
	tps      float64
	cpu      float64 // microseconds of the target's processes for each query
	p50, p99 float64 // microseconds
	others   float64 // the part of the machine that anything else took meanwhile
}

// pgbench runs the script and looks at the middle of the run: from when every client is logged in until shortly before the
// end. All figures are of that window: the processors' from the kernel at its two ends, the rest from pgbench's log, which has
// a line for each transaction. pgbench is the client as it takes less of the machine than one in Go would.
//
// With reconnect, each transaction is a login and a query.
func (s *scenario) pgbench(ctx context.Context, t *target, mode string, clients, seconds int, reconnect bool) (sample, error) {
	var r sample
	warm := 300*time.Millisecond + time.Duration(clients)*5*time.Millisecond
	for range 3 {
		var err error
		if r, err = s.window(ctx, t, mode, clients, seconds, reconnect, warm); !errors.Is(err, errSlow) {
			return r, err
		}
		warm *= 2
		if warm > time.Duration(seconds)*time.Second/2 {
			seconds++
		}
	}
	return r, fmt.Errorf("pgbench -M %s -c %d against %s: %w", mode, clients, t.name, errSlow)
}

var errSlow = errors.New("the clients could not log in in time: the machine is too busy to measure anything")

func (s *scenario) window(ctx context.Context, t *target, mode string, clients, seconds int, reconnect bool, warm time.Duration) (sample, error) {
	logs, err := os.MkdirTemp(s.farm.Dir(), "pgbench-")
	if err != nil {
		return sample{}, err
	}
	defer os.RemoveAll(logs)
	host, port, err := net.SplitHostPort(t.addr)
	if err != nil {
		return sample{}, err
	}
	args := []string{"-n", "-f", s.script, "-M", mode, "-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(2, clients)),
		"-T", strconv.Itoa(seconds), "--log", "--log-prefix", filepath.Join(logs, "log"), "-h", host, "-p", port, "-U", benchUser, benchDatabase}
	if reconnect {
		args = append([]string{"-C"}, args...)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.farm.Bin(), "pgbench"), args...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+benchPassword)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return sample{}, err
	}
	pids := t.pids()
	interrupted := pause(ctx, warm)
	ours := tree(os.Getpid())
	busyFrom, err := busy()
	if err != nil {
		interrupted = err
	}
	oursFrom, from, cpuFrom := cpu(ours), time.Now(), cpu(pids)
	if interrupted == nil {
		interrupted = pause(ctx, time.Until(begin.Add(time.Duration(seconds)*time.Second-150*time.Millisecond)))
	}
	to, cpuTo, oursTo := time.Now(), cpu(pids), cpu(ours)
	busyTo, _ := busy()
	err = cmd.Wait()
	if interrupted != nil {
		return sample{}, interrupted
	}
	if err != nil || bytes.Contains(out.Bytes(), []byte("aborted")) || !bytes.Contains(out.Bytes(), []byte("number of failed transactions: 0")) {
		return sample{}, fmt.Errorf("pgbench -M %s -c %d against %s failed, or was answered wrongly: %v: %s", mode, clients, t.name, err, out.Bytes())
	}
	took, early, err := read(logs, from.UnixMicro(), to.UnixMicro())
	if err != nil {
		return sample{}, err
	}
	if !early || len(took) == 0 {
		return sample{}, errSlow
	}
	slices.Sort(took)
	n := float64(len(took))
	processors := float64(runtime.NumCPU()) * to.Sub(from).Seconds()
	return sample{
		others: max(0, (busyTo-busyFrom-oursTo+oursFrom).Seconds()/processors),
		tps:    n / to.Sub(from).Seconds(),
		cpu:    float64((cpuTo - cpuFrom).Microseconds()) / n,
		p50:    float64(took[len(took)/2]),
		p99:    float64(took[len(took)*99/100]),
	}, nil
}

// read reads pgbench's logs: how long, in microseconds, the transactions took that ended between two times. early tells
// whether some ended before.
func read(folder string, from, to int64) (took []int64, early bool, err error) {
	files, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		return nil, false, err
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, false, err
		}
		for line := range bytes.Lines(b) {
			var f [6]int64 // client, transaction, time taken, script, seconds, microseconds
			if err := numbers(line, f[:]); err != nil {
				return nil, false, fmt.Errorf("pgbench's log: %w: %q", err, line)
			}
			switch at := f[4]*1_000_000 + f[5]; {
			case at < from:
				early = true
			case at <= to:
				took = append(took, f[2])
			}
		}
	}
	return took, early, nil
}

// numbers reads as many numbers as dst holds: without making strings of a million lines.
func numbers(line []byte, dst []int64) error {
	for i := range dst {
		n, digits := int64(0), 0
		for digits < len(line) && line[digits] >= '0' && line[digits] <= '9' {
			n = n*10 + int64(line[digits]-'0')
			digits++
		}
		if digits == 0 {
			return fmt.Errorf("no number in field %d", i+1)
		}
		dst[i], line = n, bytes.TrimLeft(line[digits:], " ")
	}
	return nil
}
