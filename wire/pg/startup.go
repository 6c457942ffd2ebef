package pg

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
)

const (
	// MaxStartup is the size in bytes of the largest startup packet, its length word included, as in PostgreSQL.
	MaxStartup = 10000
	// MaxSecret is the size in bytes of the longest secret in BackendKeyData and CancelRequest (protocol 3.2).
	MaxSecret = 256

	minSecret  = 4
	minStartup = 8   // length and code
	maxParams  = 256 // parameters in one startup packet: some 300 settings exist, and drivers send a dozen

	codeMagic  = 1234 // the "major version" of requests that are not a startup
	minorTLS   = 5679
	minorGSS   = 5680
	minorAbort = 5678

	protocolMajor = 3
)

// StartupKind is what a connection's first packet asks for.
type StartupKind uint8

// The kinds of first packets.
const (
	KindStartup StartupKind = iota // a session
	KindSSL                        // TLS first
	KindGSS                        // GSSAPI encryption first
	KindCancel                     // to cancel another session's statement
)

// Param is one startup parameter: a setting, or one of "user", "database", "replication", "options".
type Param struct {
	Key   string
	Value string
}

// Startup is a decoded startup packet.
type Startup struct {
	Kind   StartupKind
	Major  uint16  // protocol version as the client asked, for KindStartup
	Minor  uint16  // see Client.Minor for what was agreed
	Params []Param // in the client's order, for KindStartup
	PID    uint32  // for KindCancel
	Secret []byte  // for KindCancel, 4 to MaxSecret bytes
}

// Param is the value of the parameter with that name: the last one given, as in PostgreSQL.
func (s *Startup) Param(key string) (value string, ok bool) {
	for i := len(s.Params) - 1; i >= 0; i-- {
		if s.Params[i].Key == key {
			return s.Params[i].Value, true
		}
	}
	return "", false
}

// readStartup reads one startup packet. Its length is bounded before anything else is read. Errors are *Error, *directTLS, or those
// of r: io.EOF if nothing came at all, io.ErrUnexpectedEOF if the packet was cut short. A packet that fits into buf is there
// afterwards, after one read as a rule, and so is rest: what was read behind it.
func readStartup(r io.Reader, buf []byte) (packet, rest []byte, err error) {
	n, err := io.ReadAtLeast(r, buf, 4)
	if err != nil {
		return nil, nil, err
	}
	if buf[0] == tlsHandshake {
		return nil, nil, &directTLS{head: buf[:n], err: badStartupLength()}
	}
	length := int(binary.BigEndian.Uint32(buf))
	if length < minStartup || length > MaxStartup {
		return nil, nil, badStartupLength()
	}
	if length > len(buf) {
		buf = append(make([]byte, 0, length), buf[:n]...)[:length]
	}
	if n < length {
		m, err := io.ReadAtLeast(r, buf[n:], length-n)
		if err != nil {
			return nil, nil, unexpected(err)
		}
		n += m
	}
	return buf[:length], buf[length:n], nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func badStartupLength() *Error {
	return violation("invalid length of startup packet").WithHint("Is the client speaking PostgreSQL's protocol to this port?").Fatal()
}

// DecodeStartup decodes one whole startup packet, its length word included. It copies what it keeps. A mistake is a FATAL
// *Error: 08P01, or 0A000 for a protocol we do not speak.
func DecodeStartup(packet []byte) (*Startup, error) {
	if len(packet) < minStartup || len(packet) > MaxStartup || binary.BigEndian.Uint32(packet) != uint32(len(packet)) {
		return nil, badStartupLength()
	}
	s := &Startup{Major: binary.BigEndian.Uint16(packet[4:]), Minor: binary.BigEndian.Uint16(packet[6:])}
	body := packet[minStartup:]
	switch {
	case s.Major == codeMagic && (s.Minor == minorTLS || s.Minor == minorGSS):
		if len(body) > 0 {
			return nil, badStartupLength()
		}
		if s.Minor == minorTLS {
			return &Startup{Kind: KindSSL}, nil
		}
		return &Startup{Kind: KindGSS}, nil
	case s.Major == codeMagic && s.Minor == minorAbort:
		if len(body) < 4+minSecret || len(body) > 4+MaxSecret {
			return nil, violation("invalid length of cancel request packet").Fatal()
		}
		return &Startup{Kind: KindCancel, PID: binary.BigEndian.Uint32(body), Secret: append([]byte(nil), body[4:]...)}, nil
	case s.Major != protocolMajor:
		return nil, Errorf(CodeFeatureNotSupported, "unsupported frontend protocol %d.%d: only protocol 3 is supported", s.Major, s.Minor).Fatal()
	}
	return s, s.decodeParams(string(body))
}

func (s *Startup) decodeParams(body string) error {
	for body != "" && body[0] != 0 {
		key, after, _ := strings.Cut(body, "\x00")
		value, rest, ok := strings.Cut(after, "\x00")
		if !ok {
			return badLayout()
		}
		if len(s.Params) == maxParams {
			return violation("too many startup parameters").WithDetail("At most 256 are allowed.").Fatal()
		}
		s.Params = append(s.Params, Param{key, value})
		body = rest
	}
	if body != "\x00" {
		return badLayout()
	}
	return nil
}

func badLayout() *Error {
	return violation("invalid startup packet layout: expected terminator as last byte").Fatal()
}

// AppendStartup appends the startup packet of protocol 3.0.
func AppendStartup(dst []byte, params []Param) []byte {
	dst, start := beginStartup(dst, protocolMajor, 0)
	for _, p := range params {
		dst = cstring(cstring(dst, p.Key), p.Value)
	}
	return finishStartup(append(dst, 0), start)
}

// AppendSSLRequest appends an SSLRequest packet.
func AppendSSLRequest(dst []byte) []byte {
	return finishStartup(beginStartup(dst, codeMagic, minorTLS))
}

// AppendCancelRequest appends a CancelRequest packet: pid and secret as BackendKeyData gave them.
func AppendCancelRequest(dst []byte, pid uint32, secret []byte) []byte {
	dst, start := beginStartup(dst, codeMagic, minorAbort)
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return finishStartup(append(dst, secret...), start)
}

func beginStartup(dst []byte, major, minor uint16) (out []byte, start int) {
	start = len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, major)
	return binary.BigEndian.AppendUint16(dst, minor), start
}

func finishStartup(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start))
	return dst
}
