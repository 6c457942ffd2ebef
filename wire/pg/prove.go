package pg

import (
	"context"
	"crypto/md5"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/jackc/pgproto3/v2"
)

// This file is how a client proves who it is; accept.go is what comes before and after.

func peerAddr(conn net.Conn) netip.Addr {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// byPassword has the client prove that it knows its password.
func (a *acceptor) byPassword(ctx context.Context, method string, p *Peer) error {
	// The mock is made for everybody, so that a user who exists does not take another time.
	mock := mockVerifier(a.cfg.mockSecret(), p.User)
	s, cause := Shadow{}, ErrUnknownUser
	if a.cfg.Lookup != nil {
		s, cause = a.cfg.Lookup(ctx, p)
	}
	var told *Error
	if errors.As(cause, &told) {
		return fmt.Errorf("%w: %w", told.Fatal(), cause)
	}
	if cause == nil && !s.Set() {
		cause = errors.New("user has no password")
	}
	if cause != nil {
		like := s
		if like.scram.iterations > 0 { // which the client is told
			mock.iterations = like.scram.iterations
		}
		s = Shadow{scram: mock}
		if like.md5 != "" { // of nobody
			s.md5 = hex.EncodeToString(mock.storedKey[:md5.Size])
		}
		if like.md5 != "" && like.scram.iterations == 0 {
			s.scram = Verifier{}
		}
	}
	ok := false
	var err error
	switch {
	case method == MethodPassword:
		var text string
		if text, err = a.password(); err == nil {
			a.client.Shown, ok = s.check(p.User, text)
		}
	case method == MethodMD5 && s.md5 != "":
		ok, err = a.md5(&s)
		a.client.Shown = s.Hashed()
	default:
		if s.scram.iterations == 0 {
			s.scram, cause = mock, errors.New("only an MD5 hash is kept of the password, and the rule asks for SCRAM-SHA-256")
		}
		a.client.Shown, ok, err = a.scram(&s.scram)
	}
	if err != nil {
		return err
	}
	if !ok || cause != nil {
		if cause == nil {
			cause = ErrWrongPassword
		}
		if a.cfg.Wrong != nil {
			a.cfg.Wrong(p)
		}
		return fmt.Errorf("%w: %w", Errorf(CodeInvalidPassword, "password authentication failed for user \"%s\"", p.User).Fatal(), cause)
	}
	return nil
}

// checkCertificate lets in whose certificate, which TLS has verified, is made out to the user.
func checkCertificate(p *Peer) error {
	if p.TLS == nil || len(p.TLS.VerifiedChains) == 0 {
		return NewError(CodeInvalidAuthorization, "connection requires a valid client certificate").
			WithHint("Connect with sslmode=require or better, sslcert and sslkey.").Fatal()
	}
	var names []string
	for _, n := range p.TLS.PeerCertificates[0].Subject.Names {
		if n.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 3}) {
			name, _ := n.Value.(string)
			names = append(names, name)
		}
	}
	// Of several common names one could be taken for the other.
	if len(names) != 1 || names[0] != p.User {
		return fmt.Errorf("%w: its common name is %q", Errorf(CodeInvalidAuthorization, "certificate authentication failed for user \"%s\"", p.User).Fatal(), names)
	}
	return nil
}

func (a *acceptor) password() (string, error) {
	a.auth(&pgproto3.AuthenticationCleartextPassword{})
	return a.passwordText()
}

// passwordText is the client's answer to a request for a password, in clear text or hashed.
func (a *acceptor) passwordText() (string, error) {
	body, err := a.answer()
	if err != nil {
		return "", err
	}
	r := reader{rest: body}
	password := r.cstring()
	if err := r.end(); err != nil {
		return "", violation("invalid password packet size").Fatal()
	}
	return string(password), nil
}
