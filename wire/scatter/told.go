package scatter

import (
	"fmt"

	"rangefinder/wire/pg"
)

// told is how far a server has come with its answer to one statement, which was parsed, bound, described and run. A server that says what may not come at that
// moment is not believed: its connection is closed. COPY FROM STDIN is none of these statements.
type told uint8

const (
	toldNothing told = iota
	toldRows         // has them
	toldNone         // has no rows
	toldGives        // gives COPY's data
	toldGave         // has given them
	toldEnd
)

// answers reports whether a server may say it at all in answer to statements.
func answers(typ byte) bool {
	switch typ {
	case pg.TypeParseComplete, pg.TypeBindComplete, pg.TypeCloseComplete, pg.TypeParameterDescription, pg.TypeRowDescription, pg.TypeNoData, pg.TypeDataRow,
		pg.TypeCommandComplete, pg.TypeEmptyQuery, pg.TypePortalSuspended, pg.TypeCopyInResponse, pg.TypeCopyOutResponse, pg.TypeCopyData, pg.TypeCopyDone,
		pg.TypeErrorResponse, pg.TypeReadyForQuery, pg.TypeNoticeResponse, pg.TypeNotification, pg.TypeParameterStatus:
		return true
	}
	return false
}

// next takes a frame of that type. The error is nil if it may come now.
func (t *told) next(typ byte) error {
	was, now := *t, *t
	ok := true
	switch typ {
	case pg.TypeNoticeResponse, pg.TypeNotification, pg.TypeParameterStatus:
	case pg.TypeParseComplete, pg.TypeBindComplete, pg.TypeCloseComplete, pg.TypeParameterDescription:
		ok = was == toldNothing
	case pg.TypeRowDescription:
		ok, now = was == toldNothing, toldRows
	case pg.TypeNoData:
		ok, now = was == toldNothing, toldNone
	case pg.TypeDataRow:
		ok = was == toldRows
	case pg.TypeCopyOutResponse:
		ok, now = was == toldNone, toldGives
	case pg.TypeCopyData:
		ok = was == toldGives
	case pg.TypeCopyDone:
		ok, now = was == toldGives, toldGave
	case pg.TypePortalSuspended:
		ok, now = was == toldRows, toldEnd
	case pg.TypeEmptyQuery:
		ok, now = was == toldNone, toldEnd
	case pg.TypeCommandComplete:
		ok, now = was == toldRows || was == toldNone || was == toldGave, toldEnd
	default:
		ok = false
	}
	if !ok {
		return outOfPlace(typ)
	}
	*t = now
	return nil
}

// whole returns an error if a server is ready for the next statement before its answer has come to its end.
func (t told) whole() error {
	if t != toldEnd {
		return outOfPlace(pg.TypeReadyForQuery)
	}
	return nil
}

func outOfPlace(typ byte) error { return fmt.Errorf("a frame of type %q that has no place there", typ) }
