// Package rib holds what this node believes: the Routing Information Base.
//
// It has two halves with one writer each. Health (which backends exist, what each observer says of them, how far each
// region is) is written by gossip alone; ownership (which shard owns which range of keys) by the Raft FSM alone. So gossip
// can change which copy of a shard is used, never which shard. Both halves only ever merge: the order, the number and the
// loss of messages do not change where the table ends up. Beside them stands what is this node's own (Local): how its operator wants
// backends to be chosen, and what it makes of how they answer (Outliers).
//
// It also owns what a key is: the only place that knows key types, their encodings and the methods that map a value to a
// position. It knows neither memberlist nor Raft nor PostgreSQL's protocol, and imports the standard library alone, so that
// everything that must be correct here can be tested without any of them.
package rib
