package move

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Copy has the target hold all rows of the range, and begin to follow what is written to them at the source. The slot comes first: what it
// exports is the snapshot that is copied, and what it streams is all that was committed after that. The fences come last: every write to a table
// pays for one.
func (p *Postgres) Copy(ctx context.Context, j *Job, report func(Copied)) (id Identity, err error) {
	p.drop(j.Move.ID)
	began := *j
	began.Identity = Identity{}
	err = p.with(ctx, &began, func(l *link) error {
		if id, err = identify(ctx, l.source, l.target); err != nil {
			return err
		}
		var before, also bool
		if err := beside(func() error {
			return ask(ctx, l.source, question{sql: presentSQL, args: []string{number(j), sideSource}, answer: one(&before)})
		}, func() error {
			return ask(ctx, l.target, question{sql: presentSQL, args: []string{number(j), sideTarget}, answer: one(&also)})
		}); err != nil {
			return err
		}
		if err := p.rowsOf(ctx, l, j); err != nil {
			return err
		}
		if before || also {
			if err := p.wipe(ctx, l, j); err != nil {
				return err
			}
		}
		there, err := p.guard(ctx, l, j)
		if err != nil {
			return err
		}
		if err := p.publishable(ctx, l, j); err != nil {
			return err
		}
		if err := publish(ctx, l, j); err != nil {
			return err
		}
		holder, snapshot, err := p.slot(ctx, l, j, report)
		if err != nil {
			return err
		}
		defer hangUp(holder)
		if err := guarded(ctx, l.source, j, sideSource, l.tables); err != nil {
			return err
		}
		if err := p.unchanged(ctx, l, j); err != nil {
			return err
		}
		if err := p.subscribe(ctx, l, j); err != nil {
			return err
		}
		c := &copier{p: p, j: j, l: l, snapshot: snapshot, seed: maphash.MakeSeed(), pace: &pace{rate: p.cfg.Rate}, report: report, sums: make([]sum, len(l.tables))}
		if err := c.copy(ctx, holder); err != nil {
			return err
		}
		if err := c.compare(ctx, there); err != nil {
			return err
		}
		if err := deposed(script(ctx, l.target, heldSQL(j, sideTarget), "ALTER SUBSCRIPTION "+slotName(j)+" ENABLE")); err != nil {
			return err
		}
		return c.fence(ctx, sideSource, l.tables)
	})
	return id, err
}

// wipe removes what an earlier try has left, but for the rows that claim the move. What another leader still does is ended first: it may be about to remove what this one makes.
func (p *Postgres) wipe(ctx context.Context, l *link, j *Job) error {
	err := beside(func() error { return alone(ctx, l.source, j) }, func() error { return alone(ctx, l.target, j) })
	if err == nil {
		err = unsubscribe(ctx, l.target, j)
	}
	if err == nil {
		err = unpublish(ctx, l.source, j)
	}
	var copies bool
	if err == nil {
		copies, err = holdsCopies(ctx, l.target, j)
	}
	if err == nil && copies {
		err = p.shield(ctx, l.target, j)
		if err == nil {
			err = p.deleteRows(ctx, l.target, j, sideTarget, func(Copied) {})
		}
		if err == nil {
			err = deposed(script(ctx, l.target, heldSQL(j, sideTarget), stateSQL(j, sideTarget, stateEmpty)))
		}
	}
	for _, side := range []string{sideSource, sideTarget} {
		if err == nil {
			err = p.unguard(ctx, l.on(side), j, side, allGuards)
		}
	}
	return err
}

