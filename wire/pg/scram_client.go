package pg

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

// errProof says that a server did not prove that it knows the user's password.
var errProof = fmt.Errorf("%w: it did not prove that it knows the password", ErrAuthentication)

// scramClient is the client's end of one SCRAM-SHA-256 exchange (RFC 5802, 7677). It is our own because the keys of a login
// must do for it as well as a password, and what a server says is a stranger's text.
type scramClient struct {
	credential Credential
	header     string // GS2: whether the exchange is bound to the TLS connection
	binding    []byte // to what, if it is
	bare       string // our first message without the header
	nonce      string
	signature  []byte // what the server must answer in the end; nil: we have not proved ourselves yet
	valid      bool
}

// newScramClient begins an exchange. binding is what the TLS connection offers: it is used if plus says that the server does too.
func newScramClient(c Credential, binding scram.ChannelBinding, plus bool) *scramClient {
	s := &scramClient{credential: c, header: "n,,", nonce: rand.Text()}
	switch {
	case plus:
		s.header, s.binding = "p="+string(binding.Type)+",,", binding.Data
	case binding.IsSupported(): // a server that did offer it will notice that somebody took the offer away
		s.header = "y,,"
	}
	s.bare = "n=,r=" + s.nonce // no user's name inside: PostgreSQL takes the startup packet's
	return s
}

func (s *scramClient) first() string { return s.header + s.bare }

// answer proves to a server that has asked how.
func (s *scramClient) answer(challenge string) (string, error) {
	nonce, v, err := parseChallenge(challenge)
	if err != nil {
		return "", err
	}
	if len(nonce) <= len(s.nonce) || !strings.HasPrefix(nonce, s.nonce) {
		return "", fmt.Errorf("%w: its nonce does not begin with ours", ErrAuthentication)
	}
	var client [sha256.Size]byte
	if keys := s.credential.keys; keys != nil {
		if keys.of.iterations != v.iterations || keys.of.salt != v.salt {
			return "", ErrOtherVerifier
		}
		v, client = keys.of, keys.client
	} else {
		v, client = v.derive(s.credential.password)
	}
	bound := base64.StdEncoding.EncodeToString(append([]byte(s.header), s.binding...))
	final := "c=" + bound + ",r=" + nonce
	message := s.bare + "," + challenge + "," + final
	proof := mac(v.storedKey[:], message)
	for i := range proof {
		proof[i] ^= client[i]
	}
	s.signature = mac(v.serverKey[:], message)
	return final + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

// finish checks the server's own proof.
func (s *scramClient) finish(final string) error {
	text, ok := strings.CutPrefix(final, "v=")
	text, _, _ = strings.Cut(text, ",")
	got, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || !hmac.Equal(got, s.signature) {
		return errProof
	}
	s.valid = true
	return nil
}

// parseChallenge reads a server's first message: its nonce, and its salt and iterations as a verifier without keys. The attributes'
// order is fixed, and extensions may follow.
func parseChallenge(text string) (nonce string, v Verifier, err error) {
	malformed := fmt.Errorf("%w: %s", ErrAuthentication, malformedSCRAM)
	fields := strings.SplitN(text, ",", 4)
	if len(fields) < 3 {
		return "", v, malformed
	}
	nonce, ok := strings.CutPrefix(fields[0], "r=")
	salt, ok2 := strings.CutPrefix(fields[1], "s=")
	iterations, ok3 := strings.CutPrefix(fields[2], "i=")
	raw, err := base64.StdEncoding.DecodeString(salt)
	n, err2 := strconv.Atoi(iterations)
	if !ok || !ok2 || !ok3 || errors.Join(err, err2) != nil || len(raw) == 0 {
		return "", v, malformed
	}
	if n < 1 || n > maxIterations {
		return "", v, fmt.Errorf("%w: it asks for %d SCRAM iterations, and 1 to %d are allowed", ErrAuthentication, n, maxIterations)
	}
	return nonce, Verifier{iterations: n, salt: string(raw)}, nil
}
