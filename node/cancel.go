package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"rangefinder/node/port"
	"rangefinder/rib"
	"rangefinder/wire"
	"rangefinder/wire/pg"
)

const (
	maxCancels    = 32              // passed on, and taken from other nodes, at once
	maxCancelDial = 4               // nodes asked about one key; more than one only if hashes of names agree
	cancelTimeout = 5 * time.Second // for one that another node has passed on

	cancelVersion = 1
)

// forwardCancel passes a cancel request on to the node that its key names. It returns when that node has done what can be done, or
// ctx ends. A key of a node that nobody knows is dropped without a word.
func (n *Node) forwardCancel(ctx context.Context, pid uint32, secret []byte) {
	if wire.CancelNodeOf(pid) == wire.CancelNode(n.state.Node) && n.before.cancel(ctx, pid, secret) {
		return
	}
	targets := cancelTargets(n.speaker().Members(), n.state.Node, pid)
	if len(targets) == 0 {
		return
	}
	select { // strangers can send these: they must not make this node dial without end
	case n.cancels <- struct{}{}:
		defer func() { <-n.cancels }()
	case <-ctx.Done():
		n.log.Warn("too many cancel requests at once, one is dropped")
		return
	}
	var wg sync.WaitGroup
	for _, m := range targets {
		wg.Go(func() {
			if err := n.sendCancelTo(ctx, m.Addr, pid, secret); err != nil {
				n.log.Info("a cancel request could not be passed on", "node", m.Name, "error", err)
			}
		})
	}
	wg.Wait()
}

// cancelTargets are the members, but for this node, whose session a process id may be.
func cancelTargets(members []rib.Member, self string, pid uint32) []rib.Member {
	var out []rib.Member
	for _, m := range members {
		if m.Name != self && m.Addr != "" && len(out) < maxCancelDial && wire.CancelNode(m.Name) == wire.CancelNodeOf(pid) {
			out = append(out, m)
		}
	}
	return out
}

func (n *Node) sendCancelTo(ctx context.Context, addr string, pid uint32, secret []byte) error {
	conn, err := n.port().Dial(ctx, port.KindCancel, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(appendCancel(nil, pid, secret)); err != nil {
		return err
	}
	var b [1]byte
	if _, err := conn.Read(b[:]); err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	return nil
}

// serveCancels takes the cancel requests that other nodes pass on, until sessions have ended.
func (n *Node) serveCancels() {
	ln := n.port().Listener(port.KindCancel)
	ctx, cancel := context.WithCancel(n.ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		room := make(chan struct{}, maxCancels)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			room <- struct{}{} // each holds it for cancelTimeout at most
			wg.Go(func() {
				defer func() { <-room }()
				n.takeCancel(ctx, conn)
			})
		}
	})
	n.opened("cancel requests", func() error {
		cancel()
		err := ln.Close()
		wg.Wait()
		return err
	})
}

// takeCancel does one, and answers with a byte that does not tell whether there was such a session.
func (n *Node) takeCancel(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, cancelTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	pid, secret, err := readCancel(conn)
	if err != nil {
		n.log.Debug("a cancel request of another node cannot be read", "from", conn.RemoteAddr().String(), "error", err)
		return
	}
	if !n.server.Cancel(ctx, pid, secret) {
		n.before.cancel(ctx, pid, secret)
	} // and to no other node again
	_, _ = conn.Write([]byte{cancelVersion})
}

var errCancel = errors.New("not a cancel request")

// appendCancel is a cancel request between nodes: a version, the secret's length (2 bytes, big endian), the process id (4 bytes), the
// secret.
func appendCancel(dst []byte, pid uint32, secret []byte) []byte {
	dst = append(dst, cancelVersion)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(secret)))
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return append(dst, secret...)
}

func readCancel(r io.Reader) (pid uint32, secret []byte, err error) {
	var head [7]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint16(head[1:])
	if head[0] != cancelVersion || size == 0 || size > pg.MaxSecret {
		return 0, nil, errCancel
	}
	secret = make([]byte, size)
	if _, err := io.ReadFull(r, secret); err != nil {
		return 0, nil, err
	}
	return binary.BigEndian.Uint32(head[3:]), secret, nil
}
