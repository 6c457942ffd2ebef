package pg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// startupPacket is a packet of that code with that body, its length word right.
func startupPacket(major, minor uint16, body string) []byte {
	b, start := beginStartup(nil, major, minor)
	return finishStartup(append(b, body...), start)
}

// startupFrom reads and decodes one startup packet.
func startupFrom(r io.Reader) (*Startup, error) {
	packet, _, err := readStartup(r, make([]byte, startupBuffer))
	if err != nil {
		return nil, err
	}
	return DecodeStartup(packet)
}

func TestDecodeStartup(t *testing.T) {
	for _, c := range []struct {
		name   string
		packet []byte
		want   Startup
	}{
		{"session", startupPacket(3, 0, "user\x00u\x00database\x00d\x00\x00"), Startup{Major: 3, Params: []Param{{"user", "u"}, {"database", "d"}}}},
		{"no parameters", startupPacket(3, 0, "\x00"), Startup{Major: 3}},
		{"empty value", startupPacket(3, 0, "options\x00\x00\x00"), Startup{Major: 3, Params: []Param{{"options", ""}}}},
		{"3.2", startupPacket(3, 2, "user\x00u\x00\x00"), Startup{Major: 3, Minor: 2, Params: []Param{{"user", "u"}}}},
		{"3.9999", startupPacket(3, 9999, "\x00"), Startup{Major: 3, Minor: 9999}},
		{"TLS", AppendSSLRequest(nil), Startup{Kind: KindSSL}},
		{"GSSAPI", startupPacket(1234, 5680, ""), Startup{Kind: KindGSS}},
		{"cancel", AppendCancelRequest(nil, 77, []byte("key!")), Startup{Kind: KindCancel, PID: 77, Secret: []byte("key!")}},
		{"cancel, long key", AppendCancelRequest(nil, 1, bytes.Repeat([]byte{9}, 256)), Startup{Kind: KindCancel, PID: 1, Secret: bytes.Repeat([]byte{9}, 256)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := DecodeStartup(c.packet)
			if err != nil || !reflect.DeepEqual(*got, c.want) {
				t.Fatalf("got %+v, %v; want %+v", got, err, c.want)
			}
			read, err := startupFrom(iotest.OneByteReader(bytes.NewReader(append(c.packet, "behind"...))))
			if err != nil || !reflect.DeepEqual(read, got) {
				t.Fatalf("read byte by byte: %+v, %v", read, err)
			}
		})
	}
}

func TestDecodeStartupRefuses(t *testing.T) {
	var many strings.Builder
	for i := range 257 {
		fmt.Fprintf(&many, "p%d\x00v\x00", i)
	}
	many.WriteByte(0)
	wrongLength := startupPacket(3, 0, "\x00")
	binary.BigEndian.PutUint32(wrongLength, 20)
	for _, c := range []struct {
		name    string
		packet  []byte
		code    string
		message string
	}{
		{"nothing", nil, "08P01", "invalid length of startup packet"},
		{"7 bytes", []byte{0, 0, 0, 7, 0, 3, 0}, "08P01", "invalid length of startup packet"},
		{"length is another", wrongLength, "08P01", "invalid length of startup packet"},
		{"10001 bytes", startupPacket(3, 0, strings.Repeat("x", 9993)), "08P01", "invalid length of startup packet"},
		{"protocol 2.0", startupPacket(2, 0, ""), "0A000", "unsupported frontend protocol 2.0: only protocol 3 is supported"},
		{"protocol 4.1", startupPacket(4, 1, "\x00"), "0A000", "unsupported frontend protocol 4.1: only protocol 3 is supported"},
		{"TLS with a body", startupPacket(1234, 5679, "x"), "08P01", "invalid length of startup packet"},
		{"unknown request", startupPacket(1234, 5681, ""), "0A000", "unsupported frontend protocol 1234.5681: only protocol 3 is supported"},
		{"cancel without key", startupPacket(1234, 5678, "\x00\x00\x00\x01"), "08P01", "invalid length of cancel request packet"},
		{"cancel with a key of 257 bytes", startupPacket(1234, 5678, strings.Repeat("x", 4+257)), "08P01", "invalid length of cancel request packet"},
		{"no terminator", startupPacket(3, 0, ""), "08P01", "invalid startup packet layout: expected terminator as last byte"},
		{"terminator missing", startupPacket(3, 0, "user\x00u\x00"), "08P01", "invalid startup packet layout: expected terminator as last byte"},
		{"name without value", startupPacket(3, 0, "user\x00"), "08P01", "invalid startup packet layout: expected terminator as last byte"},
		{"name without end", startupPacket(3, 0, "user"), "08P01", "invalid startup packet layout: expected terminator as last byte"},
		{"bytes behind the terminator", startupPacket(3, 0, "user\x00u\x00\x00x\x00"), "08P01", "invalid startup packet layout: expected terminator as last byte"},
		{"257 parameters", startupPacket(3, 0, many.String()), "08P01", "too many startup parameters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := DecodeStartup(c.packet)
			if e := wantCode(t, err, c.code); e.Message != c.message || e.Severity != "FATAL" {
				t.Fatalf("error is %v", e)
			}
		})
	}
}

