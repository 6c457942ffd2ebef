package wire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// SHOW rangefinder.lsn tells up to where a session has written each shard, and SET rangefinder.lsn has another one's reads see that,
// on whatever node it is and whenever that may be. Nothing is asked for it on the way of a statement: a session remembers when it
// wrote (follow.go), and a position of the primary that a probe was told later is behind the write. SHOW takes the first one there
// is, and if there is none yet has the primary looked at.

// tokenSlack is how many bytes a token may be ahead of what this node has last seen of the primary. More cannot have been written.
const tokenSlack = 1 << 40

// tokenPromotions is how many timelines it may be ahead.
const tokenPromotions = 1000

// locateLimit is how long the primary may take to say how far it is, if nothing can be done without that.
const locateLimit = 5 * time.Second

// lookAgain is when it is asked for that again.
const lookAgain = time.Second

// location is what must be known before a request goes on: a position of the shard's primary, asked for at that time or later, on
// that timeline or a later one.
type location struct {
	shard    string // "": nothing
	since    time.Time
	timeline uint32
	optional bool // the request goes on without it if need be
}

// limit is how long the primary may take to say how far it is.
func (l *location) limit() time.Duration {
	if l.optional {
		return time.Second
	}
	return locateLimit
}

// found reports whether it is known.
func (e *env) found(l *location) bool {
	w, ok := e.positions.After(l.shard, l.since)
	return ok && w.Timeline >= l.timeline
}

// checkToken reads a token, and refuses one that cannot be meant. unsure is of which shards it cannot be told whether they have what
// the token says.
func (e *env) checkToken(value string) (token rib.Token, unsure []rib.Verdict, _ *pg.Error) {
	wrong := func(detail, hint string) (rib.Token, []rib.Verdict, *pg.Error) {
		return nil, nil, pg.NewError(pg.CodeInvalidParameterValue, fmt.Sprintf("invalid value for parameter %q: %.64q", ownLSN, value)).
			WithDetail(detail + ".").WithHint(hint)
	}
	const form = "It is what SHOW " + ownLSN + " has said: " + rib.TokenForm + "."
	token, err := rib.ParseToken(value)
	if err != nil {
		return wrong(upper(err.Error()), form)
	}
	table := e.fib.Load()
	for _, w := range token {
		if table.Slot(w.Shard) == nil {
			return wrong("Shard "+w.Shard+" is not known to this node", "Is the token of another cluster? "+form)
		}
		latest, ok := e.positions.Latest(w.Shard)
		switch {
		case !ok:
		case w.Timeline > latest.Timeline && w.Timeline-latest.Timeline > tokenPromotions:
			return wrong(fmt.Sprintf("Shard %s is on timeline %d, and cannot have come to %d", w.Shard, latest.Timeline, w.Timeline), form)
		case w.Timeline == latest.Timeline && w.LSN > latest.LSN && w.LSN-latest.LSN > tokenSlack:
			return wrong(fmt.Sprintf("Shard %s is at %s, and cannot have come to %s", w.Shard, rib.FormatLSN(latest.LSN), rib.FormatLSN(w.LSN)), form)
		case w.Timeline < latest.Timeline:
			switch v := e.positions.Fate(w); v.Fate {
			case rib.FateLost:
				return nil, nil, lostWrites(w, &v).WithHint("Look what is there, and write again what is not. The token is not taken: the session's reads must see what they had to see before.")
			case rib.FateUnsure:
				unsure = append(unsure, v)
			}
		}
	}
	return token, unsure, nil
}

