// Package console is the admin database: what a client gets that names "rangefinder" as its database. Commands and columns are
// those of PgBouncer wherever they mean the same, so that whoever runs one can run the other.
//
// It is text in and rows out: Parse reads commands, Show makes a table of a Snapshot, and Session speaks the protocol, frames in
// and frames out, without any I/O. It knows nothing of sessions, pools or sockets: wire takes the Snapshot, and carries out what
// changes something; what is about ranges and moves the node's ledger carries out. A column that nobody measures is left out: a zero would be a lie.
package console
