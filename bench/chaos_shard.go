package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// quorum has a primary wait for one replica, whichever, before it acknowledges a write.
const quorum = "ANY 1 (*)"

// chaosShard is a shard with a server in each region, and the manager that promotes and rebuilds them.
type chaosShard struct {
	// constant
	world   *chaosWorld
	name    string
	owned   string           // which rows are the shard's, as an SQL condition
	servers []*pgtest.Server // by region
	clocks  []*chaosClock    // of the servers, by region

	// guarded by mu
	mu      sync.Mutex
	primary int // of servers
}

func (s *chaosShard) primaryNow() *pgtest.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.servers[s.primary]
}

// start makes the primary with the rows that the shard owns, and then its replicas.
func (s *chaosShard) start(ctx context.Context, port int, r rib.Range, keys int) error {
	hash, err := rib.MethodByName("hash")
	if err != nil {
		return err
	}
	s.owned = hash.Predicate([]string{"key"}, []rib.Type{rib.TypeInt}, r.From, r.To)
	s.servers = make([]*pgtest.Server, len(s.world.net.regions))
	for i, at := range s.world.net.regions {
		clock, err := newChaosClock(s.world.farms[i].Dir(), s.name+"-"+at.name, func(ctx context.Context) (time.Time, error) { return serverSays(ctx, s.servers[i]) })
		if err != nil {
			return err
		}
		s.clocks = append(s.clocks, clock)
	}
	options := func(i int) pgtest.Options {
		at, clock := s.world.net.regions[i], s.clocks[i]
		return pgtest.Options{Name: clock.whose, Env: []string{clock.env(), s.world.preload}, Bind: at.ip(serverHost), Port: port, Auth: "scram-sha-256", Params: map[string]string{
			"autovacuum": "off", "max_connections": "200", "max_prepared_transactions": "100",
			// Nodes are killed while their network is cut: nobody tells the server, so it has to find out itself.
			"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3", "tcp_user_timeout": "10s",
			"wal_sender_timeout": "5s", "wal_receiver_timeout": "5s", "hot_standby_feedback": "off",
		}}
	}
	primary, err := s.world.farms[s.primary].Primary(ctx, options(s.primary))
	if err != nil {
		return err
	}
	s.servers[s.primary] = primary
	err = errors.Join(primary.CreateUser(ctx, benchUser, benchPassword, ""), primary.CreateUser(ctx, chaosProber, benchPassword, "SUPERUSER"),
		primary.Exec(ctx, "CREATE DATABASE "+benchDatabase+" OWNER "+benchUser))
	if err != nil {
		return err
	}
	// Nothing is unique in the ledger: a write that was made twice is to be seen.
	err = primary.ExecIn(ctx, benchDatabase, fmt.Sprintf(`
		SET ROLE %s;
		CREATE TABLE ledger (key int, client int, seq bigint, amount int);
		CREATE INDEX ON ledger (key, client, seq);
		CREATE TABLE registers (key int PRIMARY KEY, seq bigint NOT NULL, over bigint NOT NULL DEFAULT 0);
		CREATE TABLE accounts (key int, side int, balance bigint NOT NULL, PRIMARY KEY (key, side));
		INSERT INTO registers SELECT key, 0 FROM generate_series(0, %d) AS key WHERE %s;
		INSERT INTO accounts SELECT key, side, 0 FROM registers, generate_series(0, 1) AS side`, benchUser, keys-1, s.owned))
	if err != nil {
		return err
	}
	for i := range s.servers {
		if i == s.primary {
			continue
		}
		if s.servers[i], err = s.world.farms[i].Replica(ctx, primary, options(i)); err != nil {
			return err
		}
		if err := s.servers[i].CaughtUp(ctx); err != nil {
			return err
		}
	}
	for _, server := range s.servers { // who is promoted needs it too; for a replica it means nothing
		if err := server.Set(map[string]string{"synchronous_standby_names": quorum}); err != nil {
			return err
		}
	}
	return nil
}

// serverSays is what time it is for a server.
func serverSays(ctx context.Context, server *pgtest.Server) (now time.Time, err error) {
	conn, err := server.Conn(ctx)
	if err != nil {
		return now, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now)
	return now, err
}

// promote makes the most advanced replica the primary and lets the other one follow it. The old primary must be dead or cut off, so that
// nothing more can reach a replica and be acknowledged.
func (s *chaosShard) promote(ctx context.Context) (old *pgtest.Server, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old = s.servers[s.primary]
	best, most := -1, int64(-1)
	for i, r := range s.servers {
		if i == s.primary {
			continue
		}
		at, err := received(ctx, r)
		if err != nil {
			return old, err // whoever cannot be asked may be the one that has everything
		}
		if at > most {
			best, most = i, at
		}
	}
	if err := s.servers[best].Promote(ctx); err != nil {
		return old, err
	}
	for i, r := range s.servers {
		if i != best && i != s.primary {
			err = errors.Join(err, r.Follow(s.servers[best]))
		}
	}
	s.primary = best
	return old, err
}

// received is how much of the write-ahead log a replica has. One that has been started anew may still be reading what it has.
func received(ctx context.Context, r *pgtest.Server) (at int64, err error) {
	conn, err := r.Conn(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	before := int64(-1)
	return at, pgtest.Wait(ctx, 200*time.Millisecond, func() error {
		before = at
		if err := conn.QueryRow(ctx, "SELECT (greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0')::bigint").Scan(&at); err != nil {
			return err
		}
		if at != before {
			return fmt.Errorf("%s still reads", r.Name())
		}
		return nil
	})
}

// rebuild makes an old primary a replica of the new one. The network between them may fail it: then again.
func (s *chaosShard) rebuild(ctx context.Context, old *pgtest.Server) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return pgtest.Wait(ctx, time.Second, func() error {
		try, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		return old.Rebuild(try, s.primaryNow())
	})
}
