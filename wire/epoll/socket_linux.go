package epoll

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Socket is a connection whose events a Set tells of. Who has it may ask it without waiting (TryRead, TryWrite) as long as nobody
// else closes it; all else is net.Conn's, waits, and may be called at any time.
type Socket struct {
	// constant
	set           *Set
	fd            int
	stamp         int32 // by which its events are told from those of an earlier one with its fd
	own           bool  // it closes fd
	local, remote net.Addr

	// atomic
	state    atomic.Uint32
	listener atomic.Pointer[Listener]
	left     atomic.Pointer[left] // nil: it is in the set

	// guarded by mu
	mu      sync.Mutex
	closed  bool
	reads   deadline
	writes  deadline
	changed chan struct{} // closed at the next event; nil: nobody waits
}

// The bits of a Socket's state.
const (
	readable  uint32 = 1 << iota // there may be something to read
	ended                        // the other side has ended its stream, or all is over
	lateRead                     // the deadline of reads has passed
	lateWrite                    // that of writes
	waiting                      // somebody waits for changed
	writer                       // the set tells when there is room to write
)

// deadline is one that is still to come.
type deadline struct {
	at    time.Time   // zero: there is none
	timer *time.Timer // nil: there is none that is still to come
	turn  uint        // of the last call that has set one
}

// Tell has l told of events from now on; nil: nobody.
func (s *Socket) Tell(l *Listener) { s.listener.Store(l) }

// Readable reports whether there may be something to read, be it the end, or that the deadline has passed.
func (s *Socket) Readable() bool { return s.state.Load()&(readable|lateRead) != 0 }

// Late reports whether a deadline has passed.
func (s *Socket) Late() bool { return s.state.Load()&(lateRead|lateWrite) != 0 }

// Ended reports whether the other side is known to have ended its stream.
func (s *Socket) Ended() bool { return s.state.Load()&ended != 0 }

// event takes note of what the kernel has said, and has the listener run, with b if it can be.
func (s *Socket) event(events uint32, b *Batch) {
	var bits uint32
	if events&(syscall.EPOLLIN|gone) != 0 {
		bits = readable
	}
	if events&gone != 0 {
		bits |= ended
	}
	if s.state.Or(bits)&waiting != 0 {
		s.stir()
	}
	l := s.listener.Load()
	if l == nil {
		return
	}
	if r, ok := (*l).(Runner); ok {
		b.take(s, r)
	} else {
		(*l).Told(true)
	}
}

// TryRead reads what there is. The error is EAGAIN if there is nothing: then there will be an event. At the end it returns 0.
func (s *Socket) TryRead(p []byte) (int, error) {
	switch v := s.state.Load(); {
	case v&lateRead != 0:
		return -1, os.ErrDeadlineExceeded
	case v&readable == 0:
		return -1, syscall.EAGAIN
	}
	before := s.state.And(^readable) // what comes after the read is an event
	n, err := Recv(s.fd, p)
	s.received(n, len(p), before)
	return n, err
}

// received notes that n bytes were read where there was room for more or as many. before is the state from before it.
func (s *Socket) received(n, room int, before uint32) {
	if n == room || before&ended != 0 { // an end that came with these bytes is not told of again
		s.state.Or(readable)
	}
}

// TryWrite writes as much as the socket takes, whatever the deadline: it does not wait. The error is EAGAIN if that is nothing. If it is
// not all, there will be an event.
func (s *Socket) TryWrite(p []byte) (int, error) {
	n, err := Send(s.fd, p)
	s.wrote(n, len(p), err)
	return n, err
}

// wrote notes that n of size bytes were written.
func (s *Socket) wrote(n, size int, err error) {
	if err == syscall.EAGAIN || err == nil && n < size {
		s.wantRoom()
	}
}

// wantRoom has the set tell when there is room to write, from now on; if there is by now, at once.
func (s *Socket) wantRoom() {
	if s.state.Or(writer)&writer == 0 {
		e := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | edge, Fd: int32(s.fd), Pad: s.stamp}
		_ = syscall.EpollCtl(s.set.fd, syscall.EPOLL_CTL_MOD, s.fd, &e)
	}
}

// stir has those look again who wait.
func (s *Socket) stir() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.And(^waiting)
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// await calls f, with mu held, until it says something else than EAGAIN.
func (s *Socket) await(late uint32, f func() error) error {
	for {
		changed, err := s.attempt(late, f)
		if err != syscall.EAGAIN {
			return err
		}
		<-changed
	}
}

func (s *Socket) attempt(late uint32, f func() error) (<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	if s.state.Or(waiting)&late != 0 { // before f: an event after it finds somebody who waits
		return nil, os.ErrDeadlineExceeded
	}
	err := f()
	if err == syscall.EAGAIN && s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed, err
}

