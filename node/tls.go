package node

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"time"

	"rangefinder/wire/pg"
)

// clientTLS is TLS towards Postgres clients, as the files of [tls] have it at present.
type clientTLS struct{ *watched[handshakes] }

// handshakes are the two ways of a handshake: without a certificate of the client's if it has none, and not without. They are the
// same where no client_ca_file is configured.
type handshakes struct{ asking, insisting *tls.Config }

// newClientTLS reads the files; nil if no certificate is configured.
func newClientTLS(cfg TLS, log *slog.Logger, now func() time.Time) (*clientTLS, error) {
	return newServerTLS(cfg, "clients", "tls", pg.ALPN, log, now)
}

// newServerTLS is newClientTLS for whom is served, by a section of the configuration, over a protocol as ALPN names it.
func newServerTLS(cfg TLS, whom, section, alpn string, log *slog.Logger, now func() time.Time) (*clientTLS, error) {
	if cfg.CertFile == "" {
		return nil, nil
	}
	files := []string{cfg.CertFile, cfg.KeyFile}
	if cfg.ClientCAFile != "" {
		files = append(files, cfg.ClientCAFile)
	}
	w, err := watch("the certificate for "+whom, files, log, now, func() (handshakes, error) { return loadServerTLS(cfg, whom, alpn, log, now()) })
	if err != nil {
		return nil, &Failure{
			Message: fmt.Sprintf("TLS for %s: %v", whom, err),
			Hint:    fmt.Sprintf("Look at cert_file, key_file and client_ca_file under [%s]; without them %s are served in clear text.", section, whom),
			Err:     err,
		}
	}
	return &clientTLS{w}, nil
}

// serverConfig is the getter that pg.AcceptConfig takes; nil without TLS. Where there are rules, they say who must have a
// certificate: the handshake comes before it is known which one matches.
func (c *clientTLS) serverConfig(rules func() bool) func() *tls.Config {
	if c == nil {
		return nil
	}
	return func() *tls.Config {
		if rules() {
			return c.Get().asking
		}
		return c.Get().insisting
	}
}

func loadServerTLS(cfg TLS, whom, alpn string, log *slog.Logger, now time.Time) (handshakes, error) {
	cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return handshakes{}, err
	}
	if info, err := os.Stat(cfg.KeyFile); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 {
		log.Warn(fmt.Sprintf("%s can be read by every user of this machine: chmod 600 %[1]s", cfg.KeyFile))
	}
	if now.After(cert.Leaf.NotAfter) || now.Before(cert.Leaf.NotBefore) {
		log.Warn("the certificate for "+whom+" is not valid now: whoever verifies it stays away", "file", cfg.CertFile,
			"not_before", cert.Leaf.NotBefore, "not_after", cert.Leaf.NotAfter)
	}
	out := &tls.Config{
		Certificates: []tls.Certificate{cert},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{alpn},
		// As PostgreSQL does: sessions are long, and a ticket would outlive a certificate that was taken back.
		SessionTicketsDisabled: true,
	}
	if cfg.MinVersion == "1.3" {
		out.MinVersion = tls.VersionTLS13
	}
	if cfg.ClientCAFile == "" {
		return handshakes{out, out}, nil
	}
	if out.ClientCAs, err = loadRoots(cfg.ClientCAFile); err != nil {
		return handshakes{}, err
	}
	insisting := out.Clone()
	out.ClientAuth, insisting.ClientAuth = tls.VerifyClientCertIfGiven, tls.RequireAndVerifyClientCert
	return handshakes{out, insisting}, nil
}

// loadRoots reads a file of certificates that are trusted.
func loadRoots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return pool, nil
}
