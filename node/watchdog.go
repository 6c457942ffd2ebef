package node

import (
	"io"
	"log/slog"
	"runtime"
	"time"
)

// exitStuck is the status with which a process ends that could not dispatch any more.
const exitStuck = 70

// dieWithin is how long the last words may take: a log that nobody reads must not keep the process.
const dieWithin = 5 * time.Second

// maxStacks bounds what is written of the goroutines' stacks, in bytes.
const maxStacks = 64 << 20

// die tells why and what every goroutine was at, and ends the process: it does not drain, since what a session would wait
// for may never come.
func die(log *slog.Logger, why string, stderr io.Writer, exit func(int)) {
	last := time.AfterFunc(dieWithin, func() { exit(exitStuck) })
	defer last.Stop()
	_, _ = io.WriteString(stderr, "rangefinder: dispatch does not work: "+why+"; stacks of all goroutines:\n\n")
	_, _ = stderr.Write(stacks()) // if nobody reads it, the process ends without
	log.Error("dispatch does not work: this process ends", "reason", why, "status", exitStuck)
	exit(exitStuck)
}

// stacks are those of all goroutines.
func stacks() []byte {
	for size := 1 << 20; ; size *= 2 {
		b := make([]byte, size)
		if n := runtime.Stack(b, true); n < size || size >= maxStacks {
			return b[:n]
		}
	}
}
