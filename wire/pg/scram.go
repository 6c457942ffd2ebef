package pg

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgproto3/v2"
	"github.com/xdg-go/scram"
)

// scram asks the client to prove that it knows v's password, by SCRAM-SHA-256; over TLS with channel binding if the client
// knows how to. The user's name inside the exchange is ignored, as PostgreSQL does: the startup packet's counts.
func (a *acceptor) scram(v *Verifier) (bool, error) {
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return v.credentials(), nil })
	if err != nil {
		return false, err
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
		return false, err
	}
	mechanism, first, err := a.initialResponse(body, mechanisms)
	if err != nil {
		return false, err
	}
	if err := checkBindingFlag(mechanism, string(first), len(mechanisms) > 1); err != nil {
		return false, err
	}
	challenge, err := step(conv.Step, string(first))
	if err != nil {
		return false, violation(malformedSCRAM).Fatal()
	}
	if conv.AuthzID() != "" {
		return false, NewError(CodeFeatureNotSupported, "client uses authorization identity, but it is not supported").Fatal()
	}

	a.auth(&pgproto3.AuthenticationSASLContinue{Data: []byte(challenge)})
	body, err = a.answer()
	if err != nil {
		return false, err
	}
	final, err := step(conv.Step, string(body))
	if final == scram.ErrChannelBindingsDontMatch {
		return false, NewError(CodeInvalidAuthorization, "SCRAM channel binding check failed").Fatal()
	}
	if err != nil && final != scram.ErrInvalidProof {
		return false, violation(malformedSCRAM).Fatal()
	}
	if err != nil || !conv.Valid() {
		return false, nil
	}
	a.auth(&pgproto3.AuthenticationSASLFinal{Data: []byte(final)})
	return true, nil
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

// iterations is the number a server's first SCRAM message asks for.
func iterations(serverFirst string) (int, bool) {
	for field := range strings.SplitSeq(serverFirst, ",") {
		if n, ok := strings.CutPrefix(field, "i="); ok {
			i, err := strconv.Atoi(n)
			return i, err == nil
		}
	}
	return 0, false
}
