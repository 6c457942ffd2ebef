package pg

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/xdg-go/scram"
)

// ALPN is the name of PostgreSQL's protocol in a TLS handshake. Who begins with TLS must name it: without that, a browser could
// be made to talk to this port.
const ALPN = "postgresql"

const (
	scramPlus = scramMechanism + "-PLUS" // with channel binding

	// tlsHandshake is the first byte of a TLS connection. As the first of a startup packet's length it would be 350 MB.
	tlsHandshake = 0x16
)

// ErrHandshake says that a client asked for TLS and the handshake failed.
var ErrHandshake = errors.New("TLS handshake")

// directTLS says that a connection began with TLS instead of a startup packet.
type directTLS struct {
	head []byte // what was read of it
	err  error  // what it is to whom this is a surprise
}

func (e *directTLS) Error() string { return e.err.Error() + ": it begins with TLS" }

// Unwrap returns what a client is told.
func (e *directTLS) Unwrap() error { return e.err }

// serverTLS is the configuration of this connection's handshake; nil: no TLS.
func (a *acceptor) serverTLS() *tls.Config {
	if a.cfg.TLS == nil {
		return nil
	}
	return a.cfg.TLS()
}

// answerSSL answers an SSLRequest.
func (a *acceptor) answerSSL() error {
	cfg := a.serverTLS()
	if cfg == nil {
		_, err := a.conn.Write([]byte{'N'})
		return err
	}
	a.mute = true
	if _, err := a.conn.Write([]byte{'S'}); err != nil {
		return err
	}
	// Nothing was read beyond the request: bytes that were slipped in behind it in clear text are the handshake's to
	// refuse, and can never be taken for the client's (CVE-2021-23214).
	if err := a.handshake(a.conn, cfg); err != nil {
		return err
	}
	a.mute = false
	return nil
}

// startDirectTLS does the handshake of a client that began with it (PostgreSQL 17, sslnegotiation=direct).
func (a *acceptor) startDirectTLS(head []byte) error {
	cfg := a.serverTLS()
	if cfg == nil { // taken away between two looks
		return badStartupLength()
	}
	a.mute = true // until it is known that the client speaks this protocol
	if err := a.handshake(&replayed{Conn: a.conn, head: head}, cfg); err != nil {
		return err
	}
	if a.conn.(*tls.Conn).ConnectionState().NegotiatedProtocol != ALPN {
		return errors.New("direct TLS connection without the ALPN protocol " + ALPN)
	}
	a.mute = false
	return nil
}

func (a *acceptor) handshake(conn net.Conn, cfg *tls.Config) error {
	if s, ok := a.conn.(interface{ Leave() }); ok { // of a set of sockets, which is of no use to TLS
		s.Leave()
	}
	t := tls.Server(conn, cfg)
	if err := t.Handshake(); err != nil {
		return fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	a.conn, a.tls = t, cfg
	return nil
}

// replayed is a connection of which something was read already.
type replayed struct {
	net.Conn
	head []byte
}

func (r *replayed) Read(b []byte) (int, error) {
	if len(r.head) > 0 {
		n := copy(b, r.head)
		if r.head = r.head[n:]; len(r.head) == 0 {
			r.head = nil // it is part of a larger buffer
		}
		return n, nil
	}
	return r.Conn.Read(b)
}

// serverBinding is what ties an authentication to the TLS connection below it: the hash of the server's certificate
// (tls-server-end-point). There is none in clear text, or if the certificate's signature names no hash (Ed25519).
func serverBinding(cfg *tls.Config) (scram.ChannelBinding, bool) {
	if cfg == nil || len(cfg.Certificates) == 0 {
		return scram.ChannelBinding{}, false
	}
	leaf := cfg.Certificates[0].Leaf
	if leaf == nil {
		if len(cfg.Certificates[0].Certificate) == 0 {
			return scram.ChannelBinding{}, false
		}
		var err error
		if leaf, err = x509.ParseCertificate(cfg.Certificates[0].Certificate[0]); err != nil {
			return scram.ChannelBinding{}, false
		}
	}
	return clientBinding(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}})
}

// clientBinding is the same from the other end.
func clientBinding(peer *tls.ConnectionState) (scram.ChannelBinding, bool) {
	if peer == nil {
		return scram.ChannelBinding{}, false
	}
	cb, err := scram.NewTLSServerEndpointBinding(peer)
	return cb, err == nil
}

// checkBindingFlag refuses a first SCRAM message whose word on channel binding does not fit the mechanism that the client
// chose, or the fact that binding was offered to it.
func checkBindingFlag(mechanism, first string, offered bool) error {
	flag, _, _ := strings.Cut(first, ",")
	kind, bound := strings.CutPrefix(flag, "p=")
	switch {
	case mechanism == scramMechanism && bound:
		return violation(malformedSCRAM).WithDetail("The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.").Fatal()
	case mechanism == scramPlus && (flag == "n" || flag == "y"):
		return violation(malformedSCRAM).WithDetail("The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.").Fatal()
	case bound && kind != string(scram.ChannelBindingTLSServerEndpoint):
		return violation("unsupported SCRAM channel-binding type").WithDetail("Only tls-server-end-point is supported.").Fatal()
	case flag == "y" && offered:
		// Somebody between us has taken SCRAM-SHA-256-PLUS out of the list.
		return NewError(CodeInvalidAuthorization, "SCRAM channel binding negotiation error").
			WithDetail("The client supports SCRAM channel binding but thinks the server does not.  However, this server does support channel binding.").Fatal()
	}
	return nil
}
