package epoll

import (
	"math"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// ring is a queue of the kernel's io_uring, used as one thing alone: a call for many sockets at a time. Every operation is one that does
// not wait (MSG_DONTWAIT), so all are done when the call returns, in the thread that has made it; nothing is ever under way in between.
// What is gained is the way into the kernel and back, at each read and write.
type ring struct {
	fd   int
	maps [2][]byte // of both queues' heads and completions, and of the operations

	sqTail, cqHead, cqTail *uint32
	sqMask, cqMask         uint32
	ops                    []sqe
	done                   []cqe
	queued                 uint32
}

// The kernel's structures, as linux/io_uring.h has them. They are alike on all architectures.
type (
	ringParams struct {
		sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
		_                                                                      [3]uint32
		sq                                                                     struct {
			head, tail, mask, entries, flags, dropped, array, _ uint32
			_                                                   uint64
		}
		cq struct {
			head, tail, mask, entries, overflow, cqes, flags, _ uint32
			_                                                   uint64
		}
	}
	sqe struct {
		op, flags uint8
		_         uint16
		fd        int32
		_         uint64
		addr      uint64
		len       uint32
		msgFlags  uint32
		user      uint64
		_         [3]uint64
	}
	cqe struct {
		user uint64
		res  int32
		_    uint32
	}
)

const (
	sysSetup = 425 // io_uring_setup
	sysEnter = 426 // io_uring_enter

	setupSubmitAll = 1 << 7 // an operation that cannot be begun is no reason not to begin the others (Linux 5.18)

	featSingleMap = 1 << 0
	featExtArg    = 1 << 8 // Linux 5.11: since well before, operations with MSG_DONTWAIT never wait

	mapRing = 0
	mapOps  = 0x10000000

	enterGetEvents = 1

	opSend = 26
	opRecv = 27
)

// openRing makes a ring for up to n operations at a time. It is nil where the kernel has none, or does not let us.
func openRing(n int) *ring {
	p := ringParams{flags: setupSubmitAll}
	fd, _, errno := syscall.Syscall(sysSetup, uintptr(n), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil
	}
	syscall.CloseOnExec(int(fd))
	r := &ring{fd: int(fd)}
	if p.features&(featSingleMap|featExtArg) != featSingleMap|featExtArg {
		r.close()
		return nil
	}
	size := max(p.sq.array+4*p.sqEntries, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(cqe{})))
	for i, m := range [2]struct {
		at   int64
		size uint32
	}{{mapRing, size}, {mapOps, p.sqEntries * uint32(unsafe.Sizeof(sqe{}))}} {
		b, err := syscall.Mmap(r.fd, m.at, int(m.size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_POPULATE)
		if err != nil {
			r.close()
			return nil
		}
		r.maps[i] = b
	}
	word := func(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.maps[0][at])) }
	r.sqTail, r.cqHead, r.cqTail = word(p.sq.tail), word(p.cq.head), word(p.cq.tail)
	r.sqMask, r.cqMask = *word(p.sq.mask), *word(p.cq.mask)
	r.ops = unsafe.Slice((*sqe)(unsafe.Pointer(&r.maps[1][0])), p.sqEntries)
	r.done = unsafe.Slice((*cqe)(unsafe.Pointer(&r.maps[0][p.cq.cqes])), p.cqEntries)
	for i := range p.sqEntries { // which operation stands where never changes
		*word(p.sq.array + 4*i) = i
	}
	return r
}

func (r *ring) close() {
	for _, m := range r.maps {
		if m != nil {
			_ = syscall.Munmap(m)
		}
	}
	syscall.Close(r.fd)
}

// queue adds an operation on a socket. There must be room for it, and p must stay where it is until do has returned.
func (r *ring) queue(op uint8, fd int, p []byte, user int) {
	flags := uint32(syscall.MSG_DONTWAIT)
	if op == opSend {
		flags |= syscall.MSG_NOSIGNAL
	}
	r.ops[(*r.sqTail+r.queued)&r.sqMask] = sqe{
		op: op, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))), len: uint32(min(len(p), math.MaxInt32)), msgFlags: flags, user: uint64(user),
	}
	r.queued++
}

// do carries out what was queued, and calls result for each operation that the kernel has done, with the number of bytes or its negative
// error. It returns false if some were not done: the ring is of no use any more.
func (r *ring) do(result func(user, res int)) bool {
	n := r.queued
	r.queued = 0
	atomic.StoreUint32(r.sqTail, *r.sqTail+n)
	for begun, got := uint32(0), uint32(0); got < n; {
		m, _, errno := syscall.RawSyscall6(sysEnter, uintptr(r.fd), uintptr(n-begun), uintptr(n-got), enterGetEvents, 0, 0)
		if errno == 0 {
			begun += uint32(m)
		}
		before := got
		head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
		for ; head != tail; head++ {
			c := &r.done[head&r.cqMask]
			got++
			result(int(c.user), int(c.res))
		}
		atomic.StoreUint32(r.cqHead, head)
		if errno != syscall.EINTR && got == before { // neither done nor begun
			return false
		}
	}
	runtime.KeepAlive(r)
	return true
}
