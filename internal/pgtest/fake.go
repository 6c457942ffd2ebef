package pgtest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgproto3/v2"
)

// Fake is a server that speaks PostgreSQL's protocol by a script, for what a real one will not do when asked to: odd order,
// bytes split anywhere, silence, a connection cut in the middle of a frame.
//
// Its connections play the scripts in the order in which they say their first word; when the scripts run out, the last one is
// played again. A cancel request plays none: it is counted.
type Fake struct {
	// constant
	ln      net.Listener
	scripts []Script
	done    chan struct{} // closed by Close

	wg sync.WaitGroup

	// guarded by mu
	mu      sync.Mutex
	conns   map[net.Conn]bool
	count   int // scripts begun
	cancels int
	errs    []error
}

// Script is what a Fake does on one connection, step by step. The first step that fails ends it; then the connection is
// closed.
type Script []Step

// Step is one step of a script.
type Step func(c *FakeConn) error

// FakeConn is the Fake's end of one connection, for steps of a test's own.
type FakeConn struct {
	net.Conn
	Done <-chan struct{} // closed when the Fake is
	r    *bufio.Reader
	in   *pgproto3.Backend
}

// Read reads what the client sent.
func (c *FakeConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// fakeStep bounds one read of a step: a script that waits for what never comes must not hang its test.
const fakeStep = 10 * time.Second

// NewFake starts a fake server on a free port of 127.0.0.1. At the test's end it is closed, and the test fails if a script
// did.
func NewFake(t TB, scripts ...Script) *Fake {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &Fake{ln: ln, scripts: scripts, done: make(chan struct{}), conns: map[net.Conn]bool{}}
	f.wg.Add(1)
	go f.accept()
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("fake server: %v", err)
		}
	})
	return f
}

// Addr returns host:port.
func (f *Fake) Addr() string { return f.ln.Addr().String() }

// Cancels returns how many cancel requests came so far.
func (f *Fake) Cancels() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cancels
}

// Connections returns how many began a script so far.
func (f *Fake) Connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// Close closes the listener and every connection, waits for the scripts, and returns what went wrong in them. A step whose
// connection ended while Close went on did not go wrong.
func (f *Fake) Close() error {
	f.mu.Lock()
	select {
	case <-f.done:
	default:
		close(f.done)
	}
	_ = f.ln.Close()
	for c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.errs...)
}

func (f *Fake) closed() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

func (f *Fake) accept() {
	defer f.wg.Done()
	for {
		conn, err := f.ln.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		if f.closed() || len(f.scripts) == 0 {
			f.mu.Unlock()
			_ = conn.Close()
			continue
		}
		f.conns[conn] = true
		f.wg.Add(1)
		f.mu.Unlock()
		go f.serve(conn)
	}
}

func (f *Fake) serve(conn net.Conn) {
	defer f.wg.Done()
	c := &FakeConn{Conn: conn, Done: f.done, r: bufio.NewReader(conn)}
	c.in = pgproto3.NewBackend(pgproto3.NewChunkReader(c.r), conn)

	const cancelRequest = 80877102 // where a startup has its version
	first, err := c.r.Peek(8)
	f.mu.Lock()
	n := -1
	if err == nil && binary.BigEndian.Uint32(first[4:]) == cancelRequest {
		f.cancels++
	} else {
		n = f.count
		f.count++
	}
	f.mu.Unlock()

	var failed error
	if n >= 0 {
		failed = f.play(c, n)
	}
	f.mu.Lock()
	delete(f.conns, conn)
	if failed != nil && (!f.closed() || !ended(failed)) {
		f.errs = append(f.errs, failed)
	}
	f.mu.Unlock()
	_ = conn.Close() // after the verdict: whoever sees the end of the connection finds it
}

// ended tells whether a step failed because its connection was at its end, on either side.
func ended(err error) bool { return errors.Is(err, net.ErrClosed) || closed(err) }

// closed tells whether the client has closed its side, be it in order or by a reset.
func closed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

func (f *Fake) play(c *FakeConn, n int) error {
	for i, step := range f.scripts[min(n, len(f.scripts)-1)] {
		_ = c.SetReadDeadline(time.Now().Add(fakeStep))
		if err := step(c); errors.Is(err, errEnd) {
			break
		} else if err != nil {
			return fmt.Errorf("connection %d, step %d: %w", n+1, i+1, err)
		}
	}
	return nil
}

// errEnd ends a script early without fault.
var errEnd = errors.New("end of script")

// Login accepts a client's startup without a password and makes it ready: what most scripts begin with. It answers an
// SSLRequest or GSSENCRequest with N; a client that then comes back on a new connection, as pgx does unless sslmode=disable, plays
// the next script there.
func Login() Step {
	return func(c *FakeConn) error {
		for {
			msg, err := c.in.ReceiveStartupMessage()
			if err != nil {
				return fmt.Errorf("startup: %w", err)
			}
			switch msg.(type) {
			case *pgproto3.StartupMessage:
				return Send(
					&pgproto3.AuthenticationOk{},
					&pgproto3.ParameterStatus{Name: "server_version", Value: "15.0"},
					&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"},
					&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"},
					&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: 2},
					&pgproto3.ReadyForQuery{TxStatus: 'I'},
				)(c)
			case *pgproto3.SSLRequest, *pgproto3.GSSEncRequest:
				if _, err := c.Write([]byte("N")); err != nil {
					return err
				}
			default:
				return fmt.Errorf("startup: got %T", msg)
			}
		}
	}
}