// upper is a sentence's beginning.
func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// lostWrites is the error for reading what a failover has lost. It is no serialization failure: whoever only tries the same again
// would not notice.
func lostWrites(w rib.Written, v *rib.Verdict) *pg.Error {
	e := pg.NewError(pg.CodeObjectNotInPrerequisiteState, fmt.Sprintf("shard %s does not have all that was written on timeline %d: some was lost in a failover", w.Shard, w.Timeline))
	detail := fmt.Sprintf("The shard is on timeline %d.", v.Now)
	f := &v.Fork
	switch {
	case f.From != 0 && f.From < w.Timeline:
		detail = fmt.Sprintf("The shard is on timeline %d, which does not come from timeline %d: timeline %d began on timeline %d.", v.Now, w.Timeline, f.Timeline, f.From)
	case w.LSN != 0 && f.Timeline != 0 && f.Least == f.Most:
		detail = fmt.Sprintf("Timeline %d began at %s; what was to be seen reaches to %s of timeline %d.", f.Timeline, rib.FormatLSN(f.Most), rib.FormatLSN(w.LSN), w.Timeline)
	case w.LSN != 0 && f.Timeline != 0 && f.Most != ^uint64(0):
		detail = fmt.Sprintf("Timeline %d began at %s at the latest; what was to be seen reaches to %s of timeline %d.", f.Timeline, rib.FormatLSN(f.Most), rib.FormatLSN(w.LSN), w.Timeline)
	case w.LSN == 0:
		detail = fmt.Sprintf("The session wrote shortly before timeline %d began, and its primary did not wait for replicas (synchronous_standby_names): the last such writes may not have been there yet.", v.Now)
	}
	return e.WithDetail(detail).
		WithHint("Look what is there, and write again what is not. This is told once: from now on the session's reads take the shard as it is.")
}

// takeToken makes a token what the session's reads must see. It returns dst with a warning, if there is reason for one.
func (c *core) takeToken(dst []byte, value string) ([]byte, *pg.Error) {
	token, unsure, e := c.env.checkToken(value)
	if e != nil {
		return dst, e
	}
	for _, w := range token {
		if _, ok := c.env.positions.Latest(w.Shard); !ok && !c.unlocated { // what could be checked?
			c.locates = location{shard: w.Shard, optional: true}
			return dst, nil
		}
	}
	c.unlocated = false
	for i := range unsure {
		dst = pg.AppendNotice(dst, unsureNotice(&unsure[i]))
	}
	c.own.setToken(token)
	table := c.env.fib.Load()
	for _, w := range token {
		if s := table.Slot(w.Shard); s != nil {
			s.Wrote() // has the node look how far its copies are
		}
	}
	return dst, nil
}

func unsureNotice(v *rib.Verdict) *pg.Error {
	return &pg.Error{
		Severity: "WARNING", Code: "01000",
		Message: "whether a shard has what the token says is not known: it is read from the primary",
		Detail:  fmt.Sprintf("The shard is on timeline %d by now, and this node does not know exactly where timeline %d began.", v.Now, v.Fork.Timeline),
		Hint:    "Give the user of [probe] the attribute REPLICATION, so that PostgreSQL tells.",
	}
}

// warn tells of the session's own writes whose fate is not known, once.
func (c *core) warn() {
	for i := range c.fateless {
		v := &c.fateless[i]
		detail := fmt.Sprintf("The shard is on timeline %d by now, and this node does not know on which timeline that began.", v.Now)
		if v.Fork.From != 0 {
			detail = fmt.Sprintf("The shard is on timeline %d by now, and not all of its copies are known to follow timeline %d: one may have more than the one that was promoted.", v.Now, v.Fork.Timeline)
		}
		c.out = pg.AppendNotice(c.out, &pg.Error{
			Severity: "WARNING", Code: "01000",
			Message: "whether a shard still has the session's last write is not known: it is read from the primary",
			Detail:  detail,
			Hint:    "It is there if the most advanced replica was promoted. Look what is there, and write again what is not.",
		})
	}
	c.fateless = nil
}

// setToken replaces what others have written and the session's reads must see.
func (o *own) setToken(t rib.Token) {
	o.token = nil
	for _, w := range t {
		o.token = append(o.token, wrote{shard: w.Shard, timeline: w.Timeline, lsn: w.LSN})
	}
}