// Read is net.Conn's.
func (s *Socket) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	if l := s.left.Load(); l != nil {
		if n, err = Read(l.raw, p); err != nil && err != io.EOF {
			err = s.fault("read", err)
		}
		return n, err
	}
	err = s.await(lateRead, func() (err error) {
		n, err = Recv(s.fd, p)
		return err
	})
	if err != nil {
		return 0, s.fault("read", err)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Write is net.Conn's.
func (s *Socket) Write(p []byte) (n int, err error) {
	if l := s.left.Load(); l != nil {
		if n, err = Write(l.raw, p); err != nil {
			err = s.fault("write", err)
		}
		return n, err
	}
	err = s.await(lateWrite, func() error {
		for n < len(p) {
			m, err := Send(s.fd, p[n:])
			if err == syscall.EAGAIN {
				s.wantRoom()
			}
			if err != nil {
				return err
			}
			n += m
		}
		return nil
	})
	if err != nil {
		return n, s.fault("write", err)
	}
	return n, nil
}

func (s *Socket) fault(op string, err error) error {
	if _, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, err)
	} else if s.left.Load() != nil { // what a file says of its end is not what a connection does
		s.mu.Lock()
		if s.closed {
			err = net.ErrClosed
		}
		s.mu.Unlock()
	}
	return &net.OpError{Op: op, Net: "tcp", Source: s.local, Addr: s.remote, Err: err}
}

// Close is net.Conn's.
func (s *Socket) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return net.ErrClosed
	}
	s.closed = true
	s.reads.stop()
	s.writes.stop()
	var err error
	if l := s.left.Load(); l != nil {
		err = l.file.Close()
	} else {
		s.set.drop(s)
		err = syscall.Close(s.fd)
	}
	s.mu.Unlock()
	s.stir()
	return err
}

// CloseWrite is net.TCPConn's.
func (s *Socket) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	return syscall.Shutdown(s.fd, syscall.SHUT_WR)
}

// RemoteAddr is net.Conn's.
func (s *Socket) RemoteAddr() net.Addr { return s.remote }

// SetDeadline is net.Conn's.
func (s *Socket) SetDeadline(t time.Time) error { return s.setDeadline(t, true, true) }

// SetReadDeadline is net.Conn's.
func (s *Socket) SetReadDeadline(t time.Time) error { return s.setDeadline(t, true, false) }

// SetWriteDeadline is net.Conn's.
func (s *Socket) SetWriteDeadline(t time.Time) error { return s.setDeadline(t, false, true) }

func (s *Socket) setDeadline(t time.Time, reads, writes bool) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return net.ErrClosed
	}
	if l := s.left.Load(); l != nil {
		defer s.mu.Unlock()
		var err error
		if reads {
			err = l.file.SetReadDeadline(t)
		}
		if writes {
			err = errors.Join(err, l.file.SetWriteDeadline(t))
		}
		return err
	}
	if reads {
		s.arm(&s.reads, lateRead, t)
	}
	if writes {
		s.arm(&s.writes, lateWrite, t)
	}
	s.mu.Unlock()
	if !t.IsZero() && time.Until(t) <= 0 {
		s.late()
	}
	return nil
}

// arm sets one deadline. mu is held.
func (s *Socket) arm(d *deadline, bit uint32, t time.Time) {
	d.stop()
	d.at = t
	s.state.And(^bit)
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		s.state.Or(bit)
		return
	}
	turn := d.turn
	d.timer = time.AfterFunc(left, func() {
		s.mu.Lock()
		due := d.turn == turn && !s.closed
		if due {
			s.state.Or(bit)
		}
		s.mu.Unlock()
		if due {
			s.late()
		}
	})
}

func (d *deadline) stop() {
	d.turn++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

// late tells everybody that a deadline has passed.
func (s *Socket) late() {
	s.stir()
	if l := s.listener.Load(); l != nil {
		(*l).Told(false)
	}
}

// SyscallConn is syscall.Conn's. What its methods are given must not use the Socket: it is called with the Socket's mutex held.
func (s *Socket) SyscallConn() (syscall.RawConn, error) {
	if l := s.left.Load(); l != nil {
		return l.raw, nil
	}
	return rawSocket{s}, nil
}

type rawSocket struct{ *Socket }

func (r rawSocket) Control(f func(fd uintptr)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return net.ErrClosed
	}
	f(uintptr(r.fd))
	return nil
}

func (r rawSocket) Read(f func(fd uintptr) bool) error { return r.until(lateRead, f) }

func (r rawSocket) Write(f func(fd uintptr) bool) error { return r.until(lateWrite, f) }

func (r rawSocket) until(late uint32, f func(fd uintptr) bool) error {
	return r.await(late, func() error {
		if f(uintptr(r.fd)) {
			return nil
		}
		if late == lateWrite {
			r.wantRoom()
		}
		return syscall.EAGAIN
	})
}
