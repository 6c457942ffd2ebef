package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// This file is the old process's side of a takeover; takeover.go is the new one's.

// heirPause is between two tries to take everything back.
const heirPause = 200 * time.Millisecond

// Retired is closed when Close should be called: by SHUTDOWN, or when another process has taken over, and either the last session
// of this one has ended or takeover_timeout is over.
func (n *Node) Retired() <-chan struct{} { return n.retired }

func (n *Node) retire() { n.retireOnce.Do(func() { close(n.retired) }) }

// openHandover listens for a process that wants to take over.
func (n *Node) openHandover(context.Context) error {
	var ln *net.UnixListener
	err := atTakeoverSocket(n.cfg().DataDir, func(path string) (err error) {
		_ = os.Remove(path) // of the process before; data_dir is locked
		if ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
			return err
		}
		ln.SetUnlinkOnClose(false) // it may be another process's by then
		return os.Chmod(path, 0o600)
	})
	if err != nil { // a file system without sockets, say
		n.log.Warn("no other process will be able to take over from this one", "error", err)
		return nil
	}
	ctx, cancel := context.WithCancel(n.ctx)
	var wg sync.WaitGroup
	wg.Go(func() { n.serveHandover(ctx, ln) })
	n.opened("handover", func() error {
		cancel()
		err := ln.Close()
		wg.Wait()
		if errors.Is(err, net.ErrClosed) {
			err = nil
		}
		return err
	})
	return nil
}

// serveHandover goes on until this process stops, or has been taken over from.
func (n *Node) serveHandover(ctx context.Context, ln *net.UnixListener) {
	defer ln.Close()
	for {
		conn, err := ln.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) || !pause(ctx, acceptPause) {
				return
			}
			continue
		}
		l := &link{conn: conn, most: maxTakeoverLine}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // a deadline would be lifted by whoever reads next
		handed := n.handOver(ctx, l)
		if handed {
			_ = ln.Close()
			n.serveHeir(ctx, l)
		}
		stop()
		l.close()
		if handed {
			return
		}
	}
}

// handOver gives everything but the sessions to the process at the other end. False: this one goes on as before.
func (n *Node) handOver(ctx context.Context, l *link) bool {
	if uid, err := peerUID(l.conn); err != nil || uid != os.Geteuid() && uid != 0 {
		n.log.Warn("another user's process wants to take over: refused", "uid", uid, "error", err)
		return false
	}
	ask, err := l.expect(stepAsk, takeoverStep)
	if err != nil {
		n.log.Warn("a process that wants to take over does not ask for it", "error", err)
		return false
	}
	n.handing.Store(true)
	defer n.handing.Store(false)
	n.reloading.Lock()
	defer n.reloading.Unlock()
	refuse := func(why string) bool {
		n.log.Warn("a process that wants to take over is refused", "process", ask.Process, "reason", why)
		_ = l.write(takeoverMessage{Step: stepRefused, Error: why})
		return false
	}
	switch {
	case ask.Version != takeoverVersion:
		return refuse(fmt.Sprintf("version %d of takeovers is not known here, but %d", ask.Version, takeoverVersion))
	case phase(n.phase.Load()) != phaseServing:
		return refuse("this process is not serving")
	}
	if halted := n.server.Halted(); len(halted) > 0 { // the new process would let clients in again, and nobody meant that
		return refuse("databases are paused or disabled: " + strings.Join(halted, ", "))
	}
	files, err := n.socketFiles()
	if err != nil {
		return refuse(err.Error())
	}
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	if err := l.write(takeoverMessage{Step: stepSockets, Version: takeoverVersion, Process: os.Getpid()}, files...); err != nil {
		n.log.Warn("the sockets cannot be handed over", "error", err)
		return false
	}
	if _, err := l.expect(stepGo, takeoverStep); err != nil {
		n.log.Info("the process that wanted to take over has thought better of it", "process", ask.Process, "error", err)
		return false
	}
	n.log.Info("handing over: leaving the cluster, serving on", "process", ask.Process)
	n.release()
	word := n.speaker().Word()
	n.word = &word
	if err = l.write(takeoverMessage{Step: stepReleased, Word: &word}); err == nil {
		_, err = l.expect(stepReady, takeoverPatience)
	}
	switch {
	case ctx.Err() != nil:
		return false // stopping; whoever takes over goes on without this one
	case err != nil:
		n.log.Error("the process that was to take over has failed: taking everything back", "process", ask.Process, "error", err)
		_ = l.write(takeoverMessage{Step: stepBack})
		l.close() // it ends by that, if it is still there
		n.takeBack(ctx, files)
		return false
	}
	if !n.phase.CompareAndSwap(int32(phaseServing), int32(phaseHanded)) {
		return false // stopping
	}
	_ = n.pgLn.Close()
	_ = l.write(takeoverMessage{Step: stepDone})
	n.wg.Go(func() { _ = n.giveUp("HTTP") }) // calls in progress may take a second
	n.log.Info("handed over", "process", ask.Process, "sessions", n.server.Stats().Sessions, "takeover_timeout", n.cfg().TakeoverWait.Duration)
	n.wg.Go(n.outlive)
	return true
}

