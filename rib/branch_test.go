package rib

import (
	"testing"
	"time"
)

// looks is what the prober of a shard with primary p and replicas r1, q saw: p on timeline 1 until it died, then q on timeline 2.
type looks struct {
	*scene
	sync  bool
	stamp uint64
}

func (l *looks) primary(backend string, timeline uint32, lsn uint64, at time.Duration, forks ...Fork) {
	l.table.Positions().Saw(Position{
		Backend: backend, Shard: "s", Addr: backend + ":1", Role: Primary, Timeline: timeline, LSN: lsn, Asked: l.start.Add(at), Sync: l.sync, Forks: forks,
	})
	l.heard(backend, Primary, timeline)
}

// heard is what an observer says.
func (l *looks) heard(backend string, role Role, timeline uint32) {
	l.stamp++
	l.table.Health().Observe(Route{Backend: backend, Observer: "n", Stamp: Stamp{Seq: 100 + l.stamp}, State: Up, Role: role, Timeline: timeline})
}

func (l *looks) replica(backend string, timeline uint32, lsn uint64, at time.Duration) {
	l.saw(backend, Replica, timeline, lsn, at)
	l.heard(backend, Replica, timeline)
}

// A write after which nobody looked at the old primary is believed to have survived a failover only if it waited for a replica, and no
// replica can have had more than the one that was promoted.
func TestFateOfTheLastWrites(t *testing.T) {
	const sec = time.Second
	fork := Fork{Timeline: 2, From: 1, Least: 200, Most: 200}
	for name, c := range map[string]struct {
		until  time.Duration // p was seen with synchronous replication since 1 s, and once more then; the write ended at 2 s
		sync   bool
		hasty  bool // the session did not wait
		unseen bool // this node has not looked at q before
		late   bool // nor at p before the write
		after  func(l *looks)
		want   Fate
		future Fate // after all copies have changed over, by gossip alone; 0: the same
	}{
		"p did not wait": {after: func(l *looks) { l.primary("q", 2, 300, 4*sec, fork) }, want: FateLost},
		"the session did not wait": {sync: true, hasty: true, after: func(l *looks) {
			l.primary("q", 2, 300, 4*sec, fork)
		}, want: FateLost},
		"p waits only since the write":                             {sync: true, until: 3 * sec, after: func(l *looks) { l.primary("q", 2, 300, 4*sec, fork) }, want: FateLost},
		"p was looked at after the write alone, and waits":         {sync: true, late: true, until: 3 * sec, after: func(l *looks) { l.primary("q", 2, 300, 4*sec, fork) }, want: FateUnsure, future: FateUnsure},
		"p was looked at after the write alone, and does not wait": {late: true, until: 3 * sec, after: func(l *looks) { l.primary("q", 2, 300, 4*sec, fork) }, want: FateLost},
		"p was never looked at":                                    {late: true, after: func(l *looks) { l.primary("q", 2, 300, 4*sec, fork) }, want: FateUnsure, future: FateUnsure},
		"p was never looked at, and the session did not wait":      {late: true, hasty: true, after: func(l *looks) { l.primary("q", 2, 300, 4*sec, fork) }, want: FateLost},
		"the others have not changed over": {sync: true, after: func(l *looks) {
			l.primary("q", 2, 300, 4*sec, fork)
		}, want: FateUnsure, future: FateKept},
		"all have changed over": {sync: true, after: func(l *looks) {
			l.primary("q", 2, 300, 4*sec, fork)
			l.replica("r1", 2, 250, 5*sec)
			l.replica("r2", 2, 250, 5*sec)
		}, want: FateKept},
		"one is still where it was": {sync: true, after: func(l *looks) {
			l.primary("q", 2, 300, 4*sec, fork)
			l.replica("r1", 2, 250, 5*sec)
			l.replica("r2", 1, 190, 5*sec)
		}, want: FateUnsure, future: FateKept},
		"one had more than the one that was promoted": {sync: true, after: func(l *looks) {
			l.replica("r1", 1, 201, 3*sec)
			l.primary("q", 2, 300, 4*sec, fork)
			l.replica("r1", 2, 250, 5*sec) // it was rebuilt
			l.replica("r2", 2, 250, 5*sec)
		}, want: FateLost},
		"one turns out to have had more": {sync: true, after: func(l *looks) {
			l.primary("q", 2, 300, 4*sec, fork)
			l.replica("r1", 1, 201, 5*sec)
		}, want: FateLost},
		"one without a receiver tells of the timeline before": {sync: true, after: func(l *looks) {
			l.primary("q", 2, 300, 4*sec, fork)
			l.replica("r2", 2, 250, 5*sec)
			l.replica("r1", 2, 250, 5*sec)
			l.replica("r1", 1, 260, 6*sec)
		}, want: FateUnsure, future: FateKept},
		"nobody knows from where the new one comes": {sync: true, unseen: true, after: func(l *looks) {
			l.primary("q", 2, 300, 4*sec)
			l.replica("r1", 2, 250, 5*sec)
			l.replica("r2", 2, 250, 5*sec)
		}, want: FateUnsure},
		"two failovers": {sync: true, after: func(l *looks) {
			l.primary("q", 2, 300, 4*sec, fork)
			l.primary("r1", 3, 400, 5*sec, fork, Fork{Timeline: 3, From: 2, Least: 350, Most: 350})
			l.replica("r2", 3, 400, 6*sec)
			l.replica("q", 3, 400, 6*sec)
		}, want: FateKept},
		"the new one is no child of it": {sync: true, after: func(l *looks) {
			l.primary("q", 3, 300, 4*sec, Fork{Timeline: 3, From: 0, Least: 100, Most: 100})
		}, want: FateUnsure},
	} {
		t.Run(name, func(t *testing.T) {
			l := &looks{scene: newScene(t)}
			l.table.Health().MemberUp(Member{Name: "n", Region: "fra"})
			l.sync = c.sync && c.until == 0
			if !c.late {
				l.primary("p", 1, 100, sec)
			}
			if !c.unseen {
				l.replica("q", 1, 100, sec)
			}
			l.replica("r1", 1, 100, sec)
			l.replica("r2", 1, 100, sec)
			l.sync = c.sync
			if c.until != 0 {
				// The mark of this look would tell how far the write may reach: it is not on the new timeline.
				l.primary("p", 1, 250, c.until)
			}
			c.after(l)
			fate := func() Fate {
				return l.table.Positions().FateSince("s", 1, l.start.Add(2*sec), !c.hasty).Fate
			}
			if got := fate(); got != c.want {
				t.Errorf("fate %d, want %d", got, c.want)
			}
			if c.future == 0 {
				return
			}
			for _, name := range []string{"r1", "r2"} {
				l.heard(name, Replica, 2)
			}
			if got := fate(); got != c.future {
				t.Errorf("then %d, want %d", got, c.future)
			}
		})
	}
}
