package gossip

import (
	"encoding/binary"
	"math"
	"time"
	"unicode/utf8"

	"rangefinder/rib"
)

// decoder reads a body; after the first thing that does not fit it returns zeros and done says so.
type decoder struct {
	buf    []byte
	failed bool
}

func (d *decoder) bad() { d.failed, d.buf = true, nil }

// done returns an error unless everything fitted and nothing is left.
func (d *decoder) done() error {
	if d.failed || len(d.buf) != 0 {
		return errMalformed
	}
	return nil
}

func (d *decoder) take(n int) []byte {
	if n > len(d.buf) {
		d.bad()
		return nil
	}
	b := d.buf[:n]
	d.buf = d.buf[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) flag() bool {
	b := d.byte()
	if b > 1 {
		d.bad()
	}
	return b == 1
}

func (d *decoder) uint16() uint16 {
	if b := d.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) id() id {
	if b := d.take(8); b != nil {
		return id(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.buf)
	if n <= 0 || v > limit {
		d.bad()
		return 0
	}
	d.buf = d.buf[n:]
	return v
}

func (d *decoder) stamp() rib.Stamp {
	return rib.Stamp{Incarnation: uint32(d.uvarint(maxIncarnation)), Seq: d.uvarint(maxSeq)}
}

func (d *decoder) epoch() rib.Epoch {
	return rib.Epoch{Generation: uint32(d.uvarint(math.MaxUint32)), Index: d.uvarint(math.MaxUint64)}
}

func (d *decoder) text(limit int) string {
	n := int(d.uvarint(uint64(limit)))
	s := string(d.take(n))
	if !validText(s) {
		d.bad()
		return ""
	}
	return s
}

func (d *decoder) name() string {
	s := d.text(maxName)
	if s == "" {
		d.bad()
	}
	return s
}

func validName(s string) bool { return s != "" && len(s) <= maxName && validText(s) }

// validText keeps control characters out of logs and terminals.
func validText(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || r < ' ' || r == 0x7f {
			return false
		}
	}
	return true
}

// packDuration keeps nine percent of precision in one byte: 0 is zero, 255 is rib.LagUnknown (any negative), and in
// between the logarithm of the microseconds in eighths. The longest is 55 minutes.
func packDuration(d time.Duration) byte {
	switch {
	case d < 0:
		return 255
	case d == 0:
		return 0
	}
	us := max(float64(d)/float64(time.Microsecond), 1)
	return byte(min(math.Round(8*math.Log2(us)), 253)) + 1
}

func unpackDuration(b byte) time.Duration {
	switch b {
	case 0:
		return 0
	case 255:
		return rib.LagUnknown
	}
	return time.Duration(math.Exp2(float64(b-1)/8) * float64(time.Microsecond))
}

// packSize keeps nine percent of precision in one byte: 0 is zero, 255 is rib.LagBytesUnknown (any negative), and in between the
// logarithm of the bytes in quarters.
func packSize(n int64) byte {
	switch {
	case n < 0:
		return 255
	case n == 0:
		return 0
	}
	return byte(math.Round(4*math.Log2(float64(n)))) + 1
}

func unpackSize(b byte) int64 {
	switch b {
	case 0:
		return 0
	case 253, 254: // more than there is
		return math.MaxInt64
	case 255:
		return rib.LagBytesUnknown
	}
	return int64(math.Round(math.Exp2(float64(b-1) / 4)))
}
