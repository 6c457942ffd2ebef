package wire

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/sqlkey"
)

// hub listens to the primaries of all shards of one database, over one connection each, for all sessions of the node. A session
// that it has heard for may rely on it: if notifications may have been missed, the session is ended, so that its client begins
// anew and looks for itself.
type hub struct {
	// constant
	server   *Server
	database string

	// guarded by mu
	mu       sync.Mutex
	sessions map[*session]map[string]bool // the channels that each is registered for
	channels map[string]map[*session]bool
	shards   map[string]*listener
	missing  map[string]bool // shards that cannot be listened to, though there are sessions that would
	watched  bool            // watch runs
}

// The bounds on what is listened to.
const (
	maxChannels    = 1_000  // of one session
	maxHubChannels = 20_000 // of one database, on one node
)

const (
	joinLimit = 5 * time.Second // how long LISTEN waits for the shards
	// How long an answer waits for the notifications that its request has sent.
	barrierLimit = 500 * time.Millisecond
	watchHub     = time.Second // how often is looked for new primaries
	keepUnused   = 30 * time.Second
)

// hubFor returns the database's hub.
func (s *Server) hubFor(database string) *hub {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hubs[database]
	if h == nil {
		h = &hub{
			server: s, database: database, sessions: make(map[*session]map[string]bool), channels: make(map[string]map[*session]bool),
			shards: make(map[string]*listener), missing: make(map[string]bool),
		}
		s.hubs[database] = h
	}
	return h
}

// join registers a session for more channels and waits until every shard that can be reached has confirmed them. It returns the
// shards that have not. If a server refuses one of the channels the session is registered for none of them, as with other errors.
func (h *hub) join(ctx context.Context, ses *session, channels []string) (without []string, err *pg.Error) {
	h.mu.Lock()
	if e := h.room(channels); e != nil {
		h.mu.Unlock()
		return nil, e
	}
	own := h.sessions[ses]
	if own == nil {
		own = make(map[string]bool)
		h.sessions[ses] = own
	}
	for _, ch := range channels {
		own[ch] = true
		if h.channels[ch] == nil {
			h.channels[ch] = make(map[*session]bool)
		}
		h.channels[ch][ses] = true
	}
	if !h.watched {
		h.watched = true
		h.server.helpers.Go(h.watch)
	}
	var waits []confirmation
	for _, shard := range h.databaseShards() {
		l := h.shards[shard]
		if l == nil && !h.missing[shard] {
			l = h.begin(shard, ses.id, false)
		}
		if l == nil {
			h.missing[shard] = true
			without = append(without, shard)
			continue
		}
		for _, ch := range channels {
			waits = append(waits, confirmation{l, l.listen(ch, ses)})
		}
	}
	all := len(h.shards)
	h.mu.Unlock()
	if all == 0 {
		h.leave(ses, channels)
		return nil, noShard(h.database).WithDetail("No primary of the database can be listened to.")
	}

	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	for _, w := range waits {
		select {
		case <-w.done:
		case <-w.on.over:
		case <-ctx.Done():
		}
		select {
		case <-w.done: // perhaps both
			if w.err != nil {
				h.leave(ses, channels)
				return nil, w.err
			}
			continue
		default:
		}
		if ctx.Err() != nil {
			h.lose(w.on, "It has not answered in time.")
		}
		if !slices.Contains(without, w.on.shard) {
			without = append(without, w.on.shard)
		}
	}
	h.mu.Lock()
	lost := len(h.shards) == 0
	h.mu.Unlock()
	if lost {
		h.leave(ses, channels)
		return nil, pg.NewError(pg.CodeCannotConnectNow, "no primary of database "+h.database+" can be listened to").
			WithHint("Try again when one can be reached; see /debug on the node's HTTP port.")
	}
	return without, nil
}

