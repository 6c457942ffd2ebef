package wire

import (
	"errors"
	"net"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/epoll"
)

// Whoever sends a large statement in small pieces has it parsed in a goroutine of his own: in the set's all others would wait for that.
func TestLargeMessageLeavesTheSet(t *testing.T) {
	set := epoll.Open(true)
	if set == nil {
		t.Skip("there are no sets")
	}
	defer set.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		held  int // bytes of the message that have come before
		inSet bool
		want  outcome
	}{{100, true, goesOn}, {serverBuffer, true, blocks}, {serverBuffer, false, goesOn}} {
		s := &session{server: new(Server), core: newCore(testEnv(t), "u", "app")}
		s.server.buffers.New = func() any { return new(buffers) }
		if s.raw.sock, _ = near.(*epoll.Socket); s.raw.sock == nil {
			s.raw.sock = set.Adopt(near)
			near = s.raw.sock
			defer near.Close()
		}
		s.client = s.raw.sock
		s.core.in = append([]byte{'Q', 0, 1, 0, 0}, make([]byte, c.held)...)
		if how := s.readRaw(c.inSet); how != waits {
			t.Errorf("%d bytes are there and nothing new: %d", c.held, how)
		}
		if _, err := far.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		pgtest.Eventually(t, 10*time.Second, func() error {
			if !s.raw.sock.Readable() {
				return errors.New("the set does not tell of what has come")
			}
			return nil
		})
		if how := s.readRaw(c.inSet); how != c.want {
			t.Errorf("%d bytes are there, in the set %v: %d, want %d", c.held, c.inSet, how, c.want)
		}
		if c.want == blocks {
			s.readRaw(false)
		}
	}
}
