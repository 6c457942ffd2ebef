package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// This file is the new process's side of a takeover; handover.go is the old one's.

// predecessor is the process that this one has taken over from, as long as it lives.
type predecessor struct {
	// constant
	link *link
	node *Node

	// guarded by mu
	mu   sync.Mutex
	gone bool
}

// takeOver gets the sockets of the process that runs with this data_dir, and waits until it has let go of it.
func (n *Node) takeOver(ctx context.Context) error {
	if !n.options.Takeover {
		return nil
	}
	conn, err := dialTakeover(n.cfg().DataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		n.log.Info("nobody runs with this data_dir: starting as usual", "data_dir", n.cfg().DataDir)
		return nil
	case err != nil:
		return fmt.Errorf("take over: %w", err)
	}
	n.waits("taking over from the running process")
	l := &link{conn: conn, most: maxReleasedLine}
	n.opened("takeover", func() error { l.close(); return nil })
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(longAgo) })
	defer stop()
	if err := n.askFor(l); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &Failure{Message: "cannot take over: " + err.Error(), Hint: "The running process goes on as before. Without --takeover, stop it first.", Err: err}
	}
	n.before = &predecessor{link: l, node: n}
	return nil
}

var longAgo = time.Unix(1, 0)

func dialTakeover(dataDir string) (conn *net.UnixConn, err error) {
	err = atTakeoverSocket(dataDir, func(path string) error {
		conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	return conn, err
}

// askFor goes through the steps up to released.
func (n *Node) askFor(l *link) error {
	if err := l.write(takeoverMessage{Step: stepAsk, Version: takeoverVersion, Process: os.Getpid()}); err != nil {
		return err
	}
	m, err := l.expect(stepSockets, takeoverStep)
	if err != nil {
		return err
	}
	files := l.files
	l.files = nil
	s, err := adopt(files)
	if err != nil {
		return err
	}
	if err := s.fit(n.cfg()); err != nil {
		s.close()
		return err
	}
	if err := l.write(takeoverMessage{Step: stepGo}); err != nil {
		s.close()
		return err
	}
	n.log.Info("taking over", "process", m.Process)
	released, err := l.expect(stepReleased, takeoverRelease)
	if err == nil && released.Word == nil {
		err = errTakeoverLine
	}
	if err != nil {
		s.close()
		return err
	}
	n.sockets, n.word = s, released.Word
	n.opened("sockets", func() error { s.close(); return nil }) // what a later step has closed is closed
	n.log.Info("the running process has left the cluster; it serves until this one is ready", "process", m.Process)
	return nil
}

// fit compares what the configuration says with what the sockets are.
func (s *sockets) fit(cfg *Config) error {
	for _, x := range []struct {
		what, bind string
		port       int
		addr       net.Addr
	}{
		{"ports.postgres", cfg.Bind, cfg.Ports.Postgres, s.postgres.Addr()},
		{"ports.cluster", cfg.Bind, cfg.Ports.Cluster, s.cluster.Addr()},
		{"ports.http", cfg.httpBind(), cfg.Ports.HTTP, s.http.Addr()},
	} {
		host, port, err := net.SplitHostPort(x.addr.String())
		if err != nil {
			return err
		}
		if x.port != 0 && port != strconv.Itoa(x.port) || !sameAddress(host, x.bind) {
			return fmt.Errorf("the configuration wants %s at %s, and the running process listens on %s: that needs a restart", x.what, net.JoinHostPort(x.bind, strconv.Itoa(x.port)), x.addr)
		}
	}
	return nil
}

// sameAddress compares addresses; one that stands for all is told in other ways.
func sameAddress(a, b string) bool {
	x, y := net.ParseIP(a), net.ParseIP(b)
	return x != nil && y != nil && (x.Equal(y) || x.IsUnspecified() && y.IsUnspecified())
}

// relieve has the process before this one accept no more: this one is ready.
func (n *Node) relieve() error {
	if n.before == nil {
		return nil
	}
	l := n.before.link
	err := l.write(takeoverMessage{Step: stepReady})
	m, readErr := l.read(takeoverStep) // it may have said something before it was gone
	switch {
	case m.Step == stepDone:
		n.log.Info("taken over: the process before this one keeps its sessions to their end")
	case m.Step == stepBack:
		return &Failure{Message: "cannot take over: the running process would not wait any longer", Hint: "It goes on as before. Look in the log for what this one was waiting for."}
	default:
		n.log.Warn("the process before this one is gone, and its sessions with it", "error", errors.Join(err, readErr))
		n.before.end()
	}
	n.serveHTTP()
	return nil
}

// cancel passes a cancel request on to the process before this one. It reports whether that had such a session.
func (p *predecessor) cancel(ctx context.Context, pid uint32, secret []byte) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone || ctx.Err() != nil {
		return false
	}
	err := p.link.write(takeoverMessage{Step: stepCancel, Key: pid, Secret: secret})
	if err == nil {
		var m takeoverMessage
		if m, err = p.link.expect(stepCanceled, cancelTimeout+time.Second); err == nil {
			return m.Done
		}
	}
	p.gone = true
	p.node.log.Info("the process before this one has ended", "error", err)
	return false
}

func (p *predecessor) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
}
