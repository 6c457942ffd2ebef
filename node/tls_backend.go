package node

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// backendTLS is TLS towards the backends, as [backend_tls] has it.
type backendTLS struct {
	mode  string
	roots *watched[*x509.CertPool] // nil: the operating system's
}

func newBackendTLS(cfg BackendTLS, log *slog.Logger, now func() time.Time) (*backendTLS, error) {
	b := &backendTLS{mode: cfg.Mode}
	if cfg.CAFile == "" {
		return b, nil
	}
	var err error
	b.roots, err = watch("the authorities of backends", []string{cfg.CAFile}, log, now, func() (*x509.CertPool, error) { return loadRoots(cfg.CAFile) })
	if err != nil {
		return nil, &Failure{Message: fmt.Sprintf("TLS towards backends: %v", err), Hint: "Look at ca_file under [backend_tls].", Err: err}
	}
	return b, nil
}

// config is for one new connection to the backend at addr; nil: clear text.
func (b *backendTLS) config(addr string) *tls.Config {
	if b.mode == "disable" {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil { // such an address cannot be dialed either
		host = addr
	}
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if b.roots != nil {
		c.RootCAs = b.roots.Get()
	}
	if b.mode != "verify-full" {
		c.InsecureSkipVerify = true // what Go would verify includes the name; verify-ca's part of it is done below
	}
	if b.mode == "verify-ca" {
		roots := c.RootCAs
		c.VerifyConnection = func(s tls.ConnectionState) error { return verifyChain(s.PeerCertificates, roots) }
	}
	return c
}

// verifies tells whether a backend has shown who it is by the time it can ask for a password: by a certificate of the authorities that are configured.
// Those of the operating system sign for everybody, and a host's name that another node has announced is that node's choice.
func (b *backendTLS) verifies() bool {
	return b.roots != nil && (b.mode == "verify-ca" || b.mode == "verify-full")
}

// verifyChain is Go's own verification of a server without its name.
func verifyChain(chain []*x509.Certificate, roots *x509.CertPool) error {
	if len(chain) == 0 {
		return &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
	}
	return nil
}