// tokenText is the session's token. If a position is not known yet, it sets c.locates, and is to be called again.
func (c *core) tokenText() (string, *pg.Error) {
	for i := 0; i < len(c.wrote); i++ {
		if latest, ok := c.env.positions.Latest(c.wrote[i].shard); ok {
			if e := c.settle(c.wrote[i].shard, latest.Timeline); e != nil || c.locates.shard != "" {
				return "", e
			}
		}
		if i >= len(c.wrote) {
			break
		}
		w := &c.wrote[i]
		if w.lsn != 0 {
			continue
		}
		if w.unsure { // no position of its timeline is to be had any more
			if later := func(o wrote) bool { return o.shard == w.shard && !o.unsure && o.timeline > w.timeline }; slices.ContainsFunc(c.wrote, later) {
				continue // whose position says all that can be said
			}
			return "", pg.NewError(pg.CodeCannotConnectNow, "how far shard "+w.shard+" was written to cannot be found out now").
				WithDetail(fmt.Sprintf("The session wrote on timeline %d, which a failover has ended, and whether the shard still has that is not known.", w.timeline)).
				WithHint("Look what is there, and write again what is not: the next write has a position.")
		}
		l := location{shard: w.shard, since: c.env.made.Add(w.at), timeline: w.timeline}
		at, ok := c.env.positions.After(l.shard, l.since)
		if !ok || at.Timeline != w.timeline {
			c.locates = l
			return "", nil
		}
		w.lsn = at.LSN
	}
	var t rib.Token
	for _, list := range [...][]wrote{c.wrote, c.own.token} {
		for _, w := range list {
			i, found := slices.BinarySearchFunc(t, w.shard, func(a rib.Written, shard string) int { return strings.Compare(a.Shard, shard) })
			switch {
			case !found:
				t = slices.Insert(t, i, rib.Written{Shard: w.shard, Timeline: w.timeline, LSN: w.lsn})
			case w.timeline > t[i].Timeline || w.timeline == t[i].Timeline && w.lsn > t[i].LSN:
				t[i].Timeline, t[i].LSN = w.timeline, w.lsn
			}
		}
	}
	text := t.String()
	if len(text) > rib.MaxToken {
		return "", pg.NewError(pg.CodeProgramLimitExceeded, fmt.Sprintf("the session has written to %d shards, more than a token may hold", len(t))).
			WithHint("Use SET rangefinder.read_consistency = 'primary' where these writes must be seen.")
	}
	return text, nil
}

// settle brings what the session's reads of a shard must see to a later timeline of it, as far as it is there. An error says, once,
// what is not. If this node has not seen a primary of that timeline yet, it sets c.locates.
func (c *core) settle(shard string, now uint32) *pg.Error {
	p := c.env.positions
	for _, list := range [...]*[]wrote{&c.wrote, &c.own.token} {
		for i := 0; i < len(*list); i++ {
			w := &(*list)[i]
			if w.shard != shard || w.timeline >= now {
				continue
			}
			if w.timeline == 0 || w.unknown { // nobody knew; or the client is about to look
				w.timeline, w.lsn = now, 0
				continue
			}
			var v rib.Verdict
			if w.at != 0 {
				v = p.FateSince(shard, w.timeline, c.env.made.Add(w.at), w.waited)
			} else {
				v = p.Fate(rib.Written{Shard: shard, Timeline: w.timeline, LSN: w.lsn})
			}
			switch {
			case v.Fate == rib.FateUnseen || v.Now < now:
				c.locates = location{shard: shard, timeline: now}
				return nil
			case v.Fate == rib.FateKept:
				w.timeline, w.unsure = v.Now, false
				if w.at != 0 {
					w.lsn = 0 // a write of the session's own is known by its time as well
				}
			case v.Fate == rib.FateUnsure: // asked again and again: the shard's servers may tell later
				switch {
				case w.at == 0 || w.unsure:
				case c.finds != nil:
					c.finds.doubts(doubt{shard, w.timeline, v})
				default:
					c.fateless = append(c.fateless, v)
				}
				w.unsure = true
			default:
				e := lostWrites(rib.Written{Shard: shard, Timeline: w.timeline, LSN: w.lsn}, &v)
				if c.finds != nil {
					c.finds.loses(loss{shard, now, e.Message})
				}
				c.forgetWrites(shard, now)
				return e
			}
		}
	}
	return nil
}