// barrier waits until all is heard that was committed on a shard so far: before PostgreSQL answers a request, it delivers what it
// has been signalled.
func (h *hub) barrier(ctx context.Context, shard string) {
	ctx, cancel := context.WithTimeout(ctx, barrierLimit)
	defer cancel()
	h.mu.Lock()
	l := h.shards[shard]
	if l == nil || !l.up {
		h.mu.Unlock()
		return
	}
	o := &order{sql: "SELECT"}
	l.say(o)
	h.mu.Unlock()
	select {
	case <-o.done:
	case <-l.over:
	case <-ctx.Done():
	}
}

// room checks the bounds. The caller holds mu.
func (h *hub) room(channels []string) *pg.Error {
	more := 0
	for _, ch := range channels {
		if h.channels[ch] == nil {
			more++
		}
	}
	if len(h.channels)+more > maxHubChannels {
		return pg.NewError(pg.CodeOutOfMemory, "too many channels are listened to on this node").
			WithDetail(fmt.Sprintf("At most %d of them in one database.", maxHubChannels)).WithHint("UNLISTEN those that are not needed, or use the payload to tell messages apart.")
	}
	return nil
}

// leave takes a session's channels back; nil are all of them.
func (h *hub) leave(ses *session, channels []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(ses, channels)
}

// drop does what leave does. The caller holds mu.
func (h *hub) drop(ses *session, channels []string) {
	own := h.sessions[ses]
	if own == nil {
		return
	}
	if channels == nil {
		channels = slices.Collect(maps.Keys(own))
	}
	for _, ch := range channels {
		delete(own, ch)
		delete(h.channels[ch], ses)
		if len(h.channels[ch]) > 0 {
			continue
		}
		delete(h.channels, ch)
		for _, l := range h.shards {
			l.unlisten(ch)
		}
	}
	if len(own) == 0 {
		delete(h.sessions, ses)
	}
	if len(h.sessions) == 0 {
		clear(h.missing) // nobody has missed anything there
	}
}

// databaseShards are the shards that notifications may come from.
func (h *hub) databaseShards() []string {
	return h.server.Catalog().Shards(h.database)
}

// primary is the backend that is to be listened to; nil: none is known.
func (h *hub) primary(t *fib.Table, shard string) *rib.Backend {
	slot := t.Slot(shard)
	if slot == nil {
		return nil
	}
	writes := slot.Candidates().Writes
	if len(writes) == 0 {
		return nil
	}
	return writes[0].Backend
}

// begin starts to listen to a shard's primary. late: sessions have gone without it. The caller holds mu.
func (h *hub) begin(shard string, id pool.Identity, late bool) *listener {
	b := h.primary(h.server.cfg.FIB.Load(), shard)
	if b == nil {
		return nil
	}
	l := newListener(h, shard, b, id, late)
	h.shards[shard] = l
	h.server.helpers.Go(l.run)
	return l
}

