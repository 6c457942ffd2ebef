package pg

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

const (
	scramMechanism  = "SCRAM-SHA-256"
	scramIterations = 4096 // PostgreSQL's own default
	scramSaltSize   = 16   // and its salt's size in bytes

	// maxIterations bounds the work a verifier or a backend can ask for: about a third of a second.
	maxIterations = 1_000_000
)

// ErrVerifier is what ParseVerifier's errors wrap.
var ErrVerifier = errors.New("not a SCRAM-SHA-256 verifier")

// Verifier is what a server keeps to check a user's password without knowing it: SCRAM-SHA-256's salt, iterations and
// keys. The zero Verifier admits nobody. It is a value and may be copied and shared; it prints and logs as nothing but
// its kind.
type Verifier struct {
	iterations int
	salt       string // bytes
	storedKey  [sha256.Size]byte
	serverKey  [sha256.Size]byte
}

// NewVerifier makes a verifier of a password, with a fresh salt. It takes about a millisecond: make it once.
func NewVerifier(password string) Verifier {
	salt := make([]byte, scramSaltSize)
	_, _ = rand.Read(salt) // never fails
	return newVerifier(password, string(salt))
}

func newVerifier(password, salt string) Verifier {
	v, _ := Verifier{iterations: scramIterations, salt: salt}.derive(password)
	return v
}

// saltOf is a user's salt, whether he exists or not.
func saltOf(secret []byte, user string) string {
	return string(mac(secret, "salt "+user)[:scramSaltSize])
}

// ParseVerifier reads PostgreSQL's own form, as pg_authid.rolpassword has it:
// SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>, the last three in base64. Errors wrap ErrVerifier and never
// quote the text.
func ParseVerifier(text string) (Verifier, error) {
	rest, ok := strings.CutPrefix(text, scramMechanism+"$")
	factors, keys, ok2 := strings.Cut(rest, "$")
	iterations, salt, ok3 := strings.Cut(factors, ":")
	stored, server, ok4 := strings.Cut(keys, ":")
	if !ok || !ok2 || !ok3 || !ok4 {
		return Verifier{}, fmt.Errorf("%w: want SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>", ErrVerifier)
	}
	n, err := strconv.Atoi(iterations)
	if err != nil || n < 1 || n > maxIterations {
		return Verifier{}, fmt.Errorf("%w: iterations must be 1 to %d", ErrVerifier, maxIterations)
	}
	v := Verifier{iterations: n}
	raw, err := base64.StdEncoding.DecodeString(salt)
	if err != nil || len(raw) == 0 {
		return Verifier{}, fmt.Errorf("%w: the salt is not base64", ErrVerifier)
	}
	v.salt = string(raw)
	if !decodeKey(&v.storedKey, stored) || !decodeKey(&v.serverKey, server) {
		return Verifier{}, fmt.Errorf("%w: a key is not 32 bytes in base64", ErrVerifier)
	}
	return v, nil
}

func decodeKey(dst *[sha256.Size]byte, s string) bool {
	raw, err := base64.StdEncoding.DecodeString(s)
	return err == nil && copy(dst[:], raw) == len(dst) && len(raw) == len(dst)
}

// Stored is the verifier as ParseVerifier reads it: what CREATE ROLE takes in place of a password. It is a secret.
func (v Verifier) Stored() string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s$%d:%s$%s:%s", scramMechanism, v.iterations, b64([]byte(v.salt)), b64(v.storedKey[:]), b64(v.serverKey[:]))
}

// Check tells whether v was made of that password. It takes about a millisecond, whatever the answer.
func (v Verifier) Check(password string) bool {
	_, ok := v.clientKey(password)
	return ok
}

// clientKey is Check, with the key that shows to other servers with the same verifier that one knows the password.
func (v Verifier) clientKey(password string) (client [sha256.Size]byte, ok bool) {
	if v.iterations == 0 {
		return client, false
	}
	made, client := v.derive(password)
	return client, subtle.ConstantTimeCompare(made.storedKey[:], v.storedKey[:]) == 1
}

// derive makes the verifier of a password with v's salt and iterations, and the client's key.
func (v Verifier) derive(password string) (made Verifier, client [sha256.Size]byte) {
	made = Verifier{iterations: v.iterations, salt: v.salt}
	salted, err := pbkdf2.Key(sha256.New, saslprep(password), []byte(v.salt), v.iterations, sha256.Size)
	if err != nil {
		// Only a FIPS build refuses (a salt or key too short for its rules): keys nobody can know admit nobody.
		_, _ = rand.Read(made.storedKey[:])
		return made, client
	}
	copy(client[:], mac(salted, "Client Key"))
	made.storedKey = sha256.Sum256(client[:])
	copy(made.serverKey[:], mac(salted, "Server Key"))
	return made, client
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = io.WriteString(h, text)
	return h.Sum(nil)
}

func (v *Verifier) credentials() scram.StoredCredentials {
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: v.salt, Iters: v.iterations},
		StoredKey:  v.storedKey[:],
		ServerKey:  v.serverKey[:],
	}
}

// mockVerifier is what a user who does not exist is examined with: no password fits it, and as it depends on nothing but
// the secret and the name, a second try meets the same salt, as it would with a user who exists.
func mockVerifier(secret []byte, user string) Verifier {
	v := Verifier{iterations: scramIterations, salt: saltOf(secret, user)}
	copy(v.storedKey[:], mac(secret, "stored "+user))
	copy(v.serverKey[:], mac(secret, "server "+user))
	return v
}

// String tells only what kind of thing v is.
func (v Verifier) String() string {
	if v.iterations == 0 {
		return "no verifier"
	}
	return scramMechanism + " verifier"
}

// Format prints String, whatever the verb: %#v and %d would print the keys.
func (v Verifier) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, v.String()) }

// LogValue logs String.
func (v Verifier) LogValue() slog.Value { return slog.StringValue(v.String()) }