func TestStartupBounds(t *testing.T) {
	for _, length := range []uint32{0, 7, 10001, 1 << 30, 0xffffffff} {
		r := bytes.NewReader(append(binary.BigEndian.AppendUint32(nil, length), make([]byte, 100)...))
		_, err := startupFrom(iotest.OneByteReader(r))
		if e := wantCode(t, err, "08P01"); e.Message != "invalid length of startup packet" {
			t.Fatalf("length %d: %v", length, e)
		}
		if r.Len() != 100 {
			t.Fatalf("length %d: %d bytes were read, want the 4 of the length", length, 104-r.Len())
		}
	}
	for n, want := range map[int]error{0: io.EOF, 3: io.ErrUnexpectedEOF, 6: io.ErrUnexpectedEOF, 12: io.ErrUnexpectedEOF} {
		if _, err := startupFrom(bytes.NewReader(startupPacket(3, 0, "user\x00u\x00\x00")[:n])); !errors.Is(err, want) {
			t.Errorf("%d bytes and the end: %v, want %v", n, err, want)
		}
	}
}

func TestStartupParam(t *testing.T) {
	s := Startup{Params: []Param{{"user", "a"}, {"x", "1"}, {"user", "b"}}}
	if v, ok := s.Param("user"); v != "b" || !ok {
		t.Fatalf("user is %q, %v: the last one given counts", v, ok)
	}
	if _, ok := s.Param("database"); ok {
		t.Fatal("there is no database")
	}
}

// FuzzStartup: a packet that decodes means the same when encoded again; nothing panics.
func FuzzStartup(f *testing.F) {
	f.Add(startupPacket(3, 0, "user\x00u\x00database\x00d\x00\x00"))
	f.Add(startupPacket(3, 2, "user\x00u\x00_pq_.x\x00\x00\x00"))
	f.Add(AppendSSLRequest(nil))
	f.Add(AppendCancelRequest(nil, 1, []byte{1, 2, 3, 4}))
	f.Add([]byte{0x40, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		packet, rest, err := readStartup(r, make([]byte, startupBuffer))
		used := len(b) - r.Len() - len(rest)
		if used > MaxStartup || err == nil && used != len(packet) {
			t.Fatalf("%d bytes were read for a packet of %d", used, len(packet))
		}
		var s *Startup
		if err == nil {
			s, err = DecodeStartup(packet)
		}
		if err != nil {
			var e *Error
			if !errors.As(err, &e) && err != io.EOF && err != io.ErrUnexpectedEOF {
				t.Fatalf("unexpected error %v", err)
			}
			return
		}
		var again []byte
		switch s.Kind {
		case KindStartup:
			again = AppendStartup(nil, s.Params)
			binary.BigEndian.PutUint16(again[6:], s.Minor)
		case KindSSL:
			again = AppendSSLRequest(nil)
		case KindGSS:
			again = startupPacket(1234, 5680, "")
		case KindCancel:
			again = AppendCancelRequest(nil, s.PID, s.Secret)
		}
		if !bytes.Equal(again, b[:used]) {
			t.Fatalf("encoded again:\n%x, was\n%x", again, b[:used])
		}
	})
}
