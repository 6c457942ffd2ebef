package pg

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgproto3/v2"
)

const (
	connectBuffer   = 8 << 10 // bytes; ordinary startups take under one KiB
	maxStartupFrame = 64 << 10
	maxStartupBytes = 1 << 20 // all that a backend may say before ReadyForQuery
)

// Authentication requests, as the first four bytes of an Authentication message tell them.
const (
	authOK           = 0
	authCleartext    = 3
	authMD5          = 5
	authSASL         = 10
	authSASLContinue = 11
	authSASLFinal    = 12
)

var (
	// ErrNoPassword says that the backend asks for a password and ConnectConfig has none.
	ErrNoPassword = errors.New("the server asks for a password and none is configured")
	// ErrWrongKind says that the backend asks for what the Credential cannot give: the password itself, for instance, of which
	// only SCRAM keys are known.
	ErrWrongKind = errors.New("the server asks for another proof of the password than is known here")
	// ErrPlain says that the backend asks for the password in clear text and ConnectConfig.NoPlain forbids to tell it.
	ErrPlain = errors.New("the server asks for the password in clear text, and nothing has shown yet who it is")
	// ErrOtherVerifier says that the backend keeps another SCRAM verifier than the one that the keys belong to. Nothing was shown to
	// it.
	ErrOtherVerifier = errors.New("the server keeps another SCRAM verifier than the one that the user logged in with")
	// ErrNoTLS says that the backend refuses TLS and ConnectConfig demands it.
	ErrNoTLS = errors.New("the server does not speak TLS")
	// ErrAuthentication says that the backend asks for an authentication that Connect does not do, or does it wrongly.
	ErrAuthentication = errors.New("authentication with the server failed")
	// ErrGarbled says that what the backend says is not PostgreSQL's protocol, or not what may come at that moment.
	ErrGarbled = errors.New("the server does not keep to PostgreSQL's protocol")

	errOrder = fmt.Errorf("%w: SASL message out of order", ErrAuthentication)
)

// Garbled makes an ErrGarbled of what a decoder has found wrong with a server's bytes, nil of nil. It wraps no *Error: what is found here is not
// the server's answer, and nobody's client has broken the protocol.
func Garbled(err error) error {
	e, ok := err.(*Error)
	switch {
	case !ok:
		return err
	case e.Detail != "":
		return garbled("%s: %s", e.Message, strings.TrimSuffix(e.Detail, "."))
	}
	return garbled("%s", e.Message)
}

func garbled(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrGarbled}, args...)...)
}

// ConnectConfig says how to log in to a backend. It is not changed once in use and may be shared.
type ConnectConfig struct {
	User       string
	Credential Credential
	Database   string      // "" is the user's name
	Params     []Param     // further startup parameters, such as application_name
	TLS        *tls.Config // nil: clear text. Set, the backend must speak it
	NoPlain    bool        // the backend is not told the password itself: it has not shown who it is
	SystemID   uint64      // PostgreSQL's system identifier: another server is refused; 0: any is good
	Warm       bool        // there is time before the first statement: the server is asked for its SystemID in a way that makes that one fast
}

// String tells user and database, and never the password.
func (c ConnectConfig) String() string {
	return "user=" + c.User + " database=" + c.Database
}

// Format prints String, whatever the verb: %#v would print the password.
func (c ConnectConfig) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue logs user and database.
func (c ConnectConfig) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Server is a backend that is ready for its first query.
type Server struct {
	Conn   net.Conn          // TLS where that was asked for; no deadline is set
	Params map[string]string // what the backend reported as ParameterStatus
	PID    uint32
	Secret []byte // for AppendCancelRequest; empty if the backend gave none
	Strict bool   // it is a hot standby whose transactions are serializable unless they say otherwise, and takes none of them; told if ConnectConfig.SystemID is set
	Rest   []byte // bytes that came behind ReadyForQuery, normally none: they come before what Conn yields next
}

