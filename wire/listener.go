package wire

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// listener is the connection that a hub listens to one shard with. Two goroutines: one reads, the other writes what is queued,
// and now and then a question to which the server must answer.
type listener struct {
	// constant
	hub     *hub
	shard   string
	backend *rib.Backend
	id      pool.Identity
	late    bool // sessions have listened without it
	ctx     context.Context
	cancel  context.CancelFunc
	over    chan struct{} // closed when it has ended
	kick    chan struct{} // capacity 1: something is queued

	// guarded by hub.mu
	conn      *pool.Conn
	up        bool
	confirms  map[string]*order // of the channels that are or will be listened to
	queue     []*order          // to be sent
	sent      []*order          // not answered yet
	sentSince time.Time         // of the oldest
}

// order is one text for the server. Each has an answer of its own: what is wrong with one is not held against the others.
type order struct {
	// constant
	sql     string
	channel string        // that it listens to
	vital   bool          // the connection is of no use if the server refuses it
	done    chan struct{} // closed once the server has answered

	// guarded by hub.mu
	waits []*session // who waits for the answer, if it is a LISTEN

	// owned by the reader, until done is closed
	err *pg.Error // the server's
}

// pingEvery is how often the server is asked for a sign of life, and how long it may take for an answer to anything.
const pingEvery = 10 * time.Second

// listenerSetup makes a connection good for listening: nothing ends it for being idle, and payloads come as UTF-8.
const listenerSetup = "SET application_name = 'rangefinder LISTEN'; SET client_encoding = 'UTF8'; SET idle_session_timeout = 0; SET statement_timeout = 0"

// maxHeard bounds a message to a listener, in bytes: channels and payloads are shorter by far.
const maxHeard = 1 << 20

func newListener(h *hub, shard string, b *rib.Backend, id pool.Identity, late bool) *listener {
	l := &listener{
		hub: h, shard: shard, backend: b, id: id, late: late, over: make(chan struct{}), kick: make(chan struct{}, 1), confirms: make(map[string]*order),
		queue: []*order{{sql: listenerSetup, vital: true, done: make(chan struct{})}},
	}
	l.ctx, l.cancel = context.WithCancel(h.server.ctx)
	if !late { // then all sessions are ended, and their channels with them
		for ch := range h.channels {
			l.listen(ch, nil)
		}
	}
	return l
}

// listen has a channel listened to. ses waits for the answer; nil: nobody does. The caller holds hub.mu.
func (l *listener) listen(channel string, ses *session) *order {
	o := l.confirms[channel]
	if o == nil {
		o = &order{sql: "LISTEN " + quoteIdent(channel), channel: channel}
		l.confirms[channel] = o
		l.say(o)
	}
	select {
	case <-o.done:
	default:
		if ses != nil {
			o.waits = append(o.waits, ses)
		}
	}
	return o
}

// unlisten ends that. The caller holds hub.mu.
func (l *listener) unlisten(channel string) {
	if l.confirms[channel] != nil {
		delete(l.confirms, channel)
		l.say(&order{sql: "UNLISTEN " + quoteIdent(channel)})
	}
}

// say has a text sent. The caller holds hub.mu.
func (l *listener) say(o *order) {
	o.done = make(chan struct{})
	l.queue = append(l.queue, o)
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// look ends a listener whose server does not answer. The caller holds hub.mu.
func (l *listener) look() {
	if len(l.sent) > 0 && time.Since(l.sentSince) > pingEvery {
		l.hub.missed(l, fmt.Sprintf("Backend %s, which was listened to, has not answered for %s.", l.backend.Name, pingEvery))
	}
}

// stop ends it from outside. The caller holds hub.mu.
func (l *listener) stop() {
	l.cancel()
	if l.conn != nil {
		l.conn.Net.SetDeadline(longAgo)
	}
}

// run connects and listens until the connection is gone.
func (l *listener) run() {
	defer close(l.over)
	defer l.cancel()
	conn, err := l.hub.server.pools.Dial(l.ctx, l.backend, l.id)
	if err != nil {
		l.hub.lose(l, err.Error())
		return
	}
	defer conn.Net.Close()
	if !l.hub.connected(l, conn) {
		return
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		l.write(conn)
	}()
	err = l.read(conn)
	l.hub.lose(l, err.Error())
	l.cancel()
	<-written
}

// write sends what is queued.
func (l *listener) write(conn *pool.Conn) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for ping := false; ; {
		l.hub.mu.Lock()
		if ping && len(l.queue)+len(l.sent) == 0 {
			l.queue = append(l.queue, &order{done: make(chan struct{})})
		}
		send := l.queue
		if len(l.sent) == 0 {
			l.sentSince = time.Now()
		}
		l.queue, l.sent = nil, append(l.sent, send...)
		l.hub.mu.Unlock()
		if len(send) > 0 {
			var out []byte
			for _, o := range send {
				out = pg.AppendQuery(out, o.sql)
			}
			if _, err := conn.Net.Write(out); err != nil {
				l.hub.lose(l, err.Error())
				return
			}
		}
		select {
		case <-l.kick:
			ping = false
		case <-tick.C:
			ping = true
		case <-l.ctx.Done():
			return
		}
	}
}

// read takes what the server says. It returns why no more comes.
func (l *listener) read(conn *pool.Conn) error {
	buf, n := make([]byte, 16<<10), 0
	for {
		typ, size, err := pg.Next(buf[:n], maxHeard)
		if err != nil {
			return err
		}
		if size == 0 {
			if n == len(buf) {
				buf = append(buf, make([]byte, len(buf))...)
			}
			m, err := conn.Net.Read(buf[n:])
			if n += m; m == 0 && err != nil {
				return err
			}
			continue
		}
		body := buf[pg.HeaderSize:size]
		switch typ {
		case pg.TypeNotification:
			pid, channel, payload, err := pg.DecodeNotification(body)
			if err != nil {
				return err
			}
			l.hub.heard(l, pid, channel, payload)
		case pg.TypeErrorResponse:
			e, err := pg.DecodeError(body)
			if err != nil {
				return err
			}
			if !l.failed(e) {
				return e
			}
		case pg.TypeReadyForQuery:
			if !l.answered() {
				return errUnasked
			}
		}
		n = copy(buf, buf[size:n])
	}
}

// errUnasked ends a listener whose server has answered more than it was asked. One that cannot convert a notification for this connection does.
var errUnasked = errors.New("an answer came that nobody had asked for")

// failed notes an error for the text that it answers. False: the connection is of no use any more.
func (l *listener) failed(e *pg.Error) bool {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if e.Severity != "ERROR" || e.Code == pg.CodeReadOnlyTransaction || len(l.sent) == 0 || l.sent[0].vital { // a replica's server refuses every LISTEN
		return false
	}
	l.sent[0].err = e
	return true
}

// answered tells those who wait for the oldest text that it has been carried out, or has failed. False: there is none.
func (l *listener) answered() bool {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if len(l.sent) == 0 {
		return false
	}
	o := l.sent[0]
	l.sent[0], l.sent = nil, l.sent[1:]
	l.sentSince = time.Now()
	if o.err != nil && l.confirms[o.channel] == o {
		delete(l.confirms, o.channel)
		l.hub.unheard(l, o)
	}
	o.waits = nil
	close(o.done)
	return true
}

// quoteIdent quotes a name for PostgreSQL.
func quoteIdent(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
