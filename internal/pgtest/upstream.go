package pgtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"syscall"
)

// What a manager of PostgreSQL servers does after a promotion.

// of is the server that s, a replica, was last told to follow.
func (s *Server) of() *Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.upstream
}

// copyOf fills the data folder of s with a base backup of a running server, for s to start as its replica.
func (s *Server) copyOf(ctx context.Context, of *Server) error {
	err := s.farm.run(ctx, s.dir, []string{"PGPASSWORD=" + of.password}, "pg_basebackup", "--pgdata", s.data(),
		"--dbname", of.conninfo(s.name+" (base backup)"), "--wal-method", "stream", "--checkpoint", "fast", "--no-sync")
	if err != nil {
		return err
	}
	return s.write("standby.signal", "")
}

// Set changes settings that need no restart. A server that does not run has them from its next start.
func (s *Server) Set(params map[string]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.params, params)
	return s.reconfigure()
}

// Follow tells a replica to stream from another server of its family from now on: the one that was promoted. Streaming waits for it.
func (s *Server) Follow(up *Server) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.upstream = up
	return s.reconfigure()
}

// reconfigure needs mu.
func (s *Server) reconfigure() error {
	if err := s.configure(); err != nil || s.pid == 0 {
		return err
	}
	return syscall.Kill(s.pid, syscall.SIGHUP)
}

// Rebuild makes s anew as a replica of another server of its family, and returns once it runs; Streaming waits for the rest. If it
// runs it is killed first: what it has and the other has not is gone.
func (s *Server) Rebuild(ctx context.Context, of *Server) error {
	if err := s.Kill(); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	if err := os.RemoveAll(s.data()); err != nil {
		return err
	}
	if err := s.copyOf(ctx, of); err != nil {
		return fmt.Errorf("rebuild %s: %w", s.name, err)
	}
	if err := s.Follow(of); err != nil {
		return err
	}
	return s.Start(ctx)
}
