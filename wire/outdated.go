package wire

import (
	"bytes"
	"encoding/binary"
	"strings"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// This file is about errors of statements that were prepared before their tables were changed, and of those that are prepared where the
// node believes that they are not.

// outdated reports whether an error may mean that a statement was prepared before its tables were changed: its result has
// other columns now, or it does not fit the tables any more.
func outdated(e *pg.Error) bool {
	switch {
	case e.Code == pg.CodeFeatureNotSupported:
		return e.Routine == "RevalidateCachedQuery"
	case e.Code == pg.CodeInternalError: // a type that it was prepared with is gone: "cache lookup failed for type 16400"
		return strings.HasPrefix(e.Message, "cache lookup failed")
	case e.Code == pg.CodeInsufficientPrivilege || e.Where != "": // where a function failed
		return false
	}
	return strings.HasPrefix(e.Code, "42")
}

// heldBefore reports whether the server connection has held one of these statements since before the request.
func (c *core) heldBefore(uses []use) bool {
	for i := range uses {
		if u := &uses[i]; u.stmt != nil && u.Op == sqlkey.NameExecute && !c.answered('P', u.server) {
			return true
		}
	}
	return false
}

// answered reports whether the segment in hand has had an answer to a message of that kind, about that statement.
func (c *core) answered(kind byte, server string) bool {
	for i := range c.expectOff {
		if c.expect[i].kind == kind && c.expect[i].server == server {
			return true
		}
	}
	return false
}

// parsedHere reports whether the segment in hand has the statement's Parse: then its client has not been told its columns yet.
func (c *core) parsedHere(s *statement) bool {
	for _, ch := range c.seg.undo {
		if ch.stmt == s && !ch.removed {
			return true
		}
	}
	return false
}

// taken reports whether a server refuses to prepare a statement under a name of ours because it has it. Then what is known of the
// connection is wrong. No client may suffer from that, the next ones least of all: it is noted, and the connection is to be closed.
func (c *core) taken(h *expectation, e *pg.Error) bool {
	if e.Code != pg.CodeDuplicateStatement {
		return false
	}
	if name := h.makes; name != "" {
		h.makes = ""
		c.srv.Prepared.Add(name)
		return true
	}
	for i := range c.uses {
		if u := &c.uses[i]; h.names && u.makes && u.Statement == c.completed {
			c.srv.Prepared.Add(u.server)
			return true
		}
	}
	return false
}

// nameTaken is the error where the request cannot be sent once more.
func nameTaken() *pg.Error {
	return pg.NewError(pg.CodeSerializationFailure, "the statement could not be prepared on its server connection").
		WithDetail("The connection had a statement of that name which the router did not know of. It is given up.").
		WithHint("Try the transaction again.")
}

// renamed returns an error's frame with the statement's name on the server replaced by the client's.
func renamed(frame []byte, server, client string) []byte {
	if !bytes.Contains(frame, []byte(server)) {
		return frame
	}
	out := bytes.ReplaceAll(frame, []byte(server), []byte(client))
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)-1))
	return out
}
