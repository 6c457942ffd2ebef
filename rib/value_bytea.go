package rib

import (
	"bytes"
	"encoding/hex"
	"fmt"
)

// byteaText reads the text form of a bytea byte by byte, as PostgreSQL's byteain does: both forms are taken, whatever bytea_output is.
type byteaText struct {
	rest []byte
	hex  bool
}

func newByteaText(s []byte) byteaText {
	if rest, ok := bytes.CutPrefix(s, []byte(`\x`)); ok {
		return byteaText{rest, true}
	}
	return byteaText{s, false}
}

// next is the next byte; ok is false at the end.
func (t *byteaText) next() (c byte, ok bool, err error) {
	if t.hex {
		return t.nextHex()
	}
	s := t.rest
	switch {
	case len(s) == 0:
		return 0, false, nil
	case s[0] >= 0x80: // what these bytes become depends on the encodings of client and server
		return 0, false, fmt.Errorf("%w: type bytea: the text holds characters beyond ASCII", ErrKeyUnclear)
	case s[0] != '\\':
		t.rest = s[1:]
		return s[0], true, nil
	case len(s) >= 2 && s[1] == '\\':
		t.rest = s[2:]
		return '\\', true, nil
	case len(s) >= 4 && '0' <= s[1] && s[1] <= '3' && '0' <= s[2] && s[2] <= '7' && '0' <= s[3] && s[3] <= '7':
		t.rest = s[4:]
		return (s[1]-'0')<<6 + (s[2]-'0')<<3 + s[3] - '0', true, nil
	}
	return 0, false, syntaxError(TypeBytea, s)
}

func (t *byteaText) nextHex() (c byte, ok bool, err error) {
	t.rest = bytes.TrimLeft(t.rest, " \n\t\r") // between bytes, not in one
	if len(t.rest) == 0 {
		return 0, false, nil
	}
	high, isHigh := HexDigit(t.rest[0])
	switch {
	case !isHigh:
		return 0, false, fmt.Errorf("%w: %q is no hexadecimal digit", ErrKeyHex, t.rest[:1])
	case len(t.rest) == 1:
		return 0, false, fmt.Errorf("%w: an odd number of digits", ErrKeyHex)
	}
	low, isLow := HexDigit(t.rest[1])
	if !isLow {
		return 0, false, fmt.Errorf("%w: %q is no hexadecimal digit", ErrKeyHex, t.rest[1:2])
	}
	t.rest = t.rest[2:]
	return high<<4 | low, true, nil
}

// checkBytea refuses a text that is no bytea.
func checkBytea(s []byte) error {
	for t := newByteaText(s); ; {
		if _, ok, err := t.next(); !ok {
			return err
		}
	}
}

// appendBytea appends the bytes of a TypeBytea.
func (v Value) appendBytea(dst []byte) ([]byte, error) {
	if v.Int == 0 {
		return append(dst, v.Bytes...), nil
	}
	start := len(dst)
	for t := newByteaText(v.Bytes); ; {
		c, ok, err := t.next()
		if err != nil {
			return dst[:start], err
		}
		if !ok {
			return dst, nil
		}
		dst = append(dst, c)
	}
}

// hashBytea is the hash of a TypeBytea. Room at the end of dst serves to decode it.
func (v Value) hashBytea(dst []byte) (uint64, error) {
	if v.Int == 0 {
		return HashBytes(v.Bytes), nil
	}
	scratch := dst[len(dst):]
	if len(v.Bytes) > maxScratch { // dst is kept, and need not grow so much for what is not of it
		scratch = make([]byte, 0, len(v.Bytes))
	}
	b, err := v.appendBytea(scratch)
	return HashBytes(b), err
}

// maxScratch is the length of a text up to which it is decoded behind a key.
const maxScratch = 1 << 10

// appendStuffed appends a TypeBytea so that its order is kept and its end can be told: a NUL becomes NUL 0xff, and NUL 0x01 ends it.
func (v Value) appendStuffed(dst []byte) ([]byte, error) {
	start := len(dst)
	if v.Int == 0 {
		for _, c := range v.Bytes {
			if dst = append(dst, c); c == 0 {
				dst = append(dst, 0xff)
			}
		}
		return append(dst, 0, 1), nil
	}
	for t := newByteaText(v.Bytes); ; {
		c, ok, err := t.next()
		switch {
		case err != nil:
			return dst[:start], err
		case !ok:
			return append(dst, 0, 1), nil
		}
		if dst = append(dst, c); c == 0 {
			dst = append(dst, 0xff)
		}
	}
}

// stuffed is the inverse: what was stuffed at the start of k, and how many bytes of k that took; 0 if it does not end.
func stuffed(k []byte) (b []byte, size int) {
	b = []byte{}
	for at := 0; ; {
		i := bytes.IndexByte(k[at:], 0)
		if i < 0 || at+i+1 >= len(k) {
			return nil, 0
		}
		b = append(b, k[at:at+i]...)
		switch at += i + 2; k[at-1] {
		case 1:
			return b, at
		case 0xff:
			b = append(b, 0)
		default:
			return nil, 0
		}
	}
}

func formatBytea(b []byte) string { return `\x` + hex.EncodeToString(b) }
