package pgtest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"
	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

func connect(t *testing.T, f *pgtest.Fake) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://app@%s/app?sslmode=disable&default_query_exec_mode=simple_protocol", f.Addr()))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// pgx logs in and gets the row that the script sends, in pieces.
func TestFakeAnswers(t *testing.T) {
	reached := make(chan struct{})
	f := pgtest.NewFake(t, pgtest.Script{
		pgtest.Login(),
		pgtest.Expect(&pgproto3.Query{String: "SELECT 42"}),
		pgtest.SendSplit(
			&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("n"), DataTypeOID: 23, DataTypeSize: 4}}},
			&pgproto3.DataRow{Values: [][]byte{[]byte("42")}},
			&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")},
			&pgproto3.ReadyForQuery{TxStatus: 'I'},
		),
		pgtest.Signal(reached),
		pgtest.ExpectEOF(),
	})
	conn := connect(t, f)
	var n int
	must(t, conn.QueryRow(t.Context(), "SELECT 42").Scan(&n))
	<-reached
	if n != 42 {
		t.Errorf("got %d", n)
	}
	must(t, conn.Close(t.Context()))
	if f.Connections() != 1 {
		t.Errorf("%d connections", f.Connections())
	}
}

// The second connection plays the second script; both ways to end are seen by the client as what they are.
func TestFakeCuts(t *testing.T) {
	f := pgtest.NewFake(t,
		pgtest.Script{pgtest.Login(), pgtest.SendBytes([]byte{'T', 0, 0}), pgtest.Close()},
		pgtest.Script{pgtest.Login(), pgtest.Reset()},
		pgtest.Script{pgtest.Login(), pgtest.Hang()},
	)
	all, err := readAll(t, f)
	if err != nil || !bytes.HasSuffix(all, []byte{'T', 0, 0}) {
		t.Errorf("cut in a frame: %q, %v", all, err)
	}
	if all, err = readAll(t, f); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset: %q, %v", all, err)
	}
	connect(t, f) // hangs; the test's end closes it
	if f.Connections() != 3 {
		t.Errorf("%d connections", f.Connections())
	}

	conn, err := net.Dial("tcp", f.Addr())
	must(t, err)
	cancel, err := (&pgproto3.CancelRequest{ProcessID: 1, SecretKey: 2}).Encode(nil)
	must(t, err)
	_, err = conn.Write(cancel)
	must(t, err)
	_, err = conn.Read(make([]byte, 1))
	if !errors.Is(err, io.EOF) || f.Cancels() != 1 || f.Connections() != 3 {
		t.Errorf("cancel: %v, %d cancels, %d connections", err, f.Cancels(), f.Connections())
	}
	must(t, conn.Close())
}

// readAll sends a startup and returns all that the fake says to it.
func readAll(t *testing.T, f *pgtest.Fake) ([]byte, error) {
	t.Helper()
	conn, err := net.Dial("tcp", f.Addr())
	must(t, err)
	defer func() { _ = conn.Close() }()
	startup, err := (&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{"user": "app"}}).Encode(nil)
	must(t, err)
	_, err = conn.Write(startup)
	must(t, err)
	must(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	return io.ReadAll(conn)
}

// What a script did not expect is told.
func TestFakeTellsWhatWentWrong(t *testing.T) {
	var inner recorder
	inner.TB = t
	f := pgtest.NewFake(&inner, pgtest.Script{pgtest.Login(), pgtest.Expect(&pgproto3.Query{String: "SELECT 1"})})
	_, err := connect(t, f).Exec(t.Context(), "SELECT 2")
	if err == nil {
		t.Error("the client got an answer")
	}
	if err := f.Close(); err == nil || !strings.Contains(err.Error(), "SELECT 2") || !strings.Contains(err.Error(), "step 2") {
		t.Errorf("the fake says %v", err)
	}
}

// A client that has seen the end of its connection finds the verdict, however soon it asks.
func TestFakeTellsBeforeItEnds(t *testing.T) {
	for i := range 100 {
		f := pgtest.NewFake(&recorder{TB: t}, pgtest.Script{pgtest.Login(), func(*pgtest.FakeConn) error { return errors.New("wrong") }})
		if _, err := readAll(t, f); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err == nil {
			t.Fatalf("connection %d: the fake says that all was well", i+1)
		}
	}
}

// Close forgives a step that it cuts off, and no other.
func TestFakeIsClosed(t *testing.T) {
	for want, step := range map[string]pgtest.Step{
		"": pgtest.ExpectType(&pgproto3.Sync{}),
		"connection 1, step 2: wrong": func(c *pgtest.FakeConn) error {
			<-c.Done
			return errors.New("wrong")
		},
	} {
		there := make(chan struct{})
		f := pgtest.NewFake(&recorder{TB: t}, pgtest.Script{pgtest.Signal(there), step})
		conn, err := net.Dial("tcp", f.Addr())
		must(t, err)
		_, err = conn.Write([]byte("H\x00\x00\x00\x04H\x00\x00")) // a script begins with the first 8 bytes
		must(t, err)
		<-there
		got := ""
		if err := f.Close(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("the fake says %q, want %q", got, want)
		}
		must(t, conn.Close())
	}
}

// recorder is a test whose errors are expected.
type recorder struct{ testing.TB }

func (*recorder) Errorf(string, ...any) {}
