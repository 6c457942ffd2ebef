package epoll

import (
	"os"
	"syscall"
)

// left is what waits for a socket that is in the set no more.
type left struct {
	file *os.File
	raw  syscall.RawConn
}

// Leave takes the socket out of the set and has Go's poller wait for it, which wakes its goroutine itself: for who has one that reads and
// writes, as TLS does, the set's is a detour. It is called before anybody waits, and by whoever would. From then on nothing is told of it.
func (s *Socket) Leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.left.Load() != nil {
		return
	}
	s.set.drop(s)
	_ = syscall.EpollCtl(s.set.fd, syscall.EPOLL_CTL_DEL, s.fd, nil)
	l := &left{file: os.NewFile(uintptr(s.fd), "tcp")}
	l.raw, _ = l.file.SyscallConn() // of a file that is open
	_, _ = l.file.SetReadDeadline(s.reads.at), l.file.SetWriteDeadline(s.writes.at)
	s.reads.stop()
	s.writes.stop()
	s.left.Store(l)
}
