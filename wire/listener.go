package wire

import (
	"context"
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
	confirms  map[string]chan struct{} // of the channels that are or will be listened to; closed once the server has confirmed
	queue     []string                 // statements to be sent
	queued    []chan struct{}          // what their answer confirms
	sent      [][]chan struct{}        // the same of each text that was sent and not answered yet
	sentSince time.Time                // of the oldest
}

// pingEvery is how often the server is asked for a sign of life, and how long it may take for an answer to anything.
const pingEvery = 10 * time.Second

// listenerSetup makes a connection good for listening: nothing ends it for being idle, and payloads come as UTF-8.
const listenerSetup = "SET application_name = 'rangefinder LISTEN'; SET client_encoding = 'UTF8'; SET idle_session_timeout = 0; SET statement_timeout = 0"

// maxHeard bounds a message to a listener, in bytes: channels and payloads are shorter by far.
const maxHeard = 1 << 20

func newListener(h *hub, shard string, b *rib.Backend, id pool.Identity, late bool) *listener {
	l := &listener{
		hub: h, shard: shard, backend: b, id: id, late: late, over: make(chan struct{}), kick: make(chan struct{}, 1), confirms: make(map[string]chan struct{}),
		queue: []string{listenerSetup},
	}
	l.ctx, l.cancel = context.WithCancel(h.server.ctx)
	if !late { // then all sessions are ended, and their channels with them
		for ch := range h.channels {
			l.listen(ch)
		}
	}
	return l
}

// listen has a channel listened to. What it returns is closed once it is. The caller holds hub.mu.
func (l *listener) listen(channel string) chan struct{} {
	done := l.confirms[channel]
	if done == nil {
		done = make(chan struct{})
		l.confirms[channel] = done
		l.say("LISTEN "+quoteIdent(channel), done)
	}
	return done
}

// unlisten ends that. The caller holds hub.mu.
func (l *listener) unlisten(channel string) {
	if l.confirms[channel] != nil {
		delete(l.confirms, channel)
		l.say("UNLISTEN "+quoteIdent(channel), nil)
	}
}

func (l *listener) say(sql string, done chan struct{}) {
	l.queue = append(l.queue, sql)
	if done != nil {
		l.queued = append(l.queued, done)
	}
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
		sql, confirms := strings.Join(l.queue, "; "), l.queued
		send := len(l.queue) > 0 || ping && len(l.sent) == 0
		if send {
			l.queue, l.queued = nil, nil
			if len(l.sent) == 0 {
				l.sentSince = time.Now()
			}
			l.sent = append(l.sent, confirms)
		}
		l.hub.mu.Unlock()
		if send {
			if _, err := conn.Net.Write(pg.AppendQuery(nil, sql)); err != nil {
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
			return e // it was to listen, and does not
		case pg.TypeReadyForQuery:
			l.answered()
		}
		n = copy(buf, buf[size:n])
	}
}

// answered tells those who wait for the oldest text that it has been carried out.
func (l *listener) answered() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if len(l.sent) == 0 {
		return
	}
	for _, done := range l.sent[0] {
		close(done)
	}
	l.sent = l.sent[1:]
	l.sentSince = time.Now()
}

// quoteIdent quotes a name for PostgreSQL.
func quoteIdent(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
