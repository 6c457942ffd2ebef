package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// catalogsIdle is how long a connection is kept over which catalogs were read. DROP DATABASE waits five seconds for others to leave.
const catalogsIdle = time.Second

// catalogs keeps connections over which shards' catalogs were read: schemas change by one statement after the other, and a new connection
// costs the server several times what is asked over it.
type catalogs struct {
	// guarded by mu
	mu     sync.Mutex
	idle   map[catalogPlace]*idleCatalogs
	closed bool
}

type catalogPlace struct {
	setup          *setup // its credentials
	addr, database string
}

type idleCatalogs struct {
	conn *pgx.Conn
	end  *time.Timer
}

// askCatalogs asks where a shard's catalogs are read: its primary; the closest of its other backends, whose catalogs are a little older, if
// there is none. ask leaves nothing behind in the session; it is called once more if a kept connection has ended meanwhile.
func (n *Node) askCatalogs(ctx context.Context, shard, database string, ask func(*pgx.Conn) error) error {
	slot := n.fib.Load().Slot(shard)
	if slot == nil || len(slot.Candidates().Reads) == 0 {
		return fmt.Errorf("shard %s has no backend that could be asked", shard)
	}
	from := slot.Candidates().Reads[0].Backend
	if writes := slot.Candidates().Writes; len(writes) > 0 {
		from = writes[0].Backend
	}
	if err := n.askCatalogsAt(ctx, catalogPlace{n.setup.Load(), from.Addr, database}, ask); err != nil {
		return fmt.Errorf("backend %s: %w", from.Name, err)
	}
	return nil
}

func (n *Node) askCatalogsAt(ctx context.Context, at catalogPlace, ask func(*pgx.Conn) error) error {
	if conn := n.catalogs.take(at); conn != nil {
		err := ask(conn)
		if ended := n.catalogs.keep(at, conn); err == nil || !ended || ctx.Err() != nil {
			return err
		}
	}
	conn, err := n.connect(ctx, at.addr, at.database)
	if err != nil {
		return err
	}
	defer n.catalogs.keep(at, conn)
	// Nothing of the database's own is on this path, and a query of the catalogs is not worth a server's minutes, nor a compiler's work.
	if _, err := conn.Exec(ctx, "SET search_path = pg_catalog; SET statement_timeout = '5s'; SET jit = off", pgx.QueryExecModeSimpleProtocol); err != nil {
		hangUp(conn) // it is not as others expect it
		return err
	}
	return ask(conn)
}

func (c *catalogs) take(at catalogPlace) *pgx.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.idle[at]
	if kept == nil {
		return nil
	}
	delete(c.idle, at)
	kept.end.Stop()
	return kept.conn
}

// keep takes a connection back. It tells whether that has ended.
func (c *catalogs) keep(at catalogPlace, conn *pgx.Conn) (ended bool) {
	if conn.IsClosed() {
		return true
	}
	c.mu.Lock()
	if c.closed || c.idle[at] != nil || conn.PgConn().TxStatus() != 'I' {
		c.mu.Unlock()
		hangUp(conn)
		return false
	}
	defer c.mu.Unlock()
	if c.idle == nil {
		c.idle = make(map[catalogPlace]*idleCatalogs)
	}
	kept := &idleCatalogs{conn: conn}
	kept.end = time.AfterFunc(catalogsIdle, func() {
		c.mu.Lock()
		mine := c.idle[at] == kept
		if mine {
			delete(c.idle, at)
		}
		c.mu.Unlock()
		if mine {
			hangUp(conn)
		}
	})
	c.idle[at] = kept
	return false
}

// close hangs up. What is kept after that is hung up too.
func (c *catalogs) close() {
	c.mu.Lock()
	idle := c.idle
	c.idle, c.closed = nil, true
	c.mu.Unlock()
	for _, kept := range idle {
		kept.end.Stop()
		hangUp(kept.conn)
	}
}

// hangUp says goodbye to a server, which need not listen.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}
