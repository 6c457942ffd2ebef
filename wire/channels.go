package wire

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// channels are what a session listens to. LISTEN and UNLISTEN take effect when their transaction commits; the hub listens from
// the statement on, so nothing can be missed then.
type channels struct {
	heard    map[string]bool // in force
	pending  []channelOp     // of the transaction under way
	failed   bool            // it will not commit
	joined   map[string]bool // what the hub listens to for this session
	loose    bool            // that may be more than is needed
	barrier  string          // of this shard all is to be heard that was sent so far; then the answer ends
	wanted   []string        // the hub is to be asked for these, before the request goes on
	sync     bool            // of the segment that waits for that
	deferred need            // likewise
	mark     int             // length of pending before the request
}

type channelOp struct {
	op      sqlkey.ListenOp
	channel string
}

// maxPending bounds what one transaction may do to channels.
const maxPending = 10 * maxChannels

// listen notes what LISTEN or UNLISTEN is to do.
func (c *core) listen(plan *sqlkey.Plan) *pg.Error {
	if c.lis == nil {
		c.lis = &channels{heard: make(map[string]bool), joined: make(map[string]bool)}
	}
	l := c.lis
	if plan.Listen == sqlkey.Listen && !l.heard[plan.Channel] {
		adds := 0
		for _, p := range l.pending {
			if p.op == sqlkey.Listen {
				adds++
			}
		}
		if len(l.heard)+adds >= maxChannels {
			return pg.NewError(pg.CodeProgramLimitExceeded, "too many channels in one session").
				WithDetail(fmt.Sprintf("A session may listen to %d of them.", maxChannels)).
				WithHint("UNLISTEN those that are not needed, or use the payload to tell messages apart.")
		}
	}
	if len(l.pending) >= maxPending {
		return pg.NewError(pg.CodeProgramLimitExceeded, "too many LISTEN and UNLISTEN in one transaction").WithHint("Commit more often.")
	}
	l.pending = append(l.pending, channelOp{plan.Listen, plan.Channel})
	if plan.Listen == sqlkey.Listen && !l.joined[plan.Channel] {
		l.wanted = append(l.wanted, plan.Channel)
	}
	return nil
}

// listenQuery handles a Query of nothing but LISTEN and UNLISTEN.
func (c *core) listenQuery(plan *sqlkey.Plan) {
	if c.lis != nil {
		c.lis.mark = len(c.lis.pending)
	}
	for _, p := range listenParts(plan) {
		if e := c.listen(p); e != nil {
			c.unlistened(e)
			return
		}
	}
	if len(c.lis.wanted) == 0 {
		c.listenDone()
	}
}

func listenParts(plan *sqlkey.Plan) []*sqlkey.Plan {
	if plan.Listen == sqlkey.ListenSeveral {
		return plan.Parts
	}
	return []*sqlkey.Plan{plan}
}

// unlistened answers a request with an error after the channels that it asked for could not be had.
func (c *core) unlistened(e *pg.Error) {
	c.undoChannels()
	c.fail(e)
}

// undoChannels takes back what the request in hand was to do.
func (c *core) undoChannels() {
	if l := c.lis; l != nil {
		l.pending, l.wanted, l.loose, l.failed = l.pending[:min(l.mark, len(l.pending))], nil, true, true
	}
}

// awaitsChannels reports whether the request in hand waits for the hub.
func (c *core) awaitsChannels() bool { return c.lis != nil && len(c.lis.wanted) > 0 }

// listenDone answers the Query in hand.
func (c *core) listenDone() {
	for _, p := range listenParts(c.plan) {
		c.out = pg.AppendCommandComplete(c.out, p.Tag)
	}
	c.ready()
}

// subscribed tells that the hub has been asked for what was wanted. without are the shards that are not listened to.
func (c *core) subscribed(without []string, e *pg.Error) {
	l := c.lis
	if len(l.wanted) == 0 { // some channels were left, nothing else
		return
	}
	if e != nil {
		c.unlistened(e)
		return
	}
	l.wanted = nil
	if len(without) > 0 {
		c.out = pg.AppendNotice(c.out, listensWithout(without))
	}
	if c.kind == 'S' {
		c.sendSegment(l.deferred, l.sync)
		if !c.unsent() && !c.waiting() {
			c.dropOps()
		}
		return
	}
	c.listenDone()
}

// endChannels follows the end of a transaction, whatever it came to.
func (c *core) endChannels() {
	l := c.lis
	if l == nil {
		return
	}
	if !l.failed {
		for _, p := range l.pending {
			switch p.op {
			case sqlkey.Listen:
				l.heard[p.channel] = true
			case sqlkey.Unlisten:
				delete(l.heard, p.channel)
			case sqlkey.UnlistenAll:
				clear(l.heard)
			}
		}
	}
	l.loose = l.loose || len(l.pending) > 0
	l.pending, l.failed = l.pending[:0], false
}

// failChannels: what is pending will not commit, unless the client goes back to a savepoint.
func (c *core) failChannels() {
	if c.lis != nil {
		c.lis.failed = true
	}
}

// channelMark is what a savepoint remembers.
func (c *core) channelMark() int {
	if c.lis == nil {
		return 0
	}
	return len(c.lis.pending)
}

// backToMark follows ROLLBACK TO.
func (c *core) backToMark(mark int) {
	if l := c.lis; l != nil {
		l.pending, l.failed, l.loose = l.pending[:min(mark, len(l.pending))], false, true
	}
}

// dropChannels does what DISCARD ALL does.
func (c *core) dropChannels() {
	if l := c.lis; l != nil {
		clear(l.heard)
		l.loose = true
	}
}

