package port

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
)

// Errors that a caller tells apart with errors.Is. Those of a dial are wrapped in a *DialError.
var (
	// ErrKeyMismatch means that the other side proved to hold another cluster key.
	ErrKeyMismatch = errors.New("the cluster key does not match")
	// ErrNotProtected means that this node has a cluster key and the other side does not speak TLS.
	ErrNotProtected = errors.New("the other side has no cluster key, or is no Rangefinder cluster port")
	// ErrKeyNeeded means that this node has no cluster key and the other side has one.
	ErrKeyNeeded = errors.New("the other side has a cluster key and this node has none")
	// ErrClosed means that the port is closed.
	ErrClosed = errors.New("the cluster port is closed")
	// ErrBadKey means that a text is not a cluster key.
	ErrBadKey = errors.New("not a cluster key")
)

// DialError says which stream could not be opened and why. Its text is for people; errors.Is sees the cause.
type DialError struct {
	Kind Kind
	Addr string // as it was dialed, host:port
	Err  error
}

// Error names the address and, for a known cause, what to do about it.
func (e *DialError) Error() string {
	switch {
	case errors.Is(e.Err, ErrKeyMismatch):
		return fmt.Sprintf("the cluster key does not match that of %s: give every node of a cluster the same key", e.Addr)
	case errors.Is(e.Err, ErrNotProtected):
		return fmt.Sprintf("%s does not speak TLS: it runs without a cluster key, or is no Rangefinder cluster port", e.Addr)
	case errors.Is(e.Err, ErrKeyNeeded):
		return fmt.Sprintf("%s has a cluster key and this node has none: give this node the same key", e.Addr)
	}
	return fmt.Sprintf("open a %s stream to %s: %v", e.Kind, e.Addr, e.Err)
}

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// handshakeCause turns what crypto/tls says on the dialing side into this package's vocabulary.
func handshakeCause(err error) error {
	var verify *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &verify) || errors.As(err, &unknown) {
		return fmt.Errorf("%w (%v)", ErrKeyMismatch, err)
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		return fmt.Errorf("%w (%v)", ErrNotProtected, err)
	}
	if hangsUp(err) {
		return fmt.Errorf("%w (%v)", ErrNotProtected, err)
	}
	return err
}

// hangsUp reports whether the other side closed the connection rather than answering.
func hangsUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// rejectedKey reports whether a failed handshake on the accepting side means another cluster key: we refused the dialer's
// certificate, or it refused ours and said so in an alert.
func rejectedKey(err error) bool {
	var verify *tls.CertificateVerificationError
	if errors.As(err, &verify) {
		return true
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		text := op.Err.Error()
		return strings.Contains(text, "certificate")
	}
	return false
}
