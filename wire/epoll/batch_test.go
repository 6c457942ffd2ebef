//go:build linux

package epoll_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rangefinder/wire/epoll"
)

// relay is a Runner that sends back what comes, as a session would: reads by the batch or by itself, writes by the batch.
type relay struct {
	t     *testing.T
	sock  *epoll.Socket
	word  atomic.Int32 // 0: parked, 1: running, 2: something has happened meanwhile
	room  [3000]byte
	gone  bool
	out   []byte
	due   bool // a write is left to the batch
	back  bool // it was done
	full  bool // the socket takes no more for now
	done  chan struct{}
	batch *atomic.Int64 // writes that were left to batches
}

func (r *relay) Told(inSet bool) {
	if r.Take() {
		if !inSet {
			r.t.Error("there is no deadline")
		}
		r.Run(nil)
	}
}

func (r *relay) Take() bool {
	for {
		if r.word.CompareAndSwap(0, 1) {
			return true
		}
		if r.word.CompareAndSwap(1, 2) || r.word.Load() == 2 {
			return false
		}
	}
}

func (r *relay) Room(s *epoll.Socket) []byte {
	if s != r.sock {
		r.t.Error("another's socket")
	}
	if len(r.out) > 1<<20 {
		return nil
	}
	return r.room[:]
}

func (r *relay) Got(_ *epoll.Socket, n int, err error) { r.took(n, err) }

func (r *relay) took(n int, err error) {
	switch {
	case n > 0:
		r.out = append(r.out, r.room[:n]...)
	case err != syscall.EAGAIN:
		r.gone = true
	}
}

func (r *relay) Wrote(n int, err error) {
	if !r.due {
		r.t.Error("nothing was to be written")
	}
	r.due, r.back = false, true
	r.wrote(n, err)
}

func (r *relay) wrote(n int, err error) {
	switch {
	case err == nil:
		r.full = n < len(r.out)
		r.out = append(r.out[:0], r.out[n:]...)
	case err == syscall.EAGAIN:
		r.full = true
	default:
		r.gone = true
	}
}

func (r *relay) Run(b *epoll.Batch) {
	if !r.back { // it begins
		r.full = false
	}
	r.back = false
	for {
		if len(r.out) > 0 && !r.full && !r.gone {
			if b != nil {
				r.due = true
				r.batch.Add(1)
				b.Write(r, r.sock, r.out)
				return
			}
			r.wrote(r.sock.TryWrite(r.out))
			continue
		}
		if r.gone {
			close(r.done)
			return
		}
		if r.sock.Readable() && len(r.out) <= 1<<20 {
			r.took(r.sock.TryRead(r.room[:]))
			continue
		}
		if r.word.CompareAndSwap(1, 0) {
			return
		}
		r.word.Store(1)
		b, r.full = nil, false
	}
}

// Many runners at once: what each gets back is what it has sent, be there a ring or not, in pieces that sockets take whole or not.
func TestBatch(t *testing.T) {
	for _, ring := range []bool{true, false} {
		t.Run(fmt.Sprintf("ring=%v", ring), func(t *testing.T) {
			set := epoll.Open(ring)
			if set == nil {
				t.Fatal("no set")
			}
			defer set.Close()
			var wg sync.WaitGroup
			var left atomic.Int64
			const socks = 40
			ready := make(chan struct{})
			for i := range socks {
				sock, far := pair(t, set)
				r := &relay{t: t, sock: sock, done: make(chan struct{}), batch: &left}
				l := epoll.Listener(r)
				sock.Tell(&l)
				wg.Go(func() {
					<-ready
					rnd := rand.New(rand.NewPCG(7, uint64(i)))
					far.SetDeadline(time.Now().Add(time.Minute))
					for round := range 60 {
						msg := make([]byte, 1+rnd.IntN(5000))
						if round == 30 && i%10 == 0 {
							msg = make([]byte, 6<<20) // more than sockets take
						}
						for j := range msg {
							msg[j] = byte(rnd.Uint32())
						}
						wrote := make(chan error, 1)
						go func() {
							_, err := far.Write(msg)
							wrote <- err
						}()
						buf := make([]byte, len(msg))
						if _, err := io.ReadFull(far, buf); err != nil || !bytes.Equal(buf, msg) {
							t.Errorf("socket %d, message %d: %v", i, round, err)
						}
						if err := <-wrote; err != nil {
							t.Error(err)
						}
					}
					if i%2 == 0 {
						far.SetLinger(0) // it is reset
					}
					far.Close()
					<-r.done
				})
			}
			close(ready)
			wg.Wait()
			if n := left.Load(); ring != (n > 0) {
				t.Errorf("%d writes were left to batches", n)
			}
		})
	}
}
