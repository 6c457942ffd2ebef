package pg

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgproto3/v2"
	"github.com/xdg-go/scram"
)

// scram asks the client to prove that it knows v's password, by SCRAM-SHA-256; over TLS with channel binding if the client
// knows how to. The user's name inside the exchange is ignored, as PostgreSQL does: the startup packet's counts. What the client has
// shown is returned as the credential for other servers with that verifier.
func (a *acceptor) scram(v *Verifier) (shown Credential, ok bool, err error) {
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return v.credentials(), nil })
	if err != nil {
		return shown, false, err
	}
	conv := server.NewConversation()
	mechanisms := []string{scramMechanism}
	if cb, ok := serverBinding(a.tls); ok {
		conv = server.NewConversationWithChannelBinding(cb)
		mechanisms = []string{scramPlus, scramMechanism}
	}

	a.auth(&pgproto3.AuthenticationSASL{AuthMechanisms: mechanisms})
	body, err := a.answer()
	if err != nil {
		return shown, false, err
	}
	mechanism, first, err := a.initialResponse(body, mechanisms)
	if err != nil {
		return shown, false, err
	}
	if err := checkBindingFlag(mechanism, string(first), len(mechanisms) > 1); err != nil {
		return shown, false, err
	}
	challenge, err := step(conv.Step, string(first))
	if err != nil {
		return shown, false, violation(malformedSCRAM).Fatal()
	}
	if conv.AuthzID() != "" {
		return shown, false, NewError(CodeFeatureNotSupported, "client uses authorization identity, but it is not supported").Fatal()
	}

	a.auth(&pgproto3.AuthenticationSASLContinue{Data: []byte(challenge)})
	body, err = a.answer()
	if err != nil {
		return shown, false, err
	}
	final, err := step(conv.Step, string(body))
	if final == scram.ErrChannelBindingsDontMatch {
		return shown, false, NewError(CodeInvalidAuthorization, "SCRAM channel binding check failed").Fatal()
	}
	if err != nil && final != scram.ErrInvalidProof {
		return shown, false, violation(malformedSCRAM).Fatal()
	}
	if err != nil || !conv.Valid() {
		return shown, false, nil
	}
	a.auth(&pgproto3.AuthenticationSASLFinal{Data: []byte(final)})
	keys, err := shownKeys(v, string(first), challenge, string(body))
	return Credential{keys: keys}, err == nil, err
}

// initialResponse is the mechanism and the client's first SCRAM message, out of the body of its SASLInitialResponse. A client
// may leave the message out there and send it when asked with an empty challenge.
func (a *acceptor) initialResponse(body []byte, offered []string) (mechanism string, first []byte, err error) {
	r := reader{rest: body}
	mechanism = string(r.cstring())
	length := int32(r.uint32())
	known := slices.Contains(offered, mechanism)
	if length == -1 && r.end() == nil && known {
		a.auth(&pgproto3.AuthenticationSASLContinue{})
		first, err = a.answer()
		return mechanism, first, err
	}
	first = r.take(int64(length))
	if err := r.end(); err != nil {
		return "", nil, fatal(err)
	}
	if !known {
		return "", nil, violation("client selected an invalid SASL authentication mechanism").Fatal()
	}
	return mechanism, first, nil
}

// step runs one step of a SCRAM conversation over a stranger's text. What the library says of that text is not passed
// on: it quotes it.
func step(f func(string) (string, error), in string) (out string, err error) {
	defer func() {
		if r := recover(); r != nil {
			out, err = "", errors.New(malformedSCRAM)
		}
	}()
	return f(in)
}

// shownKeys takes the client's key out of a proof that was checked. It is what the proof was made with, so whoever has it can
// prove the same to any server that keeps the same verifier (RFC 5802, section 9, warns of it: here it is what is wanted).
func shownKeys(v *Verifier, first, challenge, final string) (*scramKeys, error) {
	_, bare, _ := strings.Cut(first, ",")
	_, bare, _ = strings.Cut(bare, ",")
	without, proof, ok := cutLast(final, ",p=")
	raw, err := base64.StdEncoding.DecodeString(proof)
	keys := &scramKeys{of: *v}
	if !ok || err != nil || len(raw) != len(keys.client) {
		return nil, violation(malformedSCRAM).Fatal()
	}
	signature := mac(v.storedKey[:], bare+","+challenge+","+without)
	for i := range raw {
		keys.client[i] = raw[i] ^ signature[i]
	}
	if sha256.Sum256(keys.client[:]) != v.storedKey {
		return nil, violation(malformedSCRAM).Fatal()
	}
	return keys, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
