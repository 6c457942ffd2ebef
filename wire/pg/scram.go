package pg

import (
	"errors"
	"strconv"
	"strings"

	"github.com/jackc/pgproto3/v2"
	"github.com/xdg-go/scram"
)

// scram asks the client to prove that it knows v's password, by SCRAM-SHA-256 without channel binding. The user's name
// inside the exchange is ignored, as PostgreSQL does: the startup packet's counts.
func (a *acceptor) scram(v *Verifier) (bool, error) {
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return v.credentials(), nil })
	if err != nil {
		return false, err
	}
	conv := server.NewConversation()

	a.auth(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{scramMechanism}})
	body, err := a.answer()
	if err != nil {
		return false, err
	}
	first, err := a.initialResponse(body)
	if err != nil {
		return false, err
	}
	challenge, err := step(conv.Step, string(first))
	if err != nil {
		if strings.HasPrefix(string(first), "p=") {
			return false, violation(malformedSCRAM).WithDetail("The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.").Fatal()
		}
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
	if err != nil && final != scram.ErrInvalidProof {
		return false, violation(malformedSCRAM).Fatal()
	}
	if err != nil || !conv.Valid() {
		return false, nil
	}
	a.auth(&pgproto3.AuthenticationSASLFinal{Data: []byte(final)})
	return true, nil
}

// initialResponse is the client's first SCRAM message, out of the body of its SASLInitialResponse. A client may leave it
// out there and send it when asked with an empty challenge.
func (a *acceptor) initialResponse(body []byte) ([]byte, error) {
	r := reader{rest: body}
	mechanism := r.cstring()
	length := int32(r.uint32())
	if length == -1 && r.end() == nil && string(mechanism) == scramMechanism {
		a.auth(&pgproto3.AuthenticationSASLContinue{})
		return a.answer()
	}
	data := r.take(int64(length))
	if err := r.end(); err != nil {
		return nil, fatal(err)
	}
	if string(mechanism) != scramMechanism {
		return nil, violation("client selected an invalid SASL authentication mechanism").Fatal()
	}
	return data, nil
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
