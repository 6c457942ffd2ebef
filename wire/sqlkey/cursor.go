package sqlkey

import (
	"math"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// CursorOp is what a statement does to a cursor.
type CursorOp uint8

// The operations.
const (
	CursorDeclare CursorOp = iota
	CursorFetch            // FETCH or MOVE
	CursorClose            // of Name; of all if that is ""
)

// Cursor is what a statement does to a cursor of SQL.
type Cursor struct {
	Op      CursorOp
	Name    string
	SQL     string // CursorDeclare: its query, if several shards answer it
	Scroll  string // CursorDeclare: SCROLL or NO SCROLL, with a blank behind it, if it says so
	Forward bool   // CursorFetch: it goes Count rows ahead
	Count   int64  // CursorFetch: math.MaxInt64 is all that are left
	Move    bool   // CursorFetch: it is MOVE
}

// The options of DECLARE that matter.
const (
	cursorBinary = 0x01
	cursorScroll = 0x02
	cursorAhead  = 0x04 // NO SCROLL
	cursorHold   = 0x20
)

// declare plans DECLARE CURSOR. Over several shards a cursor goes ahead only, unless it is one over rows that were gathered, and ends with its transaction.
func (c *compiler) declare(d *pgquery.DeclareCursorStmt) *Plan {
	p := c.statement(d.GetQuery())
	cursor := &Cursor{Op: CursorDeclare, Name: d.GetPortalname()}
	if p.Target == Many {
		why := "a cursor over several shards has no BINARY or WITH HOLD, and SCROLL only if its rows are ordered or put together"
		switch {
		case d.GetOptions()&cursorScroll != 0:
			cursor.Scroll = "SCROLL "
		case d.GetOptions()&cursorAhead != 0:
			cursor.Scroll = "NO SCROLL "
		}
		if d.GetOptions()&(cursorBinary|cursorHold) == 0 && (cursor.Scroll != "SCROLL " || p.Fan.Final != "") {
			if sql, err := deparse(d.GetQuery()); err == nil && p.Fan.explainable() && !p.Fan.Writes {
				cursor.SQL, why = sql, ""
			}
		}
		if why != "" {
			p = p.alone(why)
		}
	}
	q := *p
	p = &q
	p.Cursor = cursor
	if p.Intent == Read {
		p.Intent, p.WhyWrite, p.Locks = Write, "DECLARE CURSOR", true
	}
	if d.GetOptions()&cursorHold != 0 {
		p.leaves(RemainCursors, "a cursor WITH HOLD")
	}
	return p
}

// fetch plans FETCH and MOVE, and CLOSE.
func (c *compiler) fetch(n *pgquery.Node) *Plan {
	p := c.session(n, 0)
	if s := n.GetClosePortalStmt(); s != nil {
		p.Frees, p.Cursor = true, &Cursor{Op: CursorClose, Name: s.GetPortalname()}
		return p
	}
	s := n.GetFetchStmt()
	p.Cursor = &Cursor{Op: CursorFetch, Name: s.GetPortalname(), Count: s.GetHowMany(), Move: s.GetIsmove()}
	p.Cursor.Forward = s.GetDirection() == pgquery.FetchDirection_FETCH_FORWARD && s.GetHowMany() > 0
	if s.GetHowMany() >= math.MaxInt32 {
		p.Cursor.Count = math.MaxInt64
	}
	return p
}
