package pgtest

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Kill ends the server as a crash of its machine would: postmaster and children by SIGKILL, nothing is said to clients. It
// returns once they are gone. Start brings it back.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid == 0 {
		return ErrNotRunning
	}
	pids, err := stopFamily(s.pid)
	if err != nil {
		pids = family(s.pid)
	}
	signalAll(pids, syscall.SIGKILL)
	s.log.Info("PostgreSQL killed", "server", s.name, "addr", s.Addr(), "pid", s.pid, "processes", len(pids))
	<-s.exited
	s.pid = 0
	err = gone(pids, 10*time.Second)
	removeSharedMemory(s.data())
	return err
}

// Stop shuts the server down in PostgreSQL's fast mode: sessions are ended, replicas get all there is.
func (s *Server) Stop(ctx context.Context) error { return s.stop(ctx, syscall.SIGINT) }

func (s *Server) stop(ctx context.Context, sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid == 0 {
		return ErrNotRunning
	}
	if s.frozen {
		return fmt.Errorf("%s is frozen: thaw or kill it", s.name)
	}
	if err := syscall.Kill(s.pid, sig); err != nil {
		return err
	}
	select {
	case <-s.exited:
		s.log.Info("PostgreSQL stopped", "server", s.name, "addr", s.Addr())
		s.pid = 0
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not stop: %w", s.name, ctx.Err())
	}
}

// Restart stops the server if it runs, and starts it.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	return s.Start(ctx)
}

// Freeze stops all of the server's processes by SIGSTOP: connections stay open, and the kernel still accepts new ones, but
// nobody answers.
func (s *Server) Freeze() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid == 0 {
		return ErrNotRunning
	}
	_, err := stopFamily(s.pid)
	s.frozen = err == nil
	return err
}

// Thaw lets a frozen server go on.
func (s *Server) Thaw() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid == 0 {
		return ErrNotRunning
	}
	pids := family(s.pid)
	signalAll(pids[1:], syscall.SIGCONT)
	signalAll(pids[:1], syscall.SIGCONT) // last, so that it finds its children awake
	s.frozen = false
	return nil
}

// Promote makes a replica a primary, and returns once it is one.
func (s *Server) Promote(ctx context.Context) error {
	conn, err := s.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var done bool
	if err := conn.QueryRow(ctx, "SELECT pg_promote(true, 60)").Scan(&done); err != nil {
		return fmt.Errorf("promote %s: %w", s.name, err)
	}
	if !done {
		return fmt.Errorf("promote %s: not done within 60 s", s.name)
	}
	return nil
}

// Streaming waits until the replica s streams from its upstream.
func (s *Server) Streaming(ctx context.Context) error {
	return s.becomes(ctx, func(conn *pgx.Conn) (string, error) {
		var n int
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'").Scan(&n); err != nil || n > 0 {
			return "", err
		}
		return "does not stream from " + s.of().name, nil
	})
}

// CaughtUp waits until the replica s has replayed all that its upstream has written by now.
func (s *Server) CaughtUp(ctx context.Context) error {
	var lsn string
	const now = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text"
	if err := s.of().Ask(ctx, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, now).Scan(&lsn) }); err != nil {
		return err
	}
	return s.becomes(ctx, func(conn *pgx.Conn) (string, error) {
		var replayed string
		var there bool
		err := conn.QueryRow(ctx, "SELECT coalesce(pg_last_wal_replay_lsn()::text, ''), coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)", lsn).Scan(&replayed, &there)
		if err != nil || there {
			return "", err
		}
		return "has replayed " + replayed + ", not yet " + lsn, nil
	})
}

// becomes asks again until the answer is no word of what is missing.
func (s *Server) becomes(ctx context.Context, ask func(*pgx.Conn) (missing string, err error)) error {
	return Wait(ctx, 2*time.Millisecond, func() error {
		return s.Ask(ctx, func(conn *pgx.Conn) error {
			missing, err := ask(conn)
			if err == nil && missing != "" {
				err = fmt.Errorf("%s %s", s.name, missing)
			}
			return err
		})
	})
}
