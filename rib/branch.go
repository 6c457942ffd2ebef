package rib

import (
	"maps"
	"slices"
	"time"
)

// Fork is where a timeline began: a replica that was promoted at some position of the timeline that it had followed. What was written
// there behind it is not part of the new timeline.
type Fork struct {
	Timeline uint32
	From     uint32 // 0: unknown
	Least    uint64 // it began not before this position
	Most     uint64 // and not behind this one, MaxUint64: nobody knows. Equal to Least: there
}

// Fate is what became of something written on one timeline when the shard went on, on another one.
type Fate uint8

// The fates.
const (
	FateUnseen Fate = iota // this node has not seen a primary of that timeline, or a later one, yet
	FateKept               // it is part of the present timeline, or that is the one it was written on
	FateLost               // it is not
	FateUnsure             // where the timelines parted is not known well enough to tell
)

// Verdict is a fate, and what it follows from.
type Verdict struct {
	Fate Fate
	Now  uint32 // the shard's timeline
	Fork Fork   // that has decided, or was not known; empty if none had to
}

const (
	// maxPast is how many timelines before the present one keep their marks, and maxForks how many forks a shard keeps: the latest.
	maxPast  = 3
	maxForks = 256
)

// past is a timeline that is over, with what is still asked of it.
type past struct {
	primary  string
	timeline uint32
	marks    []mark
	looked   time.Time
	sync     time.Time
	furthest uint64
}

// learn takes what is known of a fork. What is known better than before counts.
func (t *track) learn(f Fork) {
	if f.Timeline == 0 || f.From >= f.Timeline {
		return
	}
	old, ok := t.forks[f.Timeline]
	switch {
	case !ok, old.From == 0 && f.From != 0:
		if ok {
			f.Least, f.Most = max(f.Least, old.Least), min(f.Most, old.Most)
		}
	case f.From == 0:
		f = Fork{f.Timeline, old.From, max(f.Least, old.Least), min(f.Most, old.Most)}
	case f.From != old.From:
		f = Fork{f.Timeline, 0, 0, ^uint64(0)} // two servers have made a timeline of that number: there is no saying which is meant
	default:
		f.Least, f.Most = max(f.Least, old.Least), min(f.Most, old.Most)
	}
	if f.Least > f.Most {
		f.Least, f.Most = 0, ^uint64(0)
	}
	if t.forks == nil {
		t.forks = map[uint32]Fork{}
	}
	t.forks[f.Timeline] = f
	for len(t.forks) > maxForks {
		oldest := f.Timeline
		for n := range t.forks {
			oldest = min(oldest, n)
		}
		delete(t.forks, oldest)
	}
}

// promoted learns what two looks at one server tell, which was a replica at the first and is the primary at the second.
func (t *track) promoted(before *Seen, x *Position) {
	f := Fork{Timeline: x.Timeline, Most: x.LSN}
	if before != nil && before.Addr == x.Addr && before.Role == Replica && before.Timeline != 0 && before.Timeline < x.Timeline {
		f.Least = before.LSN                 // it had replayed that much
		if before.Timeline == x.Timeline-1 { // else it may have followed one in between, unseen
			f.From = before.Timeline
		}
	}
	t.learn(f)
}

// fate follows the forks from the present timeline back to the one on which something was written up to lsn.
func (t *track) fate(on uint32, lsn uint64) Verdict {
	v := Verdict{Fate: FateKept, Now: t.timeline}
	if on > t.timeline {
		return Verdict{Now: t.timeline}
	}
	for at := t.timeline; at > on; {
		f, ok := t.forks[at]
		if !ok {
			f = Fork{Timeline: at, Most: ^uint64(0)}
		}
		if lsn > f.Most || f.From != 0 && f.From < on { // it parted before, or never was of that branch
			return Verdict{FateLost, t.timeline, f}
		}
		if f.From == 0 {
			return Verdict{FateUnsure, t.timeline, f}
		}
		if lsn > f.Least {
			v.Fate, v.Fork = FateUnsure, f
		}
		at = f.From
	}
	return v
}

// of is what is kept of a timeline; empty if it is not kept any more.
func (t *track) of(timeline uint32) past {
	if timeline == t.timeline {
		return past{t.primary, t.timeline, t.marks, t.looked, t.sync, t.furthest}
	}
	for _, p := range t.past {
		if p.timeline == timeline {
			return p
		}
	}
	return past{}
}

// goBack takes back the timelines after that of a primary: who made them has been taken out of the configuration, or is no server of the
// shard, and the primary before it is the shard's again. What was written on them is not on this one.
func (t *track) goBack(x *Position) {
	old := t.of(x.Timeline)
	t.past = slices.DeleteFunc(t.past, func(p past) bool { return p.timeline >= x.Timeline })
	t.primary, t.timeline, t.marks, t.sync, t.furthest, t.distrust = x.Backend, x.Timeline, nil, time.Time{}, old.furthest, time.Time{}
	if t.looked = x.Asked; old.primary == x.Backend {
		t.marks, t.looked, t.sync = old.marks, old.looked, old.sync
	}
	maps.DeleteFunc(t.forks, func(timeline uint32, _ Fork) bool { return timeline > x.Timeline })
}

