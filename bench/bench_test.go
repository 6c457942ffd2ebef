package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/internal/program"
)

func TestReadTakesTheWindowOnly(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"log.1":   "0 1 250 0 100 999999\n1 1 300 0 101 0\n0 2 100 0 101 500000\n",
		"log.1.1": "2 7 70 0 102 0\n2 8 9999 0 102 1\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	took, early, err := read(dir, 101_000_000, 102_000_000)
	slices.Sort(took)
	if err != nil || !early || !slices.Equal(took, []int64{70, 100, 300}) {
		t.Errorf("got %v, early %v, %v", took, early, err)
	}
	if _, early, _ := read(dir, 1, 102_000_000); early {
		t.Error("nothing ended before the window, but something did")
	}
	if err := os.WriteFile(filepath.Join(dir, "log.2"), []byte("0 1 failed 0 101 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := read(dir, 0, 1); err == nil {
		t.Error("a failed transaction was taken for a number")
	}
}

// The clock must say what the process and its children use, and end with them.
func TestCPUOfATree(t *testing.T) {
	farm, err := pgtest.Open(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer farm.Close()
	dir := filepath.Join(farm.Dir(), "spin")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := program.Launch(farm, dir, program.User{}, nil, "sh", "-c", "(while :; do :; done) & wait")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	err = pgtest.Wait(t.Context(), time.Millisecond, func() error {
		if pids = tree(p.PID()); len(pids) != 2 || cpu(pids[1:]) < 20*time.Millisecond {
			return context.DeadlineExceeded
		}
		return nil
	})
	if err != nil {
		t.Errorf("%v: processes %v used %v", err, pids, cpu(pids))
	}
	if all, child := cpu(pids), cpu(pids[1:]); all < child {
		t.Errorf("the tree used %v, its child %v", all, child)
	}
	if rss, err := rss(tree(p.PID())); err != nil || rss < 1<<16 {
		t.Errorf("%d bytes resident, %v", rss, err)
	}
	for _, pid := range slices.Backward(tree(p.PID())) {
		if proc, err := os.FindProcess(pid); err == nil {
			proc.Kill()
		}
	}
	<-p.Done()
	if used := cpu(pids[:1]); used != 0 {
		t.Errorf("a process that is gone used %v", used)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-clients", "65"}, {"-clients", "x"}, {"-modes", "fast"}, {"-parts", ""}, {"more"}} {
		if _, err := parse(args, true, io.Discard); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
	o, err := parse([]string{"-quick", "-json"}, true, io.Discard)
	if err != nil || !slices.Equal(o.modes, []string{"simple"}) || !slices.Equal(o.clients, []int{16}) || !o.json {
		t.Errorf("-quick: %+v, %v", o, err)
	}
	if o, err := parse(nil, false, io.Discard); err != nil || !slices.Equal(o.clients, []int{8}) || len(o.modes) != 3 {
		t.Errorf("no flags: %+v, %v", o, err)
	}
}

func TestMedian(t *testing.T) {
	for want, v := range map[float64][]float64{0: nil, 2: {3, 1, 2}, 2.5: {4, 1, 2, 3}} {
		if got := median(v); got != want {
			t.Errorf("median(%v) = %v, want %v", v, got, want)
		}
	}
}

// The rows of both servers are all there are, half of them on each.
func TestHalves(t *testing.T) {
	var got [4]int
	got[0], got[1] = half(0)
	got[2], got[3] = half(1)
	if want := [4]int{1, tableRows / 2, tableRows/2 + 1, tableRows}; got != want {
		t.Errorf("%v, want %v", got, want)
	}
}
