package port

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"
)

// HelloVersion is the version of the hello that this package speaks.
const HelloVersion = 1

// maxHello bounds a hello and its answer, in bytes.
const maxHello = 4096

// maxHellos bounds the hellos that are answered at once.
const maxHellos = 32

// Hello is what a joiner says to a node of its --join list before anything else.
type Hello struct {
	Version   int    `json:"version"`
	ClusterID string `json:"cluster_id"` // empty: it belongs to none yet
	Name      string `json:"name"`
	Region    string `json:"region"`
}

// HelloReply is the answer.
type HelloReply struct {
	Version   int    `json:"version"`
	ClusterID string `json:"cluster_id"` // of the node that answers; empty: it belongs to none yet
	Name      string `json:"name"`
	Region    string `json:"region"`
	Accepted  bool   `json:"accepted"`
	Retry     bool   `json:"retry,omitempty"`  // not now, but ask again: the node that answers is joining itself
	Reason    string `json:"reason,omitempty"` // why it was refused, for people
}

// RefusedError is a hello that was refused. Reason is the whole text for people.
type RefusedError struct {
	Addr  string // who was asked
	Reply HelloReply
}

// Error returns the reason with the address that gave it.
func (e *RefusedError) Error() string { return fmt.Sprintf("%s: %s", e.Addr, e.Reply.Reason) }

// AnswerHello is the rule by which a node answers: it takes in those of its own cluster and those of none.
// self is the node that answers, with its own cluster id, name and region.
func AnswerHello(self, h Hello) HelloReply {
	r := HelloReply{Version: HelloVersion, ClusterID: self.ClusterID, Name: self.Name, Region: self.Region}
	switch {
	case h.Version < 1:
		r.Reason = fmt.Sprintf("this hello has version %d, which means nothing", h.Version)
	case h.Name == "":
		r.Reason = "this hello names no node"
	case h.Name == self.Name:
		r.Reason = fmt.Sprintf("this node is itself named %q: every node needs a name of its own", h.Name)
	case self.ClusterID == "":
		r.Retry = true
		r.Reason = "this node belongs to no cluster yet: it is joining one itself"
	case h.ClusterID != "" && h.ClusterID != self.ClusterID:
		r.Reason = fmt.Sprintf("node %q belongs to cluster %s, and this is cluster %s: a node never changes its cluster; join one of its own, or give it an empty data_dir",
			h.Name, h.ClusterID, self.ClusterID)
	default:
		r.Accepted = true
	}
	return r
}

// Hello asks the node at addr to be let in. It returns the answer, and an error unless it was accepted: a *RefusedError for a
// refusal (its Reply.Retry says that asking again later makes sense), a *DialError if the node could not be asked.
func (p *Port) Hello(ctx context.Context, addr string, h Hello) (HelloReply, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*p.cfg.HandshakeTimeout)
	defer cancel()
	h.Version = HelloVersion
	conn, err := p.Dial(ctx, KindHello, addr)
	if err != nil {
		return HelloReply{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // it only ends a wait
	defer stop()
	var reply HelloReply
	err = writeJSON(conn, h)
	if err == nil {
		err = readJSON(conn, &reply)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer: %w", ctx.Err())
		} else if p.id == nil && (hangsUp(err) || errors.Is(err, errFrame)) {
			err = fmt.Errorf("%w (%v)", ErrKeyNeeded, err)
		}
		return HelloReply{}, &DialError{Kind: KindHello, Addr: addr, Err: p.orClosed(err)}
	}
	if !reply.Accepted {
		if reply.Reason == "" {
			reply.Reason = "refused without a reason"
		}
		return reply, &RefusedError{Addr: addr, Reply: reply}
	}
	if reply.ClusterID == "" {
		return reply, &DialError{Kind: KindHello, Addr: addr, Err: errors.New("it accepted and named no cluster")}
	}
	return reply, nil
}

// ServeHello answers hellos until ln is closed. answer is called from several goroutines; it has to come well within the time for a handshake.
// It returns when the last answer has been given.
func (p *Port) ServeHello(ln net.Listener, answer func(Hello) HelloReply) error {
	room := make(chan struct{}, maxHellos)
	defer func() {
		for range maxHellos { // the last ones end by their deadline, or with the port
			room <- struct{}{}
		}
	}()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		room <- struct{}{}
		go func() {
			defer func() { <-room }()
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(p.cfg.HandshakeTimeout))
			var h Hello
			if err := readJSON(conn, &h); err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					p.noise.say("cluster port: a hello that cannot be read", slog.String("from", conn.RemoteAddr().String()), slog.Any("error", err))
				}
				return
			}
			_ = writeJSON(conn, answer(h))
		}()
	}
}

// errFrame marks bytes that are no hello at all.
var errFrame = errors.New("not a hello")

// writeJSON sends a value with its length in front (2 bytes, big endian).
func writeJSON(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxHello {
		return fmt.Errorf("a hello of %d bytes is over the limit of %d", len(body), maxHello)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...))
	return err
}

func readJSON(r io.Reader, v any) error {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint16(head[:])
	if n == 0 || n > maxHello {
		return fmt.Errorf("%w: its length is %d", errFrame, n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %v", errFrame, err)
	}
	return nil
}
