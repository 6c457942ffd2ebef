package wire

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// A text of several statements may begin with what ends a failed block, or takes it back to a savepoint. PostgreSQL carries out what stands
// behind that. Here the block may be open nowhere any more, or on other shards than those that the rest needs: so the text is carried out in
// two parts, of which the client hears as of one.

// blockFailed reports whether the client is in a block that takes nothing but its end.
func (c *core) blockFailed() bool {
	return c.tx.open && c.tx.failed || c.onServer() && c.status == 'E'
}

// endsFirst parts a Query that ends the failed block and goes on behind that: into what does so, and the rest. nil: it does not.
func (c *core) endsFirst(plan *sqlkey.Plan, frame []byte) (first, rest []byte) {
	if plan.Statements < 2 || !c.blockFailed() {
		return nil, nil
	}
	sql := frame[pg.HeaderSize : len(frame)-1]
	end := sqlkey.First(string(sql))
	if end < 0 {
		return nil, nil
	}
	first = pg.AppendQuery(nil, string(sql[:end]))
	switch c.lookupBytes(first[pg.HeaderSize : len(first)-1]).Tx {
	case sqlkey.TxCommit, sqlkey.TxRollback, sqlkey.TxRollbackTo:
		// Errors tell which character of the text they are about: so the rest stands where it stood.
		return first, pg.AppendQuery(nil, strings.Repeat(" ", utf8.RuneCount(sql[:end]))+string(sql[end:]))
	}
	return nil, nil
}

// endAnswer ends the answer to the client's request, or goes on with what stands behind its first part.
func (c *core) endAnswer(status byte) {
	if c.behind == nil {
		c.lately()
		c.out = pg.AppendReady(c.out, status)
		return
	}
	c.in, c.inOff = append(bytes.Clone(c.behind), c.in[c.inOff:]...), 0
	c.behind = nil
}
