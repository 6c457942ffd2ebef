package pg

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// stream is a connection whose peer has sent everything already and reads nothing: no goroutine is needed to play it.
type stream struct {
	in      *bytes.Reader
	piece   int // bytes that one Read yields at most
	written int
	closed  bool
}

func (s *stream) Read(p []byte) (int, error) {
	if s.closed {
		return 0, net.ErrClosed
	}
	return s.in.Read(p[:min(len(p), s.piece)])
}

func (s *stream) Write(p []byte) (int, error) {
	if s.closed {
		return 0, net.ErrClosed
	}
	s.written += len(p)
	return len(p), nil
}

func (s *stream) Close() error                     { s.closed = true; return nil }
func (s *stream) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *stream) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *stream) SetDeadline(time.Time) error      { return nil }
func (s *stream) SetReadDeadline(time.Time) error  { return nil }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

// FuzzAccept: whatever a stranger sends, in whatever pieces, Accept ends, reads and says little, closes what it refuses,
// and lets nobody in who did not send the password. That no goroutine stays is checked when the test binary ends.
func FuzzAccept(f *testing.F) {
	const (
		withTLS = 1 << iota
		inClear
		newest
		hashed
	)
	password := append(bytes.Clone(appStartup), passwordMessage("secret\x00")...)
	f.Add(appStartup, byte(0), byte(255))
	f.Add(password, byte(inClear), byte(255))
	f.Add(append(bytes.Clone(password), "behind"...), byte(inClear|newest), byte(0))
	f.Add(append(bytes.Clone(appStartup), sasl("SCRAM-SHA-256", "n,,n=,r=abc")...), byte(0), byte(7))
	f.Add(append(append(bytes.Clone(appStartup), sasl("SCRAM-SHA-256", "y,,n=,r=abc")...), passwordMessage("c=eSws,r=abc,p=AAAA")...), byte(0), byte(255))
	f.Add(append(bytes.Clone(appStartup), passwordMessage("md5"+md5Hex(md5Hex("secretapp")+"salt")+"\x00")...), byte(hashed), byte(255))
	f.Add(append(AppendSSLRequest(nil), appStartup...), byte(withTLS), byte(7))
	f.Add(append(startupPacket(1234, 5680, ""), password...), byte(inClear), byte(7))
	f.Add(append(startupPacket(3, 9999, "user\x00app\x00_pq_.x\x00\x00\x00"), passwordMessage("secret\x00")...), byte(inClear|newest), byte(3))
	f.Add(AppendCancelRequest(nil, 1, []byte{1, 2, 3, 4}), byte(0), byte(255))
	f.Add(append([]byte{0x40, 0, 0, 0}, make([]byte, 100)...), byte(0), byte(255))

	server, _ := certificate(f)
	f.Fuzz(func(t *testing.T, in []byte, flags, piece byte) {
		inClearText := false
		cfg := &AcceptConfig{Lookup: users, SaltSecret: []byte("k")}
		if flags&withTLS != 0 {
			cfg.TLS = always(server)
		}
		if flags&inClear != 0 {
			cfg.Rule, inClearText = by(MethodPassword), true
		}
		if flags&hashed != 0 { // with a salt that cannot be foreseen: nobody comes in
			cfg.Rule, inClearText = by(MethodMD5), false
		}
		if flags&newest != 0 {
			cfg.MaxMinor = 2
		}
		s := &stream{in: bytes.NewReader(in), piece: 1 + int(piece)}
		c, err := Accept(s, cfg)
		read := len(in) - s.in.Len()
		if limit := MaxStartup + 2*minStartup + 3*maxAuthMessage + 64<<10; read > limit || s.written > limit {
			t.Fatalf("read %d bytes, wrote %d", read, s.written)
		}
		switch {
		case err != nil:
			if c != nil || !s.closed {
				t.Fatalf("refused (%v) and yet client %v, closed %v", err, c, s.closed)
			}
			_ = err.Error()
		case s.closed || c.Conn != s:
			t.Fatal("let in on a closed connection, or on another")
		case c.Startup.Kind == KindCancel:
			if c.User != "" {
				t.Fatalf("a cancel request is authenticated as %q", c.User)
			}
		default:
			sent := in[:read-len(c.Rest)]
			if c.User != "app" || !inClearText || !bytes.HasSuffix(sent, []byte("secret\x00")) {
				t.Fatalf("let in as %q after %q", c.User, sent)
			}
			rest, _ := io.ReadAll(s)
			if !bytes.Equal(append(bytes.Clone(c.Rest), rest...), in[len(sent):]) {
				t.Fatal("bytes behind the handshake were lost")
			}
		}
	})
}
