package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// tap stands between nodes and a server, and can strike when a statement goes by.
type tap struct {
	// constant
	addr   string
	server *pgtest.Server
	done   sync.WaitGroup

	// guarded by mu
	mu     sync.Mutex
	word   string // what the statement has in it; "": nothing strikes
	after  bool   // once the server has answered it, and before anybody hears of that
	strike func()
}

func newTap(t *testing.T, s *pgtest.Server) *tap {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{addr: ln.Addr().String(), server: s}
	p.done.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p.done.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		p.done.Wait()
	})
	return p
}

// arm has the next statement with that word strike.
func (p *tap) arm(word string, after bool, strike func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.word, p.after, p.strike = word, after, strike
}

// hit is the strike of what goes by; nil: there is none.
func (p *tap) hit(b []byte) (strike func(), after bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.word == "" || !bytes.Contains(b, []byte(p.word)) {
		return nil, false
	}
	p.word = ""
	return p.strike, p.after
}

func (p *tap) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.server.Addr())
	if err != nil {
		return
	}
	defer server.Close()
	var mu sync.Mutex
	var pending func() // strikes with the answer
	p.done.Go(func() {
		defer client.Close()
		b := make([]byte, 64<<10)
		for {
			n, err := server.Read(b)
			mu.Lock()
			strike := pending
			mu.Unlock()
			if strike != nil && n > 0 {
				strike()
				return
			}
			if _, failed := client.Write(b[:n]); err != nil || failed != nil {
				return
			}
		}
	})
	b := make([]byte, 64<<10)
	for {
		n, err := client.Read(b)
		if strike, after := p.hit(b[:n]); strike != nil && after {
			mu.Lock()
			pending = strike
			mu.Unlock()
		} else if strike != nil {
			strike()
			return
		}
		if _, failed := server.Write(b[:n]); err != nil || failed != nil {
			return
		}
	}
}

// step is one moment of a commit on shard_1, which decides, and shard_2.
type step struct {
	shard int // from 0: whose statement it is
	word  string
	after bool
	done  bool // whether the transaction is there in the end
}

func steps() []step {
	return []step{
		{1, "PREPARE TRANSACTION", false, false},
		{1, "PREPARE TRANSACTION", true, false},
		{0, "rangefinder.decide", false, false},
		{0, "rangefinder.decide", true, true},
		{1, "COMMIT PREPARED", false, true},
		{1, "COMMIT PREPARED", true, true},
	}
}

func (s step) String() string {
	when := "before"
	if s.after {
		when = "after"
	}
	return fmt.Sprintf("%s %s on shard_%d", when, s.word, s.shard+1)
}

// tapped has a bank's backends reached through taps.
func tapped(b *bank, t *testing.T) (taps []*tap) {
	for _, s := range b.servers {
		taps = append(taps, newTap(t, s))
	}
	return taps
}

// A server is killed at each moment of a commit, and comes back. Whatever its client was told is true.
func TestServersAreKilledWhileTheyCommit(t *testing.T) {
	var taps []*tap
	b := startBankWith(t, func(b *bank, cfg *Config) {
		taps = tapped(b, t)
		for i := range cfg.Backends {
			cfg.Backends[i].Address = taps[i].addr
		}
		cfg.FailoverWait = Duration{time.Minute}
	}, 20, 20)
	b.accounts(t)
	sum := 0
	for i, s := range steps() {
		t.Run(s.String(), func(t *testing.T) {
			conn := b.node.connect(t)
			server := b.servers[s.shard]
			killed := make(chan error, 1)
			taps[s.shard].arm(s.word, s.after, func() { killed <- server.Kill() })
			result := make(chan error, 1)
			go func() { result <- transfer(t.Context(), conn, 10, pgx.QueryExecModeExec, fmt.Sprintf("server %d", i)) }()
			if err := <-killed; err != nil {
				t.Fatal(err)
			}
			if err := server.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			err := <-result
			if s.done != (err == nil) || err != nil && sqlstate(err) != pg.CodeSerializationFailure {
				t.Errorf("the client was told: %v", err)
			}
			if s.done {
				sum += 10
			}
			b.node.settled(t, 1, 2)
			b.clean(t)
			b.moved(t, sum)
		})
	}
}

