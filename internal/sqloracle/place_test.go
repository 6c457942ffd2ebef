package sqloracle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/internal/program"
)

const (
	database = "app"
	user     = "app"
	watcher  = "watch" // the node's own
	password = "secret of app"
	patience = 60 * time.Second
)

// place is the plain server and, behind relays and a node, the shards.
type place struct {
	// constant
	plain  *pgtest.Server
	shards [shards]*pgtest.Server
	relays [shards]*relay
	dsn    [2]string // of the plain server and of the node
	http   string    // of the node
	log    string    // file
	node   *program.Process
	types  [2]map[uint32]string // names of the types whose numbers differ between the plain server and the shards

	// owned by the running test
	admin []*pgx.Conn // superusers, of the plain server and of each shard
}

// newPlace makes the servers and the node, which end with the test.
func newPlace(t *testing.T) *place {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	p := &place{types: [2]map[uint32]string{{}, {}}, admin: make([]*pgx.Conn, shards+1)}
	farm, dir := pgtest.Shared(t), t.TempDir()
	var wg sync.WaitGroup
	var errs [shards + 2]error
	var binary string
	wg.Go(func() { binary, errs[shards+1] = build(ctx, dir) })
	for i := range shards + 1 {
		name := fmt.Sprintf("shard_%d", i)
		if i == 0 {
			name = "plain"
		}
		s := pgtest.NewPrimary(t, pgtest.Options{Name: name, Params: map[string]string{"max_prepared_transactions": "50", "timezone": "UTC", "log_min_messages": "fatal"}})
		if i == 0 {
			p.plain = s
		} else {
			p.shards[i-1] = s
		}
		wg.Go(func() { errs[i] = p.fill(ctx, s, i) })
	}
	wg.Wait()
	t.Cleanup(func() {
		for _, c := range p.admin {
			if c != nil {
				c.Close(context.Background())
			}
		}
	})
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	for i, c := range p.admin[:2] {
		rows, err := c.Query(ctx, "SELECT oid, typname FROM pg_type WHERE oid >= 16384")
		if err != nil {
			t.Fatal(err)
		}
		var oid uint32
		var name string
		if _, err := pgx.ForEachRow(rows, []any{&oid, &name}, func() error {
			p.types[i][oid] = name
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range p.shards {
		r, err := newRelay(s.Addr(), user)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.close)
		p.relays[i] = r
	}
	p.startNode(t, farm, binary, dir)
	return p
}

// fill makes the database, its tables and their rows: of shard n, or with 0 all of them. Types and tables have other numbers on each server.
func (p *place) fill(ctx context.Context, s *pgtest.Server, n int) error {
	err := s.Exec(ctx, "CREATE DATABASE app TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'",
		"CREATE ROLE "+watcher+" SUPERUSER LOGIN", "CREATE ROLE "+user+" LOGIN")
	if err != nil {
		return err
	}
	if p.admin[n], err = s.ConnTo(ctx, database, ""); err != nil {
		return err
	}
	text := functions
	for i := range 5 * n {
		text += fmt.Sprintf("CREATE TYPE base.dummy_%d AS ENUM ();", i)
	}
	text += schema
	for _, r := range rows {
		text += filled(r.table, r.sql, n)
	}
	text += "GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON SCHEMA public TO app; ANALYZE"
	if _, err = p.admin[n].PgConn().Exec(ctx, text).ReadAll(); err != nil {
		return fmt.Errorf("%s: %w", s.Name(), err)
	}
	return nil
}

// build builds the binary as this test was built: under the race detector it has one too.
func build(ctx context.Context, dir string) (string, error) {
	if raceDetector {
		return program.Build(ctx, dir, "-race")
	}
	return program.Build(ctx, dir)
}

// startNode starts a node before the relays, and makes the keyspaces.
func (p *place) startNode(t *testing.T, farm *pgtest.Farm, binary, dir string) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, `
region = "here"
data_dir = %q
ports = { postgres = 0, cluster = 0, http = 0 }
log = { format = "json" }
probe = { user = %[2]q, password_env = "APP_PASSWORD", interval = "200ms" }
admin = { user = %[2]q, password_env = "APP_PASSWORD" }
databases = [{ name = "app", shard = "shard_1", cross_shard_writes = "2pc" }]
users = [{ name = %[3]q, password_env = "APP_PASSWORD" }]
`, filepath.Join(dir, "data"), watcher, user)
	for i, r := range p.relays {
		fmt.Fprintf(&b, "[[backends]]\nname = \"db_%[1]d\"\nshard = \"shard_%[1]d\"\naddress = %[2]q\n", i+1, r.ln.Addr())
	}
	config := filepath.Join(dir, "node.toml")
	if err := os.WriteFile(config, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(farm.Dir(), "node")
	if err := os.MkdirAll(own, 0o700); err != nil {
		t.Fatal(err)
	}
	p.log = filepath.Join(own, "log")
	var err error
	if p.node, err = program.Launch(farm, own, program.User{}, []string{"APP_PASSWORD=" + password}, binary, "start", "--config", config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stopNode(t) })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var postgres string
	err = p.node.Until(ctx, func() error {
		text, err := os.ReadFile(p.log)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			var record struct{ Msg, Postgres, Debug string }
			if json.Unmarshal([]byte(line), &record) == nil && record.Msg == "serving" {
				postgres, p.http = record.Postgres, strings.TrimSuffix(record.Debug, "/debug")
				return nil
			}
		}
		return errors.New("it does not serve yet")
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, addr := range []string{p.plain.Addr(), postgres} {
		u := url.URL{Scheme: "postgres", Host: addr, Path: "/" + database, User: url.UserPassword(user, password), RawQuery: "sslmode=disable"}
		p.dsn[i] = u.String()
	}
	for _, spec := range keyspaces {
		pgtest.Eventually(t, patience, func() error { // the shards may not have been seen yet
			if answer, err := p.call(http.MethodPost, "/api/v1/keyspaces", spec); err != nil && !strings.Contains(answer, "already") {
				return fmt.Errorf("%w: %s", err, answer)
			}
			return nil
		})
	}
	for _, sql := range []string{"DELETE FROM customers WHERE customer_id = 1", "DELETE FROM readings WHERE device = 1", "DELETE FROM stock WHERE region = 'de'", "DELETE FROM accounts WHERE name = 'ann'"} {
		pgtest.Eventually(t, patience, func() error {
			answer, err := p.call(http.MethodGet, "/debug/route?sql="+url.QueryEscape(sql), "")
			if err != nil {
				return err
			}
			var route struct {
				Keyspace   string
				Candidates []struct{ Healthy bool }
			}
			if err := json.Unmarshal([]byte(answer), &route); err != nil {
				return err
			}
			if route.Keyspace == "" || len(route.Candidates) != 1 || !route.Candidates[0].Healthy {
				return fmt.Errorf("the node does not route by the keyspace yet: %s", answer)
			}
			return nil
		})
	}
}

// stopNode ends the node, which must end well, with nothing in its log that must not be there.
func (p *place) stopNode(t *testing.T) {
	if code := p.node.Stop(syscall.SIGINT); code != 0 {
		t.Errorf("the node did not end well: exit code %d", code)
	}
	text, _ := os.ReadFile(p.log)
	for _, bad := range []string{"DATA RACE", "panic", password} {
		if at := strings.Index(string(text), bad); at >= 0 {
			t.Errorf("%q is in the node's log:\n%s", bad, text[max(0, at-500):min(len(text), at+4000)])
		}
	}
	if !t.Failed() {
		return
	}
	said := map[string]int{}
	for line := range strings.Lines(string(text)) {
		if _, what, _ := strings.Cut(line, `,"level":`); !strings.HasPrefix(what, `"INFO"`) {
			said[what]++
		}
	}
	for what, n := range said {
		t.Logf("the node says %d times: %s", n, what)
	}
}

// call asks the node's HTTP port.
func (p *place) call(method, path, body string) (answer string, err error) {
	req, err := http.NewRequest(method, p.http+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = errors.New(resp.Status)
	}
	return string(text), err
}

// reset gives tables the rows that they began with, on all servers.
func (p *place) reset(ctx context.Context, tables ...string) error {
	text := ""
	for _, table := range tables {
		text += fmt.Sprintf("DELETE FROM public.%[1]s; INSERT INTO public.%[1]s SELECT * FROM base.%[1]s;", table)
	}
	return p.everywhere(func(_ int, c *pgx.Conn) error {
		_, err := c.PgConn().Exec(ctx, text).ReadAll()
		return err
	})
}

// everywhere does something on all servers at once; 0 is the plain one.
func (p *place) everywhere(do func(n int, c *pgx.Conn) error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(p.admin))
	for n, c := range p.admin {
		wg.Go(func() { errs[n] = do(n, c) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// compareTables says how the rows of the shards together differ from those of the plain server, and which are not where they belong;
// "" if all is well.
func (p *place) compareTables(ctx context.Context, tables ...string) (wrong string, err error) {
	var mu sync.Mutex
	count := map[string]int{}
	err = p.everywhere(func(n int, c *pgx.Conn) error {
		var parts []string
		for _, table := range tables {
			copies := owner[table] == "{all}"
			here, places := "true", "(VALUES ('')) p (place)"
			switch {
			case n > 0 && copies:
				places = fmt.Sprintf("(VALUES (' on shard_%d')) p (place)", n)
			case copies:
				places = "(SELECT ' on shard_' || generate_series(1, 3)) p (place)"
			case n > 0:
				here = fmt.Sprintf("coalesce(%s = %d, false)", owning(owner[table]), n)
			}
			parts = append(parts, fmt.Sprintf("SELECT '%[1]s ' || t::text || place, %[2]s FROM public.%[1]s t, %[3]s", table, here, places))
		}
		results, err := c.PgConn().Exec(ctx, strings.Join(parts, " UNION ALL ")).ReadAll()
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, row := range results[0].Rows {
			if n == 0 {
				count[string(row[0])]++
			} else {
				count[string(row[0])]--
			}
			if string(row[1]) != "t" {
				wrong += fmt.Sprintf("%s is on shard_%d, which does not own it\n", row[0], n)
			}
		}
		return nil
	})
	for _, row := range slices.Sorted(maps.Keys(count)) {
		switch n := count[row]; {
		case n > 0:
			wrong += fmt.Sprintf("%s is missing %d times\n", row, n)
		case n < 0:
			wrong += fmt.Sprintf("%s is there %d times too often\n", row, -n)
		}
	}
	return wrong, err
}

// touched is how many statements each shard has been asked so far.
func (p *place) touched() (n [shards]int64) {
	for i, r := range p.relays {
		n[i] = r.statements.Load()
	}
	return n
}
