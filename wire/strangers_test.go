package wire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// A node that stops does not wait for connections that have said nothing, or not all of what they want. It does for logins.
func TestShutdownClosesStrangers(t *testing.T) {
	r := newRig(t, rigOptions{tls: true, startup: 10 * time.Minute})
	r.live.RequireTLS = false
	r.server.Reload(r.live)
	addr, err := netip.ParseAddrPort(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	const ways, login = 5, 4 // see halfOpen
	var open [ways]int
	for way := range open {
		open[way] = halfOpen(t, int(addr.Port()), way)
		defer syscall.Close(open[way])
	}
	pgtest.Eventually(t, patience, func() error {
		if got := r.server.Stats().Clients; got != ways {
			return fmt.Errorf("%d connections, want %d", got, ways)
		}
		return nil
	})
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		defer cancel()
		done <- r.server.Shutdown(ctx)
	}()
	pgtest.Eventually(t, patience, func() error {
		if got := r.server.Stats().Clients; got != 1 {
			return fmt.Errorf("%d connections, want the login alone", got)
		}
		return nil
	})
	select {
	case err := <-done:
		t.Errorf("it did not wait for the login: %v", err)
	default:
	}
	var b [4096]byte
	for n := 1; n > 0; { // the question for the password, and no end
		if n, _, err = syscall.Recvfrom(open[login], b[:], syscall.MSG_DONTWAIT); n == 0 || err != nil && !errors.Is(err, syscall.EAGAIN) {
			t.Fatalf("the login was closed: %v", err)
		}
	}
	for way, fd := range open[:login] {
		for n := 1; n > 0; {
			if n, err = syscall.Read(fd, b[:]); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("stranger %d: %v", way, err)
			}
		}
	}
	if err := syscall.Shutdown(open[login], syscall.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

// Who opens connections and says nothing does not fill the log: it has a line a second, and each of them is counted there.
func TestStrangersDoNotFillTheLog(t *testing.T) {
	var logged buffer
	r := newRig(t, rigOptions{log: &logged})
	addr, err := netip.ParseAddrPort(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	began, sent := time.Now(), uint64(0)
	come := func(n int) {
		var open []int
		for i := range n {
			open = append(open, halfOpen(t, int(addr.Port()), i%3))
		}
		sent += uint64(n)
		pgtest.Eventually(t, patience, func() error {
			if got := r.server.Stats().Accepted; got < sent {
				return fmt.Errorf("%d of %d have come", got, sent)
			}
			return nil
		})
		for _, fd := range open {
			syscall.Close(fd)
		}
		pgtest.Eventually(t, patience, func() error {
			if got := r.server.Stats().Clients; got != 0 {
				return fmt.Errorf("%d are still there", got)
			}
			return nil
		})
	}
	come(300)
	line := regexp.MustCompile(`msg="client refused".* others=(\d+)`)
	lines := 0
	pgtest.Eventually(t, patience, func() error { // the next line tells how many came since the last
		come(1)
		all := line.FindAllStringSubmatch(logged.String(), -1)
		lines = len(all)
		told := uint64(lines)
		for _, m := range all {
			others, err := strconv.ParseUint(m[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			told += others
		}
		if told != sent {
			return fmt.Errorf("the log tells of %d of %d", told, sent)
		}
		return nil
	})
	if most := int(time.Since(began)/time.Second) + 1; lines > most {
		t.Errorf("%d lines in %v, want at most %d", lines, time.Since(began), most)
	}
}
