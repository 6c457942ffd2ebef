package port

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// serverName is the name every leaf carries and every dialer expects: membership is proved by the key, not by a host name.
const serverName = "node.rangefinder"

// identity is what one process proves itself with: the two sides of mutual TLS under the authority of the cluster key.
type identity struct {
	client *tls.Config
	server *tls.Config
}

// newIdentity derives the authority from the cluster key and signs a leaf for this process. The leaf's key is random and never
// leaves memory. node is put in the leaf's common name, for whoever reads a capture or a log. Leaves under the authorities of
// the old keys are believed too.
func newIdentity(key []byte, old [][]byte, node string) (*identity, error) {
	ca, caKey, err := authority(key)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	for _, k := range old {
		other, _, err := authority(k)
		if err != nil {
			return nil, err
		}
		pool.AddCert(other)
	}
	from, to := validity()
	leafPublic, leafKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make this node's key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make this node's certificate: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(2)),
		Subject:      pkix.Name{CommonName: node},
		DNSNames:     []string{serverName},
		NotBefore:    from,
		NotAfter:     to,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafPublic, caKey)
	if err != nil {
		return nil, fmt.Errorf("make this node's certificate: %w", err)
	}

	mine := tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: leafKey}
	return &identity{
		client: &tls.Config{
			MinVersion:   tls.VersionTLS13,
			Certificates: []tls.Certificate{mine},
			RootCAs:      pool,
			ServerName:   serverName,
		},
		server: &tls.Config{
			MinVersion:             tls.VersionTLS13,
			Certificates:           []tls.Certificate{mine},
			ClientAuth:             tls.RequireAndVerifyClientCert,
			ClientCAs:              pool,
			SessionTicketsDisabled: true,
		},
	}, nil
}

// validity is from long ago to a far future: a node with a wrong clock must still be able to join.
func validity() (from, to time.Time) {
	return time.Unix(0, 0).UTC(), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
}

// authority derives the certificate authority of a cluster key.
func authority(key []byte) (*x509.Certificate, ed25519.PrivateKey, error) {
	caKey := ed25519.NewKeyFromSeed(KeyFor(key, PurposeCA))
	caPublic := caKey.Public().(ed25519.PublicKey)
	skid := sha256.Sum256(caPublic)
	from, to := validity()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "rangefinder cluster"},
		NotBefore:             from,
		NotAfter:              to,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
		SubjectKeyId:          skid[:20],
	}
	caDER, err := x509.CreateCertificate(rand.Reader, template, template, caPublic, caKey)
	if err != nil {
		return nil, nil, fmt.Errorf("make the cluster's certificate authority: %w", err)
	}
	ca, err := x509.ParseCertificate(caDER)
	if err != nil {
		return nil, nil, fmt.Errorf("make the cluster's certificate authority: %w", err)
	}
	return ca, caKey, nil
}