// Connect logs in over a fresh connection and returns once the backend is ready for a query. It does trust, cleartext,
// MD5 and SCRAM-SHA-256 authentication, over TLS with channel binding where the backend offers it. ctx bounds all of it and should have a deadline.
//
// An ErrorResponse comes back as its *Error, alone or wrapped; other errors are ErrNoPassword, ErrWrongKind, ErrPlain,
// ErrOtherVerifier, ErrNoTLS, ErrAuthentication, ErrGarbled, *OtherServerError, ctx's or the connection's. conn is closed on every error.
func Connect(ctx context.Context, conn net.Conn, cfg *ConnectConfig) (*Server, error) {
	done := make(chan struct{})
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = conn.SetDeadline(time.Unix(1, 0)) // wakes whoever reads or writes
	})
	c := &connector{cfg: cfg, conn: conn, server: Server{Params: map[string]string{}}}
	err := c.connect()
	if !stop() {
		<-done
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = conn.Close() // below TLS, whose farewell could wait for a peer that does not read
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) { // the connection's clock was a moment ahead of ctx's
			return nil, fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
		}
		return nil, err
	}
	c.server.Conn = c.conn
	c.server.Rest = c.buf[c.pos:]
	if len(c.server.Rest) == 0 {
		c.server.Rest = nil
	}
	return &c.server, nil
}

// connector is one Connect under way. One goroutine owns it.
type connector struct {
	cfg    *ConnectConfig
	conn   net.Conn
	server Server
	buf    []byte // buf[pos:] was read and not consumed
	pos    int
	total  int                  // bytes read
	peer   *tls.ConnectionState // nil: clear text

	authenticated bool
	conv          *scramClient // once SASL has begun
}

func (c *connector) connect() error {
	if c.cfg.TLS != nil {
		if err := c.startTLS(); err != nil {
			return err
		}
	}
	database := c.cfg.Database
	if database == "" {
		database = c.cfg.User
	}
	params := append([]Param{{"user", c.cfg.User}, {"database", database}}, c.cfg.Params...)
	for _, p := range params {
		if strings.IndexByte(p.Key, 0) >= 0 || strings.IndexByte(p.Value, 0) >= 0 || p.Key == "" {
			return fmt.Errorf("startup parameter %q cannot be sent: it is empty or holds a NUL", p.Key)
		}
	}
	packet := AppendStartup(nil, params)
	if len(packet) > MaxStartup {
		return fmt.Errorf("startup parameters take %d bytes, more than the %d that a server reads", len(packet), MaxStartup)
	}
	if _, err := c.conn.Write(packet); err != nil {
		return err
	}
	for {
		typ, body, err := c.next()
		if err != nil {
			return err
		}
		ready, err := c.message(typ, body)
		if err != nil {
			return err
		}
		if ready {
			break
		}
	}
	if c.cfg.SystemID == 0 {
		return nil
	}
	return c.identify()
}

func (c *connector) startTLS() error {
	t, err := requestTLS(c.conn, c.cfg.TLS)
	if err != nil {
		return err
	}
	c.conn = t
	state := t.ConnectionState()
	c.peer = &state
	return nil
}

// requestTLS asks a server for TLS and does the handshake.
func requestTLS(conn net.Conn, cfg *tls.Config) (*tls.Conn, error) {
	if _, err := conn.Write(AppendSSLRequest(nil)); err != nil {
		return nil, err
	}
	// One byte and no more: what comes behind it in clear text is not the server's word (CVE-2021-23222).
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return nil, unexpected(err)
	}
	switch answer[0] {
	case 'S':
	case 'N':
		return nil, ErrNoTLS
	default:
		return nil, garbled("it answered %q to a request for TLS", answer[0])
	}
	t := tls.Client(conn, cfg)
	err := t.Handshake()
	var noTLS tls.RecordHeaderError
	if errors.As(err, &noTLS) {
		return nil, garbled("TLS handshake: %v", err)
	}
	if err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return t, nil
}

// next reads one message. Its body is valid until the next call.
func (c *connector) next() (typ byte, body []byte, err error) {
	for {
		typ, n, err := Next(c.buf[c.pos:], maxStartupFrame)
		if err != nil {
			return 0, nil, Garbled(err)
		}
		if n > 0 {
			body := c.buf[c.pos+HeaderSize : c.pos+n]
			c.pos += n
			return typ, body, nil
		}
		c.buf = append(c.buf[:0], c.buf[c.pos:]...)
		c.pos = 0
		c.buf = slices.Grow(c.buf, max(connectBuffer, Want(c.buf)))[:len(c.buf)]
		if c.total >= maxStartupBytes {
			return 0, nil, garbled("it sent more than %d bytes before it was ready", maxStartupBytes)
		}
		m, err := c.conn.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+m]
		c.total += m
		if m == 0 && err != nil {
			return 0, nil, unexpected(err)
		}
	}
}

