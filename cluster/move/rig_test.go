package move

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// book is a ledger in memory.
type book struct {
	// guarded by mu
	mu     sync.Mutex
	o      *rib.Ownership
	index  uint64
	told   []string // what became of moves, in turn
	refuse func(what string) error
	leader uint64

	pinned bool                   // constant: owner is of a range that stays
	owner  atomic.Pointer[string] // of the range that moves
}

var errNoMove = errors.New("there is no such move")

func newBook(ks *rib.Keyspace) *book {
	return &book{o: &rib.Ownership{Keyspaces: []rib.Keyspace{*ks}, Epoch: rib.Epoch{Generation: 1, Index: 1}}, index: 1, leader: 1}
}

func (b *book) owners() *rib.Ownership {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.o
}

func (b *book) leads() (uint64, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.leader, b.leader > 0
}

// change changes a copy of the table.
func (b *book) change(what string, f func(o *rib.Ownership) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		if err := b.refuse(what); err != nil {
			return err
		}
	}
	next := *b.o
	next.Moves = slices.Clone(next.Moves)
	next.Keyspaces = slices.Clone(next.Keyspaces)
	b.index++
	next.Epoch.Index = b.index
	if err := f(&next); err != nil {
		return err
	}
	b.o = &next
	return nil
}

func (b *book) move(what string, id uint64, f func(o *rib.Ownership, m *rib.Move) error) error {
	return b.change(what, func(o *rib.Ownership) error {
		m := o.Move(id)
		if m == nil {
			return errNoMove
		}
		return f(o, m)
	})
}

func (b *book) start(low, high rib.Key, from, to string) (id uint64) {
	_ = b.change("start", func(o *rib.Ownership) error {
		id = b.index
		if !b.pinned {
			b.owner.Store(&from)
		}
		o.Moves = append(o.Moves, rib.Move{ID: id, Keyspace: o.Keyspaces[0].ID, Low: low, High: high, From: from, To: to, Phase: rib.MovePrepare, Epoch: o.Epoch})
		return nil
	})
	return id
}

func (b *book) AdvanceMove(_ context.Context, id uint64, from, to rib.MovePhase, note []byte) error {
	return b.move("advance "+to.String(), id, func(o *rib.Ownership, m *rib.Move) error {
		if m.Phase != from {
			return fmt.Errorf("the move is in phase %s", m.Phase)
		}
		m.Phase, m.Note, m.Epoch = to, note, o.Epoch
		if to == rib.MoveFlipped {
			b.told = append(b.told, "flipped")
			if !b.pinned {
				b.owner.Store(&m.To)
			}
		}
		return nil
	})
}

func (b *book) ThawMove(_ context.Context, id uint64, reason string, note []byte) error {
	return b.move("thaw", id, func(o *rib.Ownership, m *rib.Move) error {
		if m.Phase != rib.MoveFrozen {
			return fmt.Errorf("the move is in phase %s", m.Phase)
		}
		m.Phase, m.Note, m.Epoch = rib.MovePrepare, note, o.Epoch
		b.told = append(b.told, "thawed: "+reason)
		return nil
	})
}

func (b *book) NoteMove(_ context.Context, id uint64, note []byte) error {
	return b.move("note", id, func(_ *rib.Ownership, m *rib.Move) error {
		m.Note = note
		return nil
	})
}

func (b *book) AbortMove(_ context.Context, id uint64, reason string) error {
	return b.move("abort", id, func(o *rib.Ownership, m *rib.Move) error {
		if !m.Phase.Ahead() {
			return fmt.Errorf("the move is in phase %s", m.Phase)
		}
		m.Phase, m.Why, m.Epoch = rib.MoveAborted, reason, o.Epoch
		b.told = append(b.told, "aborted: "+reason)
		return nil
	})
}

func (b *book) FinishMove(_ context.Context, id uint64) error {
	return b.move("finish", id, func(o *rib.Ownership, _ *rib.Move) error {
		o.Moves = slices.DeleteFunc(o.Moves, func(m rib.Move) bool { return m.ID == id })
		return nil
	})
}

// became is what became of moves so far.
func (b *book) became() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.told)
}

// everybody knows everything at once.
type everybody struct{}

func (everybody) Undrained(uint64) []string       { return nil }
func (everybody) Unaware(uint64) []string         { return nil }
func (everybody) Acknowledged(rib.Epoch) []string { return nil }

// shard is a primary and its replica.
type shard struct {
	primary, replica *pgtest.Server
}

// rig is two shards and one keyspace over them.
type rig struct {
	t      *testing.T
	ks     *rib.Keyspace
	book   *book
	config PostgresConfig

	// guarded by mu
	mu     sync.Mutex
	shards map[string]*shard
}