// watch looks after the hub until nobody has used it for a while.
func (h *hub) watch() {
	tick := time.NewTicker(watchHub)
	defer tick.Stop()
	used := time.Now()
	for {
		select {
		case <-h.server.ctx.Done():
			h.mu.Lock()
			h.watched = false
			for _, l := range h.shards {
				l.stop()
			}
			clear(h.shards)
			h.mu.Unlock()
			return
		case <-tick.C:
		}
		h.mu.Lock()
		switch {
		case len(h.sessions) > 0:
			used = time.Now()
			h.look()
		case time.Since(used) > keepUnused:
			for _, l := range h.shards {
				l.stop()
			}
			clear(h.shards)
			h.watched = false
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
	}
}

// look finds shards whose primary has changed, and such as are not listened to. The caller holds mu.
func (h *hub) look() {
	table := h.server.cfg.FIB.Load()
	for _, shard := range h.databaseShards() {
		l, b := h.shards[shard], h.primary(table, shard)
		switch {
		case b == nil:
		case l == nil:
			for ses := range h.sessions {
				h.begin(shard, ses.id, true)
				break
			}
		case b.Name != l.backend.Name || b.Addr != l.backend.Addr:
			h.missed(l, "The primary of "+shard+" is "+b.Name+" now; "+l.backend.Name+" was listened to.")
		default:
			l.look()
		}
	}
}

// lose ends a listener whose connection is gone.
func (h *hub) lose(l *listener, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.missed(l, "The connection to backend "+l.backend.Name+" that was listened to is gone: "+why)
}

// missed ends a listener, and all sessions that rely on it. The caller holds mu.
func (h *hub) missed(l *listener, detail string) {
	l.stop()
	if h.shards[l.shard] != l {
		return
	}
	delete(h.shards, l.shard)
	if !l.up { // nobody has been told that it hears anything
		h.missing[l.shard] = len(h.sessions) > 0
		return
	}
	h.server.log.Warn("notifications may have been missed: the sessions that listen are ended", "database", h.database, "shard", l.shard, "backend", l.backend.Name, "sessions", len(h.sessions), "why", detail)
	h.end(detail)
}

// end ends all sessions that listen. The caller holds mu.
func (h *hub) end(detail string) {
	e := missedSome(detail)
	for ses := range h.sessions {
		ses.inbox.end(e)
		ses.wake()
	}
	for ch := range h.channels {
		for _, l := range h.shards {
			l.unlisten(ch)
		}
	}
	clear(h.sessions)
	clear(h.channels)
	clear(h.missing)
}

// unheard follows a LISTEN that the server has refused: nobody is registered for its channel any more. Who has waited for it is told why; a session that
// listens already, to other shards, is ended, for of this one it would miss all. The caller holds mu.
func (h *hub) unheard(l *listener, o *order) {
	if h.shards[l.shard] != l {
		return
	}
	for _, ses := range slices.Collect(maps.Keys(h.channels[o.channel])) {
		if !slices.Contains(o.waits, ses) {
			ses.inbox.end(missedSome("Backend " + l.backend.Name + " cannot be listened to on channel " + quoteLiteral(o.channel) + ": " + o.err.Message))
			ses.wake()
		}
		h.drop(ses, []string{o.channel})
	}
}

func missedSome(detail string) *pg.Error {
	return pg.NewError(pg.CodeAdminShutdown, "terminating connection: notifications may have been missed").
		WithDetail(detail).WithHint("Connect again, LISTEN, and then read what notifications would have told of.")
}

// connected tells that a listener has its connection. False: it is not wanted any more.
func (h *hub) connected(l *listener, conn *pool.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shards[l.shard] != l {
		return false
	}
	l.conn, l.up = conn, true
	delete(h.missing, l.shard)
	if l.late {
		h.end("Shard " + l.shard + " can be listened to again. What it has sent before was not heard.")
	}
	return true
}

// heard passes a notification on to all who listen.
func (h *hub) heard(l *listener, pid uint32, channel, payload string) {
	if from := h.server.pools.Notifier(l.backend.Name, pid, channel, payload); from != 0 {
		pid = from
	}
	x := heardItem{channel, pg.AppendNotification(nil, pid, channel, payload), sqlkey.IsASCII(channel) && sqlkey.IsASCII(payload)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shards[l.shard] != l { // another one hears it too
		return
	}
	for ses := range h.channels[channel] {
		if ses.inbox.put(x) {
			ses.wake()
		}
	}
}

// confirmation is what a LISTEN waits for.
type confirmation struct {
	on *listener
	*order
}

// without is the warning for a session that listens to a part of its database.
func listensWithout(shards []string) *pg.Error {
	slices.Sort(shards)
	return &pg.Error{
		Severity: "WARNING", Code: pg.CodeCannotConnectNow, Message: "not all shards can be listened to now",
		Detail: "Notifications of " + strings.Join(shards, ", ") + " are not heard. When they can be, this session is ended, so that it listens anew.",
	}
}
