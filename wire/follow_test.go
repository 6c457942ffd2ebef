package wire

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// seen tells a core's table what a probe has seen of a replica of shard_1: it was asked so long after the server was made, and covers
// what was written until then.
func (d *drive) seen(asked, covers time.Duration, timeline uint32, addr string) {
	e := d.core.env
	c := e.fib.Load().Slot("shard_1").Candidates()
	for i := range c.Reads {
		if h := &c.Reads[i]; h.Backend.Name == "shard_1-here" {
			s := &rib.Seen{Position: rib.Position{Backend: h.Backend.Name, Shard: "shard_1", Addr: addr, Role: rib.Replica, Timeline: timeline, LSN: 1, Asked: e.made.Add(asked)}}
			if covers != 0 {
				s.Covers = e.made.Add(covers)
			}
			if addr == "" {
				s.Addr = h.Backend.Addr
			}
			h.Gauge.Seen.Store(s)
		}
	}
}

// A session's reads stay on the primary until a replica was seen with what the session wrote, however long that takes. So do
// statements that are only prepared: a replica may lack the table that the write made.
func TestCoreReadsAfterWrite(t *testing.T) {
	const wrote = time.Hour // when
	k := keyOf(t, testEnv(t), "shard_1")
	read := query(fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", k))
	parse := pg.AppendSync(pg.AppendParse(nil, "p", "SELECT body FROM notes", nil))
	prepare := ext("", "PREPARE q AS SELECT body FROM notes")
	for name, c := range map[string]struct {
		then           []byte
		asked, covers  time.Duration // of the probe, 0: there was none
		timeline       uint32
		addr           string
		connectedAfter time.Duration // the replica's connection is as old as that
		want           string
	}{
		"never probed":                 {then: read, want: "far"},
		"prepared, never probed":       {then: parse, want: "far"},
		"PREPARE, never probed":        {then: prepare, want: "far"},
		"probed, nothing is known":     {then: read, asked: wrote + time.Hour, want: "far"},
		"one nanosecond behind":        {then: read, asked: wrote + time.Second, covers: wrote - 1, timeline: 1, want: "far"},
		"it has it":                    {then: read, asked: wrote + time.Second, covers: wrote, timeline: 1, want: "here"},
		"prepared, it has it":          {then: parse, asked: wrote + time.Second, covers: wrote, timeline: 1, want: "here"},
		"PREPARE, it has it":           {then: prepare, asked: wrote + time.Second, covers: wrote, timeline: 1, want: "here"},
		"of an earlier timeline":       {then: read, asked: wrote + time.Second, covers: wrote, timeline: 0, want: "far"},
		"of a later timeline":          {then: read, asked: wrote + time.Second, covers: wrote, timeline: 2, want: "far"},
		"another server was asked":     {then: read, asked: wrote + time.Second, covers: wrote, timeline: 1, addr: "elsewhere:1", want: "far"},
		"asked before the connection":  {then: read, asked: wrote + time.Second, covers: wrote, timeline: 1, connectedAfter: wrote + 2*time.Second, want: "far"},
		"connected in the same moment": {then: read, asked: wrote + time.Second, covers: wrote, timeline: 1, connectedAfter: wrote + time.Second, want: "far"},
		"asked after the connection":   {then: read, asked: wrote + time.Second, covers: wrote, timeline: 1, connectedAfter: wrote + time.Second - 1, want: "here"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDrive(t, query(fmt.Sprintf("UPDATE orders SET item = 'x' WHERE customer_id = %d", k)))
			env := *d.core.env
			env.made, env.now = time.Now(), func() time.Duration { return wrote }
			d.core.env = &env
			d.connected = func(name string) time.Time {
				if strings.HasSuffix(name, "here") {
					return env.made.Add(c.connectedAfter)
				}
				return env.made
			}
			d.seen(0, 0, 1, "")
			d.then = func() []byte {
				d.log = nil
				if c.asked != 0 {
					d.seen(c.asked, c.covers, c.timeline, c.addr)
				}
				return c.then
			}
			d.run()
			if len(d.log) == 0 || !strings.HasPrefix(d.log[0], "shard_1-"+c.want+" ") {
				t.Errorf("%q, want %s", d.log, c.want)
			}
		})
	}
}

