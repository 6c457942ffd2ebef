package move

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"rangefinder/rib"
)

// tracker reads from a slot of its own which rows of the range have changed at the source, so that these alone have to be compared.
type tracker struct {
	// constant
	conn *pgconn.PgConn
	stop context.CancelFunc
	done chan struct{}
	keys map[string][]string // by table: the columns that a row is found by

	// owned by the reading goroutine
	relations map[uint32]*relation

	// guarded by mu
	mu      sync.Mutex
	changed map[string]map[string]uint64 // by table: the rows, each by the columns of keys, joined, with the position of its last change
	taken   map[string]map[string]uint64 // what take has returned last
	count   int
	limit   int   // of count; past it nothing is read until rows have been compared
	mark    int64 // the last one that has come by
	news    chan struct{}
	room    chan struct{} // not nil: the reader waits until rows have been taken
	at      uint64        // position in the log up to which has been read
	safe    uint64        // that of the first change of which the row has not been found alike; up to there the source need not send again
	err     error
}

// maxChanged is a tracker's limit.
const maxChanged = 500_000

// relation is a table as the stream describes it.
type relation struct {
	name    string
	key     []int // columns of tracker.keys, by their place
	columns []string
}

func newTracker() *tracker {
	return &tracker{limit: maxChanged, relations: make(map[uint32]*relation), keys: make(map[string][]string), changed: make(map[string]map[string]uint64), news: make(chan struct{}), done: make(chan struct{})}
}

