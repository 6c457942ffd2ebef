package epoll

import (
	"errors"
	"os"
	"sync"
	"syscall"
)

// Events to be told of.
const (
	Ended = syscall.EPOLLRDHUP                   // the other side has ended its stream; what it sent before costs nothing
	Input = syscall.EPOLLIN | syscall.EPOLLRDHUP // there is something to read, be it the end
)

// edge and once are how events are told: each time there is a new one, or one time and then not until Add is called again.
// EPOLLET's own constant is negative, which no conversion takes.
const (
	edge = 1 << 31
	once = syscall.EPOLLONESHOT
)

// Set is a set of sockets, each with somebody to tell of its events. One goroutine tells them.
type Set struct {
	// constant
	file *os.File // itself waited for by Go's poller
	fd   int

	done sync.WaitGroup

	// guarded by mu
	mu     sync.Mutex
	heirs  map[int32]Listener // by socket
	closed bool
}

// Listener is told of a socket's event. It must not wait, and not call the Set.
type Listener interface{ Told() }

// Open makes a set and begins to tell. It returns nil if the kernel has none to give; every method takes that.
func Open() *Set {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // makes os.NewFile hand it to Go's poller
		syscall.Close(fd)
		return nil
	}
	s := &Set{file: os.NewFile(uintptr(fd), "epoll"), fd: fd, heirs: make(map[int32]Listener)}
	raw, err := s.file.SyscallConn()
	if err != nil {
		s.file.Close()
		return nil
	}
	s.done.Go(func() { _ = raw.Read(s.look) }) // ends when the file is closed
	return s
}

// Close ends the telling. What is left in the set is told nothing any more.
func (s *Set) Close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.file.Close()
	s.done.Wait()
}

// Watch tells l of each event on a socket from now on, until Forget. It returns the socket's number, or -1 if it cannot.
func (s *Set) Watch(socket syscall.RawConn, events uint32, l Listener) int32 {
	return s.add(socket, events|edge, l)
}

// Await tells l of the next event on a socket, which may be one that was there before, and then no more until it is called again.
// It returns the socket's number, or -1 if it cannot.
func (s *Set) Await(socket syscall.RawConn, events uint32, l Listener) int32 {
	return s.add(socket, events|once, l)
}

func (s *Set) add(socket syscall.RawConn, events uint32, l Listener) int32 {
	number := int32(-1)
	if s == nil || socket == nil {
		return number
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed { // its number may be another file's by now
		return number
	}
	_ = socket.Control(func(fd uintptr) {
		e := syscall.EpollEvent{Events: events, Fd: int32(fd)}
		err := syscall.EpollCtl(s.fd, syscall.EPOLL_CTL_ADD, int(fd), &e)
		if errors.Is(err, syscall.EEXIST) {
			err = syscall.EpollCtl(s.fd, syscall.EPOLL_CTL_MOD, int(fd), &e)
		}
		if err == nil {
			number = int32(fd)
			s.heirs[number] = l // whoever had this number before is closed
		}
	})
	return number
}

// Forget ends the telling of l about a socket, by the number that Watch or Await gave. It must be called before the socket is
// closed or after; the kernel takes it out of the set by itself.
func (s *Set) Forget(number int32, l Listener) {
	if s == nil || number < 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heirs[number] == l {
		delete(s.heirs, number)
	}
}

// look tells of what has happened. It never returns true: it is called again when there is more.
func (s *Set) look(fd uintptr) bool {
	var events [64]syscall.EpollEvent
	for {
		n, err := syscall.EpollWait(int(fd), events[:], 0)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if n <= 0 {
			return false
		}
		s.mu.Lock()
		for _, e := range events[:n] {
			if l := s.heirs[e.Fd]; l != nil {
				l.Told()
			}
		}
		s.mu.Unlock()
	}
}
