package wire

import (
	"context"
	"time"

	"rangefinder/wire/sqlkey"
)

// What a database's schema holds, plans stand on: which views read sharded tables. So a client that has changed it hears that its transaction is
// over when this node has looked at the schema anew, and not before: its next statement is planned by what it has made.

// schemaLimit bounds how long the end of a transaction waits for that.
const schemaLimit = 3 * time.Second

// defined notes that a statement has been carried out. plan may be nil.
func (c *core) defined(plan *sqlkey.Plan) {
	c.defines = c.defines || c.env.defines && plan != nil && plan.Defines
}

// settles follows the end of a transaction: whether the client is to hear of it only when this node knows what has become of the schema.
func (c *core) settles() bool {
	defines := c.defines
	c.defines = false
	return defines && string(c.lastTag) != "ROLLBACK"
}

// schemaSettled tells that this node knows.
func (c *core) schemaSettled() {
	c.settling = false
	c.endAnswer('I')
}

// settleSchema has the node look, and waits for it.
func (s *session) settleSchema(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, schemaLimit)
	defer cancel()
	s.server.cfg.Defined(ctx, s.id.Database)
	s.core.schemaSettled()
}
