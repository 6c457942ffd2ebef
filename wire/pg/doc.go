// Package pg speaks the PostgreSQL frontend/backend protocol, version 3, from both ends: as a server towards a
// stranger (Accept) and as a client towards a backend (Connect). Between those two it offers frames: Next finds the
// next one in a buffer, the Decode functions read the few kinds a router must understand, the Append functions write
// the few kinds it says itself. Everything else is relayed as bytes.
//
// It may not know what a shard, a region, a key or a pool is, and imports no other package of ours: whoever wants to
// know only what PostgreSQL's protocol says can read it alone. It never sees a statement's meaning.
//
// Why not pgproto3 for everything: it allocates what a header claims, panics on a Bind with a negative length, loops
// without end on an odd list of SASL mechanisms, and knows only protocol 3.0 with 8-byte keys. So frames, startup,
// cancel and key data, the extended protocol's messages and whatever a stranger answers to authentication are our own
// codec, and pgproto3 is left with writing authentication messages and with errors, behind our framer and a recover. Decoded text aliases the buffer it came from wherever a doc comment
// says so, and nothing on the path of a statement allocates.
//
// Whatever is wrong with a peer's bytes is an *Error with SQLSTATE 08P01, in PostgreSQL's own words where it has any.
package pg
