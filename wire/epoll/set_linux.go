package epoll

import (
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
)

const (
	// edge is EPOLLET, whose own constant is negative: each event is told once.
	edge = 1 << 31
	// gone are the events by which the other side has ended its stream, or all is over.
	gone = syscall.EPOLLRDHUP | syscall.EPOLLHUP | syscall.EPOLLERR
)

// batch is how many events are taken at a time. If there are as many, they are more than one goroutine can do, and another one is let in, if
// there is a processor for it. It wakes a thread: for fewer that costs more than it gains.
const batch = 64

// Set is a set of sockets. Its goroutines take turns in waiting for events: as a rule there is one that waits and does what is to be
// done; when there is more than it can do, it lets another one wait meanwhile.
type Set struct {
	// constant
	file *os.File // itself waited for by Go's poller
	fd   int
	raw  syscall.RawConn
	turn chan struct{} // capacity 1: who has it waits
	ring bool          // batches may use io_uring

	// atomic
	table  atomic.Pointer[[]atomic.Pointer[Socket]] // by file descriptor; replaced under mu
	helped atomic.Int32                             // goroutines

	done sync.WaitGroup

	// guarded by mu
	mu     sync.Mutex
	n      int   // sockets
	stamp  int32 // of the last one
	closed bool
}

// Open makes a set and begins to tell. It returns nil if the kernel has none to give; every method takes that. ring: io_uring may be
// used for calls of the kernel that concern many sockets; where that is not to be had, there is a call for each.
func Open(ring bool) *Set {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // makes os.NewFile hand it to Go's poller
		syscall.Close(fd)
		return nil
	}
	s := &Set{file: os.NewFile(uintptr(fd), "epoll"), fd: fd, turn: make(chan struct{}, 1), ring: ring}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil
	}
	table := make([]atomic.Pointer[Socket], 64)
	s.table.Store(&table)
	s.turn <- struct{}{}
	s.helped.Store(1)
	s.done.Go(s.tell)
	return s
}

// Close ends the telling. Sockets that are in the set still hear of their events: it ends with the last one.
func (s *Set) Close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.closed = true
	empty := s.n == 0
	s.mu.Unlock()
	if empty {
		s.file.Close()
		s.done.Wait()
	}
}

// tell waits for events when it is its turn, and tells of them.
func (s *Set) tell() {
	var events [batch]syscall.EpollEvent
	b := newBatch(s.ring)
	defer b.close()
	n, looks := 0, 0
	look := func(fd uintptr) bool {
		looks++
		n = wait(int(fd), events[:])
		return n > 0
	}
	for range s.turn {
		for mine := true; mine; {
			if looks = 0; s.raw.Read(look) != nil { // the file is closed
				close(s.turn)
				return
			}
			if looks == 1 && runtime.GOMAXPROCS(0) == 1 { // it has not waited, and nobody else can run meanwhile
				runtime.Gosched()
			}
			if mine = n < batch || !s.help(); !mine {
				s.turn <- struct{}{}
			}
			table := *s.table.Load()
			for i := range events[:n] {
				tellOf(table, &events[i], b)
			}
			b.run()
		}
	}
}

// tellOf tells of an event, unless its socket was closed since it was taken: the next one may have the same number by now.
func tellOf(table []atomic.Pointer[Socket], e *syscall.EpollEvent, b *Batch) {
	if sock := table[e.Fd].Load(); sock != nil && sock.stamp == e.Pad {
		sock.event(e.Events, b)
	}
}

// help reports whether another goroutine can take the turn, and makes one if there is none.
func (s *Set) help() bool {
	most := int32(runtime.GOMAXPROCS(0))
	if most > 1 && s.helped.Load() < most { // only who has the turn counts
		s.helped.Add(1)
		s.done.Go(s.tell)
	}
	return most > 1
}

// Adopt takes a plain socket out of Go's poller into the set, and closes conn, which had it before; one that is in the set it returns. It
// returns nil, and leaves conn as it is, if conn is none or the set takes none. Events are told of from Tell on; what has come before is
// Readable by then.
func (s *Set) Adopt(conn net.Conn) *Socket {
	if s == nil {
		return nil
	}
	if sock, ok := conn.(*Socket); ok {
		if sock.set != s || sock.left.Load() != nil {
			return nil
		}
		return sock
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	fd := -1
	if raw.Control(func(old uintptr) {
		if n, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0); errno == 0 {
			fd = int(n)
		}
	}) != nil || fd < 0 {
		return nil
	}
	sock := &Socket{set: s, fd: fd, own: true, local: conn.LocalAddr(), remote: conn.RemoteAddr()}
	if !s.add(sock, syscall.EPOLLIN|syscall.EPOLLRDHUP) {
		syscall.Close(fd)
		return nil
	}
	conn.Close()
	return sock
}

// Watch has the set note when the other side ends a socket that stays with Go's poller: see Ended. It returns nil if it cannot. Forget
// is to be called before it is closed.
func (s *Set) Watch(socket syscall.RawConn) *Socket {
	if s == nil || socket == nil {
		return nil
	}
	var sock *Socket
	_ = socket.Control(func(fd uintptr) {
		sock = &Socket{set: s, fd: int(fd)}
		if !s.add(sock, syscall.EPOLLRDHUP) {
			sock = nil
		}
	})
	return sock
}

// Forget ends that.
func (s *Set) Forget(sock *Socket) {
	if s != nil && sock != nil {
		s.drop(sock)
	}
}

// add puts a socket into the set.
func (s *Set) add(sock *Socket, events uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	table := *s.table.Load()
	if sock.fd >= len(table) {
		grown := make([]atomic.Pointer[Socket], max(2*len(table), sock.fd+1))
		for i := range table {
			grown[i].Store(table[i].Load())
		}
		table = grown
		s.table.Store(&grown)
	}
	before := table[sock.fd].Load() // whoever was closed and not forgotten
	s.stamp++
	sock.stamp = s.stamp
	table[sock.fd].Store(sock) // first: its event may come at once
	e := syscall.EpollEvent{Events: events | edge, Fd: int32(sock.fd), Pad: sock.stamp}
	if syscall.EpollCtl(s.fd, syscall.EPOLL_CTL_ADD, sock.fd, &e) != nil {
		table[sock.fd].Store(before)
		return false
	}
	if before == nil {
		s.n++
	}
	return true
}

// drop takes a socket out of the set. It is called before its descriptor is closed: the next one to get it may come at once.
func (s *Set) drop(sock *Socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := &(*s.table.Load())[sock.fd]
	if at.Load() != sock {
		return
	}
	at.Store(nil)
	if !sock.own {
		_ = syscall.EpollCtl(s.fd, syscall.EPOLL_CTL_DEL, sock.fd, nil)
	}
	if s.n--; s.n == 0 && s.closed {
		go s.file.Close() // which waits for the set's goroutines, and this may be one
	}
}