// forgetWrites has the session's reads take a shard as it is now, on that timeline: of what it wrote on earlier ones they see what that has kept.
func (c *core) forgetWrites(shard string, now uint32) {
	of := func(w wrote) bool { return w.shard == shard && (w.timeline < now || w.unknown && w.timeline == now) }
	c.own.token = slices.DeleteFunc(c.own.token, of)
	last := wrote{shard: shard, timeline: now, unknown: true}
	for _, w := range c.wrote {
		if of(w) {
			last.at = max(last.at, w.at)
		}
	}
	if c.wrote = slices.DeleteFunc(c.wrote, of); last.at != 0 {
		c.wrote = append(c.wrote, last)
	}
}

// located tells that what c.locates asks for is known, or why not.
func (c *core) located(err error) {
	shard := c.locates.shard
	if c.locates.optional && errors.Is(err, errUnlocated) {
		c.unlocated, err = true, nil
	}
	c.locates = location{}
	var e *pg.Error
	if err != nil && !errors.As(err, &e) {
		e = pg.NewError(pg.CodeCannotConnectNow, "how far shard "+shard+" was written to cannot be found out now").
			WithDetail("Its primary has not told this node within " + locateLimit.String() + ".").
			WithHint("Try again when the shard has a primary that this node's probes reach: see /debug/rib on its HTTP port.")
	}
	switch {
	case c.kind == 'Q' && c.plan != nil && c.plan.Own != 0:
		if e != nil {
			c.fail(e)
			return
		}
		c.ownQuery(c.plan)
	case c.kind == 'S' && c.deferred.waits:
		c.shown(e)
	case e != nil:
		c.fail(e)
	default:
		c.anew()
	}
}

// deferral is a segment of the extended protocol that shows the token, once that is known.
type deferral struct {
	waits  bool
	need   need
	sync   bool
	failed *pg.Error // what came behind it could not be planned
}

// shown goes on with the segment that waited; e: the token cannot be had. Whatever it asks of the node's own parameters from there on was
// put off as well.
func (c *core) shown(e *pg.Error) {
	d := c.deferred
	c.deferred = deferral{}
	for i := range c.ops {
		o := &c.ops[i]
		if !o.shows {
			continue
		}
		if e == nil {
			o.answer, e = c.answerOwn(nil, o.plan, false)
		}
		if e != nil {
			c.undoFrom(o.changes)
			if !c.seg.server {
				c.answerOps(c.ops[:i])
				c.failExtended(e)
				return
			}
			o.fail, c.ops, d.failed = e, c.ops[:i+1], nil
			break
		}
		if c.locates.shard != "" {
			c.deferred = d
			return
		}
		o.shows = false
	}
	if d.failed != nil {
		c.answerOps(c.ops)
		c.failExtended(d.failed)
		return
	}
	c.sendSegment(d.need, d.sync)
	if !c.unsent() && !c.waiting() {
		c.dropOps()
	}
}

// locate has the primary of a shard looked at, and waits for its answer. As with the wait for a connection, a CancelRequest ends it, and so does the end
// of the client.
func (s *session) locate(ctx context.Context) {
	c := s.core
	s.flushFirst()
	if c.closing {
		c.located(errHangup)
		return
	}
	held, free := s.hold(ctx)
	err := s.server.awaitLocation(held, c)
	free()
	if errors.Is(err, errHangup) {
		s.clientGone()
	}
	c.located(err)
}

// awaitLocation returns nil when what c.locates asks for is known, and what has ended the wait else.
func (s *Server) awaitLocation(held context.Context, c *core) error {
	over, again := time.NewTimer(c.locates.limit()), time.NewTicker(lookAgain)
	defer over.Stop()
	defer again.Stop()
	look := true
	for {
		changed := c.env.positions.Changed()
		if c.env.found(&c.locates) {
			return nil
		}
		if look {
			if slot := c.env.fib.Load().Slot(c.locates.shard); slot != nil {
				if w := slot.Candidates().Writes; len(w) > 0 {
					s.cfg.Look(w[0].Backend)
				}
			}
		}
		look = false
		select {
		case <-changed:
		case <-again.C:
			look = true
		case <-over.C:
			return errUnlocated
		case <-held.Done():
			return context.Cause(held)
		case <-s.stopping.Done():
			return errDraining.WithSeverity("ERROR")
		}
	}
}

var errUnlocated = errors.New("the primary has not told where it stands")