// track begins to read from the slot.
func (p *Postgres) track(ctx context.Context, l *link, j *Job) (*tracker, error) {
	if l.tracker != nil {
		return l.tracker, nil
	}
	tables, err := l.look(ctx, j)
	if err != nil {
		return nil, err
	}
	t := newTracker()
	for i := range tables {
		key, err := identityOf(ctx, l, &tables[i])
		if err != nil {
			return nil, err
		}
		t.keys[tables[i].name] = key
	}
	if l.sequences, err = l.counters(ctx, tables); err != nil {
		return nil, err
	}
	if err := freeSlot(ctx, l.source, trackName(j)); err != nil {
		return nil, err
	}
	c := l.source.Config().Config.Copy()
	c.RuntimeParams["replication"] = "database"
	c.RuntimeParams["application_name"] = trackName(j)
	for name, value := range map[string]string{"datestyle": "ISO", "intervalstyle": "postgres", "timezone": "UTC", "extra_float_digits": "1", "bytea_output": "hex", "client_encoding": "UTF8"} {
		c.RuntimeParams[name] = value
	}
	if t.conn, err = pgconn.ConnectConfig(ctx, c); err != nil {
		return nil, err
	}
	if err := t.start(ctx, j); err != nil {
		closeSlot(t.conn)
		return nil, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	reading, stop := context.WithCancel(context.Background())
	t.stop = stop
	go t.read(reading)
	l.tracker = t
	return t, nil
}

// identityOf are the columns by which a table's rows are found: those of its replica identity, or the key where that is the whole row.
func identityOf(ctx context.Context, l *link, t *table) ([]string, error) {
	rows, err := l.source.Query(ctx, identitySQL, pgx.QueryExecModeExec, t.name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	key := t.keyed.Columns
	for rows.Next() {
		var leaf, kind, persistence, identity string
		var columns []string
		if err := rows.Scan(&leaf, &kind, &persistence, &identity, &columns); err != nil {
			return nil, err
		}
		if kind == "r" && !t.partition && identity != "f" {
			key = columns
		}
	}
	return key, rows.Err()
}

func (t *tracker) start(ctx context.Context, j *Job) error {
	t.conn.Frontend().SendQuery(&pgproto3.Query{String: fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL 0/0 (proto_version '1', publication_names '%s')", trackName(j), slotName(j))})
	if err := t.conn.Frontend().Flush(); err != nil {
		return err
	}
	for {
		m, err := t.conn.ReceiveMessage(ctx)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.CopyBothResponse:
			return nil
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		}
	}
}

func (t *tracker) close() {
	t.stop()
	<-t.done
}

// statusEvery is how often the source is told how far has been read, so that it neither ends the stream nor keeps what is done.
const statusEvery = 2 * time.Second

func (t *tracker) read(ctx context.Context) {
	defer close(t.done)
	defer closeSlot(t.conn)
	err := t.stream(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
	close(t.news)
	t.news = make(chan struct{})
}

func (t *tracker) stream(ctx context.Context) error {
	told := time.Time{}
	for {
		if time.Since(told) >= statusEvery {
			if err := t.status(); err != nil {
				return err
			}
			told = time.Now()
		}
		if err := t.wait(ctx); err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, statusEvery)
		m, err := t.conn.ReceiveMessage(limited)
		cancel()
		if pgconn.Timeout(err) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CopyData:
			asked, err := t.message(m.Data)
			if err != nil {
				return err
			}
			if asked {
				told = time.Time{}
			}
		}
	}
}

// wait waits while too many rows are kept in mind.
func (t *tracker) wait(ctx context.Context) error {
	t.mu.Lock()
	if t.count <= t.limit {
		t.mu.Unlock()
		return nil
	}
	room := make(chan struct{})
	t.room = room
	t.mu.Unlock()
	select {
	case <-room:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// status tells the source up to where it need not send again.
func (t *tracker) status() error {
	t.mu.Lock()
	safe := t.safe
	t.mu.Unlock()
	b := []byte{'r'}
	for range 3 {
		b = binary.BigEndian.AppendUint64(b, safe)
	}
	b = append(binary.BigEndian.AppendUint64(b, uint64(time.Since(epoch2000).Microseconds())), 0)
	t.conn.Frontend().Send(&pgproto3.CopyData{Data: b})
	return t.conn.Frontend().Flush()
}

// epoch2000 is when PostgreSQL's time begins.
var epoch2000 = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

var errStream = errors.New("the stream of changes is not understood")

// message takes one message of the stream. asked: the source wants to hear from us.
func (t *tracker) message(b []byte) (asked bool, err error) {
	switch {
	case len(b) >= 18 && b[0] == 'k':
		return b[17] != 0, nil
	case len(b) >= 25 && b[0] == 'w':
		at := binary.BigEndian.Uint64(b[1:])
		d := &reader{b: b[25:]}
		t.change(d, at)
		return false, d.err
	}
	return false, fmt.Errorf("%w: a message of %d bytes", errStream, len(b))
}

// reader takes a message of pgoutput apart.
type reader struct {
	b   []byte
	err error
}

func (d *reader) bytes(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.b) {
		d.err = errStream
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *reader) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *reader) uint16() int {
	if b := d.bytes(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (d *reader) uint32() uint32 {
	if b := d.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *reader) text() string {
	end := bytes.IndexByte(d.b, 0)
	if end < 0 {
		d.err = errStream
		return ""
	}
	return string(d.bytes(end + 1)[:end])
}

// tuple reads the values of the columns that are wanted; of one that is not sent nil.
func (d *reader) tuple(want []int) (values []*string) {
	values = make([]*string, len(want))
	for i, n := 0, d.uint16(); i < n && d.err == nil; i++ {
		switch d.byte() {
		case 'n', 'u':
		case 't', 'b':
			v := string(d.bytes(int(d.uint32())))
			for k, w := range want {
				if w == i {
					values[k] = &v
				}
			}
		default:
			d.err = errStream
		}
	}
	return values
}

// change notes what a message of pgoutput says.
func (t *tracker) change(d *reader, at uint64) {
	switch d.byte() {
	case 'R':
		t.relation(d)
	case 'I':
		r := t.relations[d.uint32()]
		d.byte()
		t.row(d, r, at)
	case 'U':
		r := t.relations[d.uint32()]
		if kind := d.byte(); kind == 'K' || kind == 'O' {
			t.row(d, r, at)
			d.byte()
		}
		t.row(d, r, at)
	case 'D':
		r := t.relations[d.uint32()]
		d.byte()
		t.row(d, r, at)
	case 'C':
		d.bytes(9) // flags, and the position of the commit
		end := d.bytes(8)
		t.mu.Lock()
		defer t.mu.Unlock()
		if d.err == nil {
			t.at = max(t.at, binary.BigEndian.Uint64(end), at)
		}
		close(t.news)
		t.news = make(chan struct{})
	}
}

// markTable is the table that tells how far the stream is.
const markTable = `"rangefinder"."mark"`

func (t *tracker) relation(d *reader) {
	id := d.uint32()
	schema, name := d.text(), d.text()
	d.byte()
	r := &relation{name: rib.QuoteIdent(schema) + "." + rib.QuoteIdent(name)}
	for i, n := 0, d.uint16(); i < n && d.err == nil; i++ {
		d.byte()
		r.columns = append(r.columns, d.text())
		d.bytes(8)
	}
	want := t.keys[r.name]
	if r.name == markTable {
		want = []string{"n"}
	}
	for _, w := range want {
		for i, c := range r.columns {
			if c == w {
				r.key = append(r.key, i)
			}
		}
	}
	t.relations[id] = r
}

func (t *tracker) row(d *reader, r *relation, at uint64) {
	if r == nil {
		d.err = errStream
		return
	}
	values := d.tuple(r.key)
	if d.err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.name == markTable {
		if len(values) == 1 && values[0] != nil {
			if n, err := strconv.ParseInt(*values[0], 10, 64); err == nil {
				t.mark = max(t.mark, n)
			}
		}
		return
	}
	parts := make([]string, len(values))
	for i, v := range values {
		if v == nil {
			return // an old row of which only the identity is sent, and the key is not it: the new one is
		}
		parts[i] = *v
	}
	t.note(r.name, strings.Join(parts, "\x00"), at)
}

// note keeps in mind that a row has changed. mu is held.
func (t *tracker) note(table, key string, at uint64) {
	rows := t.changed[table]
	if rows == nil {
		rows = make(map[string]uint64)
		t.changed[table] = rows
	}
	before, open := rows[key]
	if !open {
		t.count++
	}
	rows[key] = max(before, at)
}

// reached waits until the stream has come by a mark.
func (t *tracker) reached(ctx context.Context, mark int64) error {
	for {
		t.mu.Lock()
		done, err, news, full := t.mark >= mark, t.err, t.news, t.room != nil
		t.mu.Unlock()
		switch {
		case done:
			return nil
		case err != nil:
			return fmt.Errorf("the stream of changes: %w", err)
		case full:
			return errFull
		}
		select {
		case <-news:
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

var errFull = errors.New("too many rows have changed")

// open is how many rows have changed and are to be compared.
func (t *tracker) open() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

// take returns the rows that have changed, which are forgotten here, and the position up to which that is all.
func (t *tracker) take() (changed map[string][]string, at uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed = make(map[string][]string, len(t.changed))
	for name, keys := range t.changed {
		for key := range keys {
			changed[name] = append(changed[name], key)
		}
	}
	t.taken, t.changed, t.count, at = t.changed, make(map[string]map[string]uint64), 0, t.at
	if t.room != nil {
		close(t.room)
		t.room = nil
	}
	return changed, at
}

// give takes back rows that were not found alike, of those that take has returned with at. All is done up to at, or to the first of the last
// changes of the rows that are open: a transaction that commits behind a position is sent whole by whoever sends from there.
func (t *tracker) give(back map[string][]string, at uint64) (open int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, keys := range back {
		for _, key := range keys {
			t.note(name, key, t.taken[name][key])
			open++
		}
	}
	t.taken = nil
	for _, rows := range t.changed {
		for _, changed := range rows {
			at = min(at, changed)
		}
	}
	t.safe = max(t.safe, at)
	return open
}
