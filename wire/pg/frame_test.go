package pg

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

func header(typ byte, length uint32, body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{typ}, length), body...)
}

func TestNext(t *testing.T) {
	for _, c := range []struct {
		name  string
		buf   []byte
		limit int
		n     int
		bad   bool
	}{
		{"nothing", nil, 100, 0, false},
		{"four bytes of a header that is too long", []byte{'Q', 0x7f, 0xff, 0xff}, 100, 0, false},
		{"header alone, no body", header('S', 4), 5, 5, false},
		{"header with half the body", header('Q', 8, 'a', 'b'), 100, 0, false},
		{"whole, with another behind", append(header('Q', 6, 'a', 0), 'X'), 100, 7, false},
		{"just as long as allowed", header('Q', 9, 1, 2, 3, 4, 5), 10, 10, false},
		{"one byte longer than allowed, body not there yet", header('Q', 10), 10, 0, true},
		{"length 3", header('Q', 3), 100, 0, true},
		{"length 0", header('Q', 0), 100, 0, true},
		{"negative length", header('Q', 0xffffffff), 100, 0, true},
		{"least negative length", header('Q', 0x80000000), 1 << 30, 0, true},
		{"largest length", header('Q', 0x7fffffff), 1 << 30, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			typ, n, err := Next(c.buf, c.limit)
			if c.bad {
				e := wantCode(t, err, "08P01")
				if e.Message != "invalid message length" || !strings.Contains(e.Detail, "'Q'") {
					t.Fatalf("error says %q, %q", e.Message, e.Detail)
				}
				return
			}
			if err != nil || n != c.n || n > 0 && typ != c.buf[0] {
				t.Fatalf("Next = %q, %d, %v; want %d", typ, n, err, c.n)
			}
		})
	}
}

func TestWant(t *testing.T) {
	for want, buf := range map[int][]byte{0: header('Q', 3), 9: header('Q', 8), 5: header('S', 4)} {
		if got := Want(buf); got != want {
			t.Errorf("Want(% x) = %d, want %d", buf, got, want)
		}
	}
	if got := Want([]byte{'Q', 0, 0}); got != 0 {
		t.Errorf("Want of half a header = %d", got)
	}
}

// frames cuts a stream that arrives in pieces of the given sizes (the last one repeated) into frames, as a session does.
func frames(stream []byte, limit int, pieces []byte) (out [][]byte, rest []byte, err error) {
	var buf []byte
	for i := 0; ; i++ {
		for {
			_, n, err := Next(buf, limit)
			if err != nil {
				return out, nil, err
			}
			if n == 0 {
				break
			}
			out = append(out, bytes.Clone(buf[:n]))
			buf = buf[n:]
		}
		if len(stream) == 0 {
			return out, buf, nil
		}
		piece := 1
		if len(pieces) > 0 {
			piece = 1 + int(pieces[min(i, len(pieces)-1)])
		}
		piece = min(piece, len(stream))
		buf = append(buf, stream[:piece]...)
		stream = stream[piece:]
	}
}

// FuzzFrames: wherever the network splits a stream, the same frames come out, or the same error after the same frames.
func FuzzFrames(f *testing.F) {
	stream := AppendSync(AppendQuery(AppendParse(nil, "s1", "select $1", []uint32{23}), "select 1"))
	f.Add(stream, []byte{0}, uint16(1000))
	f.Add(stream, []byte{3, 0, 200}, uint16(1000))
	f.Add(append(bytes.Clone(stream), header('Q', 0xfffffff0)...), []byte{6}, uint16(1000))
	f.Add(stream, []byte{2}, uint16(8))
	f.Add([]byte{}, []byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, stream, pieces []byte, limit uint16) {
		whole, rest, err := frames(stream, int(limit), []byte{255})
		split, rest2, err2 := frames(stream, int(limit), pieces)
		if len(whole) != len(split) || (err == nil) != (err2 == nil) || !bytes.Equal(rest, rest2) {
			t.Fatalf("%d frames, rest %x, %v; split: %d frames, rest %x, %v", len(whole), rest, err, len(split), rest2, err2)
		}
		var joined []byte
		for i := range whole {
			if !bytes.Equal(whole[i], split[i]) {
				t.Fatalf("frame %d is %x, split %x", i, whole[i], split[i])
			}
			if len(whole[i]) > int(limit) || len(whole[i]) < HeaderSize || Want(whole[i]) != len(whole[i]) {
				t.Fatalf("frame %d has %d bytes, limit %d, Want says %d", i, len(whole[i]), limit, Want(whole[i]))
			}
			joined = append(joined, whole[i]...)
		}
		if err == nil && !bytes.Equal(append(joined, rest...), stream) {
			t.Fatal("frames and rest are not the stream")
		}
		if err != nil {
			wantCode(t, err, "08P01")
		}
	})
}

func TestNextAllocatesNothing(t *testing.T) {
	buf := AppendQuery(nil, "select 1")
	if n := testing.AllocsPerRun(100, func() { _, _, _ = Next(buf, 1<<20) }); n != 0 {
		t.Fatalf("Next allocates %v times", n)
	}
}

func BenchmarkNext(b *testing.B) {
	buf := AppendQuery(nil, "select 1")
	b.ReportAllocs()
	for b.Loop() {
		if _, n, err := Next(buf, 1<<20); n != len(buf) || err != nil {
			b.Fatal(n, err)
		}
	}
}