// Identify answers who asks for the server's system identifier, as a node does on each new connection.
func Identify(systemID uint64) Step {
	return func(c *FakeConn) error {
		if err := Expect(&pgproto3.Query{String: "SELECT system_identifier FROM pg_catalog.pg_control_system()"})(c); err != nil {
			return err
		}
		return Send(
			&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("system_identifier"), DataTypeOID: 20, DataTypeSize: 8, TypeModifier: -1}}},
			&pgproto3.DataRow{Values: [][]byte{strconv.AppendUint(nil, systemID, 10)}},
			&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")},
			&pgproto3.ReadyForQuery{TxStatus: 'I'},
		)(c)
	}
}

// ExpectStartup reads the startup packet, as it is, and gives it to check (which may be nil). Nothing is answered.
func ExpectStartup(check func(pgproto3.FrontendMessage) error) Step {
	return func(c *FakeConn) error {
		msg, err := c.in.ReceiveStartupMessage()
		if err != nil || check == nil {
			return err
		}
		return check(msg)
	}
}

// Expect reads as many messages as given and compares them byte for byte.
func Expect(want ...pgproto3.FrontendMessage) Step {
	return func(c *FakeConn) error {
		for _, w := range want {
			got, err := c.in.Receive()
			if err != nil {
				return fmt.Errorf("expect %T: %w", w, err)
			}
			gotBytes, err1 := got.Encode(nil)
			wantBytes, err2 := w.Encode(nil)
			if err1 != nil || err2 != nil || !bytes.Equal(gotBytes, wantBytes) {
				return fmt.Errorf("expect %T %+v, got %T %+v", w, w, got, got)
			}
		}
		return nil
	}
}

// ExpectThat reads one message and gives it to check, which must not keep it.
func ExpectThat(check func(pgproto3.FrontendMessage) error) Step {
	return func(c *FakeConn) error {
		msg, err := c.in.Receive()
		if err != nil {
			return err
		}
		return check(msg)
	}
}

// ExpectType reads messages until one has this type, whose zero value is given: ExpectType(&pgproto3.Sync{}).
func ExpectType(want pgproto3.FrontendMessage) Step {
	return func(c *FakeConn) error {
		for {
			msg, err := c.in.Receive()
			if err != nil {
				return fmt.Errorf("expect %T: %w", want, err)
			}
			if fmt.Sprintf("%T", msg) == fmt.Sprintf("%T", want) {
				return nil
			}
		}
	}
}

// ExpectEOF reads until the client has closed, or reset the connection.
func ExpectEOF() Step {
	return func(c *FakeConn) error {
		for {
			msg, err := c.in.Receive()
			switch {
			case closed(err):
				return nil
			case err != nil:
				return fmt.Errorf("expect the client to close: %w", err)
			}
			if _, ok := msg.(*pgproto3.Terminate); !ok {
				return fmt.Errorf("expect the client to close, got %T %+v", msg, msg)
			}
		}
	}
}

// Send writes messages in one write.
func Send(messages ...pgproto3.BackendMessage) Step {
	return func(c *FakeConn) error {
		b, err := encode(messages)
		if err != nil {
			return err
		}
		return SendBytes(b)(c)
	}
}

func encode(messages []pgproto3.BackendMessage) (b []byte, err error) {
	for _, m := range messages {
		if b, err = m.Encode(b); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// SendBytes writes bytes as they are, in one write.
func SendBytes(b []byte) Step {
	return func(c *FakeConn) error {
		_, err := c.Write(b)
		return err
	}
}

// SendSplit writes the messages one byte at a time, so that every frame arrives in pieces.
func SendSplit(messages ...pgproto3.BackendMessage) Step {
	return func(c *FakeConn) error {
		b, err := encode(messages)
		if err != nil {
			return err
		}
		for i := range b {
			if _, err := c.Write(b[i : i+1]); err != nil {
				return err
			}
		}
		return nil
	}
}

// Signal closes ch: it tells the test that the script came this far.
func Signal(ch chan<- struct{}) Step {
	return func(*FakeConn) error {
		close(ch)
		return nil
	}
}

// Hang says and reads nothing more until the Fake is closed, and leaves the connection open.
func Hang() Step {
	return func(c *FakeConn) error {
		<-c.Done
		return errEnd
	}
}

// Close closes the connection in order: the client reads an end of file.
func Close() Step { return func(*FakeConn) error { return errEnd } }

// Reset cuts the connection hard: the client gets "connection reset by peer".
func Reset() Step {
	return func(c *FakeConn) error {
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		return errEnd
	}
}
