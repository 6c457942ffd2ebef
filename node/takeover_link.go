package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"rangefinder/gossip"
	"rangefinder/wire"
)

// Two processes of one node speak over a Unix socket in data_dir, one JSON object a line, sockets beside it (SCM_RIGHTS):
//
//	new                 old
//	ask        ->                  its user is checked
//	           <-       sockets    with the four sockets: clients, cluster (TCP, UDP), HTTP. Both could accept now; only old does
//	go         ->                  the new one has checked that its configuration fits them
//	           <-       released   the old one has left gossip without a word, closed its ledger and unlocked data_dir
//	ready      ->                  the new one is in the cluster, and knows who owns which keys
//	           <-       done       the old one accepts no more; the new one begins to
//	cancel     ->                  a cancel request for a session that the old one may have
//	           <-       canceled
//
// Until ready the old one serves as ever, with its last FIB. If the connection ends before that, it takes everything back. The
// connection lives as long as the old one.
const (
	takeoverFile     = "takeover.sock"
	takeoverVersion  = 1
	maxTakeoverLine  = 8 << 10 // of the new process
	maxReleasedLine  = 8 << 20 // of the old one: what it has said of its backends
	maxTakeoverFiles = 8
	takeoverStep     = 10 * time.Second // for an answer that takes no work
	takeoverRelease  = time.Minute      // for the old process to leave the cluster
	takeoverPatience = 3 * time.Minute  // for the new process to become ready
)

// The steps, as above; refused comes with an error in place of any of old's, back when it will wait no longer.
const (
	stepAsk      = "ask"
	stepSockets  = "sockets"
	stepGo       = "go"
	stepReleased = "released"
	stepReady    = "ready"
	stepDone     = "done"
	stepCancel   = "cancel"
	stepCanceled = "canceled"
	stepRefused  = "refused"
	stepBack     = "back"
)

// takeoverMessage is one line.
type takeoverMessage struct {
	Step    string `json:"step"`
	Version int    `json:"version,omitempty"`
	Process int    `json:"process,omitempty"` // id of the one that speaks
	Error   string `json:"error,omitempty"`
	Key     uint32 `json:"key,omitempty"` // of a cancel request, with Secret
	Secret  []byte `json:"secret,omitempty"`
	Done    bool   `json:"done,omitempty"`

	Word *gossip.Word `json:"word,omitempty"` // with released
}

// link is one end of the connection. One goroutine reads, one writes.
type link struct {
	conn  *net.UnixConn
	most  int // bytes of a line
	buf   []byte
	files []*os.File // that came, and nobody has taken yet
}

var errTakeoverLine = errors.New("the other process does not speak the protocol of a takeover")

// write sends a message, with files that stay the caller's.
func (l *link) write(m takeoverMessage, files ...*os.File) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var fds []int
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		// Not f.Fd: it would make the socket a blocking one, for everybody who has it.
		if err := raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) }); err != nil {
			return err
		}
	}
	var rights []byte
	if len(fds) > 0 {
		rights = syscall.UnixRights(fds...)
	}
	_ = l.conn.SetWriteDeadline(time.Now().Add(takeoverStep))
	text = append(text, '\n')
	n, _, err := l.conn.WriteMsgUnix(text, rights, nil)
	if err == nil && n < len(text) {
		_, err = l.conn.Write(text[n:])
	}
	return err
}

// read waits for a message; limit 0: for ever.
func (l *link) read(limit time.Duration) (m takeoverMessage, err error) {
	deadline := time.Time{}
	if limit > 0 {
		deadline = time.Now().Add(limit)
	}
	_ = l.conn.SetReadDeadline(deadline)
	for {
		if line, rest, ok := bytes.Cut(l.buf, []byte{'\n'}); ok {
			l.buf = rest
			if json.Unmarshal(line, &m) != nil || m.Step == "" {
				return m, errTakeoverLine
			}
			if m.Step == stepRefused {
				return m, fmt.Errorf("the running process says: %.200s", m.Error)
			}
			return m, nil
		}
		if len(l.buf) > l.most {
			return m, errTakeoverLine
		}
		in, rights := make([]byte, 16<<10), make([]byte, syscall.CmsgSpace(4*maxTakeoverFiles))
		n, k, _, _, err := l.conn.ReadMsgUnix(in, rights)
		if k > 0 {
			if err := l.receive(rights[:k]); err != nil {
				return m, err
			}
		}
		if err != nil {
			return m, err
		}
		if n == 0 {
			return m, net.ErrClosed
		}
		l.buf = append(l.buf, in[:n]...)
	}
}

func (l *link) receive(rights []byte) error {
	messages, err := syscall.ParseSocketControlMessage(rights)
	if err != nil {
		return err
	}
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			return err
		}
		for _, fd := range fds {
			l.files = append(l.files, os.NewFile(uintptr(fd), "taken over"))
		}
	}
	if len(l.files) > maxTakeoverFiles {
		return errTakeoverLine
	}
	return nil
}

// expect reads a message of one step.
func (l *link) expect(step string, limit time.Duration) (takeoverMessage, error) {
	m, err := l.read(limit)
	if err == nil && m.Step != step {
		err = fmt.Errorf("%w: %.20q instead of %q", errTakeoverLine, m.Step, step)
	}
	return m, err
}

func (l *link) close() {
	_ = l.conn.Close()
	for _, f := range l.files {
		_ = f.Close()
	}
	l.files = nil
}

// atTakeoverSocket calls f with the path of the socket. Such paths may have 108 bytes; a longer one goes by an open directory.
func atTakeoverSocket(dataDir string, f func(path string) error) error {
	path := filepath.Join(dataDir, takeoverFile)
	if len(path) < 100 {
		return f(path)
	}
	dir, err := os.Open(dataDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), takeoverFile))
}

// sockets are those that a process begins with instead of opening its own.
type sockets struct {
	postgres, cluster, http net.Listener
	packets                 net.PacketConn
}

// adopt makes sockets of files in the order of the protocol. The files are closed.
func adopt(files []*os.File) (s sockets, err error) {
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
		if err != nil {
			s.close()
			s = sockets{}
		}
	}()
	if len(files) != 4 {
		return s, errTakeoverLine
	}
	if s.postgres, err = wire.Inherit(files[0]); err != nil {
		return s, err
	}
	if s.cluster, err = net.FileListener(files[1]); err != nil {
		return s, err
	}
	if s.packets, err = net.FilePacketConn(files[2]); err != nil {
		return s, err
	}
	s.http, err = net.FileListener(files[3])
	return s, err
}

func (s *sockets) close() {
	for _, ln := range []net.Listener{s.postgres, s.cluster, s.http} {
		if ln != nil {
			_ = ln.Close()
		}
	}
	if s.packets != nil {
		_ = s.packets.Close()
	}
}
