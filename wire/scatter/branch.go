package scatter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/fib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

const (
	readSize = 32 << 10
	// maxFrame bounds what a server may say in one message. Rows beyond Config.Memory are refused before.
	maxFrame = 1<<30 + pg.HeaderSize
	// abandonLimit bounds how long it may take to cancel what a closed branch leaves behind.
	abandonLimit = 2 * time.Second
)

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// branch is a connection to one shard, for one transaction.
type branch struct {
	// constant
	slot  *fib.Slot
	conn  *pool.Conn
	hop   *fib.NextHop
	write bool // it was asked for as a primary

	// owned by the goroutine that runs it
	in      []byte // bytes of the server from off on are not consumed yet
	off     int
	send    []byte // due to the server
	reports []byte // ParameterStatus frames that commands were answered with
	quiet   int    // commands of the coordinator's own whose ends are still to come, before anything else
	status  byte   // of the last ReadyForQuery
	wrote   bool
	broken  bool // the connection is to be closed
	stale   bool // its settings are not the session's any more
	opaque  bool // code that nobody can look into has run
	numbers

	// atomic
	waits atomic.Int64 // since when its goroutine waits for the server, in nanoseconds from epoch on; 0: it does not

	// guarded by mu
	mu      sync.Mutex
	running bool // a cancel request would hit what it is meant for
	struck  bool // its time is over: nothing on it goes on
	deaf    bool // that is because its server does not answer
	given   bool // it has been given back, and may be somebody else's

	rests time.Time // since when it has been idle in its transaction; zero: it is not. Guarded by mu
	owed  int       // Syncs whose answers have not been read: see touch. Guarded by mu while it rests, else its goroutine's
}

// epoch is what waits counts from.
var epoch = time.Now()

// lost is the error for a branch whose connection has failed.
func (b *branch) lost(err error) *pg.Error {
	b.broken = true
	detail := "The connection ended with: " + err.Error() + "."
	if errors.Is(err, os.ErrDeadlineExceeded) && b.isDeaf() {
		detail = "The backend is down, as this node sees it, and does not answer."
	}
	var pe *pg.Error
	if errors.As(err, &pe) {
		detail = "Its last words: " + pe.Message + "."
	}
	return pg.NewError(pg.CodeConnectionFailure, "the connection to backend "+b.conn.Backend.Name+" of shard "+b.slot.Shard()+" was lost").WithDetail(detail)
}

// begin says that what is sent now may be canceled.
func (b *branch) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running, b.rests = true, time.Time{}
}

// done waits until a cancel request that is under way has been delivered.
func (b *branch) done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running = false; b.status != pg.StatusIdle {
		b.rests = time.Now()
	}
}

// cancel cancels what runs on the branch, if something does.
func (b *branch) cancel(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.running {
		return nil
	}
	err := b.conn.Cancel(ctx)
	if errors.Is(err, pool.ErrUnheard) {
		b.strikeLocked()
	}
	return err
}

// strike ends whatever is done with the connection, now and later.
func (b *branch) strike() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.strikeLocked()
}

func (b *branch) strikeLocked() {
	if b.given {
		return
	}
	b.struck = true
	b.conn.Net.SetDeadline(longAgo)
}

// flush sends what is due.
func (b *branch) flush() *pg.Error {
	if b.types != nil {
		if e := b.renumberSent(); e != nil {
			b.broken = true // what opens its transaction may have been due
			return e
		}
	}
	b.waits.Store(int64(time.Since(epoch)))
	_, err := b.conn.Net.Write(b.send)
	b.waits.Store(0)
	b.send = b.send[:0]
	if cap(b.send) > 4*readSize {
		b.send = nil
	}
	if err != nil {
		return b.lost(err)
	}
	return nil
}

// buffered reports whether a whole frame is there already.
func (b *branch) buffered() bool {
	n := pg.Want(b.in[b.off:])
	return n > 0 && n <= len(b.in)-b.off
}

