package pg

import (
	"encoding/binary"
	"fmt"
)

// HeaderSize is the size of a frame's header in bytes: the type and the length.
const HeaderSize = 5

// Next tells the type and the size of the frame that buf begins with: buf[:n] is the whole frame, header included, and
// buf[HeaderSize:n] its body. n is 0 if buf holds less than one frame: read more. A frame may be at most limit bytes,
// header included; that is checked as soon as its header is there, so nobody has to hold what a header merely claims.
// Errors are *Error with SQLSTATE 08P01; after one the stream cannot be read on. It does not allocate unless it fails.
func Next(buf []byte, limit int) (typ byte, n int, err error) {
	if len(buf) < HeaderSize {
		return 0, 0, nil
	}
	length := int64(int32(binary.BigEndian.Uint32(buf[1:])))
	if length < 4 || length+1 > int64(limit) {
		return 0, 0, badLength(buf[0], length, limit)
	}
	if int64(len(buf)) < length+1 {
		return 0, 0, nil
	}
	return buf[0], int(length) + 1, nil
}

// Want tells how many bytes the frame that buf begins with has in all, header included, or 0 while its header is not
// there or is not valid: how much a reader needs room for after Next has returned 0.
func Want(buf []byte) int {
	if len(buf) < HeaderSize {
		return 0
	}
	length := int64(int32(binary.BigEndian.Uint32(buf[1:])))
	if length < 4 {
		return 0
	}
	return int(length) + 1
}

func badLength(typ byte, length int64, limit int) *Error {
	detail := fmt.Sprintf("A message of type %q is %d bytes long; at most %d are allowed.", typ, length+1, limit)
	if length < 4 {
		detail = fmt.Sprintf("A message of type %q gives its length as %d; the least is 4.", typ, length)
	}
	return violation("invalid message length").WithDetail(detail)
}

// SetLength has the header of the one frame in b tell its length.
func SetLength(b []byte) { finish(b, 0) }

// begin appends a header whose length finish fills in.
func begin(dst []byte, typ byte) (out []byte, start int) {
	return append(dst, typ, 0, 0, 0, 0), len(dst)
}

func finish(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-1))
	return dst
}

// cstring appends s and a NUL.
func cstring[T ~string | ~[]byte](dst []byte, s T) []byte {
	return append(append(dst, s...), 0)
}

// AppendFrame appends a whole frame.
func AppendFrame(dst []byte, typ byte, body []byte) []byte {
	dst, start := begin(dst, typ)
	return finish(append(dst, body...), start)
}