// schema is what both shards have.
const schema = `
CREATE TABLE orders (customer_id bigint NOT NULL, id bigserial, note text, amount numeric, doubled numeric GENERATED ALWAYS AS (amount * 2) STORED, at timestamptz DEFAULT now(),
	blob bytea, tags text[], PRIMARY KEY (customer_id, id));
CREATE TABLE "Order Lines" (customer_id bigint NOT NULL, order_id bigint NOT NULL, line int NOT NULL, what text, price float8, PRIMARY KEY (customer_id, order_id, line),
	FOREIGN KEY (customer_id, order_id) REFERENCES orders (customer_id, id) ON DELETE CASCADE);
CREATE TABLE nothing (customer_id bigint PRIMARY KEY, x int)`

// newRig starts the servers. Customers are all on shard_1 at first, whose range ends in the middle.
func newRig(t *testing.T, replicas bool) *rig {
	t.Helper()
	r := startRig(t, replicas, pgtest.Options{}, schema)
	r.of(&rib.Keyspace{ID: 1, Name: "app.orders", Database: "postgres", Method: "hash", Types: []rib.Type{rib.TypeBigint}, Ranges: rib.EvenRanges([]string{"shard_1", "shard_2"}),
		Tables: []rib.KeyedTable{{Schema: "public", Name: "orders", Columns: []string{"customer_id"}}, {Schema: "public", Name: "Order Lines", Columns: []string{"customer_id"}},
			{Schema: "public", Name: "nothing", Columns: []string{"customer_id"}}}})
	return r
}

// of has the rig be of a keyspace, whose moving range shard_1 has.
func (r *rig) of(ks *rib.Keyspace) {
	first := "shard_1"
	r.ks, r.book = ks, newBook(ks)
	r.book.owner.Store(&first)
}