// Whoever is told that nobody knows whether a write took effect looks, and must not be shown a replica that cannot know of it. If the shard
// has another primary by then, what that has is what there is, and no error says once more that the write may be lost.
func TestCoreLooksAfterAnUnknownWrite(t *testing.T) {
	const wrote = time.Hour
	k := keyOf(t, testEnv(t), "shard_1")
	write, read := fmt.Sprintf("UPDATE orders SET item = 'x' WHERE customer_id = %d", k), query(fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", k))
	block := append(query("BEGIN"), query(write)...)
	for name, c := range map[string]struct {
		client, then []byte
		loses        string
		timeline     uint32        // of the shard by then
		covers       time.Duration // what the replica is known to have; 0: nothing
		want         string        // answers
		on           string        // where the read runs
	}{
		"a write":                       {client: query(write), loses: "UPDATE", then: read, timeline: 1, want: "E(08007) ZI T D C ZI", on: "far"},
		"in the extended protocol":      {client: ext("", write), loses: "execute", then: read, timeline: 1, want: "E(08007) ZI T D C ZI", on: "far"},
		"the replica has it":            {client: query(write), loses: "UPDATE", then: read, timeline: 1, covers: wrote, want: "E(08007) ZI T D C ZI", on: "here"},
		"the replica has less":          {client: query(write), loses: "UPDATE", then: read, timeline: 1, covers: wrote - 1, want: "E(08007) ZI T D C ZI", on: "far"},
		"a COMMIT":                      {client: append(block, query("COMMIT")...), loses: "COMMIT", then: read, timeline: 1, want: "C ZT T D C ZT E(08007) ZI T D C ZI", on: "far"},
		"what was rolled back for sure": {client: block, loses: "UPDATE", then: append(query("ROLLBACK"), read...), timeline: 1, want: "C ZT E(08006) ZE C ZI T D C ZI", on: "here"},
		"another primary":               {client: query(write), loses: "UPDATE", then: read, timeline: 2, want: "E(08007) ZI T D C ZI", on: "far"},
		"another primary's replica":     {client: query(write), loses: "UPDATE", then: read, timeline: 2, covers: wrote, want: "E(08007) ZI T D C ZI", on: "here"},
		"one that is known before":      {client: append(query(write), query("UPDATE orders SET item = 'y' WHERE customer_id = "+fmt.Sprint(k))...), loses: "'y'", then: append(bytes.Clone(read), read...), timeline: 2, want: "T D C ZI E(08007) ZI E(55000) ZI T D C ZI", on: "far"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDrive(t, c.client)
			env := *d.core.env
			env.made, env.now = time.Now(), func() time.Duration { return wrote }
			d.core.env, d.loses = &env, c.loses
			b := env.fib.Load().Slot("shard_1").Candidates().Writes[0].Backend
			d.mark(wrote-1, 1, 0x40)
			d.then = func() []byte {
				d.loses = ""
				d.observe(rib.Route{Backend: b.Name, State: rib.Up, Role: rib.Primary, Timeline: c.timeline})
				if c.timeline > 1 {
					d.observe(rib.Route{Backend: "shard_1-here", State: rib.Up, Role: rib.Replica, Timeline: c.timeline})
					d.mark(wrote+2, 2, 0x300, rib.Fork{Timeline: 2, From: 1, Least: 0x200, Most: 0x200})
				}
				if c.covers != 0 {
					d.seen(wrote+time.Second, c.covers, c.timeline, "")
				}
				return c.then
			}
			d.run()
			if got := types(t, d.out); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if last := d.log[len(d.log)-1]; !strings.HasPrefix(last, "shard_1-"+c.on+" ") {
				t.Errorf("ran on %q, want the read on %s", d.log, c.on)
			}
		})
	}
}

// Of the replicas as close, one lacks what the session wrote: the others share its reads as if it were not there.
func TestCoreSharesReadsAmongThoseThatHaveTheWrite(t *testing.T) {
	env := *testEnv(t)
	env.made = time.Now()
	rnd := rand.New(rand.NewPCG(1, 2))
	env.random = rnd.Uint32
	c := newCore(&env, "app", "app")
	list := &fib.Candidates{ReadsNear: 3}
	for i, name := range []string{"late", "one", "two", "primary"} {
		b := &rib.Backend{Name: name, Shard: "s", Addr: name + ":1"}
		g := new(rib.Gauge)
		seen := &rib.Seen{Position: rib.Position{Backend: name, Addr: b.Addr, Role: rib.Replica, Timeline: 1, LSN: 1}}
		if i > 0 {
			seen.Covers = env.made.Add(time.Hour)
		}
		g.Seen.Store(seen)
		list.Reads = append(list.Reads, fib.NextHop{Backend: b, Gauge: g, Timeline: 1, Healthy: true})
	}
	list.Writes = list.Reads[3:]
	count := make(map[string]int)
	const n = 3000
	for range n {
		c.list, c.hops, c.first, c.left = list, list.Reads, list.PickRead(env.random()), every(4)
		c.after = owing{at: time.Minute, timeline: 1, any: true}
		c.follow(c.hops)
		c.setHop()
		count[c.hop.Backend.Name]++
	}
	if count["one"] < n*45/100 || count["two"] < n*45/100 || count["late"] > 0 {
		t.Errorf("of %d reads: %v", n, count)
	}
}

