package cluster

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"rangefinder/rib"
)

// MaxNote bounds what a move's note holds, in bytes: every node gets it.
const MaxNote = 16 << 10

// clearedBit is in the byte of a move's phase.
const clearedBit = 0x80

func appendMoves(dst []byte, moves []rib.Move) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(moves)))
	for i := range moves {
		m := &moves[i]
		dst = binary.LittleEndian.AppendUint64(dst, m.ID)
		dst = binary.AppendUvarint(dst, uint64(m.Keyspace))
		phase := byte(m.Phase)
		if m.Cleared {
			phase |= clearedBit
		}
		dst = append(dst, phase)
		dst = appendEpoch(dst, m.Epoch)
		dst = appendTime(dst, m.Until)
		dst = appendString(dst, string(m.Low))
		dst = appendString(dst, string(m.High))
		dst = appendString(dst, m.From)
		dst = appendString(dst, m.To)
		dst = appendString(dst, m.Why)
		dst = appendString(dst, string(m.Note))
	}
	return dst
}

func appendLoans(dst []byte, loans []rib.Loan) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(loans)))
	for i := range loans {
		l := &loans[i]
		dst = binary.LittleEndian.AppendUint64(dst, l.ID)
		dst = binary.AppendUvarint(dst, uint64(l.Keyspace))
		dst = appendTime(dst, l.Until)
		due := byte(0)
		if l.Due {
			due = 1
		}
		dst = append(dst, due)
		dst = appendString(dst, string(l.Low))
		dst = appendString(dst, string(l.High))
		dst = appendString(dst, l.From)
		dst = appendString(dst, l.To)
		dst = appendString(dst, l.Why)
	}
	return dst
}

func appendLinks(dst []byte, links []rib.Link) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(links)))
	for i := range links {
		dst = append(appendEpoch(dst, links[i].Epoch), links[i].Hash[:]...)
	}
	return dst
}

const (
	minMove  = 8 + 1 + 1 + 12 + 8 + 6
	minLoan  = 8 + 1 + 8 + 1 + 5
	sizeLink = 12 + 16
)

func (d *decoder) moves() []rib.Move {
	n := d.count(minMove)
	if n > rib.MaxMoves {
		d.fail(fmt.Sprintf("%d moves are more than the limit of %d", n, rib.MaxMoves))
	}
	if n == 0 || d.err != nil {
		return nil
	}
	moves := make([]rib.Move, n)
	for i := range moves {
		moves[i] = d.move()
	}
	return moves
}

func (d *decoder) move() rib.Move {
	m := rib.Move{ID: d.uint64(), Keyspace: d.keyspaceID()}
	if phase := d.take(1); phase != nil {
		m.Phase, m.Cleared = rib.MovePhase(phase[0]&^clearedBit), phase[0]&clearedBit != 0
	}
	if m.Phase == 0 || m.Phase > rib.MoveAborted || m.Cleared && m.Phase != rib.MoveFlipped {
		d.fail("a move is in a phase that is not known")
	}
	m.Epoch, m.Until = d.epoch(), d.time()
	m.Low, m.High = d.key(), d.key()
	m.From, m.To, m.Why = d.string(), d.string(), d.string()
	m.Note = d.bytes()
	return m
}

func (d *decoder) loans() []rib.Loan {
	n := d.count(minLoan)
	if n > rib.MaxLoans {
		d.fail(fmt.Sprintf("%d loans are more than the limit of %d", n, rib.MaxLoans))
	}
	if n == 0 || d.err != nil {
		return nil
	}
	loans := make([]rib.Loan, n)
	for i := range loans {
		l := rib.Loan{ID: d.uint64(), Keyspace: d.keyspaceID(), Until: d.time()}
		if due := d.take(1); due != nil {
			l.Due = due[0] == 1
			if due[0] > 1 {
				d.fail("a loan is neither due nor not")
			}
		}
		l.Low, l.High = d.key(), d.key()
		l.From, l.To, l.Why = d.string(), d.string(), d.string()
		loans[i] = l
	}
	return loans
}

func (d *decoder) keyspaceID() rib.KeyspaceID {
	id := d.uvarint()
	if id > 1<<32-1 {
		d.fail("a keyspace's id is too large")
	}
	return rib.KeyspaceID(id)
}

func (d *decoder) links() []rib.Link {
	n := d.count(sizeLink)
	if n > rib.MaxLinks {
		d.fail(fmt.Sprintf("%d links are more than the limit of %d", n, rib.MaxLinks))
	}
	if n == 0 || d.err != nil {
		return nil
	}
	links := make([]rib.Link, n)
	for i := range links {
		links[i].Epoch = d.epoch()
		copy(links[i].Hash[:], d.take(len(links[i].Hash)))
	}
	return links
}

// forgotten reads numbers of nodes, of which there are some.
func (d *decoder) forgotten(nodes int) (list []int) {
	n := d.count(1)
	last := -1
	for range n {
		number := d.uvarint()
		if d.err == nil && (number >= uint64(nodes) || int(number) <= last) {
			d.fail("a node that is forgotten has no number, or numbers are not in their order")
		}
		if d.err != nil {
			return nil
		}
		last = int(number)
		list = append(list, last)
	}
	if n == 0 && d.err == nil {
		d.fail("it has no nodes that are forgotten")
	}
	return list
}

// bytes returns bytes of their own; nil if there are none.
func (d *decoder) bytes() []byte {
	if b := d.take(d.count(1)); len(b) > 0 {
		return bytes.Clone(b)
	}
	return nil
}

// appendTime writes a time to the millisecond; zero stays zero.
func appendTime(dst []byte, t time.Time) []byte {
	millis := int64(0)
	if !t.IsZero() {
		millis = t.Unix()*1000 + int64(t.Nanosecond()/1e6)
	}
	return binary.LittleEndian.AppendUint64(dst, uint64(millis))
}

func (d *decoder) time() time.Time {
	if millis := int64(d.uint64()); millis != 0 {
		return time.UnixMilli(millis).UTC()
	}
	return time.Time{}
}

// wholeMillis is a time as it comes back from where it is kept. What is not after 1970 is none.
func wholeMillis(t time.Time) time.Time {
	if !t.After(time.Unix(0, 0)) {
		return time.Time{}
	}
	return t.Truncate(time.Millisecond).UTC()
}

func (d *decoder) key() rib.Key { return rib.Key(d.bytes()) }