// fill reads until n bytes from off on are there.
func (b *branch) fill(n int) error {
	for len(b.in)-b.off < n {
		if b.off > 0 {
			b.in = b.in[:copy(b.in, b.in[b.off:])]
			b.off = 0
		}
		if cap(b.in) < n || cap(b.in) == len(b.in) {
			grown := make([]byte, len(b.in), max(readSize, n))
			copy(grown, b.in)
			b.in = grown
		}
		b.waits.Store(int64(time.Since(epoch)))
		m, err := b.conn.Net.Read(b.in[len(b.in):cap(b.in)])
		b.waits.Store(0)
		b.in = b.in[:len(b.in)+m]
		if m == 0 && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// header waits for the next frame's beginning, and returns its type and its whole size. Notices are frames as well.
func (b *branch) header() (typ byte, size int, err error) {
	for {
		if err := b.fill(pg.HeaderSize); err != nil {
			return 0, 0, err
		}
		size = pg.Want(b.in[b.off:])
		if size < pg.HeaderSize || size > maxFrame {
			return 0, 0, fmt.Errorf("a frame of type %q that is no frame", b.in[b.off])
		}
		if typ = b.in[b.off]; !answers(typ) {
			return 0, 0, outOfPlace(typ)
		}
		if typ != pg.TypeReadyForQuery || b.owed == 0 {
			return typ, size, nil
		}
		if _, err := b.frame(size); err != nil { // it answers touch
			return 0, 0, err
		}
		b.owed--
	}
}

// frame is the next frame, of the size that header told. It holds until the next read.
func (b *branch) frame(size int) ([]byte, error) {
	if err := b.fill(size); err != nil {
		return nil, err
	}
	f := b.in[b.off : b.off+size : b.off+size]
	b.off += size
	if b.types != nil {
		return f, b.renumber(f)
	}
	return f, nil
}

// pass hands on a frame of the size that header told, in pieces if it is large.
func (b *branch) pass(size int, to func([]byte) error) (read, written error) {
	for size > 0 {
		if len(b.in) == b.off {
			if err := b.fill(1); err != nil {
				return err, written
			}
		}
		n := min(size, len(b.in)-b.off)
		if written == nil {
			written = to(b.in[b.off : b.off+n])
		}
		b.off += n
		size -= n
	}
	return nil, written
}

// skip leaves a frame of the size that header told out.
func (b *branch) skip(size int) error {
	read, _ := b.pass(size, func([]byte) error { return nil })
	return read
}

// lostIf is lost if there is an error.
func (b *branch) lostIf(err error) *pg.Error {
	if err != nil {
		return b.lost(err)
	}
	return nil
}

// receive reads up to the next ReadyForQuery. each is told of every
// frame that is not the answer to the coordinator's own commands, and has to take it (frame, pass). The error is the server's, each's, or that the connection was lost.
func (b *branch) receive(each func(typ byte, size int) *pg.Error) (first *pg.Error) {
	for {
		typ, size, err := b.header()
		if err != nil {
			return b.lost(err)
		}
		switch typ {
		case pg.TypeReadyForQuery:
			f, err := b.frame(size)
			if err == nil {
				b.status, err = pg.DecodeReady(f[pg.HeaderSize:])
			}
			if err != nil {
				return b.lost(err)
			}
			b.quiet = 0
			return first
		case pg.TypeErrorResponse:
			e, fatal := b.error(size)
			if fatal {
				return e
			}
			if first == nil {
				first = e
			}
			continue
		}
		if b.quiet > 0 && typ != pg.TypeNoticeResponse {
			f, err := b.frame(size)
			if err != nil {
				return b.lost(err)
			}
			switch typ {
			case pg.TypeCommandComplete:
				b.quiet--
			case pg.TypeParameterStatus:
				b.parameter(f)
			}
			continue
		}
		if e := each(typ, size); e != nil && first == nil {
			first = e
		}
		if b.broken {
			return first
		}
	}
}

// receiveAll is receive for the answer to one statement; t is how far that has come.
func (b *branch) receiveAll(t told, each func(typ byte, size int) *pg.Error) *pg.Error {
	e := b.receive(func(typ byte, size int) *pg.Error {
		if err := t.next(typ); err != nil {
			return b.lost(err)
		}
		return each(typ, size)
	})
	if e == nil {
		e = b.lostIf(t.whole())
	}
	return e
}

// error reads an ErrorResponse. fatal: the connection ends with it.
func (b *branch) error(size int) (e *pg.Error, fatal bool) {
	f, err := b.frame(size)
	if err != nil {
		return b.lost(err), true
	}
	e, err = pg.DecodeError(f[pg.HeaderSize:])
	if err != nil {
		return b.lost(err), true
	}
	if e.Severity == "FATAL" || e.Severity == "PANIC" {
		return b.lost(e), true
	}
	return e, false
}

func (b *branch) parameter(frame []byte) {
	if name, value, err := pg.DecodeParameterStatus(frame[pg.HeaderSize:]); err == nil {
		b.conn.Params[name] = value
	}
}

// command has the server carry out a command of the coordinator's own; several: it may be a string of them.
func (b *branch) command(ctx context.Context, sql string, several bool) (tag string, _ *pg.Error) {
	if b.broken {
		return "", pg.NewError(pg.CodeConnectionFailure, "the connection to backend "+b.conn.Backend.Name+" was lost")
	}
	stop := context.AfterFunc(ctx, b.strike)
	defer stop()
	b.begin()
	defer b.done()
	if several && b.quiet == 0 {
		b.send = pg.AppendQuery(b.send, sql)
	} else { // if what opens the transaction fails, this is not to run
		b.send = pg.AppendSync(appendCommand(b.send, sql))
	}
	if e := b.flush(); e != nil {
		return "", e
	}
	b.conn.Unnamed = 0
	e := b.receive(func(typ byte, size int) *pg.Error {
		f, err := b.frame(size)
		if err != nil {
			return b.lost(err)
		}
		switch typ {
		case pg.TypeCommandComplete:
			tag = string(pg.CommandTag(f[pg.HeaderSize:]))
		case pg.TypeParameterStatus:
			b.parameter(f)
			b.reports = append(b.reports, f...)
		}
		return nil
	})
	return tag, e
}

// release gives a branch back to its pool if it is clean, and closes it else.
func (c *Coordinator) release(b *branch) {
	c.mu.Lock()
	delete(c.live, b)
	c.mu.Unlock()
	b.hop.Gauge.InFlight.Add(-1)
	b.conn.HeldBy(nil)
	b.mu.Lock() // for as long as a cancel request is under way
	struck := b.struck
	b.running, b.given = false, true
	clean := !struck && !b.broken && b.status == pg.StatusIdle && len(b.in) == b.off && len(b.send) == 0 && b.owed == 0
	b.mu.Unlock()
	if b.stale {
		b.conn.Applied = staleSettings
	}
	if b.opaque {
		b.conn.Left = c.cfg.Session
	}
	if clean {
		b.conn.Release()
		return
	}
	if struck { // it may still be at work: PostgreSQL would notice only when it next writes
		c.after.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), abandonLimit)
			defer cancel()
			_ = c.guard(func() *pg.Error {
				_ = b.conn.Cancel(ctx)
				return nil
			})
		})
	}
	b.conn.Discard()
}

// staleSettings marks a connection whose settings are not known, as the session does: they are set anew before it is used.
const staleSettings = "?"

// answer sends what is due, which asks the branch for a few rows of the coordinator's own, and calls row with each; err: it is none. What
// the branch had without a name is gone.
func (b *branch) answer(row func(values [][]byte, err error) *pg.Error) *pg.Error {
	b.conn.Unnamed = 0
	b.begin()
	defer b.done()
	if e := b.flush(); e != nil {
		return e
	}
	return b.receive(func(typ byte, size int) *pg.Error {
		f, err := b.frame(size)
		switch {
		case err != nil:
			return b.lost(err)
		case typ == pg.TypeDataRow:
			return row(pg.DecodeDataRow(f[pg.HeaderSize:]))
		}
		return nil
	})
}