// A request waits for a primary from when it came, of whatever kind it is, and however long before the last one came.
func TestCorePatienceBeginsWithTheRequest(t *testing.T) {
	write := fmt.Sprintf("UPDATE orders SET item = 'x' WHERE customer_id = %d", keyOf(t, testEnv(t), "shard_1"))
	for name, request := range map[string][]byte{
		"a query": query(write), "a segment": ext("", write), "a function's number": {'F', 0, 0, 0, 14, 0, 0, 6, 62, 0, 0, 0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDrive(t, query("SELECT 1"))
			env, now := *d.core.env, time.Duration(0)
			env.now = func() time.Duration { return now }
			d.core.env = &env
			d.then = func() []byte {
				for _, shard := range []string{"shard_1", "shard_2"} {
					d.observe(rib.Route{Backend: shard + "-far", State: rib.Up, Role: rib.Replica, Timeline: 1})
				}
				now = time.Hour
				return request
			}
			const wait = 10 * time.Second
			var left []time.Duration
			d.waits = func() {
				now += time.Second
				left = append(left, d.core.patience(wait))
			}
			d.run()
			if len(left) != 1 || left[0] != wait-time.Second {
				t.Errorf("a second later it may wait for %v more", left)
			}
		})
	}
}

// A write to one shard does not keep the reads of another one on its primary, however many shards were written to.
func TestCoreFollowsByShard(t *testing.T) {
	e := testEnv(t)
	k1, k2 := keyOf(t, e, "shard_1"), keyOf(t, e, "shard_2")
	write, read := "UPDATE orders SET item = 'x' WHERE customer_id = %d", "SELECT item FROM orders WHERE customer_id = %d"
	d := newDrive(t, bytes.Join([][]byte{
		query(fmt.Sprintf(write, k1)), query(fmt.Sprintf(read, k2)), query(fmt.Sprintf(read, k1)), query(fmt.Sprintf(write, k2)), query(fmt.Sprintf(read, k2)), query(fmt.Sprintf(read, k1)),
	}, nil))
	d.run()
	var on []string
	for _, l := range d.log {
		on = append(on, strings.Fields(l)[0])
	}
	if got, want := strings.Join(on, " "), "shard_1-far shard_2-here shard_1-far shard_2-far shard_2-far shard_1-far"; got != want {
		t.Errorf("ran on\n%s, want\n%s", got, want)
	}
}

// reads returns a function that runs one read in a session, which has written before or not; a write, if the replica is known to have
// it, makes no difference but for the work.
func reads(t testing.TB, wrote bool) func() {
	d := newDrive(t, nil)
	c := d.core
	env := *c.env
	env.made, env.now = time.Now(), func() time.Duration { return time.Hour }
	c.env = &env
	k := keyOf(t, c.env, "shard_1")
	sql := query(fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", k))
	answer := []byte("T\x00\x00\x00\x1d\x00\x01item\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00" + "D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x01x" + "C\x00\x00\x00\x0dSELECT 1\x00" + "Z\x00\x00\x00\x05I")
	conn := &pool.Conn{Params: make(map[string]string)}
	once := func(request []byte) (backend string) {
		for {
			switch c.next() {
			case readClient:
				c.written()
				if len(request) == 0 {
					return backend
				}
				n := copy(c.clientSpace(), request)
				c.clientRead(n)
				request = request[n:]
			case acquire:
				backend = c.hop.Backend.Name
				conn.Backend = c.hop.Backend
				c.acquired(conn)
			case readServer:
				c.sent()
				if err := c.serverRead(answer); err != nil {
					t.Fatal(err)
				}
			case releaseServer:
				c.returned()
			default:
				t.Fatal("the session asks for something else")
			}
		}
	}
	if wrote {
		if on := once(query(fmt.Sprintf("UPDATE orders SET item = 'x' WHERE customer_id = %d", k))); on != "shard_1-far" {
			t.Fatalf("the write went to %s", on)
		}
		d.seen(2*time.Hour, 2*time.Hour, 1, "")
	}
	return func() {
		if on := once(sql); on != "shard_1-here" {
			t.Fatalf("the read went to %s", on)
		}
	}
}

// That a read has to see a write costs no allocation.
func TestCoreFollowsWithoutAllocations(t *testing.T) {
	read := reads(t, true)
	read()
	if n := allocations(read); n != 0 {
		t.Errorf("%v allocations a read", n)
	}
}

func BenchmarkCoreRead(b *testing.B) {
	for name, wrote := range map[string]bool{"nothing written": false, "after a write": true} {
		b.Run(name, func(b *testing.B) {
			read := reads(b, wrote)
			b.ReportAllocs()
			for b.Loop() {
				read()
			}
		})
	}
}
