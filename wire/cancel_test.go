package wire

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"testing"
)

// TestCancelKeys: a key names its node, is a positive int32, and is random otherwise.
func TestCancelKeys(t *testing.T) {
	s := NewServer(Config{Node: "fra-1", Logger: slog.New(slog.DiscardHandler)})
	seen := map[string]bool{}
	for i := range 1000 {
		minor, size := uint16(0), secretBytes
		if i%2 == 1 {
			minor, size = 2, longSecret
		}
		ses := &session{server: s}
		if !s.register(ses, minor) {
			t.Fatal("no room")
		}
		if ses.pid == 0 || ses.pid > 1<<31-1 || CancelNodeOf(ses.pid) != CancelNode("fra-1") {
			t.Fatalf("process id %x of node %x", ses.pid, CancelNode("fra-1"))
		}
		if len(ses.secret) != size || bytes.Count(ses.secret, []byte{0}) == size || seen[string(ses.secret)] {
			t.Fatalf("secret %x", ses.secret)
		}
		seen[string(ses.secret)] = true
	}
	if len(s.sessions) != 1000 {
		t.Errorf("%d sessions", len(s.sessions))
	}
	names := map[uint32]bool{}
	for i := range 100 {
		names[CancelNode(fmt.Sprintf("node-%d", i))] = true
	}
	if len(names) < 90 {
		t.Errorf("100 names have %d hashes", len(names))
	}
}

// TestCancelKeysAreChecked: only the whole key counts here, and what is not for a session here is passed on once.
func TestCancelKeysAreChecked(t *testing.T) {
	var passed []string
	s := NewServer(Config{
		Node: "fra-1", Logger: slog.New(slog.DiscardHandler),
		ForwardCancel: func(_ context.Context, pid uint32, secret []byte) {
			passed = append(passed, fmt.Sprintf("%x %x", pid, secret))
		},
	})
	ses := &session{server: s}
	if !s.register(ses, 2) {
		t.Fatal("no room")
	}
	s.cancelRequest(ses.pid, ses.secret)
	if len(passed) != 0 {
		t.Errorf("its own was passed on: %v", passed)
	}
	wrong := bytes.Clone(ses.secret)
	wrong[31] ^= 1
	for _, secret := range [][]byte{wrong, ses.secret[:4], append(bytes.Clone(ses.secret), 0), {}} {
		if s.Cancel(t.Context(), ses.pid, secret) {
			t.Errorf("taken: %x", secret)
		}
	}
	s.cancelRequest(ses.pid^1<<30, []byte("1234"))
	if want := fmt.Sprintf("%x 31323334", ses.pid^1<<30); len(passed) != 1 || passed[0] != want {
		t.Errorf("passed on %v, want %s", passed, want)
	}
	NewServer(Config{Logger: slog.New(slog.DiscardHandler)}).cancelRequest(1, []byte("1234")) // nobody to pass it to
}

// TestCancelKeysRunOut: there is an end to the numbers, and no endless search for the last one.
func TestCancelKeysRunOut(t *testing.T) {
	s := NewServer(Config{Node: "fra-1", Logger: slog.New(slog.DiscardHandler)})
	for i := range uint32(maxSessions) {
		s.sessions[i] = nil
	}
	if s.register(&session{server: s}, 0) {
		t.Error("one too many")
	}
}