// The node is killed at each moment of a commit. When it starts again it ends what it has left.
func TestTheNodeIsKilledWhileItCommits(t *testing.T) {
	b := new(bank)
	b.serve(t, 20, 20)
	for i, s := range b.servers {
		if err := s.ExecIn(t.Context(), "app", "CREATE TABLE transfers (account bigint, id text, PRIMARY KEY (account, id)); GRANT ALL ON transfers TO app; GRANT SELECT ON transfers TO probe",
			fmt.Sprintf("INSERT INTO accounts VALUES (%d, %d)", here+i*(there-here), opening)); err != nil {
			t.Fatal(err)
		}
	}
	taps, dir := tapped(b, t), t.TempDir()
	file := filepath.Join(dir, "node.toml")
	text := fmt.Sprintf(`region = "iad"
name = "iad-1"
data_dir = %q
ports = { postgres = 0, cluster = 0, http = 0 }
probe = { user = "probe", password_env = "PROBE_PASSWORD", interval = "100ms" }
[[databases]]
name = "app"
shard = "shard_1"
cross_shard_writes = "2pc"
[[users]]
name = "app"
password_env = "APP_PASSWORD"
`, filepath.Join(dir, "data"))
	for i, p := range taps {
		text += fmt.Sprintf("[[backends]]\nname = \"iad-%d\"\nshard = \"shard_%d\"\naddress = %q\n", i+1, i+1, p.addr)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	binary := buildBinary(t)
	env := []string{"APP_PASSWORD=" + appPassword, "PROBE_PASSWORD=" + probePassword}
	start := func() *process { return startProcess(t, binary, env, "-c", file) }
	node := start()
	pgtest.Eventually(t, time.Minute, func() error {
		code, out, errs := runCLI("keyspace", "create", "app.accounts", "--key", "id", "--type", "bigint", "--method", "range", "--range", "..1000=shard_1", "--range", "1000..=shard_2",
			"--table", "app.transfers:account", "--admin", node.admin(t))
		if code != 0 {
			return fmt.Errorf("exit %d: %s%s", code, out, errs)
		}
		return nil
	})
	sum := 0
	for i, s := range steps() {
		id := fmt.Sprintf("node %d", i)
		var conn *pgx.Conn
		pgtest.Eventually(t, time.Minute, func() (err error) { // the first transfers of a new node may come before it knows its shards
			if conn, err = pgx.Connect(t.Context(), dsnAt(node.postgres(t))); err != nil {
				return err
			}
			if err = transfer(t.Context(), conn, 10, pgx.QueryExecModeExec, id+" first"); err != nil {
				conn.Close(context.Background())
			}
			return err
		})
		sum += 10
		victim := node
		taps[s.shard].arm(s.word, s.after, func() {
			_ = victim.cmd.Process.Kill()
			<-victim.ended
		})
		err := transfer(t.Context(), conn, 10, pgx.QueryExecModeExec, id)
		conn.Close(context.Background())
		if err == nil {
			t.Errorf("%s: acknowledged by a node that was dead", s)
		}
		if s.done {
			sum += 10
		}
		node = start()
		since := time.Now()
		pgtest.Eventually(t, time.Minute, func() error {
			for i := range b.servers {
				if n := b.on(t, i, "SELECT count(*)::int FROM pg_prepared_xacts")[0]; n > 0 {
					return fmt.Errorf("%s: %d prepared", b.servers[i].Name(), n)
				}
			}
			return nil
		})
		t.Logf("%s: nothing is left %s after the start", s, time.Since(since).Round(time.Millisecond))
		b.moved(t, sum)
	}
}

// admin is the URL of the process's HTTP port.
func (p *process) admin(t *testing.T) string {
	t.Helper()
	_, rest, _ := bytes.Cut([]byte(p.says(t, "msg=serving")), []byte("debug="))
	url, _, _ := bytes.Cut(rest, []byte("/debug"))
	return string(url)
}

// Clients move money while servers are killed, one after the other. In the end nothing is missing, what was acknowledged is there, what was
// refused is not, and nothing is there by halves.
func TestNoMoneyIsLostWhileServersAreKilled(t *testing.T) {
	const clients, kills = 6, 6
	b := startBankWith(t, func(_ *bank, cfg *Config) { cfg.FailoverWait = Duration{time.Minute} }, 50, 50)
	b.accounts(t)
	var mu sync.Mutex
	acknowledged, refused, unknown := map[string]int{}, map[string]bool{}, map[string]bool{}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			var conn *pgx.Conn
			for n := 0; ; n++ {
				select {
				case <-stop:
					if conn != nil {
						conn.Close(context.Background())
					}
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				var err error
				if conn == nil || conn.IsClosed() {
					if conn, err = pgx.Connect(ctx, b.node.dsn(appPassword)); err != nil {
						conn = nil
						cancel()
						continue
					}
				}
				id, amount := fmt.Sprintf("client %d, %d", client, n), rand.IntN(20)-10
				err = transfer(ctx, conn, amount, pgx.QueryExecModeExec, id)
				cancel()
				mu.Lock()
				switch state := sqlstate(err); {
				case err == nil:
					acknowledged[id] = amount
				case state == pg.CodeTransactionResolutionUnknown || conn.IsClosed() || errors.Is(err, context.DeadlineExceeded):
					unknown[id] = true
				default:
					refused[id] = true
				}
				mu.Unlock()
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acknowledged)
	}
	for i := range kills {
		before := count()
		pgtest.Eventually(t, time.Minute, func() error { // they are at it
			if n := count(); n < before+10 {
				return fmt.Errorf("%d transfers since the last kill", n-before)
			}
			return nil
		})
		s := b.servers[i%2]
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	b.clean(t)

	x, y := b.on(t, 0, "SELECT balance FROM accounts WHERE id = $1", here)[0], b.on(t, 1, "SELECT balance FROM accounts WHERE id = $1", there)[0]
	if x+y != 2*opening {
		t.Errorf("the accounts have %d and %d, and had %d in all", x, y, 2*opening)
	}
	present := [2]map[string]bool{{}, {}}
	for i := range b.servers {
		conn, err := b.servers[i].ConnTo(t.Context(), "app", "")
		if err != nil {
			t.Fatal(err)
		}
		rows, err := conn.Query(t.Context(), "SELECT id FROM transfers")
		if err != nil {
			t.Fatal(err)
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			present[i][id] = true
		}
		conn.Close(t.Context())
	}
	for id := range acknowledged {
		if !present[0][id] || !present[1][id] {
			t.Errorf("%s: acknowledged, and there on shard_1: %v, shard_2: %v", id, present[0][id], present[1][id])
		}
	}
	for id := range refused {
		if present[0][id] || present[1][id] {
			t.Errorf("%s: refused, and there on shard_1: %v, shard_2: %v", id, present[0][id], present[1][id])
		}
	}
	for id := range unknown {
		if present[0][id] != present[1][id] {
			t.Errorf("%s: there by halves: %v and %v", id, present[0][id], present[1][id])
		}
	}
	t.Log(strconv.Itoa(len(acknowledged)) + " acknowledged, " + strconv.Itoa(len(refused)) + " refused, " + strconv.Itoa(len(unknown)) + " unknown")
}
