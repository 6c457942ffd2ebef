package wire

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/auth"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// maxStored bounds what a backend may say in answer to the question what it keeps of a password, in bytes of one message.
const maxStored = 64 << 10

// AskStored asks what is kept of a user's password: the closest backend of the database's shards that can be reached. It is an
// auth.Ask.
func (s *Server) AskStored(ctx context.Context, q *auth.Query, database, user string) (stored string, found bool, err error) {
	if g := s.gateOf(database); g != nil {
		if err := g.enterWithin(ctx); err != nil {
			return "", false, err
		}
		defer g.leave()
	}
	table := s.cfg.FIB.Load()
	slot := AnySlot(table, s.catalogFor(table), database, nil, false, false)
	if slot == nil { // no client's database: postgres, say, which all have
		slot = closest(table.Slots())
	}
	if slot == nil {
		return "", false, noShard(database)
	}
	hops := forQuestions(slot, database)
	err = fmt.Errorf("shard %s has no backend that can be used now", slot.Shard())
	for i := range hops {
		stored, found, err = s.askStored(ctx, q, hops[i].Backend, database, user, len(hops)-i)
		if err == nil || ctx.Err() != nil {
			break // else, even after a refusal: a replica that is behind may lack what another copy has
		}
	}
	return stored, found, err
}

// closest is the slot with the closest healthy copy; nil if there is none.
func closest(slots []*fib.Slot) (best *fib.Slot) {
	var cost time.Duration
	for _, s := range slots {
		if hops := s.Candidates().Reads; len(hops) > 0 && hops[0].Healthy && (best == nil || hops[0].Cost < cost) {
			best, cost = s, hops[0].Cost
		}
	}
	return best
}

// askStored asks one backend, which must leave time for the others: it gets one of `shares` equal parts of it.
func (s *Server) askStored(ctx context.Context, q *auth.Query, b *rib.Backend, database, user string, shares int) (stored string, found bool, err error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(s.live.Load().StartupTimeout)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(shares))
	defer cancel()
	conn, err := s.forQuestion(ctx, b, pool.Identity{User: q.User, Database: database, Own: true}, true)
	if err != nil {
		return "", false, err
	}
	deadline, _ = ctx.Deadline() // the earlier one
	conn.Net.SetDeadline(deadline)
	out := pg.AppendParse(nil, "", q.SQL, nil)
	out = pg.AppendBindText(out, user)
	out = pg.AppendExecute(out, "", 2)
	if _, err = conn.Net.Write(pg.AppendSync(out)); err == nil {
		stored, found, err = readStored(conn.Conn, user)
	}
	var pe *pg.Error
	if err != nil && !errors.As(err, &pe) { // an error that was answered is in order
		conn.lost()
		return "", false, fmt.Errorf("backend %s: %w", b.Name, err)
	}
	conn.Net.SetDeadline(time.Time{})
	conn.done()
	if err != nil {
		return "", false, fmt.Errorf("backend %s answered the query for users: %w", b.Name, err)
	}
	return stored, found, nil
}

// readStored reads the answer up to ReadyForQuery: at most one row of the user's name and what is kept of the password.
func readStored(conn *pool.Conn, user string) (stored string, found bool, err error) {
	var refusal *pg.Error
	rows := 0
	var last [][]byte
	err = readAnswer(conn, maxStored, func(typ byte, body []byte) error {
		switch typ {
		case pg.TypeDataRow:
			values, err := pg.DecodeDataRow(body)
			if err != nil {
				return err
			}
			rows++
			last = last[:0]
			for _, v := range values {
				if v != nil {
					v = append([]byte{}, v...)
				}
				last = append(last, v)
			}
		case pg.TypeErrorResponse:
			e, err := pg.DecodeError(body)
			if err != nil {
				return err
			}
			refusal = e
		}
		return nil
	})
	switch {
	case err != nil:
		return "", false, errors.New(err.Error()) // not an answer, even if a frame says so
	case refusal != nil:
		return "", false, refusal
	case rows == 0:
		return "", false, nil
	case rows > 1 || len(last) != 2 || string(last[0]) != user:
		return "", false, pg.NewError(pg.CodeInternalError, "it must give one row of the user's name and the stored password, or none: see auth.query")
	}
	return string(last[1]), last[1] != nil, nil
}