// slot makes the two slots, and the snapshot that is as old as they are, which the holder's transaction has until it ends. A slot can begin only when the
// transactions that were there before it are over: who is waited for is reported.
func (p *Postgres) slot(ctx context.Context, l *link, j *Job, report func(Copied)) (holder *pgx.Conn, snapshot string, err error) {
	if err := held(ctx, l.source, j, sideSource); err != nil {
		return nil, "", err
	}
	c := l.source.Config().Config.Copy()
	c.RuntimeParams["replication"] = "database"
	limited, cancel := context.WithTimeout(ctx, p.cfg.LockWait)
	defer cancel()
	conn, err := pgconn.ConnectConfig(limited, c)
	if err != nil {
		return nil, "", err
	}
	defer closeSlot(conn)
	told := p.tellBefore(ctx, l, j, conn.PID(), report)
	results, err := conn.Exec(limited, fmt.Sprintf("CREATE_REPLICATION_SLOT %s LOGICAL pgoutput (SNAPSHOT 'export')", slotName(j))).ReadAll()
	told()
	if err == nil && (len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 3) {
		err = errors.New("the answer to CREATE_REPLICATION_SLOT is not understood")
	}
	if err != nil {
		if limited.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("shard %s: transactions that were open before the copy have not ended in %s: end them (pg_stat_activity, pg_prepared_xacts), or wait: %w", j.Move.From, p.cfg.LockWait, err)
		}
		return nil, "", err
	}
	snapshot = string(results[0].Rows[0][2])
	// The second one is of the same moment. From it is read what has to be compared.
	if _, err = l.source.Exec(ctx, "SELECT pg_copy_logical_replication_slot($1, $2)", pgx.QueryExecModeExec, slotName(j), trackName(j)); err == nil {
		err = held(ctx, l.source, j, sideSource)
	}
	if err != nil {
		return nil, "", errors.Join(err, p.unslot(ctx, j))
	}
	return p.hold(ctx, j, snapshot)
}

// unslot removes slots that were made when the move was over. No transaction can hold its row while a slot is made: a newer leader removes what it finds, but not when it
// is done, and it may have ended the connections of this one.
func (p *Postgres) unslot(ctx context.Context, j *Job) error {
	conn, err := p.connect(ctx, j, j.Move.From)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	if there, err := present(ctx, conn, j, sideSource); err != nil || there {
		return err
	}
	return unpublish(ctx, conn, j)
}

// beforeSQL tells for whom a process waits that makes a slot, or will wait, a line each: such transactions may be of another database, and use no table of the keyspace. It
// waits for one after the other, so what is prepared is told of beforehand.
const beforeSQL = `SELECT '', format('a transaction of user %I has been open for %s s (process %s)', a.usename, extract(epoch FROM clock_timestamp() - a.xact_start)::int, a.pid)
	|| CASE WHEN a.state LIKE 'idle%' THEN ', and waits for its client' ELSE '' END FROM pg_stat_activity AS a WHERE a.pid = ANY(pg_blocking_pids($1))
UNION ALL SELECT CASE WHEN p.database = current_database() THEN p.gid ELSE '' END,
	format('transaction %s, in database %I, has been prepared for %s s and was not ended', quote_literal(p.gid), p.database, extract(epoch FROM clock_timestamp() - p.prepared)::int)
	FROM pg_prepared_xacts AS p WHERE p.prepared < clock_timestamp() - $2::float8 * interval '1 second'`

// tellBefore reports now and then for whom a process waits that makes a slot, until the function is called that it returns. What was decided about a prepared transaction
// is done.
func (p *Postgres) tellBefore(ctx context.Context, l *link, j *Job, pid uint32, report func(Copied)) (stop func()) {
	watching, cancel := context.WithCancel(ctx)
	began, told, done := time.Now(), false, make(chan struct{})
	go func() {
		defer close(done)
		for sleep(watching, tellAfter/3) == nil {
			var gids, whose []string
			var gid, who string
			rows, err := l.source.Query(ctx, beforeSQL, pgx.QueryExecModeExec, int32(pid), settleAfter.Seconds())
			if err == nil {
				_, err = pgx.ForEachRow(rows, []any{&gid, &who}, func() error {
					whose = append(whose, who)
					if gid != "" {
						gids = append(gids, gid)
					}
					return nil
				})
			}
			if err != nil {
				return // whoever uses the connection next will hear of it
			}
			if len(whose) > 0 && time.Since(began) >= tellAfter {
				told = true
				report(Copied{Waits: fmt.Sprintf("shard %s: the copy waits for what was open there before it, for %s more: %s", j.Move.From, max(0, p.cfg.LockWait-time.Since(began)).Round(time.Second), strings.Join(whose, "; "))})
			}
			if len(gids) > 0 && p.cfg.Settle != nil {
				_ = p.cfg.Settle(ctx, j.Move.From, gids) // of those that are left it is told
			}
		}
	}()
	return func() {
		cancel()
		<-done
		if told {
			report(Copied{})
		}
	}
}

