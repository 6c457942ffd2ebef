package lab

import (
	"sync"
	"time"
)

// lineBytes bounds what is on its way in one direction: 100 MB/s at a one-way delay of 150 ms. Memory is used only for what
// is really on its way.
const lineBytes = 16 << 20

// piece is some bytes on their way, or the error that ends them.
type piece struct {
	due  time.Time
	data []byte
	err  error // with no data
}

// line is a delay line: pieces come out in order, each no earlier than it is due. It has one producer and one consumer at a
// time.
type line struct {
	delay time.Duration
	data  chan struct{} // capacity 1: something was put
	space chan struct{} // capacity 1: something was taken

	mu     sync.Mutex
	pieces []piece
	bytes  int
}

func newLine(delay time.Duration) *line {
	return &line{delay: delay, data: make(chan struct{}, 1), space: make(chan struct{}, 1)}
}

// put adds a piece that keeps data, and tells whether there was room. If not, space is signalled when it may be.
func (l *line) put(data []byte, err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bytes >= lineBytes {
		return false
	}
	l.pieces = append(l.pieces, piece{time.Now().Add(l.delay), data, err})
	l.bytes += len(data)
	signal(l.data)
	return true
}

// first returns the oldest piece, which may not be due yet. It stays in the line until taken.
func (l *line) first() (p piece, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pieces) == 0 {
		return piece{}, false
	}
	return l.pieces[0], true
}

// take removes n bytes of the oldest piece, and the piece with its last byte.
func (l *line) take(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes -= n
	if p := &l.pieces[0]; n < len(p.data) {
		p.data = p.data[n:]
	} else {
		l.pieces[0] = piece{}
		l.pieces = l.pieces[1:]
	}
	signal(l.space)
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
