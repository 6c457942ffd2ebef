package wire

import (
	"context"
	"errors"
	"slices"
	"time"

	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// proof is what a server has said to the parameters that a client has begun with.
type proof struct {
	told map[string]string // of what servers report: those parameters, and what is otherwise with them
	at   time.Time
}

// provenKey tells for whom, and which.
type provenKey struct {
	id    pool.Identity
	print string
}

// The bounds on what is remembered of such parameters.
const (
	maxProven      = 1000
	maxProvenBytes = 1024 // of one client's; longer ones are asked for each time
)

// harmless reports whether a startup parameter needs no server's word: all take it as it is.
func (x setting) harmless() bool {
	switch x.name {
	case "application_name":
		for i := range len(x.value) {
			if x.value[i] < ' ' || x.value[i] > '~' {
				return false
			}
		}
		return len(x.value) < 64
	case "client_encoding":
		return x.value == "UTF8"
	}
	return false
}

// prove has a server try what a client begins with, so that one that begins with what no server takes learns it at its login, in
// PostgreSQL's words, and not with each statement. What has been tried is remembered for a while. told is what servers report with it. If no
// server can be asked, the client may come in.
func (s *Server) prove(g *gate, client *pg.Client, id pool.Identity, l *live, f *fresh, base settings) (told map[string]string, e *pg.Error) {
	var list []setting
	for _, x := range base.list {
		if !x.harmless() {
			list = append(list, x)
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	key := provenKey{id, fromList(list).print}
	s.mu.Lock()
	p := s.proven[key]
	s.mu.Unlock()
	if p != nil && time.Since(p.at) < keepFresh {
		return p.told, nil
	}
	if err := s.pass(s.ctx, g, client.Conn); err != nil {
		return nil, asError(err)
	}
	defer g.leave()
	c := newCore(&l.env, id.User, id.Database)
	c.table = s.cfg.FIB.Load()
	strict := base.level == serializable // what a replica would be left with
	slot := c.anySlot(need{catalogs: true, write: strict})
	if slot == nil {
		return nil, nil
	}
	hops := forQuestions(slot, id.Database)
	if strict {
		hops = slot.For(id.Database).Writes
	}
	end := time.Now().Add(l.StartupTimeout)
	for i := range hops {
		ctx, cancel := context.WithTimeout(s.ctx, time.Until(end)/time.Duration(len(hops)-i))
		conn, err := s.forQuestion(ctx, hops[i].Backend, id, true)
		if err != nil {
			cancel()
			continue
		}
		told, err = try(ctx, conn, list, f)
		cancel()
		if errors.As(err, &e) {
			return nil, e
		}
		if err == nil {
			break
		}
	}
	if told != nil && len(key.print) <= maxProvenBytes {
		s.mu.Lock()
		if len(s.proven) >= maxProven {
			clear(s.proven)
		}
		s.proven[key] = &proof{told: told, at: time.Now()}
		s.mu.Unlock()
	}
	return told, nil
}

// try sets parameters on a connection, and gives it back. An error that is a *pg.Error is the server's answer.
func try(ctx context.Context, conn *asked, list []setting, f *fresh) (told map[string]string, err error) {
	deadline, _ := ctx.Deadline()
	conn.Net.SetDeadline(deadline)
	left := unclean(conn.Conn, 0)
	sql := behindReset(conn.Conn, left, fromList(list).print)
	conn.Applied, conn.Unnamed = stale, 0
	var refusal *pg.Error
	if _, err = conn.Net.Write(pg.AppendQuery(nil, sql)); err == nil {
		err = readAnswer(conn.Conn, 1<<20, func(typ byte, body []byte) error {
			if typ != pg.TypeErrorResponse {
				return nil
			}
			e, err := pg.DecodeError(body)
			if err == nil && e.Severity != "ERROR" {
				return errors.New(e.Message) // it ends the connection
			}
			refusal = e
			return err
		})
	}
	if err != nil {
		conn.lost()
		return nil, errors.New(err.Error()) // not an answer, even if a frame says so
	}
	conn.Net.SetDeadline(time.Time{})
	switch {
	case refusal == nil:
	case left: // nor is it clean
		conn.lost()
		return nil, refusal
	default:
		conn.done()
		return nil, refusal
	}
	cleaned(conn.Conn, left, stale)
	told = make(map[string]string)
	for name, value := range conn.Params {
		set := slices.ContainsFunc(list, func(x setting) bool { return canonicalParam(x.name) == name })
		if !hiddenParam(name) && (set || f.params[name] != value) {
			told[name] = value
		}
	}
	conn.done()
	return told, nil
}
