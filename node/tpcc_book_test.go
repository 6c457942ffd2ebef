package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/wire/pg"
)

// fate is what a client knows of a transaction that it has run.
type fate uint8

const (
	took    fate = iota // it took effect: its COMMIT was acknowledged
	nothing             // it took none
	unknown             // its COMMIT was sent, and its connection ended, or the node said that it cannot tell
)

// fateOf is a transaction's fate by its error. committing: its COMMIT had been sent.
func fateOf(err error, committing bool) fate {
	switch {
	case err == nil:
		return took
	case !committing, errors.Is(err, pgx.ErrTxCommitRollback):
		return nothing
	}
	var e *pgconn.PgError
	if errors.As(err, &e) && e.Code != pg.CodeTransactionResolutionUnknown && e.Severity == "ERROR" {
		return nothing
	}
	return unknown
}

// book is what the clients of a load know together.
type book struct {
	// guarded by mu
	mu       sync.Mutex
	done     map[string]int  // by what they did
	repeated int             // of those that a client tries again: 40001 and 40P01
	failures map[string]int  // by SQLSTATE; those without one by what the connection's end was
	problems []string        // what no client should be told
	marks    map[string]fate // of what left a row that can be told from all others
	calm     bool            // nothing is killed yet
}

func newBook() *book {
	return &book{done: make(map[string]int), failures: make(map[string]int), marks: make(map[string]fate), calm: true}
}

func (b *book) count(what string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.done[what]
}

// kills says that from now on connections may end.
func (b *book) kills() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calm = false
}

// note takes down how a transaction has ended. mark is what it left, if it took effect; "": nothing that can be told from others'.
func (b *book) note(what, mark string, f fate, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if was, ok := b.marks[mark]; mark != "" && !(ok && was == took) { // it may be another's that came later
		b.marks[mark] = f
	}
	switch {
	case err == nil:
		b.done[what]++
	case repeats(err):
		b.repeated++
	default:
		kind := ends(err)
		if b.failures[kind]++; b.calm || !fair(kind) {
			b.problems = append(b.problems, fmt.Sprintf("%s: %s: %v", what, kind, err))
		}
	}
}

// ends is an error's SQLSTATE, or "end" for a connection that ended without one.
func ends(err error) string {
	var e *pgconn.PgError
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNREFUSED),
		strings.HasSuffix(err.Error(), "conn closed"): // pgx's own, which has no name
		return "end"
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return pg.CodeInFailedTransaction
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "late"
	}
	return "other"
}

// fair tells whether a client may be told so while nodes and servers are killed: that its connection has ended, that a server's has, or that
// a server is not there now. All of these say to try again, but for 08007, which says to look first.
func fair(kind string) bool {
	switch kind {
	case "end", pg.CodeConnectionFailure, pg.CodeTransactionResolutionUnknown, pg.CodeCannotConnectNow, pg.CodeAdminShutdown, pg.CodeCrashShutdown:
		return true
	}
	return false
}

// report fails the test for what no client should have been told.
func (b *book) report(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	fates := map[fate]int{}
	for _, f := range b.marks {
		fates[f]++
	}
	t.Logf("done %v, repeated %d, failed %v; of rows %d acknowledged, %d not written, %d unknown", b.done, b.repeated, b.failures, fates[took], fates[nothing], fates[unknown])
	for _, p := range b.problems[:min(len(b.problems), 10)] {
		t.Error(p)
	}
}

// check compares what clients know with the rows that are there, one mark a line. Marks that begin with a word in reused may be there although nothing came of
// one transaction: they are another's then.
func (b *book) check(t *testing.T, rows string, reused string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	there := map[string]int{}
	for mark := range strings.Lines(rows) {
		there[strings.TrimSpace(mark)]++
	}
	for _, mark := range slices.Sorted(maps.Keys(b.marks)) {
		n, f := there[mark], b.marks[mark]
		switch {
		case n > 1:
			t.Errorf("%s is there %d times", mark, n)
		case f == took && n == 0:
			t.Errorf("%s was acknowledged, and is not there", mark)
		case f == nothing && n > 0 && !strings.HasPrefix(mark, reused):
			t.Errorf("%s is there, and its client was told that it is not", mark)
		}
		delete(there, mark)
	}
	for mark := range there {
		t.Errorf("%q is there, and no client has written it", mark)
	}
}