// subscribes reports whether the hub is to be asked for something.
func (c *core) subscribes() bool {
	return c.lis != nil && (len(c.lis.wanted) > 0 || c.lis.loose || c.lis.barrier != "")
}

// barrierPassed ends the answer to a request that has sent notifications.
func (c *core) barrierPassed() {
	c.lis.barrier = ""
	c.endAnswer('I')
}

// surplus are the channels that the hub need not listen to for this session any more.
func (l *channels) surplus() (list []string) {
	needed := make(map[string]bool, len(l.pending))
	for _, p := range l.pending {
		if p.op == sqlkey.Listen {
			needed[p.channel] = true
		}
	}
	for ch := range l.joined {
		if !l.heard[ch] && !needed[ch] {
			list = append(list, ch)
		}
	}
	return list
}

// betweenTransactions reports whether notifications may be passed on: PostgreSQL sends none inside a transaction.
func (c *core) betweenTransactions() bool { return c.idle() && !c.serverOpen && !c.skip && !c.closing }

// inbox holds what a session has been notified of and not been told yet.
type inbox struct {
	// atomic
	full atomic.Bool // there is something

	// guarded by mu
	mu    sync.Mutex
	items []heardItem
	bytes int
	over  *pg.Error // why the session is to end
}

type heardItem struct {
	channel string
	frame   []byte // shared by all who listen
	ascii   bool   // it is the same in all encodings
}

// in is the notification's frame in another encoding.
func (x *heardItem) in(encoding string) (frame []byte, ok bool) {
	pid, channel, payload, err := pg.DecodeNotification(x.frame[pg.HeaderSize:])
	if err != nil {
		return nil, false
	}
	if channel, ok = encoded(channel, encoding); ok {
		payload, ok = encoded(payload, encoding)
	}
	return pg.AppendNotification(nil, pid, channel, payload), ok
}

// maxInbox bounds what is kept for one session, in bytes; each notification counts for noteOverhead more.
const (
	maxInbox     = 4 << 20
	noteOverhead = 64
)

var errInboxFull = &pg.Error{
	Severity: "FATAL", Code: pg.CodeOutOfMemory, Message: "terminating connection: too many notifications wait for this client",
	Detail: fmt.Sprintf("They are delivered between transactions. More than %d MiB are not kept.", maxInbox>>20),
	Hint:   "Read notifications more often, and keep transactions short in sessions that LISTEN.",
}

// put adds a notification. It returns true if the session must be told.
func (b *inbox) put(x heardItem) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over != nil {
		return false
	}
	if b.bytes += len(x.frame) + noteOverhead; b.bytes > maxInbox {
		b.over, b.items = errInboxFull, nil
	} else {
		b.items = append(b.items, x)
	}
	return !b.full.Swap(true) || b.over != nil
}

// end has the session ended.
func (b *inbox) end(e *pg.Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over == nil {
		b.over, b.items = e, nil
	}
	b.full.Store(true)
}

// notified gives the core what the session was notified of, if it may have it now. It reports whether there is anything to do.
func (s *session) notified() bool {
	b, c := s.inbox, s.core
	if b == nil || !b.full.Load() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over != nil {
		c.terminate(b.over)
		return true
	}
	if !c.betweenTransactions() && c.lis.barrier == "" {
		return false
	}
	before := len(c.out)
	for _, x := range b.items {
		switch {
		case !c.lis.heard[x.channel]:
		case x.ascii || keepsUTF8(c.params.encoding):
			c.out = append(c.out, x.frame...)
		default:
			frame, ok := x.in(c.params.encoding)
			if !ok {
				b.over, b.items = notConverted(x.channel, c.params.encoding), nil
				c.terminate(b.over)
				return true
			}
			c.out = append(c.out, frame...)
		}
	}
	b.items, b.bytes = nil, 0
	b.full.Store(false)
	return len(c.out) > before
}

// subscribe makes what the hub listens to for this session what it needs.
func (s *session) subscribe(ctx context.Context) {
	l := s.core.lis
	hub := s.server.hubFor(s.id.Database)
	if l.barrier != "" {
		hub.barrier(ctx, l.barrier)
		if s.notified(); !s.core.closing {
			s.core.barrierPassed()
		}
		l.barrier = ""
		return
	}
	if l.loose {
		l.loose = false
		if list := l.surplus(); len(list) > 0 {
			for _, ch := range list {
				delete(l.joined, ch)
			}
			hub.leave(s, list)
		}
	}
	if len(l.wanted) == 0 {
		s.core.subscribed(nil, nil)
		return
	}
	if s.inbox == nil {
		s.inbox = new(inbox)
	}
	for _, ch := range l.wanted {
		l.joined[ch] = true
	}
	without, e := hub.join(ctx, s, l.wanted)
	if e != nil { // then it is registered for none of them
		for _, ch := range l.wanted {
			delete(l.joined, ch)
		}
	}
	s.core.subscribed(without, e)
}

// unsubscribe is the end of a session.
func (s *session) unsubscribe() {
	if s.inbox != nil {
		s.server.hubFor(s.id.Database).leave(s, nil)
	}
}

// notifies tells the connection whose the notifications are that the request in hand will send.
func (c *core) notifies() {
	channel, payload := "", ""
	if c.kind == 'Q' {
		channel, payload = c.plan.Channel, c.plan.Payload
	}
	c.notified = true
	for range c.seg.notifies {
		c.srv.Notifies(c.pid, channel, payload, c.onServer(), time.Now())
	}
}
