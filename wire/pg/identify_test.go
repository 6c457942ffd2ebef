package pg

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/jackc/pgproto3/v2"

	"rangefinder/internal/pgtest"
)

func TestConnectToAServerThatIsAnother(t *testing.T) {
	ready := &pgproto3.ReadyForQuery{TxStatus: 'I'}
	row := func(v string) []pgproto3.BackendMessage {
		return []pgproto3.BackendMessage{
			&pgproto3.RowDescription{}, &pgproto3.DataRow{Values: [][]byte{[]byte(v)}}, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, ready,
		}
	}
	fault := func(code string) []pgproto3.BackendMessage {
		return []pgproto3.BackendMessage{&pgproto3.ErrorResponse{Severity: "ERROR", Code: code, Message: "no"}, ready}
	}
	strict := []pgproto3.BackendMessage{
		&pgproto3.ErrorResponse{Severity: "ERROR", Code: CodeFeatureNotSupported, Message: "no", Routine: "GetSerializableTransactionSnapshot"}, ready,
	}
	set := &pgproto3.CommandComplete{CommandTag: []byte("SET")}
	for name, c := range map[string]struct {
		answer  []pgproto3.BackendMessage
		again   []pgproto3.BackendMessage // when it is asked as a strict hot standby; nil: it is not
		fine    bool
		garbled bool
		code    string
		other   uint64
	}{
		"the right one":        {answer: row("7123456789012345678"), fine: true},
		"another one":          {answer: row("42"), other: 42},
		"may not say":          {answer: fault(CodeInsufficientPrivilege), fine: true},
		"too old to say":       {answer: fault(CodeUndefinedFunction), fine: true},
		"shutting down":        {answer: fault(CodeAdminShutdown), code: CodeAdminShutdown},
		"no number":            {answer: row("x"), garbled: true},
		"no row":               {answer: []pgproto3.BackendMessage{ready}, garbled: true},
		"something else":       {answer: []pgproto3.BackendMessage{&pgproto3.CopyDone{}}, garbled: true},
		"two columns":          {answer: []pgproto3.BackendMessage{&pgproto3.DataRow{Values: [][]byte{[]byte("1"), []byte("2")}}, ready}, garbled: true},
		"a row that is a null": {answer: []pgproto3.BackendMessage{&pgproto3.DataRow{Values: [][]byte{nil}}, ready}, garbled: true},

		"a strict standby":                {answer: strict, again: append([]pgproto3.BackendMessage{set}, row("7123456789012345678")...), fine: true},
		"another strict standby":          {answer: strict, again: append([]pgproto3.BackendMessage{set}, row("42")...), other: 42},
		"a strict standby may not say":    {answer: strict, again: append([]pgproto3.BackendMessage{set}, fault(CodeInsufficientPrivilege)...), fine: true},
		"a standby that remains strict":   {answer: strict, again: append([]pgproto3.BackendMessage{set}, strict...), code: CodeFeatureNotSupported},
		"something else is not supported": {answer: fault(CodeFeatureNotSupported), code: CodeFeatureNotSupported},
	} {
		t.Run(name, func(t *testing.T) {
			script := pgtest.Script{pgtest.Login(), pgtest.Expect(&pgproto3.Query{String: identityQuery}), pgtest.Send(c.answer...)}
			if c.again != nil {
				script = append(script, pgtest.Expect(&pgproto3.Query{String: identityQueryOfStandby}), pgtest.Send(c.again...))
			}
			f := pgtest.NewFake(t, append(script, pgtest.Hang()))
			conn, err := net.Dial("tcp", f.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ctx, cancel := context.WithTimeout(t.Context(), pgTimeout)
			defer cancel()
			server, err := Connect(ctx, conn, &ConnectConfig{User: "u", SystemID: 7123456789012345678})
			var e *Error
			var other *OtherServerError
			switch {
			case c.fine && err != nil:
				t.Errorf("refused: %v", err)
			case c.fine && server.Strict != (c.again != nil):
				t.Errorf("strict: %t", server.Strict)
			case c.other != 0 && (!errors.As(err, &other) || other.Got != c.other || other.Want != 7123456789012345678):
				t.Errorf("got %v", err)
			case c.garbled && !errors.Is(err, ErrGarbled):
				t.Errorf("got %v", err)
			case c.code != "" && (!errors.As(err, &e) || e.Code != c.code):
				t.Errorf("got %v, want %s", err, c.code)
			}
		})
	}
}
