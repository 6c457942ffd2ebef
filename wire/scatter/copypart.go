package scatter

import (
	"rangefinder/fib"
	"rangefinder/wire/pg"
)

// copyPart is one shard's part of it.
type copyPart struct {
	// constant
	s    *copySplit
	b    *branch
	done chan struct{} // closed when nothing more comes from the server

	// owned by the coordinator's goroutine
	out    []byte // one CopyData message, which grows
	broken bool   // it was cut off in the middle of a message
	lines  lines

	// owned by the part's goroutine, and by the coordinator's when that has ended
	tag string
	err *pg.Error // a server's own words
}

const copyMessage = 64 << 10 // bytes of one message to a shard, more or less

// join makes a branch on which the COPY is open, or about to be, a part of it.
func (s *copySplit) join(b *branch) *copyPart {
	p := &copyPart{s: s, b: b, done: make(chan struct{})}
	s.mu.Lock()
	s.parts = append(s.parts, p)
	s.mu.Unlock()
	go p.listen()
	return p
}

// open opens the COPY on one more shard. What that says to it is heard by the part's goroutine.
func (s *copySplit) open(slot *fib.Slot) (*copyPart, *pg.Error) {
	b, e := s.c.branch(slot, true)
	if e != nil {
		return nil, e
	}
	s.c.marks0(s.x, b)
	b.send = s.x.appendRun(b.send, s.text(), "", 0)
	b.begin()
	if e := b.flush(); e != nil {
		b.done()
		return nil, s.c.ended(s.x, b, e)
	}
	return s.join(b), nil
}

// listen hears what a shard says while it takes data, and after them, up to its ReadyForQuery.
func (p *copyPart) listen() {
	defer close(p.done)
	defer func() {
		if r := recover(); r != nil {
			p.failed(p.s.c.crash(r))
		}
	}()
	b := p.b
	for {
		typ, size, err := b.header()
		if err != nil {
			p.failed(b.lost(err))
			return
		}
		if typ == pg.TypeErrorResponse {
			e, fatal := b.error(size)
			if p.failed(e); fatal {
				return
			}
			continue
		}
		f, err := b.frame(size)
		if err == nil && typ == pg.TypeReadyForQuery {
			if b.status, err = pg.DecodeReady(f[pg.HeaderSize:]); err == nil {
				b.quiet = 0
				return
			}
		}
		switch {
		case err != nil:
			p.failed(b.lost(err))
			return
		case typ == pg.TypeCommandComplete && b.quiet > 0:
			b.quiet--
		case typ == pg.TypeCommandComplete:
			p.tag = string(pg.CommandTag(f[pg.HeaderSize:]))
		case typ == pg.TypeParameterStatus:
			b.parameter(f)
		case typ == pg.TypeNoticeResponse:
			p.s.c.notice(f)
		}
	}
}

// failed notes a shard's error, and has the coordinator's goroutine see it, wherever that waits.
func (p *copyPart) failed(e *pg.Error) {
	s := p.s
	if p.err == nil {
		p.err = e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.woken {
		return
	}
	s.woken, s.first = true, p
	_ = s.c.nc.SetReadDeadline(longAgo)
	for _, o := range s.parts {
		_ = o.b.conn.Net.SetWriteDeadline(longAgo)
	}
}

func (p *copyPart) append(b []byte) {
	if len(p.out) == 0 {
		p.out = append(p.out, pg.TypeCopyData, 0, 0, 0, 0)
	}
	p.out = append(p.out, b...)
}

// flush sends the shard what there is for it, and waits until it is taken.
func (p *copyPart) flush() error {
	if len(p.out) == 0 {
		return nil
	}
	pg.SetLength(p.out)
	err := p.send(p.out)
	if p.out = p.out[:0]; cap(p.out) > 4*copyMessage {
		p.out = nil
	}
	return err
}

func (p *copyPart) send(b []byte) error {
	if _, err := p.b.conn.Net.Write(b); err != nil {
		p.broken = true
		if !p.s.awake() { // its own connection: listen has more to say
			p.b.strike()
			<-p.done
		}
		return errShard
	}
	p.s.mu.Lock()
	woken := p.s.woken
	p.s.mu.Unlock()
	if woken {
		return errShard
	}
	return nil
}
