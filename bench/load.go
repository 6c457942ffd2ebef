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

// load is what pgbench is to do.
type load struct {
	mode      string
	clients   int
	seconds   int
	reconnect bool // each transaction is a login and a query
	turn      int  // a single client goes to another door each time
}

// pgbench runs the script, with half of the clients at each of the target's doors, and looks at the middle of the run: from when every
// client is logged in until shortly before the end. All figures are of that window: the processors' from the kernel at its two ends, the
// rest from pgbench's logs, which have a line for each transaction. pgbench is the client as it takes less of the machine than one in Go
// would.
func (s *scenario) pgbench(ctx context.Context, t *target, l load) (sample, error) {
	var r sample
	warm := 150*time.Millisecond + time.Duration(l.clients)*3*time.Millisecond
	for range 3 {
		var err error
		if r, err = s.window(ctx, t, l, warm); !errors.Is(err, errSlow) {
			return r, err
		}
		warm *= 2
		if warm > time.Duration(l.seconds)*time.Second/2 {
			l.seconds++
		}
	}
	return r, fmt.Errorf("pgbench -M %s -c %d against %s: %w", l.mode, l.clients, t.name, errSlow)
}

var errSlow = errors.New("the clients could not log in in time: the machine is too busy to measure anything")

// bencher is one process of pgbench.
type bencher struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	logs string // folder
}

// start starts pgbench with some clients at one door.
func (s *scenario) start(ctx context.Context, d door, l load, clients int, logs string) (*bencher, error) {
	host, port, err := net.SplitHostPort(d.addr)
	if err == nil {
		err = os.Mkdir(logs, 0o700)
	}
	if err != nil {
		return nil, err
	}
	args := []string{"-n", "-f", s.script, "-D", "from=" + strconv.Itoa(d.from), "-D", "to=" + strconv.Itoa(d.to), "-M", l.mode,
		"-c", strconv.Itoa(clients), "-T", strconv.Itoa(l.seconds), "--log", "--log-prefix", filepath.Join(logs, "log"),
		"-h", host, "-p", port, "-U", benchUser, d.database}
	if l.reconnect {
		args = append([]string{"-C"}, args...)
	}
	b := &bencher{cmd: exec.CommandContext(ctx, filepath.Join(s.farm.Bin(), "pgbench"), args...), logs: logs}
	b.cmd.Env = append(os.Environ(), "PGPASSWORD="+benchPassword)
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.out
	return b, b.cmd.Start()
}

// wait waits for the end. A transaction that failed, or was answered wrongly, is an error.
func (b *bencher) wait() error {
	err := b.cmd.Wait()
	if err != nil || bytes.Contains(b.out.Bytes(), []byte("aborted")) || !bytes.Contains(b.out.Bytes(), []byte("number of failed transactions: 0")) {
		return fmt.Errorf("failed, or was answered wrongly: %v: %s", err, b.out.Bytes())
	}
	return nil
}

func (s *scenario) window(ctx context.Context, t *target, l load, warm time.Duration) (sample, error) {
	logs, err := os.MkdirTemp(s.farm.Dir(), "pgbench-")
	if err != nil {
		return sample{}, err
	}
	defer os.RemoveAll(logs)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	shares := [2]int{(l.clients + 1) / 2, l.clients / 2}
	if l.clients == 1 && l.turn%2 == 1 {
		shares = [2]int{0, 1}
	}
	var benchers []*bencher
	begin := time.Now()
	var interrupted error
	for i, clients := range shares {
		if clients == 0 || interrupted != nil {
			continue
		}
		b, err := s.start(ctx, t.doors[i], l, clients, filepath.Join(logs, strconv.Itoa(i)))
		if interrupted = err; err == nil {
			benchers = append(benchers, b)
		}
	}
	pids := t.pids()
	if interrupted == nil {
		interrupted = pause(ctx, warm)
	}
	ours := tree(os.Getpid())
	busyFrom, err := busy()
	if err != nil {
		interrupted = err
	}
	oursFrom, from, cpuFrom := cpu(ours), time.Now(), cpu(pids)
	if interrupted == nil {
		interrupted = pause(ctx, time.Until(begin.Add(time.Duration(l.seconds)*time.Second-150*time.Millisecond)))
	}
	to, cpuTo, oursTo := time.Now(), cpu(pids), cpu(ours)
	busyTo, _ := busy()
	if interrupted != nil {
		cancel()
	}
	var failed []error
	for _, b := range benchers {
		failed = append(failed, b.wait())
	}
	if interrupted != nil {
		return sample{}, interrupted
	}
	if err := errors.Join(failed...); err != nil {
		return sample{}, fmt.Errorf("pgbench -M %s -c %d against %s %w", l.mode, l.clients, t.name, err)
	}
	var took []int64
	for _, b := range benchers {
		part, early, err := read(b.logs, from.UnixMicro(), to.UnixMicro())
		if err != nil {
			return sample{}, err
		}
		if !early || len(part) == 0 {
			return sample{}, errSlow
		}
		took = append(took, part...)
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
