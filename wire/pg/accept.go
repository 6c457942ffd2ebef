package pg

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgproto3/v2"
)

// The methods by which a client may be let in, as pg_hba.conf names them.
const (
	MethodTrust    = "trust"    // whoever says so
	MethodPassword = "password" // in clear text: only over TLS or loopback
	MethodMD5      = "md5"      // or SCRAM-SHA-256, if that is what is kept of the password, as in PostgreSQL
	MethodSCRAM    = "scram-sha-256"
	MethodCert     = "cert" // a client certificate, verified by TLS, with the user's name as its common name
)

const (
	// DefaultAcceptTimeout bounds Accept where AcceptConfig.Timeout is 0.
	DefaultAcceptTimeout = 15 * time.Second

	maxAuthMessage  = 8 << 10 // bytes of a password or SASL message, header included
	startupBuffer   = 512     // bytes that most startup packets fit into
	refusalTimeout  = time.Second
	lingerTimeout   = 250 * time.Millisecond
	lingerBytes     = 64 << 10
	optionPrefix    = "_pq_." // protocol options, not settings
	manInTheMiddle  = "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack."
	malformedSCRAM  = "malformed SCRAM message"
	protocolVersion = uint32(protocolMajor) << 16
)

// ErrUnknownUser is for AcceptConfig.Lookup to return. Any other error has the same effect; this one says it plainly in
// the log.
var ErrUnknownUser = errors.New("unknown user")

// ErrWrongPassword is what Accept's error wraps if the client has not shown that it knows the password of a user who has one.
var ErrWrongPassword = errors.New("wrong password")

// AcceptConfig says how clients are let in. It is not changed once in use, is shared by all connections, and must not be
// copied after its first use.
type AcceptConfig struct {
	// TLS is asked for the configuration of each handshake; nil, or if it returns nil: an SSLRequest is answered with 'N',
	// and the client decides whether to go on in clear text. What it returns is not changed afterwards and has one
	// certificate, to which SCRAM-SHA-256-PLUS binds the password's proof. NextProtos should be ALPN.
	TLS func() *tls.Config
	// RequireTLS refuses sessions in clear text. A cancel request may still come in clear text: most clients know no
	// other way.
	RequireTLS bool
	// Login is asked once for each connection that wants a session or encryption, before anything costly is done for it; nil:
	// all may. An error refuses it: an *Error is told to the client in answer to its startup packet, over TLS if it asks for
	// that (a cancel request goes through nevertheless); after any other one the connection is closed without a word.
	Login func(remote net.Addr) error
	// Begun is told of a connection, as Accept got it, that has said what it wants; nil: nobody is. It must not take long.
	Begun func(net.Conn)
	// Admit is asked before a client has to prove who it says it is; nil: all may. An error refuses it.
	Admit func(user, database string) error
	// Rule says how a client must prove who it is: one of the Methods, or an error that it is told. nil: MethodSCRAM for
	// everybody.
	Rule func(*Peer) (method string, refusal *Error)
	// Lookup finds what is kept of a user's password, for the methods that ask for one. An error, or a zero Shadow, leads to an
	// exchange that looks like any other, takes as long, and fails as a wrong password does; the client is not told which it was.
	// With an error the Shadow says only what the exchange is to look like: of its kind, or of a verifier. An *Error is told to
	// the client. ctx ends with the time for the whole of Accept.
	Lookup func(context.Context, *Peer) (Shadow, error)
	// Wrong is told whose password did not fit, or who is unknown; nil: nobody is. It must not take long.
	Wrong func(*Peer)
	// Timeout bounds the whole of Accept; 0 is DefaultAcceptTimeout.
	Timeout time.Duration
	// MaxMinor is the newest minor version of protocol 3 to agree to: 0, or 2 where BackendKeyData may be long.
	MaxMinor uint16
	// Hold leaves AuthenticationOk in Client.Held, to be sent with what the caller says first: one write instead of two.
	Hold bool
	// SaltSecret makes the salts that unknown users are shown; nil: random, for as long as this AcceptConfig lives. Set it where
	// known users' salts outlive the process, or are the same elsewhere: a salt that is another one there tells who is unknown.
	SaltSecret []byte

	mockOnce sync.Once
	mock     []byte // set by mockOnce
}

// Peer is somebody who wants to be let in.
type Peer struct {
	User     string
	Database string               // as Client has it
	Addr     netip.Addr           // without zone, and IPv4 as IPv4; the zero Addr if the connection has none
	TLS      *tls.ConnectionState // nil: clear text
}

// Client is an authenticated client, or one that asks to cancel: then Startup.Kind is KindCancel, nothing was
// authenticated and nothing is to be answered.
type Client struct {
	Conn     net.Conn // TLS where that was agreed on; no deadline is set
	Startup  *Startup // without protocol options ("_pq_.…"), which were all declined
	Minor    uint16   // of protocol 3, as agreed
	User     string
	Database string // as the client asked; the user's name if it did not
	// Shown is what the login has shown of the client's password: good for backends that keep the same of it. Zero with
	// MethodTrust and MethodCert.
	Shown Credential
	// Held is what the client is still to be sent, before all else. See AcceptConfig.Hold.
	Held []byte
	// Rest is what the client has sent beyond its login, as far as it was read: its next messages begin with it.
	Rest []byte
}

