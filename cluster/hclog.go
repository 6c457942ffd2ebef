package cluster

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// raftLogger hands what hashicorp/raft logs to slog, at the same levels; trace becomes debug. It tells a complaint that repeats
// only now and then: about a voter that is down, Raft complains several times a second for as long as it is.
type raftLogger struct {
	log  *slog.Logger
	name string
	args []any // by With, already in log
	said *complaints
}

// complainEvery is how often one complaint is told.
const complainEvery = 30 * time.Second

// complaints remembers when what was told last.
type complaints struct {
	silent atomic.Bool // the ledger is closing: broken streams are no news

	mu   sync.Mutex
	last map[string]time.Time
}

// again reports whether a complaint was told a short while ago.
func (c *complaints) again(complaint string) bool {
	if c.silent.Load() {
		return true
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, ok := c.last[complaint]; ok && now.Sub(last) < complainEvery {
		return true
	}
	if len(c.last) >= 256 {
		clear(c.last)
	}
	c.last[complaint] = now
	return false
}

var _ hclog.Logger = (*raftLogger)(nil)

func newRaftLogger(l *slog.Logger) *raftLogger {
	return &raftLogger{log: l, name: "raft", said: &complaints{last: make(map[string]time.Time)}}
}

func slogLevel(l hclog.Level) slog.Level {
	switch {
	case l >= hclog.Error:
		return slog.LevelError
	case l == hclog.Warn:
		return slog.LevelWarn
	case l == hclog.Info:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// Log implements hclog.Logger, as do the methods below.
func (r *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	to := slogLevel(level)
	if level == hclog.Off || !r.log.Enabled(context.Background(), to) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 { // a deferred Sprintf
			if format, ok := f[0].(string); ok {
				args[i] = fmt.Sprintf(format, f[1:]...)
			}
		}
	}
	if to >= slog.LevelWarn {
		about := ""
		for i := 0; i+1 < len(args); i += 2 {
			switch args[i] {
			case "peer", "target", "server-id", "from", "id":
				about = fmt.Sprint(args[i+1])
			}
		}
		if r.said.again(msg + "\x00" + about) {
			to = slog.LevelDebug
			if !r.log.Enabled(context.Background(), to) {
				return
			}
		}
	}
	r.log.Log(context.Background(), to, r.name+": "+msg, args...)
}

func (r *raftLogger) Trace(msg string, args ...any) { r.Log(hclog.Trace, msg, args...) }
func (r *raftLogger) Debug(msg string, args ...any) { r.Log(hclog.Debug, msg, args...) }
func (r *raftLogger) Info(msg string, args ...any)  { r.Log(hclog.Info, msg, args...) }
func (r *raftLogger) Warn(msg string, args ...any)  { r.Log(hclog.Warn, msg, args...) }
func (r *raftLogger) Error(msg string, args ...any) { r.Log(hclog.Error, msg, args...) }

func (r *raftLogger) enabled(l slog.Level) bool { return r.log.Enabled(context.Background(), l) }

func (r *raftLogger) IsTrace() bool { return false }
func (r *raftLogger) IsDebug() bool { return r.enabled(slog.LevelDebug) }
func (r *raftLogger) IsInfo() bool  { return r.enabled(slog.LevelInfo) }
func (r *raftLogger) IsWarn() bool  { return r.enabled(slog.LevelWarn) }
func (r *raftLogger) IsError() bool { return r.enabled(slog.LevelError) }

func (r *raftLogger) ImpliedArgs() []any { return r.args }

func (r *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{log: r.log.With(args...), name: r.name, args: append(append([]any(nil), r.args...), args...), said: r.said}
}

func (r *raftLogger) Name() string { return r.name }

func (r *raftLogger) Named(name string) hclog.Logger { return r.ResetNamed(r.name + "." + name) }

func (r *raftLogger) ResetNamed(name string) hclog.Logger {
	return &raftLogger{log: r.log, name: name, args: r.args, said: r.said}
}

// SetLevel does nothing: the level is slog's.
func (r *raftLogger) SetLevel(hclog.Level) {}

func (r *raftLogger) GetLevel() hclog.Level {
	switch {
	case r.IsDebug():
		return hclog.Debug
	case r.IsInfo():
		return hclog.Info
	case r.IsWarn():
		return hclog.Warn
	}
	return hclog.Error
}

func (r *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(r.StandardWriter(nil), "", 0)
}

func (r *raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return logLines{r} }

// logLines logs each write as one line.
type logLines struct{ r *raftLogger }

func (w logLines) Write(b []byte) (int, error) {
	w.r.Info(strings.TrimRight(string(b), "\n"))
	return len(b), nil
}