// hold takes a snapshot of the source over, for whoever has exported it is a walsender: as long as there is one, every commit wakes it.
func (p *Postgres) hold(ctx context.Context, j *Job, of string) (holder *pgx.Conn, snapshot string, err error) {
	if holder, err = p.connect(ctx, j, j.Move.From); err != nil {
		return nil, "", err
	}
	results, err := holder.PgConn().Exec(ctx, snapshotSQL(of)+"; SELECT pg_export_snapshot()").ReadAll()
	if row, ok := lastRow(results); err == nil && ok {
		return holder, string(row[0]), nil
	}
	hangUp(holder)
	return nil, "", fmt.Errorf("shard %s: the snapshot that is to be copied cannot be held: %w", j.Move.From, cmp.Or(err, errNoRow))
}

var errNoRow = errors.New("the server answers without a row")

// snapshotSQL begins a transaction that sees what a snapshot does.
func snapshotSQL(snapshot string) string {
	return "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT " + quote(snapshot)
}

func closeSlot(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// sum is what rows come to, whatever their order.
type sum struct {
	rows  int64
	bytes int64
	hash  uint64
}

func (s *sum) add(o sum) {
	s.rows += o.rows
	s.bytes += o.bytes
	s.hash += o.hash
}

// lines adds up the lines of a COPY, and slows it down.
type lines struct {
	ctx  context.Context
	seed maphash.Seed
	pace *pace
	to   io.Writer // nil: nowhere
	sum  sum
	rest []byte // of a line that is not whole
}

func (l *lines) Write(b []byte) (int, error) {
	if err := l.pace.wait(l.ctx, int64(len(b))); err != nil {
		return 0, err
	}
	l.sum.bytes += int64(len(b))
	for rest := b; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			l.rest = append(l.rest, rest...)
			break
		}
		line := rest[:end+1]
		if len(l.rest) > 0 {
			line = append(l.rest, line...)
		}
		l.sum.hash += maphash.Bytes(l.seed, line)
		l.sum.rows++
		l.rest, rest = l.rest[:0], rest[end+1:]
	}
	if l.to == nil {
		return len(b), nil
	}
	return l.to.Write(b)
}

// pace bounds how many bytes go by in a second.
type pace struct {
	rate int64

	// guarded by mu
	mu   sync.Mutex
	next time.Time
}

// burst is what may go by at a stroke after a pause.
const burst = 100 * time.Millisecond

func (p *pace) wait(ctx context.Context, n int64) error {
	p.mu.Lock()
	now := time.Now()
	if earliest := now.Add(-burst); p.next.Before(earliest) {
		p.next = earliest
	}
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	d := p.next.Sub(now)
	p.mu.Unlock()
	if d <= 0 {
		return nil
	}
	return sleep(ctx, d)
}

// copier is one copy.
type copier struct {
	// constant
	p        *Postgres
	j        *Job
	l        *link
	snapshot string
	seed     maphash.Seed
	pace     *pace
	report   func(Copied)

	// guarded by mu
	mu    sync.Mutex
	sums  []sum // by table
	done  int   // windows
	total int
	told  Copied
}

// piece is one window of one table.
type piece struct {
	table  int
	window window
}

// The parts of the whole that copying and comparing make up.
const copyPart = 0.7

