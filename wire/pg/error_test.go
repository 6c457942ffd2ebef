package pg

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

func TestErrorRoundTrip(t *testing.T) {
	e := &Error{
		Severity: "ERROR", Code: "23505", Message: "duplicate key", Detail: "Key (id)=(1) exists.", Hint: "h", Position: "7",
		InternalPosition: "8", InternalQuery: "q", Where: "w", Schema: "s", Table: "t", Column: "c", DataType: "d",
		Constraint: "k", File: "f.c", Line: "99", Routine: "r",
	}
	frame := AppendError(nil, e)
	if typ, n, err := Next(frame, 1000); typ != 'E' || n != len(frame) || err != nil {
		t.Fatalf("Next = %q, %d of %d, %v", typ, n, len(frame), err)
	}
	got, err := DecodeError(body(frame))
	if err != nil || *got != *e {
		t.Fatalf("got %#v, %v", got, err)
	}
	if n := AppendNotice(nil, e); n[0] != 'N' || string(body(n)) != string(body(frame)) {
		t.Fatalf("the notice is %q", n)
	}
	var other pgproto3.ErrorResponse
	if err := other.Decode(body(frame)); err != nil || other.SeverityUnlocalized != "ERROR" || other.Severity != "ERROR" || other.Hint != "h" || other.Line != 99 {
		t.Fatalf("another implementation reads %#v, %v", other, err)
	}
}

func TestErrorTellsSeverityUntranslated(t *testing.T) {
	e, err := DecodeError([]byte("SFEHLER\x00VERROR\x00C42601\x00MSyntaxfehler\x00\x00"))
	if err != nil || e.Severity != "ERROR" || e.Message != "Syntaxfehler" {
		t.Fatalf("got %#v, %v", e, err)
	}
	e, err = DecodeError([]byte("SERROR\x00C42601\x00?unknown field\x00\x00"))
	if err != nil || e.Severity != "ERROR" {
		t.Fatalf("before 9.6: %#v, %v", e, err)
	}
}

func TestDecodeErrorRefuses(t *testing.T) {
	for _, b := range []string{"", "S", "SERROR", "SERROR\x00", "SERROR\x00C"} {
		_, err := DecodeError([]byte(b))
		wantCode(t, err, "08P01")
	}
}

func TestErrorTextCannotBreakTheFrame(t *testing.T) {
	e := NewError("22021", "bad\x00Cbyte").WithDetail(strings.Repeat("d", 10))
	got, err := DecodeError(body(AppendError(nil, e)))
	if err != nil || got.Message != "bad" || got.Code != "22021" || got.Detail != "dddddddddd" {
		t.Fatalf("got %#v, %v", got, err)
	}
}

func TestErrorCopies(t *testing.T) {
	e := NewError("0A000", "m")
	if e.WithDetail("d").WithHint("h").WithPosition(3).Fatal(); *e != (Error{Severity: "ERROR", Code: "0A000", Message: "m"}) {
		t.Fatalf("the original changed: %#v", e)
	}
	want := Error{Severity: "FATAL", Code: "0A000", Message: "m", Detail: "d", Hint: "h", Position: "3"}
	if got := e.WithDetail("d").WithHint("h").WithPosition(3).Fatal(); *got != want {
		t.Fatalf("got %#v", got)
	}
	if got := e.WithPosition(3).WithPosition(0).Position; got != "" {
		t.Fatalf("position %q", got)
	}
	if got := e.Fatal().Error(); got != "FATAL: m (SQLSTATE 0A000)" {
		t.Fatalf("Error() = %q", got)
	}
}
