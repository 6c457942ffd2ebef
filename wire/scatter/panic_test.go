package scatter

import (
	"io"
	"net"
	"testing"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// broken is a Host with a mistake in it.
type broken struct{ Host }

func (broken) Plan(string) *sqlkey.Plan { panic("a mistake") }

// A panic ends the session that it is of, and is told.
func TestPanicEndsOneSession(t *testing.T) {
	ours, theirs := net.Pipe()
	var told any
	c := New(theirs, Config{Host: broken{}, MaxFrame: 1 << 20, Shared: new(Shared), Panicked: func(with any) { told = with }})
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Serve(t.Context())
	}()
	if _, err := ours.Write(pg.AppendQuery(nil, "SELECT 1")); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v, want the end", err)
	}
	<-done
	if told != "a mistake" {
		t.Errorf("told %v", told)
	}
}
