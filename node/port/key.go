package port

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// KeySize is the length of a cluster key in bytes.
const KeySize = 32

// The purposes that keys are derived for. A derived key says nothing about the cluster key or about another purpose's.
const (
	PurposeGossip = "gossip" // memberlist's AES-256 key
	PurposeSalts  = "salts"  // what users' salts are made of, those of unknown ones too
	PurposeCA     = "ca"     // the Ed25519 seed of the authority that signs nodes' certificates
)

// NewKey returns a new random cluster key in the form that ParseKey reads and that people keep in a file: base64.
func NewKey() string {
	key := make([]byte, KeySize)
	rand.Read(key) //nolint:errcheck // crypto/rand never fails: it ends the process instead
	return base64.StdEncoding.EncodeToString(key)
}

// ParseKey reads a cluster key: 32 bytes as base64 (standard or URL alphabet, padded or not) or as 64 hexadecimal digits,
// with space around it. The error wraps ErrBadKey, names what is wrong and never repeats the text, which is a secret.
func ParseKey(text string) ([]byte, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, fmt.Errorf("%w: it is empty; make one with: rangefinder key", ErrBadKey)
	}
	if len(text) == 2*KeySize {
		if key, err := hex.DecodeString(text); err == nil {
			return key, nil
		}
	}
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(text, "-_") {
		encoding = base64.RawURLEncoding
	}
	key, err := encoding.Strict().DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil, fmt.Errorf("%w: it must be %d bytes as base64 (44 characters) or hexadecimal (64 digits), and this text of %d characters is neither; make one with: rangefinder key",
			ErrBadKey, KeySize, len(text))
	}
	if len(key) != KeySize {
		return nil, fmt.Errorf("%w: it holds %d bytes and must hold %d; make one with: rangefinder key", ErrBadKey, len(key), KeySize)
	}
	return key, nil
}

// KeysFor derives one of each cluster key.
func KeysFor(keys [][]byte, purpose string) (derived [][]byte) {
	for _, k := range keys {
		derived = append(derived, KeyFor(k, purpose))
	}
	return derived
}

// maxKeys bounds the keys of one configuration: the one that is used, and those it is changed from or to.
const maxKeys = 3

// ParseKeys reads the cluster key and, in lines below it, up to two more that others may use while the key is changed.
func ParseKeys(text string) (key []byte, others [][]byte, err error) {
	lines := strings.Fields(text)
	if len(lines) > maxKeys {
		return nil, nil, fmt.Errorf("%w: %d keys are more than %d", ErrBadKey, len(lines), maxKeys)
	}
	if len(lines) < 2 {
		key, err = ParseKey(text)
		return key, nil, err
	}
	keys := make([][]byte, len(lines))
	for i, line := range lines {
		if keys[i], err = ParseKey(line); err != nil {
			return nil, nil, fmt.Errorf("key %d of %d: %w", i+1, len(lines), err)
		}
	}
	return keys[0], keys[1:], nil
}

// KeyFor derives a key of 32 bytes for one purpose from the cluster key. It returns nil for a nil key: no protection stays none.
// It panics on a key of another length than KeySize, which ParseKey never returns.
func KeyFor(key []byte, purpose string) []byte {
	if key == nil {
		return nil
	}
	if len(key) != KeySize {
		panic(fmt.Sprintf("port: a cluster key has %d bytes, not %d", KeySize, len(key)))
	}
	derived, err := hkdf.Key(sha256.New, key, nil, "rangefinder/1/"+purpose, KeySize)
	if err != nil {
		panic("port: " + err.Error()) // only for lengths that are constants here
	}
	return derived
}