// Accept takes a fresh connection through TLS, startup and authentication, until AuthenticationOk. ParameterStatus,
// BackendKeyData and ReadyForQuery are left to the caller, and so is what the client has sent meanwhile: see Client.Rest.
//
// A client that is refused is told so by a FATAL ErrorResponse, and the returned error wraps that *Error and the cause.
// Other errors are those of the connection: io.EOF if the client left without a byte, as a health check does. conn is
// closed on every error.
func Accept(conn net.Conn, cfg *AcceptConfig) (*Client, error) {
	timeout := cfg.Timeout
	if timeout <= 0 {
		timeout = DefaultAcceptTimeout
	}
	a := &acceptor{cfg: cfg, raw: conn, conn: conn}
	deadline := time.Now().Add(timeout)
	err := conn.SetDeadline(deadline)
	if err == nil {
		err = a.accept(deadline)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		a.refuse(err, min(timeout, refusalTimeout))
		return nil, err
	}
	a.client.Conn, a.client.Rest = a.conn, a.rest
	return &a.client, nil
}

// acceptor is one Accept under way. One goroutine owns it.
type acceptor struct {
	cfg    *AcceptConfig
	raw    net.Conn
	conn   net.Conn // raw, or TLS over it
	client Client
	out    []byte      // not sent yet
	heard  bool        // a whole startup packet was read: there is somebody to tell an error
	mute   bool        // in the middle of a TLS handshake: nothing can be told
	tls    *tls.Config // of the handshake that was done; nil: clear text
	asked  bool        // AcceptConfig.Login was
	turned *Error      // what it answered
	rest   []byte      // was read behind the startup packet
	buf    [startupBuffer]byte
}

func (a *acceptor) accept(deadline time.Time) error {
	s, err := a.startup()
	if err != nil {
		return err
	}
	a.client.Startup = s
	if a.cfg.Begun != nil {
		a.cfg.Begun(a.raw)
	}
	if s.Kind == KindCancel {
		return nil
	}
	if a.turned != nil {
		return a.turned.Fatal()
	}
	if a.cfg.RequireTLS && a.tls == nil {
		return NewError(CodeInvalidAuthorization, "the connection is not encrypted, and this server requires TLS").
			WithHint("Connect with sslmode=require, or better with verify-full.").Fatal()
	}
	user, _ := s.Param("user")
	if user == "" {
		return NewError(CodeInvalidAuthorization, "no PostgreSQL user name specified in startup packet").Fatal()
	}
	database, _ := s.Param("database")
	if database == "" {
		database = user
	}
	a.client.User, a.client.Database = user, database
	if a.cfg.Admit != nil {
		if err := a.cfg.Admit(user, database); err != nil {
			return fatal(err)
		}
	}
	a.negotiate(s)
	return a.authenticate(deadline)
}