// message takes one message of the backend; ready tells that it was ReadyForQuery.
func (c *connector) message(typ byte, body []byte) (ready bool, err error) {
	switch {
	case typ == TypeErrorResponse:
		e, err := DecodeError(body)
		if err != nil {
			return false, Garbled(err)
		}
		return false, e
	case typ == TypeNoticeResponse:
		return false, nil
	case typ == TypeAuthentication && !c.authenticated:
		return false, c.authenticate(body)
	case typ == TypeNegotiateVersion && !c.authenticated:
		return false, nil // options of the caller's were declined; 3.0 is the least there is
	case typ == TypeParameterStatus && c.authenticated:
		key, value, err := DecodeParameterStatus(body)
		if err == nil {
			c.server.Params[key] = value
		}
		return false, Garbled(err)
	case typ == TypeBackendKeyData && c.authenticated:
		pid, secret, err := DecodeBackendKeyData(body)
		c.server.PID, c.server.Secret = pid, slices.Clone(secret)
		return false, Garbled(err)
	case typ == TypeReadyForQuery && c.authenticated:
		_, err := DecodeReady(body)
		return err == nil, Garbled(err)
	}
	return false, garbled("unexpected message type %q in a login", typ)
}

func (c *connector) authenticate(body []byte) error {
	r := reader{rest: body}
	kind := r.uint32()
	data := r.rest
	if r.err != nil {
		return Garbled(r.err)
	}
	if c.conv != nil && kind != authSASLContinue && kind != authSASLFinal && (kind != authOK || !c.conv.valid) {
		// In particular: a server that says OK in the middle has not shown that it knows the password.
		return fmt.Errorf("%w: it broke off SCRAM-SHA-256", ErrAuthentication)
	}
	switch kind {
	case authOK:
		c.authenticated = true
		return nil
	case authCleartext:
		if c.cfg.Credential.Set() && !c.cfg.Credential.IsPassword() {
			return ErrWrongKind
		}
		if c.cfg.NoPlain && c.cfg.Credential.Set() {
			return ErrPlain
		}
		return c.sendPassword(c.cfg.Credential.password)
	case authMD5:
		salt := r.take(4)
		if err := r.end(); err != nil {
			return Garbled(err)
		}
		hash := c.cfg.Credential.md5
		switch {
		case c.cfg.Credential.IsPassword():
			hash = md5Hex(c.cfg.Credential.password + c.cfg.User)
		case c.cfg.Credential.keys != nil:
			return ErrWrongKind
		}
		return c.sendPassword(md5Answer(hash, salt))
	case authSASL:
		return c.saslStart(data)
	case authSASLContinue:
		return c.saslContinue(string(data))
	case authSASLFinal:
		if c.conv == nil || c.conv.signature == nil || c.conv.valid {
			return errOrder
		}
		return c.conv.finish(string(data))
	}
	return fmt.Errorf("%w: it asks for method %d, and only trust, password, md5 and SCRAM-SHA-256 are known", ErrAuthentication, kind)
}

func (c *connector) sendPassword(password string) error {
	if !c.cfg.Credential.Set() {
		return ErrNoPassword
	}
	return c.send(&pgproto3.PasswordMessage{Password: password})
}

func (c *connector) saslStart(mechanisms []byte) error {
	if c.conv != nil {
		return errOrder
	}
	offered := strings.Split(string(mechanisms), "\x00")
	binding, bound := clientBinding(c.peer)
	plus := bound && slices.Contains(offered, scramPlus)
	switch {
	case !plus && !slices.Contains(offered, scramMechanism):
		return fmt.Errorf("%w: it does not offer SCRAM-SHA-256", ErrAuthentication)
	case !c.cfg.Credential.Set():
		return ErrNoPassword
	case c.cfg.Credential.md5 != "":
		return ErrWrongKind
	}
	c.conv = newScramClient(c.cfg.Credential, binding, plus)
	mechanism := scramMechanism
	if plus {
		mechanism = scramPlus
	}
	return c.send(&pgproto3.SASLInitialResponse{AuthMechanism: mechanism, Data: []byte(c.conv.first())})
}

func (c *connector) saslContinue(challenge string) error {
	if c.conv == nil || c.conv.signature != nil {
		return errOrder
	}
	answer, err := c.conv.answer(challenge)
	if err != nil {
		return err
	}
	return c.send(&pgproto3.SASLResponse{Data: []byte(answer)})
}

func (c *connector) send(m pgproto3.FrontendMessage) error {
	out, err := m.Encode(nil)
	if err != nil {
		return err
	}
	_, err = c.conn.Write(out)
	return err
}
