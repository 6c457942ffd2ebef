package pool

import (
	"errors"
	"fmt"
	"time"

	"rangefinder/wire/pg"
)

// ErrClosed is returned once the pools are closed.
var ErrClosed = errors.New("pool: closed")

// ExhaustedError says that every connection to a backend stayed busy for as long as a session may wait.
type ExhaustedError struct {
	Backend string
	Size    int
	Wait    time.Duration
	Full    *pg.Error // the backend's own words, if it has no connection left; nil: it is the pool
}

func (e *ExhaustedError) Error() string {
	if e.Full != nil {
		return fmt.Sprintf("backend %s had no connection left for %s", e.Backend, e.Wait)
	}
	if e.Size == 0 {
		return fmt.Sprintf("this node had no share of the connections to backend %s for %s", e.Backend, e.Wait)
	}
	return fmt.Sprintf("all %d connections to backend %s stayed busy for %s", e.Size, e.Backend, e.Wait)
}

// ConnectError says that a backend could not be connected to. Err is a *pg.Error if it answered, with its own words.
type ConnectError struct {
	Backend  string
	Shard    string
	Addr     string
	Identity Identity
	Err      error
}

func (e *ConnectError) Error() string {
	return fmt.Sprintf("connect to backend %s at %s: %v", e.Backend, e.Addr, e.Err)
}

// Unwrap returns what the connect failed with.
func (e *ConnectError) Unwrap() error { return e.Err }

// Login reports whether the backend was there and did not take what the user was proved to be with, or asked for more.
func (e *ConnectError) Login() bool {
	var pe *pg.Error
	if errors.As(e.Err, &pe) {
		return pe.Code == pg.CodeInvalidPassword
	}
	return errors.Is(e.Err, pg.ErrNoPassword) || errors.Is(e.Err, pg.ErrWrongKind) || errors.Is(e.Err, pg.ErrPlain) || errors.Is(e.Err, pg.ErrOtherVerifier)
}

// Elsewhere reports whether another backend of the shard may well do better: this one is out of reach, starting, stopping or full.
func (e *ConnectError) Elsewhere() bool {
	var pe *pg.Error
	if !errors.As(e.Err, &pe) {
		return !e.Login()
	}
	return pe.Code == pg.CodeCannotConnectNow || pe.Code == pg.CodeAdminShutdown || pe.Code == pg.CodeCrashShutdown || pe.Code == pg.CodeTooManyConnections
}

// errQueue sends who wanted to connect back to the queue.
var errQueue = errors.New("pool: the backend has no connection left")