// startup answers requests for encryption until the packet comes that says what the client wants. Each may be asked for
// once.
func (a *acceptor) startup() (*Startup, error) {
	var askedSSL, askedGSS bool
	for {
		packet, rest, err := readStartup(a.conn, a.buf[:])
		var direct *directTLS
		if errors.As(err, &direct) && !a.heard && a.serverTLS() != nil {
			a.heard, askedSSL = true, true
			if err := a.knock(); err != nil {
				return nil, err
			}
			if err := a.startDirectTLS(direct.head); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		a.heard = true
		s, err := DecodeStartup(packet)
		if err != nil {
			return nil, err
		}
		if s.Kind != KindCancel {
			if err := a.knock(); err != nil {
				return nil, err
			}
		}
		switch {
		case s.Kind == KindSSL && !askedSSL:
			askedSSL = true
			if len(rest) > 0 {
				return nil, violation("received unencrypted data after SSL request").WithDetail(manInTheMiddle).Fatal()
			}
			if err := a.answerSSL(); err != nil {
				return nil, err
			}
		case s.Kind == KindGSS && !askedGSS:
			askedGSS = true
			if len(rest) > 0 {
				return nil, violation("received unencrypted data after GSSAPI encryption request").WithDetail(manInTheMiddle).Fatal()
			}
			if _, err := a.conn.Write([]byte{'N'}); err != nil {
				return nil, err
			}
		case s.Kind == KindSSL || s.Kind == KindGSS:
			return nil, violation("encryption was requested twice").Fatal()
		default:
			a.rest = rest
			return s, nil
		}
	}
}

// knock asks whether the client may log in now.
func (a *acceptor) knock() error {
	if a.asked || a.cfg.Login == nil {
		return nil
	}
	a.asked = true
	err := a.cfg.Login(a.raw.RemoteAddr())
	if errors.As(err, &a.turned) {
		return nil
	}
	return err
}

// negotiate agrees on the protocol's minor version and declines every option.
func (a *acceptor) negotiate(s *Startup) {
	a.client.Minor = min(s.Minor, a.cfg.MaxMinor)
	var options []string
	kept := s.Params[:0]
	for _, p := range s.Params {
		if strings.HasPrefix(p.Key, optionPrefix) {
			options = append(options, p.Key)
		} else {
			kept = append(kept, p)
		}
	}
	s.Params = kept
	if a.client.Minor == s.Minor && len(options) == 0 {
		return
	}
	var start int
	a.out, start = begin(a.out, TypeNegotiateVersion)
	// The documentation says "minor version"; PostgreSQL sends the whole, and clients take both.
	a.out = binary.BigEndian.AppendUint32(a.out, protocolVersion|uint32(a.client.Minor))
	a.out = binary.BigEndian.AppendUint32(a.out, uint32(len(options)))
	for _, o := range options {
		a.out = cstring(a.out, o)
	}
	a.out = finish(a.out, start)
}

func (a *acceptor) authenticate(deadline time.Time) error {
	p := &Peer{User: a.client.User, Database: a.client.Database, Addr: peerAddr(a.raw)}
	if t, ok := a.conn.(*tls.Conn); ok {
		state := t.ConnectionState()
		p.TLS = &state
	}
	method := MethodSCRAM
	if a.cfg.Rule != nil {
		var refusal *Error
		if method, refusal = a.cfg.Rule(p); refusal != nil {
			return refusal.Fatal()
		}
	}
	var err error
	switch method {
	case MethodTrust:
	case MethodCert:
		err = checkCertificate(p)
	case MethodPassword, MethodMD5, MethodSCRAM:
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		err = a.byPassword(ctx, method, p)
		cancel()
	default:
		err = NewError(CodeInternalError, "unknown authentication method in the configuration").Fatal()
	}
	if err != nil {
		return err
	}
	a.auth(&pgproto3.AuthenticationOk{})
	if a.cfg.Hold {
		a.client.Held = a.out
		return nil
	}
	return a.flush()
}

func (c *AcceptConfig) mockSecret() []byte {
	c.mockOnce.Do(func() {
		c.mock = c.SaltSecret
		if c.mock == nil {
			c.mock = make([]byte, 32)
			_, _ = rand.Read(c.mock) // never fails
		}
	})
	return c.mock
}

// auth puts an authentication message into the output.
func (a *acceptor) auth(m pgproto3.BackendMessage) {
	if out, err := m.Encode(a.out); err == nil { // fails only beyond a gigabyte
		a.out = out
	}
}

func (a *acceptor) flush() error {
	_, err := a.conn.Write(a.out)
	a.out = a.out[:0]
	return err
}

// answer sends what is in the output and reads the client's password message: its body.
func (a *acceptor) answer() ([]byte, error) {
	if err := a.flush(); err != nil {
		return nil, err
	}
	var head [HeaderSize]byte
	if err := a.read(head[:]); err != nil {
		return nil, err
	}
	if head[0] != TypePassword {
		return nil, violation("expected password response, got message type %d", head[0]).Fatal()
	}
	if _, _, err := Next(head[:], maxAuthMessage); err != nil {
		return nil, fatal(err)
	}
	body := make([]byte, Want(head[:])-HeaderSize)
	return body, a.read(body)
}

// read fills p with what comes next.
func (a *acceptor) read(p []byte) error {
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	if _, err := io.ReadFull(a.conn, p[n:]); err != nil {
		return unexpected(err)
	}
	return nil
}

func fatal(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e.Fatal()
	}
	return err
}

// refuse tells the client why, if there is anybody to tell, and closes the connection: all of it within timeout.
func (a *acceptor) refuse(err error, timeout time.Duration) {
	// TLS gives its own farewell five seconds, whatever deadline is set: closing below it ends that.
	hurry := time.AfterFunc(timeout, func() { _ = a.raw.Close() })
	defer hurry.Stop()
	if a.mute { // TLS has said why, if it could
		Linger(a.raw, min(timeout, lingerTimeout), lingerBytes)
		_ = a.raw.Close()
		return
	}
	defer func() { _ = a.conn.Close() }()
	var e *Error
	if !errors.As(err, &e) {
		if !a.heard || !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		e = NewError(CodeQueryCanceled, "canceling authentication due to timeout").Fatal()
	}
	if a.conn.SetDeadline(time.Now().Add(timeout)) != nil {
		return
	}
	if _, err := a.conn.Write(AppendError(nil, e)); err != nil || e.Code != CodeProtocolViolation {
		return
	}
	Linger(a.conn, min(timeout, lingerTimeout), lingerBytes)
}

// Linger ends the output of a connection that is to be closed, and reads on for up to timeout and most bytes, until the other side
// closes too. Who broke the protocol has probably sent more than was read. Closed at once, TCP would answer that with a reset, and
// the client might never see the last words.
func Linger(conn net.Conn, timeout time.Duration, most int64) {
	if c, ok := conn.(interface{ CloseWrite() error }); !ok || c.CloseWrite() != nil {
		return
	}
	if conn.SetReadDeadline(time.Now().Add(timeout)) == nil {
		_, _ = io.CopyN(io.Discard, conn, most)
	}
}
