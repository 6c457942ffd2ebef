package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Bounds of the audit log.
const (
	auditFile    = "audit.jsonl"
	auditKept    = 1000    // records in memory
	auditBytes   = 8 << 20 // of the file; then it becomes audit.jsonl.1, in the place of the one before
	auditBody    = 2 << 10 // bytes of a call's body that a record keeps
	auditRefused = 10      // records a second of callers who were not let in
)

// AuditView is one call that changed something, or was to.
type AuditView struct {
	Time      time.Time       `json:"time"`
	Who       string          `json:"who"`              // a token's name, "cert:" and a common name, "loopback", or "console user" and a name; "" if not let in
	Remote    string          `json:"remote,omitempty"` // host:port
	RequestID string          `json:"request_id"`
	Call      string          `json:"call"`           // "POST /api/v1/moves", or a command of the console
	Body      json.RawMessage `json:"body,omitempty"` // the call's; text, if it was cut off
	Status    int             `json:"status"`         // of the answer
	Code      string          `json:"code,omitempty"` // of the error; absent: done
	Message   string          `json:"message,omitempty"`
	MS        float64         `json:"ms"`
	Missed    int             `json:"missed,omitempty"` // refused calls before this one that have no record, for there were too many
}

// auditLog keeps what was done by whom, in memory, in a file of data_dir, and in the node's log. Its methods are safe for concurrent use.
type auditLog struct {
	// constant
	log *slog.Logger

	// guarded by mu
	mu      sync.Mutex
	path    string // "": memory alone
	file    *os.File
	size    int64
	records []AuditView // the last ones, oldest first
	second  time.Time   // that refused counts
	refused int
	missed  int
	failed  bool // the file cannot be written; the log was told
}

func newAuditLog(log *slog.Logger) *auditLog { return &auditLog{log: log} }

// open goes on with the file in a directory.
func (l *auditLog) open(dir string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	path := filepath.Join(dir, auditFile)
	for _, name := range []string{path + ".1", path} {
		if err := l.recall(name); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.path, l.file, l.size = path, f, info.Size()
	return nil
}

// recall reads the last records of a file. A line that is no record, as a crash may leave one, is skipped. mu is held.
func (l *auditLog) recall(name string) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 2*auditBytes))
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		var v AuditView
		if json.Unmarshal(lines.Bytes(), &v) == nil {
			l.keep(v)
		}
	}
	return lines.Err()
}

func (l *auditLog) keep(v AuditView) {
	if len(l.records) == auditKept {
		l.records = slices.Delete(l.records, 0, auditKept/10)
	}
	l.records = append(l.records, v)
}

// close closes the file.
func (l *auditLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// add keeps a record.
func (l *auditLog) add(v AuditView) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v.Status == http.StatusUnauthorized || v.Status == http.StatusForbidden {
		if now := v.Time.Truncate(time.Second); !now.Equal(l.second) {
			l.second, l.refused = now, 0
		}
		if l.refused++; l.refused > auditRefused {
			l.missed++
			return
		}
	}
	v.Missed, l.missed = l.missed, 0
	l.keep(v)
	level := slog.LevelInfo
	if v.Code != "" {
		level = slog.LevelWarn
	}
	l.log.Log(context.Background(), level, "audit", "who", v.Who, "call", v.Call, "body", string(v.Body), "status", v.Status, "code", v.Code, "message", v.Message,
		"request_id", v.RequestID, "remote", v.Remote, "ms", v.MS)
	if l.file == nil {
		return
	}
	if err := l.write(v); err != nil && !l.failed {
		l.failed = true
		l.log.Error("the audit log cannot be written; the node's log and its memory go on", "file", l.path, "error", err)
	}
}

// write appends to the file, and begins a new one when it is full. mu is held.
func (l *auditLog) write(v AuditView) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if l.size+int64(len(line)) > auditBytes {
		next, err := os.OpenFile(l.path+".new", os.O_APPEND|os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		err = errors.Join(os.Rename(l.path, l.path+".1"), os.Rename(l.path+".new", l.path), l.file.Close())
		l.file, l.size = next, 0
		if err != nil {
			return err
		}
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	if err == nil {
		l.failed = false
	}
	return err
}

// last returns the newest records first, at most limit.
func (l *auditLog) last(limit int) []AuditView {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := slices.Clone(l.records[max(0, len(l.records)-limit):])
	slices.Reverse(list)
	return orEmpty(list)
}

// AuditAnswer is the answer of GET /api/v1/audit.
type AuditAnswer struct {
	Records []AuditView `json:"records"` // of this node, newest first
}

func (a *api) auditRecords(w http.ResponseWriter, r *http.Request) {
	limit := 100
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > auditKept {
			fail(w, badRequest("limit is "+strconv.Quote(clipped(text, 40)), "It is a number from 1 to "+strconv.Itoa(auditKept)+"."))
			return
		}
		limit = n
	}
	reply(w, http.StatusOK, AuditAnswer{a.audit.last(limit)})
}

// clipped is the beginning of a text.
func clipped(s string, most int) string { return s[:min(len(s), most)] }

// audited is a body as a record keeps it: as JSON if it is some, and not long.
func audited(body []byte) json.RawMessage {
	var b bytes.Buffer
	if len(body) == 0 {
		return nil
	}
	if len(body) <= auditBody && json.Compact(&b, body) == nil {
		return b.Bytes()
	}
	text, err := json.Marshal(string(bytes.ToValidUTF8(body[:min(len(body), auditBody)], []byte("?"))))
	if err != nil {
		return nil
	}
	return text
}