// replayed notes how far a replica of a timeline has come.
func (t *track) replayed(timeline uint32, lsn uint64) {
	if timeline == t.timeline {
		t.furthest = max(t.furthest, lsn)
		return
	}
	for i := range t.past {
		if p := &t.past[i]; p.timeline == timeline {
			p.furthest = max(p.furthest, lsn)
		}
	}
}

// left is the fork at which the present timeline's past left another one; false: that is not known.
func (t *track) left(timeline uint32) (f Fork, ok bool) {
	for at := t.timeline; at > timeline; at = f.From {
		if f, ok = t.forks[at]; !ok || f.From == 0 {
			return Fork{Timeline: at, Most: ^uint64(0)}, false
		}
	}
	return f, ok && f.From == timeline
}

// after is the first mark of a timeline that was asked for at that time or later.
func (t *track) after(timeline uint32, at time.Time) (lsn uint64, ok bool) {
	for _, m := range t.of(timeline).marks {
		if !m.asked.Before(at) {
			return m.lsn, true
		}
	}
	return 0, false
}

// Fate tells what became of whatever was written to a shard up to a position of a timeline.
func (p *Positions) Fate(w Written) Verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.shards[w.Shard]
	if t == nil {
		return Verdict{}
	}
	return t.fate(w.Timeline, w.LSN)
}

// FateSince tells the same of a write whose end was heard of at that time, on a primary of that timeline. Where it stands in the log
// is only known from above, by the next look at the primary. If there was none before the shard went on elsewhere, it was among the
// last that this primary did: those may be lost, and count as such, unless the write waited for replicas, and the primary had them
// wait since before that. Then some replica had it; whether the promoted one did depends on which was promoted, see promise. Of a primary
// that was not looked at before the write, and never said otherwise, nobody knows whether it had.
func (p *Positions) FateSince(shard string, timeline uint32, at time.Time, waited bool) Verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.shards[shard]
	if t == nil || timeline > t.timeline {
		return Verdict{}
	}
	lsn, ok := t.after(timeline, at)
	if !ok {
		lsn = ^uint64(0) - 1
	}
	v := t.fate(timeline, lsn)
	if v.Fate == FateKept {
		return v
	}
	old := t.of(timeline)
	switch {
	case !waited, v.Fork.From != 0 && v.Fork.From < timeline:
		v.Fate = FateLost
	case !old.sync.IsZero() && !old.sync.After(at):
		return p.promise(t, shard, &old)
	case old.looked.IsZero(), old.looked.After(at) && old.sync.Equal(old.looked):
		v.Fate = FateUnsure
	default:
		v.Fate = FateLost
	}
	return v
}

// promise is the fate of what some replica of the old primary had. It may be another than the one that was promoted, and who promotes
// one that is not the most advanced loses what was acknowledged. A replica that has replayed more than the new timeline took over gives
// that away; one that follows the new timeline had no more. As long as one may have had more, nobody can tell.
func (p *Positions) promise(t *track, shard string, old *past) Verdict {
	f, known := t.left(old.timeline)
	v := Verdict{FateUnsure, t.timeline, f}
	switch {
	case !known:
		return v
	case old.furthest > f.Most:
		v.Fate = FateLost
		return v
	}
	for _, c := range p.health.copies(shard) {
		if s := t.seen[c.name]; s != nil { // this node's own look may be newer, and is never of a later timeline than the server's
			c.timeline = max(c.timeline, s.Timeline)
		}
		if c.name != old.primary && c.timeline < f.Timeline {
			return v
		}
	}
	return Verdict{Fate: FateKept, Now: t.timeline}
}

// After is the first position of a shard's primary that was asked for at that time or later, on the shard's present timeline: whatever
// had been acknowledged on that timeline by then was written up to there.
func (p *Positions) After(shard string, at time.Time) (w Written, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.shards[shard]
	if t == nil {
		return w, false
	}
	w = Written{Shard: shard, Timeline: t.timeline}
	w.LSN, ok = t.after(t.timeline, at)
	return w, ok
}

// Latest is the last position of a shard's primary that this node has seen, and false if it has seen none.
func (p *Positions) Latest(shard string) (w Written, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.shards[shard]
	if t == nil || len(t.marks) == 0 {
		return w, false
	}
	return Written{shard, t.timeline, t.marks[len(t.marks)-1].lsn}, true
}

// Changed returns a channel that is closed when a probe next tells how far a primary is.
func (p *Positions) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.changed
}
