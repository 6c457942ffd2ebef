package probe

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"

	"rangefinder/internal/pgtest"
)

// TestPasswordIsNotToldToAnybody: a server that asks for the password in clear text gets it only where it may be told. What it asks for
// says nothing against it.
func TestPasswordIsNotToldToAnybody(t *testing.T) {
	asks := pgtest.Script{pgtest.ExpectStartup(nil), pgtest.Send(&pgproto3.AuthenticationCleartextPassword{}), pgtest.ExpectEOF()}
	told := pgtest.Script{
		pgtest.ExpectStartup(nil), pgtest.Send(&pgproto3.AuthenticationCleartextPassword{}), pgtest.Expect(&pgproto3.PasswordMessage{Password: "pr0be"}),
		pgtest.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "3D000", Message: "no such database"}), pgtest.ExpectEOF(),
	}
	heard, listed := pgtest.NewFake(t, asks), pgtest.NewFake(t, told)
	sink := newSeen()
	p := New(Config{
		Settings: Settings{
			Backends: []Target{{Name: "listed", Shard: "shard_1", Region: "fra", Addr: listed.Addr()}},
			User:     "prober", Password: "pr0be", Interval: time.Minute,
		},
		Plain: func(addr string) bool { return addr == listed.Addr() },
		Sink:  sink, Logger: quiet(), Lost: sink.Lost, Recovered: sink.Recovered,
	})
	if err := p.Open(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	p.Assign([]Target{{Name: "listed"}, {Name: "heard", Shard: "shard_1", Region: "fra", Addr: heard.Addr(), SystemID: 77}})
	for backend, want := range map[string]string{"heard": "it asks for the password in clear text", "listed": "no such database (SQLSTATE 3D000)"} {
		pgtest.Eventually(t, 10*time.Second, func() error {
			if got := p.Trouble(backend); !strings.Contains(got, want) {
				return errors.New(backend + ": " + got)
			}
			return nil
		})
	}
	if _, err := p.history(t.Context(), Target{Name: "heard", Addr: pgtest.NewFake(t, asks).Addr()}, 2); err == nil || !strings.Contains(err.Error(), ErrPlain.Error()) {
		t.Errorf("the history of a timeline: %v", err)
	}
	sink.until(t, "no evidence", func() bool { return len(sink.lost) == 0 })
}
