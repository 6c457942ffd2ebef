package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// logWriter takes memberlist's lines ("[WARN] memberlist: ...") into slog. A stranger who sends noise makes memberlist
// write a line for each packet, so at most ten warnings a second go on; refused packets are counted all the same.
type logWriter struct {
	// constant
	log     *slog.Logger
	refused *atomic.Uint64

	mu      sync.Mutex
	second  int64
	lines   int
	skipped int
}

const logLines = 10 // a second

var levels = []struct {
	mark  []byte
	level slog.Level
}{
	{[]byte("[DEBUG]"), slog.LevelDebug},
	{[]byte("[INFO]"), slog.LevelInfo},
	{[]byte("[WARN]"), slog.LevelWarn},
	{[]byte("[ERR]"), slog.LevelWarn}, // an error of one packet or peer, not of this process
	{[]byte("[ERROR]"), slog.LevelWarn},
}

// refusals are memberlist's words for packets and streams that are not of this cluster.
var refusals = [][]byte{
	[]byte("Decrypt packet failed"),
	[]byte("unacceptable label"),
	[]byte("no installed keys could decrypt"),
	[]byte("remote state is not encrypted"),
	[]byte("encryption is not configured"),
}

func (w *logWriter) Write(p []byte) (int, error) {
	n := len(p)
	level := slog.LevelInfo
	for _, l := range levels {
		if i := bytes.Index(p, l.mark); i >= 0 {
			level = l.level
			p = p[i+len(l.mark):]
			break
		}
	}
	for _, r := range refusals {
		if bytes.Contains(p, r) {
			w.refused.Add(1)
			break
		}
	}
	ctx := context.Background()
	if !w.log.Enabled(ctx, level) {
		return n, nil
	}
	skipped, ok := w.admit(level)
	if !ok {
		return n, nil
	}
	p = bytes.TrimPrefix(bytes.TrimSpace(p), []byte("memberlist: "))
	if skipped > 0 {
		w.log.Log(ctx, level, string(p), "lines_left_out_before", skipped)
	} else {
		w.log.Log(ctx, level, string(p))
	}
	return n, nil
}

func (w *logWriter) admit(level slog.Level) (skipped int, ok bool) {
	if level < slog.LevelInfo {
		return 0, true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now().Unix(); now != w.second {
		w.second, w.lines = now, 0
	}
	if w.lines >= logLines {
		w.skipped++
		return 0, false
	}
	w.lines++
	skipped, w.skipped = w.skipped, 0
	return skipped, true
}
