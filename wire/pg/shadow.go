package pg

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/jackc/pgproto3/v2"
)

const md5Prefix = "md5"

// ErrShadow is what ParseShadow's errors wrap.
var ErrShadow = errors.New("not a stored password")

// Shadow is what a server keeps of a user's password, as the column rolpassword of pg_authid has it: a SCRAM-SHA-256 verifier
// or an MD5 hash; both if it was made of the password itself. The zero Shadow admits nobody. It is a value and may be copied
// and compared; it prints and logs as nothing but its kind.
type Shadow struct {
	scram Verifier
	md5   string // of password and user's name, 32 hexadecimal digits; "" if there is none
}

// NewShadow makes what any method can check out of a password. With a salt secret, see AcceptConfig, the user's salt is the one that
// goes with the name; nil: a fresh one. It takes about a millisecond: make it once.
func NewShadow(user, password string, saltSecret []byte) Shadow {
	s := Shadow{md5: md5Hex(password + user)}
	if saltSecret == nil {
		s.scram = NewVerifier(password)
	} else {
		s.scram = newVerifier(password, saltOf(saltSecret, user))
	}
	return s
}

// ParseShadow reads PostgreSQL's own form: SCRAM-SHA-256$…, see ParseVerifier, or md5 and 32 hexadecimal digits. Errors wrap
// ErrShadow and never quote the text.
func ParseShadow(text string) (Shadow, error) {
	if hash, ok := strings.CutPrefix(text, md5Prefix); ok && len(hash) == 2*md5.Size && strings.Trim(hash, "0123456789abcdef") == "" {
		return Shadow{md5: hash}, nil
	}
	v, err := ParseVerifier(text)
	if err != nil {
		return Shadow{}, fmt.Errorf("%w: want md5 and 32 hexadecimal digits, or a verifier: %w", ErrShadow, err)
	}
	return Shadow{scram: v}, nil
}

// Set tells whether there is anything by which a password could be checked.
func (s *Shadow) Set() bool { return s.scram.iterations > 0 || s.md5 != "" }

// Hashed is what authenticates with a backend by MD5 if the shadow is an MD5 hash: there, as good as the password. Otherwise it is
// the zero Credential.
func (s *Shadow) Hashed() Credential { return Credential{md5: s.md5} }

// Admits tells whether a credential could be what s was made of: keys of that verifier, or that hash.
func (s *Shadow) Admits(c Credential) bool {
	switch {
	case c.keys != nil:
		return c.keys.of == s.scram
	case c.md5 != "":
		return c.md5 == s.md5
	}
	return false
}

// String tells only what kind of thing s is.
func (s Shadow) String() string {
	switch {
	case s.scram.iterations > 0:
		return s.scram.String()
	case s.md5 != "":
		return "MD5 hash"
	}
	return "no password"
}

// Format prints String, whatever the verb: %#v and %d would print the keys.
func (s Shadow) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue logs String.
func (s Shadow) LogValue() slog.Value { return slog.StringValue(s.String()) }

// check tells whether s was made of that user's password, and with what credential backends that keep the same can be met.
func (s *Shadow) check(user, password string) (Credential, bool) {
	if s.scram.iterations == 0 && s.md5 != "" {
		ok := subtle.ConstantTimeCompare([]byte(md5Hex(password+user)), []byte(s.md5)) == 1
		return s.Hashed(), ok
	}
	client, ok := s.scram.clientKey(password)
	return Credential{keys: &scramKeys{of: s.scram, client: client}}, ok
}

// md5 asks the client to prove that it knows the hash of its password.
func (a *acceptor) md5(s *Shadow) (bool, error) {
	var salt [4]byte
	_, _ = rand.Read(salt[:]) // never fails
	a.auth(&pgproto3.AuthenticationMD5Password{Salt: salt})
	text, err := a.passwordText()
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare([]byte(text), []byte(md5Answer(s.md5, salt[:]))) == 1, nil
}

// md5Answer is what a client says who knows the hash.
func md5Answer(hash string, salt []byte) string { return md5Prefix + md5Hex(hash+string(salt)) }

func md5Hex(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}