func (c *copier) tell(table int, s sum, from, to float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if table >= 0 {
		c.sums[table].add(s)
	}
	c.done++
	var all Copied
	for i := range c.sums {
		all.Rows += c.sums[i].rows
		all.Bytes += c.sums[i].bytes
	}
	all.Part = from + (to-from)*float64(c.done)/float64(max(c.total, 1))
	c.told = all
	c.report(all)
}

// waits tells for what the copy waits.
func (c *copier) waits(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told.Waits = what
	c.report(c.told)
}

// pieces cuts the tables into windows.
func pieces(ctx context.Context, conn querier, tables []table) (all []piece, err error) {
	for i := range tables {
		list, err := windows(ctx, conn, tables[i].leaves)
		if err != nil {
			return nil, err
		}
		for _, w := range list {
			all = append(all, piece{i, w})
		}
	}
	return all, nil
}

// still keeps the rows of tables where they are until release: CLUSTER and VACUUM FULL, which no event trigger is told of, write a table anew,
// and by windows of blocks rows would be copied twice or not at all. An error of release means that they may have moved meanwhile. It ends the transaction
// that begin begins, or that is open where there is no begin.
func (c *copier) still(ctx context.Context, conn *pgx.Conn, begin, shard string, tables []table) (release func() error, err error) {
	var leaves []string
	for i := range tables {
		for _, leaf := range tables[i].leaves {
			leaves = append(leaves, "ONLY "+leaf)
		}
	}
	sql := []string{begin, fmt.Sprintf("SET LOCAL lock_timeout = '%dms'", c.p.cfg.LockWait.Milliseconds())}
	if len(leaves) > 0 {
		sql = append(sql, "LOCK TABLE "+strings.Join(leaves, ", ")+" IN ACCESS SHARE MODE")
	}
	if err := script(ctx, conn, sql...); err != nil {
		return nil, fmt.Errorf("shard %s: keep the tables' rows where they are: %w", shard, err)
	}
	return func() error {
		if err := script(ctx, conn, "COMMIT"); err != nil {
			return fmt.Errorf("shard %s: the connection that kept the tables' rows where they are: %w", shard, err)
		}
		return nil
	}, nil
}

// copy ends the transaction of the snapshot's holder: while it lasts, the source cannot remove what no other transaction sees any more.
func (c *copier) copy(ctx context.Context, holder *pgx.Conn) error {
	release, err := c.still(ctx, holder, "", c.j.Move.From, c.l.tables)
	if err != nil {
		return err
	}
	return errors.Join(c.copyAll(ctx), release())
}

func (c *copier) copyAll(ctx context.Context) error {
	all, err := pieces(ctx, c.l.source, c.l.tables)
	if err != nil {
		return err
	}
	c.total = len(all)
	work := make(chan piece)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for range min(c.p.cfg.Workers, len(all)) {
		wg.Go(func() {
			if err := c.worker(ctx, work); err != nil {
				cancel(err)
			}
		})
	}
feed:
	for _, one := range all {
		select {
		case work <- one:
		case <-ctx.Done():
			break feed
		}
	}
	close(work)
	wg.Wait()
	return context.Cause(ctx)
}

func (c *copier) worker(ctx context.Context, work <-chan piece) error {
	source, err := c.p.connect(ctx, c.j, c.j.Move.From)
	if err != nil {
		return err
	}
	defer hangUp(source)
	if err := script(ctx, source, snapshotSQL(c.snapshot)); err != nil {
		return err
	}
	var target *pgx.Conn // nil: there was no row yet
	defer func() { hangUp(target) }()
	for one := range work {
		s, err := c.piece(ctx, source, &target, one)
		if err != nil {
			return fmt.Errorf("copy of table %s: %w", c.l.tables[one.table].name, err)
		}
		c.tell(one.table, s, 0, copyPart)
	}
	return nil
}

// pipeBuffer is how many bytes of rows the target is given at a stroke: less than what pgx reads at one.
const pipeBuffer = 32 << 10

