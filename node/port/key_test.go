package port

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func TestParseKey(t *testing.T) {
	want := make([]byte, KeySize)
	for i := range want {
		want[i] = byte(i*37 + 251)
	}
	for _, text := range []string{
		base64.StdEncoding.EncodeToString(want), base64.RawStdEncoding.EncodeToString(want), base64.URLEncoding.EncodeToString(want),
		base64.RawURLEncoding.EncodeToString(want), hex.EncodeToString(want), strings.ToUpper(hex.EncodeToString(want)),
		"  " + base64.StdEncoding.EncodeToString(want) + "\r\n",
	} {
		if got, err := ParseKey(text); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: %x, %v", text, got, err)
		}
	}
	for text, says := range map[string]string{
		"":                      "it is empty",
		"  \n":                  "it is empty",
		"hunter2":               "neither",
		strings.Repeat("g", 64): "holds 48 bytes",
		base64.StdEncoding.EncodeToString(want[:16]):    "holds 16 bytes",
		base64.StdEncoding.EncodeToString(want) + "==x": "neither",
		"not/a\nkey!": "neither",
	} {
		_, err := ParseKey(text)
		if !errors.Is(err, ErrBadKey) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", text, err)
		}
		if len(strings.TrimSpace(text)) > 6 && strings.Contains(err.Error(), strings.TrimSpace(text)) {
			t.Errorf("the error repeats the secret: %v", err)
		}
	}
	a, b := NewKey(), NewKey()
	if a == b {
		t.Error("two new keys are the same")
	}
	if key, err := ParseKey(a); err != nil || len(key) != KeySize {
		t.Errorf("a new key: %v, %v", key, err)
	}
}

func TestKeyFor(t *testing.T) {
	key := testKey('k')
	gossip, ca := KeyFor(key, PurposeGossip), KeyFor(key, PurposeCA)
	if len(gossip) != 32 || bytes.Equal(gossip, ca) || bytes.Equal(gossip, key) || !bytes.Equal(gossip, KeyFor(key, PurposeGossip)) {
		t.Errorf("%x, %x", gossip, ca)
	}
	if bytes.Equal(gossip, KeyFor(testKey('l'), PurposeGossip)) {
		t.Error("two cluster keys derive the same")
	}
	if KeyFor(nil, PurposeGossip) != nil {
		t.Error("no key is no key")
	}
	// Nodes of different releases must derive alike: this value may not change.
	if got := hex.EncodeToString(gossip[:8]); got != pinnedGossip {
		t.Errorf("the derivation changed: %s", got)
	}
}

const pinnedGossip = "3c44fbd30a3c1efc"
