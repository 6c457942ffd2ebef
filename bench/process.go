package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// tree returns the pids of a process and of all that descend from it.
func tree(root int) []int {
	parents := map[int]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// "pid (name) state ppid ...": the name may hold anything.
		if f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])); len(f) > 1 {
			parents[pid], _ = strconv.Atoi(f[1])
		}
	}
	pids := []int{root}
	for i := 0; i < len(pids); i++ {
		for pid, parent := range parents {
			if parent == pids[i] {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// cpu returns what the processes have used so far, in user and kernel mode. It is what /proc/PID/stat gives as utime+stime,
// read through the process's CPU clock instead, which counts nanoseconds where the file counts hundredths of a second.
func cpu(pids []int) time.Duration {
	var sum time.Duration
	for _, pid := range pids {
		const processClock = 2 // CPUCLOCK_SCHED, of all threads
		sum += clock(uintptr(^pid<<3 | processClock))
	}
	return sum
}

// threadCPU returns what the calling thread has used of the processor.
func threadCPU() time.Duration {
	const threadClock = 3 // CLOCK_THREAD_CPUTIME_ID
	return clock(threadClock)
}

// clock reads one of the kernel's clocks; 0 if it is of a process that is gone.
func clock(id uintptr) time.Duration {
	var ts syscall.Timespec
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		return 0
	}
	return time.Duration(ts.Nano())
}

// busy returns what all processors together have worked since the machine started, for whomever.
func busy() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	// "cpu user nice system idle iowait irq softirq steal guest guest_nice", in hundredths of a second; guests are in user.
	f := strings.Fields(strings.SplitN(string(b), "\n", 2)[0])
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", f)
	}
	var sum time.Duration
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * 10 * time.Millisecond
	}
	return sum, nil
}

// rss returns the resident memory of processes, in bytes.
func rss(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
				kib, err := strconv.ParseInt(f[1], 10, 64)
				if err != nil {
					return 0, err
				}
				sum += kib << 10
			}
		}
	}
	if sum == 0 {
		return 0, errors.New("no VmRSS in /proc")
	}
	return sum, nil
}

// raiseFiles lets this process and its children open as many files as they may: thousands of clients want one each.
func raiseFiles() error {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return err
	}
	r.Cur = r.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r)
}