// piece copies one window in a transaction of its own. Of a window without rows the target hears nothing.
func (c *copier) piece(ctx context.Context, source *pgx.Conn, target **pgx.Conn, one piece) (sum, error) {
	t := &c.l.tables[one.table]
	if err := c.pace.wait(ctx, windowBlocks*8192/4); err != nil { // what is read and not copied costs the source as well
		return sum{}, err
	}
	from, to := io.Pipe()
	many := bufio.NewWriterSize(to, pipeBuffer) // the source sends row by row, and each would be handed over by itself
	out := &lines{ctx: ctx, seed: c.seed, pace: c.pace, to: many}
	read := make(chan error, 1)
	go func() {
		_, err := source.PgConn().CopyTo(ctx, out, selectSQL(t, one.window))
		if err == nil {
			err = many.Flush()
		}
		to.CloseWithError(err)
		read <- err
	}()
	rows := bufio.NewReader(from)
	_, err := rows.Peek(1)
	some := err == nil
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if some {
		err = c.put(ctx, target, t, rows)
	}
	from.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	if sent := <-read; err == nil || sent != nil && !errors.Is(sent, io.ErrClosedPipe) {
		err = sent
	}
	if err == nil && some {
		err = script(ctx, *target, "COMMIT")
	}
	return out.sum, err
}

// put has the target take rows of a table, in a transaction that stays open.
func (c *copier) put(ctx context.Context, target **pgx.Conn, t *table, rows io.Reader) (err error) {
	if *target == nil {
		if *target, err = c.p.connect(ctx, c.j, c.j.Move.To); err != nil {
			return err
		}
	}
	if err := script(ctx, *target, "BEGIN", "SET LOCAL session_replication_role = replica", heldSQL(c.j, sideTarget)); err != nil {
		return deposed(err)
	}
	_, err = (*target).PgConn().CopyFrom(ctx, rows, fmt.Sprintf("COPY %s (%s) FROM STDIN", t.name, t.copied()))
	return err
}

// selectSQL sends the rows of a window that move.
func selectSQL(t *table, w window) string {
	return fmt.Sprintf("COPY (SELECT %s FROM ONLY %s WHERE %s AND %s) TO STDOUT", t.copied(), w.leaf, w.condition(), t.where)
}

// compare reads all that was copied back and holds it against what was sent. Nothing else writes these rows any more: from here on copies are fenced, and what
// somebody did to one before that is found.
func (c *copier) compare(ctx context.Context, there []table) error {
	if err := c.fence(ctx, sideTarget, there); err != nil {
		return err
	}
	if err := guarded(ctx, c.l.target, c.j, sideTarget, there); err != nil {
		return err
	}
	release, err := c.still(ctx, c.l.target, "BEGIN", c.j.Move.To, there)
	if err != nil {
		return err
	}
	err = c.compareAll(ctx, there)
	if again := release(); again != nil { // then what was found may not be what is there
		return again
	}
	return err
}

func (c *copier) compareAll(ctx context.Context, there []table) error {
	for i := range there {
		there[i].columns = c.l.tables[i].columns // in the same order
	}
	all, err := pieces(ctx, c.l.target, there)
	if err != nil {
		return err
	}
	c.done, c.total = 0, len(all)
	found := make([]sum, len(there))
	for _, one := range all {
		out := &lines{ctx: ctx, seed: c.seed, pace: c.pace}
		if _, err := c.l.target.PgConn().CopyTo(ctx, out, selectSQL(&there[one.table], one.window)); err != nil {
			return err
		}
		found[one.table].add(out.sum)
		c.tell(-1, sum{}, copyPart, 1)
	}
	for i := range found {
		if found[i] != c.sums[i] {
			return fmt.Errorf("%w: table %s has %d rows of the range at the source, and %d of them or others at the target", ErrDiffers, there[i].name, c.sums[i].rows, found[i].rows)
		}
	}
	return nil
}
