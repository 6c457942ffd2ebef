package wire

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"time"
)

// A cancel key is what BackendKeyData gives a client and a CancelRequest gives back, to whichever node the network takes it:
//
//	process id   1 bit    0: clients take it for a positive int32
//	             12 bits  of the hash of the node's name: whom another node passes the request on to
//	             19 bits  random, no two sessions of a node alike
//	secret       4 bytes  random; 32 from protocol 3.2 on
//
// Names whose hashes agree are no harm: all of them are asked, and the secret decides.
const (
	sessionBits = 19
	nodeBits    = 12
	secretBytes = 4
	longSecret  = 32 // bytes, as PostgreSQL 18

	newestMinor = 2 // of protocol 3: the one with long secrets

	// maxSessions leaves room to find a free number soon.
	maxSessions = 1 << (sessionBits - 1)

	cancelTimeout = 5 * time.Second
)

// CancelNode is the part of a cancel key's process id that stands for the node of that name.
func CancelNode(name string) uint32 {
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint32(sum[:]) >> (32 - nodeBits)
}

// CancelNodeOf is that part of a process id.
func CancelNodeOf(pid uint32) uint32 { return pid >> sessionBits & (1<<nodeBits - 1) }

// register gives the session a cancel key that no other session has. It returns false if there are too many.
func (s *Server) register(ses *session, minor uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sessions)+len(s.operators) >= maxSessions {
		return false
	}
	ses.pid, ses.secret = s.newKey(minor)
	s.sessions[ses.pid] = ses
	return true
}

// newKey makes a cancel key that is not in use. The caller holds mu.
func (s *Server) newKey(minor uint16) (pid uint32, secret []byte) {
	secret = make([]byte, secretBytes)
	if minor >= newestMinor {
		secret = make([]byte, longSecret)
	}
	_, _ = rand.Read(secret) // never fails
	node := CancelNode(s.cfg.Node) << sessionBits
	for pid == 0 || s.sessions[pid] != nil || s.operators[pid] != nil {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		pid = node | binary.BigEndian.Uint32(b[:])>>(32-sessionBits)
	}
	return pid, secret
}

// cancelRequest does what a client's CancelRequest asks for, here or at the node that the key names. Nobody is told whether
// there was such a session.
func (s *Server) cancelRequest(pid uint32, secret []byte) {
	ctx, cancel := context.WithTimeout(s.ctx, cancelTimeout)
	defer cancel()
	if !s.Cancel(ctx, pid, secret) && s.cfg.ForwardCancel != nil {
		s.cfg.ForwardCancel(ctx, pid, secret)
	}
}

// Cancel cancels what the session with that key runs, if it is a session of this server and runs something. It returns once
// the backend has taken the request, and false if there is no such session.
func (s *Server) Cancel(ctx context.Context, pid uint32, secret []byte) bool {
	s.mu.Lock()
	ses, o := s.sessions[pid], s.operators[pid]
	s.mu.Unlock()
	if o != nil && subtle.ConstantTimeCompare(o.secret, secret) == 1 {
		o.giveUp()
		return true
	}
	if ses == nil || subtle.ConstantTimeCompare(ses.secret, secret) != 1 {
		return false
	}
	ses.cancel(ctx)
	return true
}
