package epoll

import "syscall"

// Batch is several listeners that are run together, by one of a Set's goroutines: what they read and write is done in as few calls of the
// kernel as there are rounds.
type Batch struct {
	ring   *ring // nil: the kernel has none
	taken  []taken
	writes []write
	next   []write // of the round that comes
	ask    func(user, res int)
	sent   func(user, res int)
}

// taken is a listener that the batch runs.
type taken struct {
	runner Runner
	sock   *Socket // whose event has brought it here
	before uint32  // the state of sock
	room   []byte  // for what it reads; nil: it reads for itself
}

// write is one that is to be done.
type write struct {
	runner Runner
	sock   *Socket
	p      []byte
}

func newBatch(ring bool) *Batch {
	b := new(Batch)
	if ring {
		b.ring = openRing(batch)
	}
	b.ask, b.sent = b.read, b.written
	return b
}

func (b *Batch) close() {
	if b.ring != nil {
		b.ring.close()
	}
}

// Write leaves a write to the batch. The Runner must return from Run at once.
func (b *Batch) Write(r Runner, sock *Socket, p []byte) {
	b.next = append(b.next, write{r, sock, p})
}

// take has the listener of an event run with the batch.
func (b *Batch) take(sock *Socket, r Runner) {
	if r.Take() {
		b.taken = append(b.taken, taken{runner: r, sock: sock})
	}
}

// run runs all that were taken.
func (b *Batch) run() {
	if len(b.taken) == 1 || b.ring == nil { // there is nothing to be gained
		for i := range b.taken {
			b.taken[i].runner.Run(nil)
		}
		clear(b.taken)
		b.taken = b.taken[:0]
		return
	}
	b.readAll()
	for i := range b.taken {
		b.taken[i].runner.Run(b)
	}
	clear(b.taken)
	b.taken = b.taken[:0]
	for len(b.next) > 0 {
		b.writes, b.next = b.next, b.writes[:0]
		b.writeAll()
		for i := range b.writes {
			b.writes[i].runner.Run(b)
		}
		clear(b.writes)
	}
}

// readAll reads for those that want it.
func (b *Batch) readAll() {
	for i := range b.taken {
		t := &b.taken[i]
		if t.sock.state.Load()&(readable|lateRead) != readable {
			continue
		}
		if t.room = t.runner.Room(t.sock); t.room == nil {
			continue
		}
		t.before = t.sock.state.And(^readable)
		b.ring.queue(opRecv, t.sock.fd, t.room, i)
	}
	b.do(b.ask)
	for i := range b.taken {
		if t := &b.taken[i]; t.room != nil { // the ring has not done it
			n, err := Recv(t.sock.fd, t.room)
			t.got(n, err)
		}
	}
}

// do carries out what is queued in the ring. One that fails is not used again.
func (b *Batch) do(result func(user, res int)) {
	if b.ring.queued > 0 && !b.ring.do(result) {
		b.ring.close()
		b.ring = nil
	}
}

func (b *Batch) read(user, res int) { b.taken[user].got(outcome(res)) }

func (t *taken) got(n int, err error) {
	t.sock.received(n, len(t.room), t.before)
	t.room = nil
	t.runner.Got(t.sock, n, err)
}

// writeAll does the round's writes.
func (b *Batch) writeAll() {
	if b.ring != nil && len(b.writes) > 1 {
		for i := range b.writes {
			b.ring.queue(opSend, b.writes[i].sock.fd, b.writes[i].p, i)
		}
		b.do(b.sent)
	}
	for i := range b.writes {
		if w := &b.writes[i]; w.p != nil {
			n, err := Send(w.sock.fd, w.p)
			w.wrote(n, err)
		}
	}
}

func (b *Batch) written(user, res int) { b.writes[user].wrote(outcome(res)) }

func (w *write) wrote(n int, err error) {
	w.sock.wrote(n, len(w.p), err)
	w.p = nil
	w.runner.Wrote(n, err)
}

// outcome is what call would have returned.
func outcome(res int) (int, error) {
	switch {
	case res >= 0:
		return res, nil
	case res == -int(syscall.EAGAIN):
		return -1, syscall.EAGAIN // a constant: no allocation
	}
	return -1, syscall.Errno(-res)
}
