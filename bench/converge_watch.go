package main

import (
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"rangefinder/gossip/probe"
	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// watch lets production probers look at backends that are all well, over a network that is not, and counts who is taken for
// down or dead all the same. Every second backend is looked at from another region, as those are that have fewer than three nodes beside them.
func (w *world) watch(c *converge, r *report) error {
	probed := min(maxProbed, len(w.nodes))
	var wrong atomic.Int64 // false verdicts
	var probers []*probe.Prober
	dead := w.dead()
	for i := range probed {
		b, n := w.backends[i], w.lister(i)
		if i%2 == 1 {
			n = w.elsewhere(i)
		}
		ln, err := w.net.Host(b.Name, b.Region).Listen(postgresPort)
		if err != nil {
			return err
		}
		go pgtest.ServeRow(ln, wellServer(i%copies != 0, b.SystemID))
		p := probe.New(probe.Config{
			Settings: probe.Settings{Backends: []probe.Target{{Name: b.Name, Shard: b.Shard, Region: b.Region, Addr: b.Addr, SystemID: b.SystemID}}, User: "prober"},
			Sink:     &doubter{Sink: n.speaker, wrong: &wrong}, Dial: n.host.Dial, Logger: slog.New(slog.DiscardHandler),
		})
		if err := p.Open(); err != nil {
			return err
		}
		probers = append(probers, p)
	}
	for done, part := time.Duration(0), c.watch/10; done < c.watch; done += part {
		time.Sleep(part)
		r.falseDown, r.falseDead = int(wrong.Load()), int(w.dead()-dead)
		c.step("watched for %v: %d false verdicts, %d nodes taken for dead", (done + part).Round(time.Second), r.falseDown, r.falseDead)
	}
	for _, p := range probers {
		if err := p.Close(); err != nil {
			return err
		}
	}
	return nil
}

// elsewhere is a node of another region than backend i's.
func (w *world) elsewhere(i int) *convergeNode {
	for k := range w.nodes {
		if n := w.nodes[(i+1+k)%len(w.nodes)]; n.self.Region != w.backends[i].Region {
			return n
		}
	}
	return w.lister(i)
}

// dead is how often a node took another for dead.
func (w *world) dead() (n uint64) {
	for _, node := range w.nodes {
		n += node.speaker.Stats().Deaths
	}
	return n
}

// wellServer is what a server that is well answers to a probe.
func wellServer(replica bool, systemID uint64) func() []string {
	recovering := "f"
	if replica {
		recovering = "t"
	}
	return func() []string {
		return []string{recovering, "1", "0", strconv.FormatUint(systemID, 10), "0", "10", "0/1000000", "0/1000000", "f", "0/1000000", "f"}
	}
}

// doubter counts false verdicts on their way from the prober of one backend to its speaker.
type doubter struct {
	// constant
	probe.Sink
	wrong *atomic.Int64

	down bool // owned by the prober's goroutine for that backend
}

// Observe implements probe.Sink.
func (d *doubter) Observe(r rib.Route) {
	if down := r.State == rib.Down; down != d.down {
		if d.down = down; down {
			d.wrong.Add(1)
		}
	}
	d.Sink.Observe(r)
}
