package pool

import (
	"os"
	"sync"
	"syscall"
)

// watch learns when a backend closes a connection, so that whoever takes an idle one need not ask the kernel for each
// statement anew. The sockets stand in an epoll set that tells of the end of a stream alone: bytes that come cost nothing.
type watch struct {
	// constant
	set *os.File // the epoll set, itself waited for by Go's poller
	fd  int

	done sync.WaitGroup

	// guarded by mu
	mu     sync.Mutex
	conns  map[int32]*Conn // by socket
	closed bool
}

// openWatch returns nil if the kernel has no epoll set to give: then every connection is asked when it is taken.
func openWatch() *watch {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // makes os.NewFile hand it to Go's poller
		syscall.Close(fd)
		return nil
	}
	w := &watch{set: os.NewFile(uintptr(fd), "epoll"), fd: fd, conns: make(map[int32]*Conn)}
	raw, err := w.set.SyscallConn()
	if err != nil {
		w.set.Close()
		return nil
	}
	w.done.Go(func() { _ = raw.Read(w.look) }) // ends when the file is closed
	return w
}

// close ends the watch. Connections that are left tell nothing any more.
func (w *watch) close() {
	if w == nil {
		return
	}
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.set.Close()
	w.done.Wait()
}

// add begins to watch c; it returns false if it cannot.
func (w *watch) add(c *Conn) bool {
	if w == nil || c.socket == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed { // the set's number may be another file's by now
		return false
	}
	ok := false
	err := c.socket.Control(func(fd uintptr) {
		const edge = 1 << 31 // EPOLLET, whose constant is negative: told once
		e := syscall.EpollEvent{Events: syscall.EPOLLRDHUP | edge, Fd: int32(fd)}
		if ok = syscall.EpollCtl(w.fd, syscall.EPOLL_CTL_ADD, int(fd), &e) == nil; ok {
			c.fd = int32(fd)
			w.conns[c.fd] = c // whoever had this number before is closed
		}
	})
	return ok && err == nil
}

// remove forgets c, which is closed or about to be. The kernel takes it out of the set by itself.
func (w *watch) remove(c *Conn) {
	if !c.watched {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns[c.fd] == c {
		delete(w.conns, c.fd)
	}
}

// look marks the connections whose backends have closed them. It never returns true: it is called again when there are more.
func (w *watch) look(fd uintptr) bool {
	var events [64]syscall.EpollEvent
	for {
		n, err := syscall.EpollWait(int(fd), events[:], 0)
		if err == syscall.EINTR {
			continue
		}
		if n <= 0 {
			return false
		}
		w.mu.Lock()
		for _, e := range events[:n] {
			if c := w.conns[e.Fd]; c != nil {
				c.gone.Store(true)
			}
		}
		w.mu.Unlock()
	}
}
