package pg

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
)

// Credential is what a user proves to a backend who he is with: a password, or what a login left behind: SCRAM keys, or an MD5
// hash. The zero Credential is good for backends that ask for nothing. It is a value, may be copied and compared, and prints and
// logs as nothing but its kind.
type Credential struct {
	password string
	md5      string // see Shadow
	keys     *scramKeys
}

// scramKeys are what a SCRAM login shows to a server that knows the verifier: as good as the password for servers that keep the
// same verifier, and for no other. They are not changed once made.
type scramKeys struct {
	of     Verifier
	client [sha256.Size]byte // ClientKey, whose hash is the verifier's StoredKey
}

// Password is the credential of somebody whose password is known; "" is the zero Credential.
func Password(password string) Credential { return Credential{password: password} }

// Set tells whether there is anything to prove oneself with.
func (c Credential) Set() bool { return c.password != "" || c.md5 != "" || c.keys != nil }

// IsPassword tells whether it is a password, which any backend can be met with that knows it.
func (c Credential) IsPassword() bool { return c.password != "" }

// String tells only what kind of thing c is.
func (c Credential) String() string {
	switch {
	case c.password != "":
		return "password"
	case c.keys != nil:
		return scramMechanism + " keys"
	case c.md5 != "":
		return "MD5 hash"
	}
	return "no credential"
}

// Format prints String, whatever the verb.
func (c Credential) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue logs String.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }
