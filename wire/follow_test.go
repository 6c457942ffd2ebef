package wire

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

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
	if n := testing.AllocsPerRun(100, read); n != 0 {
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