// startRig starts the servers, with tables of some keyspace.
func startRig(t *testing.T, replicas bool, o pgtest.Options, schema string) *rig {
	t.Helper()
	r := &rig{t: t, shards: map[string]*shard{}}
	var wg sync.WaitGroup
	for _, name := range []string{"shard_1", "shard_2"} {
		s := &shard{}
		r.shards[name] = s
		wg.Go(func() {
			named := o
			named.Name = name
			s.primary = pgtest.NewPrimary(t, named)
			if err := s.primary.Exec(t.Context(), schema); err != nil {
				t.Error(err)
			}
			if replicas {
				s.replica = pgtest.NewReplica(t, s.primary, pgtest.Options{Name: name + "_replica"})
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	r.config = PostgresConfig{Primary: r.primary, Rate: 256 << 20}
	if replicas {
		r.config.Replicas = func(ctx context.Context, name, _ string) ([]*pgx.Conn, error) {
			if r.at(name).replica == nil {
				return nil, nil
			}
			conn, err := r.at(name).replica.Conn(ctx)
			return []*pgx.Conn{conn}, err
		}
	}
	return r
}

func (r *rig) at(name string) *shard {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := *r.shards[name]
	return &s
}

func (r *rig) primary(ctx context.Context, name, _ string) (*pgx.Conn, error) {
	return r.at(name).primary.Conn(ctx)
}

// connect opens a connection to a shard's primary and has it run statements.
func (r *rig) connect(name string, sql ...string) *pgx.Conn {
	r.t.Helper()
	conn, err := r.primary(r.t.Context(), name, "")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { hangUp(conn) })
	if len(sql) > 0 {
		if err := script(r.t.Context(), conn, sql...); err != nil {
			r.t.Fatal(err)
		}
	}
	return conn
}

// insertSQL writes one row of a range to table nothing, past all nodes.
func (r *rig) insertSQL(low, high rib.Key) string {
	return "INSERT INTO nothing SELECT c, 4711 FROM generate_series(1000, 1100) AS c WHERE " + strings.ReplaceAll(r.where(low, high), "customer_id", "c") + " LIMIT 1"
}

// promote has a shard's replica take over from its primary, which is killed.
func (r *rig) promote(name string) {
	r.t.Helper()
	s := r.at(name)
	if err := s.primary.Kill(); err != nil {
		r.t.Fatal(err)
	}
	if err := s.replica.Promote(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shards[name] = &shard{primary: s.replica}
}

// fill gives the first shard customers with orders and lines.
func (r *rig) fill(customers int) {
	r.t.Helper()
	hash, _ := rib.MethodByName("hash")
	mine := hash.Predicate([]string{"c"}, r.ks.Types, r.ks.Ranges[0].From, r.ks.Ranges[0].To)
	err := r.at("shard_1").primary.Exec(r.t.Context(),
		fmt.Sprintf(`INSERT INTO orders (customer_id, note, amount, blob, tags) SELECT c, CASE WHEN c %% 7 = 0 THEN NULL ELSE E'a\tb\\c\n' || c END, c * 1.25,
			CASE WHEN c %% 50 = 0 THEN decode(repeat(md5(c::text), 5000), 'hex') END, CASE WHEN c %% 3 = 0 THEN ARRAY['x', NULL, 'y"z'] END FROM generate_series(1, %d) AS c WHERE %s`, customers, mine),
		`INSERT INTO "Order Lines" SELECT customer_id, id, n, 'thing ' || n, random() FROM orders, generate_series(1, 3) AS n`)
	if err != nil {
		r.t.Fatal(err)
	}
}

// query reads one text of a shard's primary.
func (r *rig) query(name, sql string) string {
	r.t.Helper()
	conn, err := r.at(name).primary.Conn(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close(r.t.Context())
	var v *string
	if err := conn.QueryRow(r.t.Context(), sql, pgx.QueryExecModeSimpleProtocol).Scan(&v); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
	if v == nil {
		return ""
	}
	return *v
}

// rowsOf is all that a shard holds of the keyspace, as one text.
func (r *rig) rowsOf(name string) string {
	return r.query(name, `SELECT md5(string_agg(x, E'\n' ORDER BY x)) || ' ' || count(*) FROM (SELECT 'o' || o::text AS x FROM orders AS o UNION ALL SELECT 'l' || l::text FROM "Order Lines" AS l UNION ALL SELECT 'n' || n::text FROM nothing AS n) AS a`)
}

// catalogs is all that a move makes on a shard and has to remove.
func (r *rig) catalogs(name string) string {
	return r.query(name, `SELECT concat_ws('; ',
		(SELECT string_agg(slot_name, ',') FROM pg_replication_slots WHERE slot_type = 'logical'), (SELECT string_agg(pubname, ',') FROM pg_publication), (SELECT string_agg(subname, ',') FROM pg_subscription),
		(SELECT string_agg(roname, ',') FROM pg_replication_origin), (SELECT string_agg(tgname, ',' ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal), (SELECT string_agg(evtname, ',') FROM pg_event_trigger),
		(SELECT string_agg(proname, ',') FROM pg_proc WHERE pronamespace = to_regnamespace('rangefinder')),
		(SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = to_regnamespace('rangefinder') AND relkind = 'r' AND relname NOT IN ('fence', 'mark', 'still', 'leader')))`) + r.own(name)
}

// own are a move's own rows on a shard.
func (r *rig) own(name string) string {
	if r.query(name, "SELECT to_regclass('rangefinder.fence')::text") == "" {
		return ""
	}
	return r.query(name, `SELECT concat((SELECT string_agg(f::text, ',') FROM rangefinder.fence AS f), (SELECT string_agg(f::text, ',') FROM rangefinder.mark AS f), (SELECT string_agg(f::text, ',') FROM rangefinder.still AS f))`)
}

// clean fails the test if anything of a move is left on a shard.
func (r *rig) clean() {
	r.t.Helper()
	for name := range r.shards {
		if left := r.catalogs(name); left != "" {
			r.t.Errorf("shard %s still has %s", name, left)
		}
	}
}

// mover starts a mover over the real servers.
func (r *rig) mover(with func(*Config)) *Mover {
	servers := NewPostgres(r.config)
	r.t.Cleanup(servers.Close)
	cfg := Config{Logger: slog.New(slog.NewTextHandler(r.t.Output(), nil)), Ledger: r.book, Leases: everybody{}, Servers: servers, Owners: r.book.owners, Leads: r.book.leads, Every: 10 * time.Millisecond, Retry: 50 * time.Millisecond, Round: 50 * time.Millisecond, Late: 100 * time.Millisecond}
	if with != nil {
		with(&cfg)
	}
	m := New(cfg)
	m.Open()
	r.t.Cleanup(m.Close)
	return m
}

// over waits until a move is out of the table.
func (r *rig) over(id uint64, m *Mover) {
	r.t.Helper()
	pgtest.Eventually(r.t, 3*time.Minute, func() error {
		if r.book.owners().Move(id) != nil {
			return fmt.Errorf("the move is not over: %+v", m.Status())
		}
		return nil
	})
}

// quarter is the first half of shard_1's range.
func (r *rig) quarter() (low, high rib.Key) {
	return nil, rib.Key{0x40, 0, 0, 0, 0, 0, 0, 0}
}

// where is the condition for the rows of an interval.
func (r *rig) where(low, high rib.Key) string {
	hash, _ := rib.MethodByName("hash")
	return hash.Predicate([]string{"customer_id"}, r.ks.Types, low, high)
}

// as connects to one shard as another user than to the others.
func (r *rig) as(name, user string) func(context.Context, string, string) (*pgx.Conn, error) {
	return func(ctx context.Context, shard, database string) (*pgx.Conn, error) {
		if shard != name {
			return r.primary(ctx, shard, database)
		}
		return r.at(shard).primary.ConnTo(ctx, database, user)
	}
}
