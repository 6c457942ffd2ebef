package wire

import (
	"bytes"
	"fmt"

	"rangefinder/wire/pg"
)

// clientSpace returns where to read client bytes into; clientRead then tells how many came.
func (c *core) clientSpace() []byte {
	if c.inOff > 0 {
		n := copy(c.in, c.in[c.inOff:])
		c.in, c.inOff = c.in[:n], 0
	}
	if cap(c.in)-len(c.in) < 512 {
		size := max(4096, 2*cap(c.in))
		if whole := pg.Want(c.in); whole > cap(c.in) && c.copyLeft == 0 { // no more than twice what has come, nor than is to come
			size = min(size, whole+512)
		}
		grown := make([]byte, len(c.in), size)
		copy(grown, c.in)
		c.in = grown
	}
	return c.in[len(c.in):cap(c.in)]
}

func (c *core) clientRead(n int) {
	c.in = c.in[:len(c.in)+n]
	c.tally.received.Add(uint64(n))
	if n > 0 {
		c.tally.wake()
	}
}

// consume handles the next client frame, or what there is of one that is passed on unseen. It returns false if more bytes
// are needed.
func (c *core) consume() bool {
	buf := c.in[c.inOff:]
	if c.copyLeft > 0 {
		n := min(c.copyLeft, len(buf))
		if n == 0 {
			return false
		}
		if !c.copyDrop {
			c.passToServer(buf[:n])
		}
		c.copyLeft -= n
		c.inOff += n
		return c.copyLeft == 0
	}
	if len(buf) >= pg.HeaderSize && buf[0] == 'd' {
		length := int(uint32(buf[1])<<24|uint32(buf[2])<<16|uint32(buf[3])<<8|uint32(buf[4])) + 1
		if length >= pg.HeaderSize && length <= 1<<30+pg.HeaderSize {
			if len(c.ops) > 0 && !c.skip && !c.copyIn {
				c.endSegment(false) // the COPY is among them
				return true
			}
			c.copyLeft, c.copyDrop = length, !c.copyIn
			return true
		}
	}
	typ, n, err := pg.Next(buf, c.env.maxFrame)
	if err != nil {
		c.protocolViolation(err)
		return true
	}
	if n == 0 {
		if len(buf) > 0 && !c.takes(buf[0]) { // what would come with it need not be waited for
			c.unexpected(buf[0])
			return true
		}
		return false
	}
	if len(c.ops) > 0 && !c.skip && !c.copyIn && (typ == 'Q' || typ == 'F' || typ == 'c' || typ == 'f' || (typ == 'S' || typ == 'H') && n > pg.HeaderSize || c.full(n)) {
		c.endSegment(false) // what came before it without a Sync runs before it
		return true
	}
	c.inOff += n
	c.clientFrame(typ, buf[:n])
	if c.inOff == len(c.in) && !c.unsent() {
		c.in, c.inOff = c.in[:0], 0
	}
	return true
}

// full reports whether the messages that wait for a Sync leave no room for one more of n bytes.
func (c *core) full(n int) bool {
	return len(c.ops) >= maxOps || len(c.batch)+n > 2*c.env.maxFrame
}

func (c *core) passToServer(p []byte) { c.toServer = append(c.toServer, p...) }

func (c *core) clientFrame(typ byte, frame []byte) {
	body := frame[pg.HeaderSize:]
	if c.copyIn {
		c.copyFrame(typ, frame)
		return
	}
	switch typ {
	case 'Q':
		if c.skip { // PostgreSQL discards up to the Sync whatever comes
			return
		}
		switch end := bytes.IndexByte(body, 0); {
		case end < 0:
			c.malformed('Q', true, "invalid string in message")
		case end < len(body)-1:
			c.malformed('Q', true, "invalid message format")
		default:
			c.query(frame)
		}
	case 'P', 'B', 'D', 'E', 'C':
		if c.skip {
			return
		}
		start := len(c.batch)
		c.batch = append(c.batch, frame...)
		c.ops = append(c.ops, op{typ: typ, start: start, end: len(c.batch)})
	case 'S', 'H':
		if len(body) != 0 {
			c.malformed('S', typ == 'S', "invalid message format")
			return
		}
		c.endSegment(typ == 'S')
	case 'F':
		if !c.skip {
			c.functionCall(frame)
		}
	case 'X':
		c.closing = true
	case 'd', 'c', 'f': // the tail of a COPY that has failed meanwhile
	default:
		c.unexpected(typ)
	}
}

// malformed answers a message that is whole but has a body that it should not have. Where the next one begins is sure, so the session goes
// on as after any error: what came before it in the same transaction is undone, and if it was to end in a ReadyForQuery, it does.
func (c *core) malformed(kind byte, sync bool, text string) {
	e := pg.NewError(pg.CodeProtocolViolation, text)
	switch {
	case !c.skip:
		c.kind, c.plan, c.seg, c.uses = kind, nil, segment{sync: sync, undo: c.seg.undo[:0]}, c.uses[:0]
		c.begins()
		c.fail(e)
	case sync: // all has been undone
		c.out = pg.AppendError(c.out, e)
		c.emptySegment(true)
	}
}

// takes reports whether a message of that type may come now.
func (c *core) takes(typ byte) bool {
	switch typ {
	case 'd', 'c', 'f', 'S', 'H', 'X':
		return true
	case 'Q', 'P', 'B', 'D', 'E', 'C', 'F':
		return !c.copyIn
	}
	return false
}

// unexpected ends a session in which a message of that type may not come now.
func (c *core) unexpected(typ byte) {
	text := fmt.Sprintf("invalid frontend message type %d", typ)
	if c.copyIn {
		text = fmt.Sprintf("unexpected message type 0x%02X during COPY from stdin", typ)
	}
	c.protocolViolation(pg.NewError(pg.CodeProtocolViolation, text))
}

// copyFrame handles what a client sends while the server takes COPY data.
func (c *core) copyFrame(typ byte, frame []byte) {
	switch typ {
	case 'd':
		c.passToServer(frame)
	case 'c', 'f':
		c.passToServer(frame)
		c.copyIn = false
		if c.copyExt {
			// A Sync that went before the data was ignored by the server: the client sends another one. Without a Flush the
			// server would keep its answer until that comes.
			c.toServer = pg.AppendFlush(c.toServer)
			c.serverOpen = true
			c.seg = segment{}
		}
	case 'S', 'H':
	case 'X':
		c.closing, c.broken = true, true
	default:
		c.unexpected(typ)
	}
}

// protocolViolation ends the session: after a frame that cannot be read, nothing can be.
func (c *core) protocolViolation(err error) {
	e, ok := err.(*pg.Error)
	if !ok {
		e = pg.NewError(pg.CodeProtocolViolation, err.Error())
	}
	c.out = pg.AppendError(c.out, e.Fatal())
	c.closing, c.broken, c.violated = true, true, true
	c.inOff, c.in = 0, c.in[:0]
	c.wanting, c.convening, c.moves.waits, c.numbers.learning = false, false, nil, 0
}