// outlive waits for the sessions that are left.
func (n *Node) outlive() {
	ctx, cancel := context.WithTimeout(n.ctx, n.cfg().TakeoverWait.Duration)
	defer cancel()
	if n.server.Wait(ctx) == nil {
		n.log.Info("the last session has ended")
	} else if n.ctx.Err() == nil {
		n.log.Info("takeover_timeout is over", "sessions", n.server.Stats().Sessions)
	}
	n.retire()
}

// serveHeir does what the process that has taken over asks for, as long as both live.
func (n *Node) serveHeir(ctx context.Context, l *link) {
	for {
		m, err := l.expect(stepCancel, 0)
		if err != nil {
			return
		}
		within, cancel := context.WithTimeout(ctx, cancelTimeout)
		done := n.server.Cancel(within, m.Key, m.Secret) || n.before.cancel(within, m.Key, m.Secret)
		cancel()
		if l.write(takeoverMessage{Step: stepCanceled, Done: done}) != nil {
			return
		}
	}
}

// socketFiles are the sockets in the order of the protocol, once more.
func (n *Node) socketFiles() (files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				_ = f.Close()
			}
		}
	}()
	listener := func(ln net.Listener) error {
		t, ok := ln.(interface{ File() (*os.File, error) })
		if !ok {
			return errors.New("a listener is not a TCP socket")
		}
		f, err := t.File()
		if err == nil {
			files = append(files, f)
		}
		return err
	}
	if err := listener(n.pgLn); err != nil {
		return files, err
	}
	tcp, udp, err := n.port().Files()
	if err != nil {
		return files, err
	}
	files = append(files, tcp, udp)
	return files, listener(n.httpLn)
}

// release leaves the cluster without saying so, and unlocks the data directory. Sessions go on with the last FIB, and the probes
// go on for them: they end this node's own evidence against backends.
func (n *Node) release() {
	for _, part := range []string{"cancel requests", "loops", "gossip", "ledger", "cluster port", "data directory"} {
		if part == "gossip" {
			if err := n.speaker().Kill(); err != nil { // a goodbye would have the others forget what this node has said
				n.log.Warn("while handing over", "part", part, "error", err)
			}
		}
		if err := n.giveUp(part); err != nil {
			n.log.Warn("while handing over", "part", part, "error", err)
		}
	}
}

// takeBack undoes release, once the other process has let go of the data directory.
func (n *Node) takeBack(ctx context.Context, files []*os.File) {
	for said := ""; ; {
		err := n.rejoin(ctx, files)
		if err == nil {
			n.log.Info("everything is as before")
			return
		}
		if said != err.Error() {
			said = err.Error()
			n.log.Error("cannot go back into the cluster yet; sessions go on, trying on", "error", err)
		}
		if !pause(ctx, heirPause) {
			return
		}
	}
}

func (n *Node) rejoin(ctx context.Context, files []*os.File) (err error) {
	if err := n.dir.Reopen(); err != nil {
		return err
	}
	n.opened("data directory", n.dir.Close)
	defer func() {
		if err != nil {
			n.release()
		}
	}()
	state, _, err := n.dir.Load()
	if err != nil {
		return err
	}
	if err := n.change(func(s *State) { s.Incarnation = max(s.Incarnation, state.Incarnation) }); err != nil {
		return err
	}
	if n.sockets, err = again(files); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{n.openPort, n.openLedger, n.openGossip} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := n.startLoops(ctx); err != nil {
		return err
	}
	n.serveCancels()
	return nil
}

// again makes the cluster port's sockets of their files; the files stay open.
func again(files []*os.File) (s sockets, err error) {
	if s.cluster, err = net.FileListener(files[1]); err != nil {
		return s, err
	}
	if s.packets, err = net.FilePacketConn(files[2]); err != nil {
		s.close()
	}
	return s, err
}
