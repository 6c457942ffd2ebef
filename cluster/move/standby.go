package move

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// standbys are a shard's replicas, as far as they may be promoted.
type standbys struct {
	// constant
	shard   string
	conns   []*pgx.Conn // to each of them
	primary *pgx.Conn   // that is asked what they have told it; nil: they are asked
}

// standbys connects to a shard's replicas that may be promoted, or to whoever knows of them.
func (p *Postgres) standbys(ctx context.Context, j *Job, shard string) (s *standbys, err error) {
	s = &standbys{shard: shard}
	if p.cfg.Replicas == nil {
		s.primary, err = p.connect(ctx, j, shard)
	} else if s.conns, err = p.cfg.Replicas(ctx, shard, j.Keyspace.Database); err != nil {
		err = fmt.Errorf("replicas of shard %s: %w", shard, err)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *standbys) close() {
	for _, c := range s.conns {
		hangUp(c)
	}
	hangUp(s.primary)
}

// replayed waits until each of them has replayed the log up to a position.
func (s *standbys) replayed(ctx context.Context, lsn string) error {
	if s.primary != nil {
		return s.streamed(ctx, lsn)
	}
	for _, c := range s.conns {
		for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
			var done, promoted bool
			err := c.QueryRow(ctx, "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false), NOT pg_is_in_recovery()", pgx.QueryExecModeExec, lsn).Scan(&done, &promoted)
			if err == nil && promoted { // at whatever position: what it had replayed by then is not known any more
				err = ErrPromoted
			}
			if err != nil {
				return fmt.Errorf("replica %s:%d of shard %s: %w", c.Config().Host, c.Config().Port, s.shard, err)
			}
			if done {
				break
			}
			if err := sleep(ctx, pause); err != nil {
				return fmt.Errorf("replica %s:%d of shard %s is too far behind: %w", c.Config().Host, c.Config().Port, s.shard, err)
			}
		}
	}
	return nil
}

// streamed asks the primary what its replicas have told it.
func (s *standbys) streamed(ctx context.Context, lsn string) error {
	for {
		var behind int
		err := s.primary.QueryRow(ctx, `SELECT count(*) FROM pg_stat_replication AS r WHERE state IN ('streaming', 'catchup') AND replay_lsn < $1::text::pg_lsn
AND NOT EXISTS (SELECT FROM pg_replication_slots AS s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')`, pgx.QueryExecModeExec, lsn).Scan(&behind)
		if err != nil || behind == 0 {
			return err
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("%d replicas of shard %s are behind: %w", behind, s.shard, err)
		}
	}
}

// Behind looks at the replicas of both shards, for which a freeze would wait. What they have to have replayed by its end was there when it began: for one that keeps up
// that takes no time.
func (p *Postgres) Behind(ctx context.Context, j *Job) (who string, err error) {
	err = p.with(ctx, j, func(l *link) error {
		look := func(side string, late *error) func() error {
			return func() error {
				lsn, err := flushed(ctx, l.on(side))
				if err != nil {
					return err
				}
				*late, err = p.late(ctx, j, shardOf(j, side), lsn)
				return err
			}
		}
		var source, target error
		if err := beside(look(sideSource, &source), look(sideTarget, &target)); err != nil {
			return err
		}
		if late := errors.Join(source, target); late != nil {
			who = late.Error()
		}
		return nil
	})
	return who, err
}

// flushed is the position up to which a server has its log on disk.
func flushed(ctx context.Context, conn *pgx.Conn) (lsn string, err error) {
	err = conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text", pgx.QueryExecModeExec).Scan(&lsn)
	return lsn, err
}

// late tells why a freeze would wait in vain for the replicas of a shard; nil: it would not.
func (p *Postgres) late(ctx context.Context, j *Job, shard, lsn string) (why, err error) {
	limited, cancel := context.WithTimeout(ctx, p.cfg.Freeze)
	defer cancel()
	s, why := p.standbys(limited, j, shard)
	if why == nil {
		defer s.close()
		half, cancel := context.WithTimeoutCause(limited, p.cfg.Freeze/2, fmt.Errorf("it has not replayed in %s what its primary had", p.cfg.Freeze/2))
		defer cancel()
		why = s.replayed(half, lsn)
	}
	if ctx.Err() != nil || errors.Is(why, ErrPromoted) {
		return nil, why
	}
	return why, nil
}

// replayed waits until each replica of a shard that may be promoted has replayed the log up to a position.
func (p *Postgres) replayed(ctx context.Context, j *Job, shard, lsn string) error {
	s, err := p.standbys(ctx, j, shard)
	if err != nil {
		return err
	}
	defer s.close()
	return s.replayed(ctx, lsn)
}
