package node

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// maxSecret bounds what is read of a password or key file, in bytes: a path that points at a disk image is a mistake.
const maxSecret = 64 << 10

// Secret is a password or key. Whatever prints it (fmt, slog, JSON, TOML) prints a mask; Reveal is the one way to the text.
type Secret struct{ text string }

// NewSecret wraps text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text itself, for the one call that authenticates with it.
func (s Secret) Reveal() string { return s.text }

// Set reports whether there is a secret at all.
func (s Secret) Set() bool { return s.text != "" }

// String is a mask, also under %v, %+v and %s.
func (s Secret) String() string {
	if s.text == "" {
		return "(not set)"
	}
	return "(set)"
}

// GoString is the same mask under %#v.
func (s Secret) GoString() string { return s.String() }

// Format is the same mask under every other verb: %x and %q would otherwise reach the text by reflection.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue is the same mask in a log.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is the same mask in JSON and TOML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// SecretRef says where a password is: never in the file itself.
type SecretRef struct {
	PasswordEnv  string `toml:"password_env" comment:"Name of the environment variable that holds the password. Empty: see password_file."`
	PasswordFile string `toml:"password_file" comment:"File that holds the password; newlines at its end do not count. Empty: see password_env."`
}

// given reports whether the reference names anything.
func (r SecretRef) given() bool { return r.PasswordEnv != "" || r.PasswordFile != "" }

// errSecretEmpty is the end of a reference that leads to nothing.
var errSecretEmpty = errors.New("is empty")

// readSecret follows a reference to the text. warning is not empty if the file may be read by others than its owner and group.
func readSecret(env, file string, getenv func(string) (string, bool)) (s Secret, warning string, err error) {
	switch {
	case env != "" && file != "":
		return s, "", fmt.Errorf("both the environment variable %s and the file %s are given: keep one", env, file)
	case env != "":
		text, ok := getenv(env)
		if !ok {
			return s, "", fmt.Errorf("environment variable %s is not set", env)
		}
		if text = trimNewlines(text); text == "" {
			return s, "", fmt.Errorf("environment variable %s %w", env, errSecretEmpty)
		}
		return NewSecret(text), "", nil
	case file != "":
		return readSecretFile(file)
	}
	return s, "", nil
}

func readSecretFile(file string) (s Secret, warning string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return s, "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return s, "", err
	}
	if info.IsDir() {
		return s, "", fmt.Errorf("%s is a directory", file)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return s, "", fmt.Errorf("read %s: %w", file, err)
	}
	if len(text) > maxSecret {
		return s, "", fmt.Errorf("%s is larger than %d bytes: this is no secret", file, maxSecret)
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 {
		warning = fmt.Sprintf("%s can be read by every user of this machine: chmod 600 %s", file, file)
	}
	trimmed := trimNewlines(string(text))
	if trimmed == "" {
		return s, warning, fmt.Errorf("%s %w", file, errSecretEmpty)
	}
	return NewSecret(trimmed), warning, nil
}

// trimNewlines takes off what editors and echo put at the end of a file; spaces stay, they may be part of a password.
func trimNewlines(s string) string { return strings.TrimRight(s, "\r\n") }
