package wire

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// mark tells the table what a probe has seen of shard_1's primary, asked for so long after the server was made.
func (d *drive) mark(asked time.Duration, timeline uint32, lsn uint64, forks ...rib.Fork) {
	e := d.core.env
	b := e.fib.Load().Slot("shard_1").Candidates().Writes[0].Backend
	e.positions.Saw(rib.Position{Backend: b.Name, Shard: b.Shard, Addr: b.Addr, Role: rib.Primary, Timeline: timeline, LSN: lsn, Asked: e.made.Add(asked), Forks: forks})
}

// shown is the one row of an answer to SHOW, and whether there is one.
func shown(out []byte) (value string, ok bool) {
	for len(out) > 0 {
		typ, n, err := pg.Next(out, 1<<20)
		if err != nil || n == 0 {
			return "", false
		}
		if typ == pg.TypeDataRow && !ok {
			values, _ := pg.DecodeDataRow(out[pg.HeaderSize:n])
			if len(values) == 1 {
				value, ok = string(values[0]), true
			}
		}
		out = out[n:]
	}
	return value, ok
}

// SHOW asks how far the primary is only if no probe has told since the write, and then once for all.
func TestCoreShowsToken(t *testing.T) {
	const wrote = time.Hour // when
	k := keyOf(t, testEnv(t), "shard_1")
	write := query(fmt.Sprintf("UPDATE orders SET item = 'x' WHERE customer_id = %d", k))
	const show = "SHOW rangefinder.lsn"
	for name, c := range map[string]struct {
		first, then []byte
		before      func(d *drive) // it was written
		finds       uint64         // position of the primary when somebody looks; 0: nobody can
		looks       int
		want        string // types of the answers to then
		value       string
	}{
		"nothing was written":       {then: query(show), want: "T D C ZI"},
		"a probe has told since":    {first: write, before: func(d *drive) { d.mark(wrote+1, 1, 0x64) }, then: query(show), want: "T D C ZI", value: "shard_1/1/0/64"},
		"at the very moment":        {first: write, before: func(d *drive) { d.mark(wrote, 1, 0x64) }, then: query(show), want: "T D C ZI", value: "shard_1/1/0/64"},
		"the last probe was before": {first: write, before: func(d *drive) { d.mark(wrote-1, 1, 0x64) }, finds: 0x80, looks: 1, then: query(show), want: "T D C ZI", value: "shard_1/1/0/80"},
		"shown twice":               {first: write, finds: 0x80, looks: 1, then: append(query(show), query(show)...), want: "T D C ZI T D C ZI", value: "shard_1/1/0/80"},
		"nobody can tell":           {first: write, looks: 1, then: query(show), want: "E(57P03) ZI"},
		"extended":                  {first: write, finds: 0x80, looks: 1, then: ext("", show), want: "1 2 T D C ZI", value: "shard_1/1/0/80"},
		"extended, nobody can tell": {first: write, looks: 1, then: ext("", show), want: "1 2 T E(57P03) ZI"},
		"extended, before what cannot be planned": {first: write, finds: 0x80, looks: 1, value: "shard_1/1/0/80", want: "1 2 T D C E(0A000) ZI",
			then: append(bytes.TrimSuffix(ext("", show), pg.AppendSync(nil)), ext("", "SELECT * FROM orders, elsewhere")...)},
		"extended, before a read": {first: write, finds: 0x80, looks: 1, value: "shard_1/1/0/80", want: "1 2 T D C 1 2 T D C ZI",
			then: append(bytes.TrimSuffix(ext("", show), pg.AppendSync(nil)), ext("", fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", k))...)},
		"extended, nobody can tell, before a read": {first: write, looks: 1, want: "1 2 T E(57P03) ZI",
			then: append(bytes.TrimSuffix(ext("", show), pg.AppendSync(nil)), ext("", fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", k))...)},
		"inside a transaction":  {first: append(query("BEGIN"), write...), then: query(show), want: "T D C ZT"},
		"of what was committed": {first: append(append(query("BEGIN"), write...), query("COMMIT")...), finds: 0x80, looks: 1, then: query(show), want: "T D C ZI", value: "shard_1/1/0/80"},
		"and what was given":    {first: query("SET rangefinder.lsn = 'shard_2/7/0/10,shard_1/1/0/5'"), before: func(d *drive) { d.mark(1, 1, 0x64) }, then: query(show), want: "T D C ZI", value: "shard_1/1/0/5,shard_2/7/0/10"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDrive(t, c.first)
			env := *d.core.env
			env.made, env.now = time.Now(), func() time.Duration { return wrote }
			d.core.env = &env
			looks := 0
			d.look = func(l location) error {
				if l.optional {
					return errUnlocated
				}
				looks++
				if l.shard != "shard_1" || c.finds == 0 {
					return errUnlocated
				}
				d.mark(l.since.Sub(env.made)+1, 1, c.finds)
				return nil
			}
			d.then = func() []byte {
				if c.before != nil {
					c.before(d)
				}
				d.out = nil
				return c.then
			}
			d.run()
			if got := types(t, d.out); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if value, _ := shown(d.out); value != c.value {
				t.Errorf("the token is %q, want %q", value, c.value)
			}
			if looks != c.looks {
				t.Errorf("the primary was looked at %d times, want %d", looks, c.looks)
			}
		})
	}
}

// Whether the session's write has outlived a failover is not known: SHOW says so, and does not wait for a position that nobody will ever
// tell. A later write has one.
func TestCoreShowsTokenOfUnsureWrite(t *testing.T) {
	e := testEnv(t)
	write := query(fmt.Sprintf("UPDATE orders SET item = 'x' WHERE customer_id = %d", keyOf(t, e, "shard_1")))
	const show = "SHOW rangefinder.lsn"
	for name, c := range map[string]struct {
		then        []byte
		want, value string
	}{
		"simple":           {then: query(show), want: "E(57P03) ZI"},
		"extended":         {then: ext("", show), want: "1 2 T E(57P03) ZI"},
		"another one came": {then: append(slices.Clone(write), query(show)...), want: "T D C ZI T D C ZI", value: "shard_1/2/0/300"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDrive(t, write)
			env := *d.core.env
			env.made, env.now = time.Now(), func() time.Duration { return time.Hour }
			d.core.env = &env
			b := env.fib.Load().Slot("shard_1").Candidates().Writes[0].Backend
			saw := func(after time.Duration, timeline uint32, lsn uint64, forks ...rib.Fork) {
				env.positions.Saw(rib.Position{
					Backend: b.Name, Shard: b.Shard, Addr: b.Addr, Role: rib.Primary, Timeline: timeline, LSN: lsn, Asked: env.made.Add(time.Hour + after), Sync: true, Forks: forks,
				})
			}
			saw(-1, 1, 0x40)
			looks := 0
			d.look = func(l location) error {
				if looks++; looks > 3 {
					t.Fatalf("looked %d times for %+v", looks, l)
				}
				saw(3, 2, 0x400)
				if env.found(&l) {
					return nil
				}
				return errUnlocated
			}
			d.then = func() []byte {
				d.out = nil
				d.observe(rib.Route{Backend: b.Name, State: rib.Up, Role: rib.Primary, Timeline: 2})
				saw(2, 2, 0x300, rib.Fork{Timeline: 2, From: 1, Least: 0x200, Most: 0x200})
				return c.then
			}
			d.run()
			if got := types(t, d.out); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if value, _ := shown(d.out); value != c.value {
				t.Errorf("the token is %q, want %q", value, c.value)
			}
		})
	}
}

// A token keeps reads from replicas that have not replayed up to it, and only those of its shard.
func TestCoreHeedsToken(t *testing.T) {
	e := testEnv(t)
	read := fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", keyOf(t, e, "shard_1"))
	other := fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", keyOf(t, e, "shard_2"))
	for name, c := range map[string]struct {
		set  string
		seen func(*rib.Seen) // of the replica; nil: nothing
		read string
		want string // backend, or SQLSTATE
	}{
		"never probed":         {set: "SET rangefinder.lsn = 'shard_1/1/0/100'", read: read, want: "shard_1-far"},
		"one byte behind":      {set: "SET rangefinder.lsn = 'shard_1/1/0/100'", seen: func(s *rib.Seen) { s.LSN = 0xff }, read: read, want: "shard_1-far"},
		"it has it":            {set: "SET rangefinder.lsn = 'shard_1/1/0/100'", seen: func(s *rib.Seen) { s.LSN = 0x100 }, read: read, want: "shard_1-here"},
		"of another timeline":  {set: "SET rangefinder.lsn = 'shard_1/1/0/100'", seen: func(s *rib.Seen) { s.LSN, s.Timeline = 0x100, 2 }, read: read, want: "shard_1-far"},
		"another server":       {set: "SET rangefinder.lsn = 'shard_1/1/0/100'", seen: func(s *rib.Seen) { s.LSN, s.Addr = 0x100, "elsewhere:1" }, read: read, want: "shard_1-far"},
		"two primaries":        {set: "SET rangefinder.lsn = 'shard_1/1/0/100'", seen: func(s *rib.Seen) { s.LSN, s.Doubt = 0x100, true }, read: read, want: "shard_1-far"},
		"another shard":        {set: "SET rangefinder.lsn = 'shard_1/1/0/100'", read: other, want: "shard_2-here"},
		"taken back":           {set: "RESET rangefinder.lsn", read: read, want: "shard_1-here"},
		"eventual":             {set: "SET rangefinder.read_consistency = 'eventual'", read: read, want: "shard_1-here"},
		"a timeline to come":   {set: "SET rangefinder.lsn = 'shard_1/2/0/100'", read: read, want: "57P03"},
		"a shard nobody knows": {set: "SET rangefinder.lsn = 'shard_3/2/0/100'", read: read, want: "22023"},
		"no token":             {set: "SET rangefinder.lsn = 'x'", read: read, want: "22023"},
	} {
		t.Run(name, func(t *testing.T) {
			first := []byte(nil)
			if c.want != "22023" {
				first = query("SET rangefinder.lsn = 'shard_1/1/0/FFFF'") // which the next takes the place of
			}
			d := newDrive(t, append(first, query(c.set)...))
			env := *d.core.env
			env.made = time.Now()
			d.core.env = &env
			d.connected = func(string) time.Time { return env.made }
			d.mark(1, 1, 0x10000)
			if c.seen != nil {
				d.seen(time.Minute, 0, 1, "")
				g := d.core.env.fib.Load().Slot("shard_1").Candidates().Reads[0].Gauge
				s := *g.Seen.Load()
				c.seen(&s)
				g.Seen.Store(&s)
			}
			d.then = func() []byte { return query(c.read) }
			d.run()
			got := ""
			for _, l := range d.log {
				got = strings.Fields(l)[0]
			}
			if strings.HasPrefix(c.want, "shard_") && got != c.want || !strings.HasPrefix(c.want, "shard_") && !bytes.Contains(d.out, []byte("C"+c.want+"\x00")) {
				t.Errorf("read on %q, want %s; %q", got, c.want, d.out)
			}
		})
	}
}

// What a session has written before a failover it reads after it, or is told once that it is lost; also by a statement in a
// transaction on the primary. Only what is written without looking goes on.
func TestCoreWritesAcrossTimelines(t *testing.T) {
	e := testEnv(t)
	k := keyOf(t, e, "shard_1")
	write := query(fmt.Sprintf("UPDATE orders SET item = 'x' WHERE customer_id = %d", k))
	read := query(fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", k))
	exact := rib.Fork{Timeline: 2, From: 1, Least: 0x200, Most: 0x200}
	for name, c := range map[string]struct {
		before   uint64 // position of the old primary after the write, seen by a probe; 0: none came
		sync     bool
		first    string // has the session not wait for replicas
		forks    []rib.Fork
		followed bool   // the shard's replicas follow the new timeline
		passed   uint64 // how far one of them was seen to have come on the old one; 0: not
		unseen   bool   // no probe has seen the new primary
		then     []byte
		want     string
	}{
		"it is there":                          {before: 0x200, forks: []rib.Fork{exact}, then: read, want: "T D C ZI"},
		"one byte too many":                    {before: 0x201, forks: []rib.Fork{exact}, then: append(bytes.Clone(read), read...), want: "E(55000) ZI T D C ZI"},
		"nobody knows how far it was":          {forks: []rib.Fork{exact}, then: append(bytes.Clone(read), read...), want: "E(55000) ZI T D C ZI"},
		"the primary waited for replicas":      {sync: true, followed: true, forks: []rib.Fork{exact}, then: read, want: "T D C ZI"},
		"which one was promoted is not known":  {sync: true, forks: []rib.Fork{exact}, then: append(bytes.Clone(read), read...), want: "N T D C ZI T D C ZI"},
		"a more advanced one was not promoted": {sync: true, followed: true, passed: 0x201, forks: []rib.Fork{exact}, then: read, want: "E(55000) ZI"},
		"but this session did not":             {sync: true, first: "SET synchronous_commit = local", forks: []rib.Fork{exact}, then: read, want: "E(55000) ZI"},
		"but this transaction did not":         {sync: true, first: "BEGIN; SET LOCAL synchronous_commit = off", forks: []rib.Fork{exact}, then: read, want: "E(55000) ZI"},
		"and waits now":                        {sync: true, first: "SET synchronous_commit = off; SET synchronous_commit = remote_apply", followed: true, forks: []rib.Fork{exact}, then: read, want: "T D C ZI"},
		"nobody knows where it began":          {before: 0x100, then: read, want: "E(55000) ZI"},
		"it comes from elsewhere":              {before: 0x100, forks: []rib.Fork{{Timeline: 3, From: 1, Least: 0x80, Most: 0x80}}, then: read, want: "E(55000) ZI"},
		"no probe has seen the new primary":    {before: 0x200, unseen: true, then: read, want: "E(57P03) ZI"},
		"in a transaction":                     {before: 0x201, forks: []rib.Fork{exact}, then: append(query("BEGIN"), write...), want: "C ZT E(55000) ZE"},
		"a token is shown":                     {before: 0x201, forks: []rib.Fork{exact}, then: query("SHOW rangefinder.lsn"), want: "E(55000) ZI"},
		"a token is shown of what is there":    {before: 0x1ff, forks: []rib.Fork{exact}, then: query("SHOW rangefinder.lsn"), want: "T D C ZI"},
		"written without looking, then looked": {before: 0x201, forks: []rib.Fork{exact}, then: append(bytes.Clone(write), read...), want: "T D C ZI E(55000) ZI"},
	} {
		t.Run(name, func(t *testing.T) {
			var first []byte
			for part := range strings.SplitSeq(c.first, "; ") {
				if part != "" {
					first = append(first, query(part)...)
				}
			}
			first = append(first, write...)
			if strings.HasPrefix(c.first, "BEGIN") {
				first = append(first, query("COMMIT")...)
			}
			d := newDrive(t, first)
			env := *d.core.env
			env.made, env.now = time.Now(), func() time.Duration { return time.Hour }
			d.core.env = &env
			list := env.fib.Load().Slot("shard_1").Candidates()
			b := list.Writes[0].Backend
			var replicas []*rib.Backend
			for _, h := range list.Reads {
				if h.Backend.Name != b.Name {
					replicas = append(replicas, h.Backend)
				}
			}
			saw := func(after time.Duration, timeline uint32, lsn uint64, forks []rib.Fork) {
				env.positions.Saw(rib.Position{Backend: b.Name, Shard: b.Shard, Addr: b.Addr, Role: rib.Primary, Timeline: timeline, LSN: lsn, Asked: env.made.Add(time.Hour + after), Sync: c.sync, Forks: forks})
			}
			saw(-1, 1, 0x40, nil)
			d.then = func() []byte {
				d.out = nil
				if c.before != 0 {
					saw(1, 1, c.before, nil)
				}
				d.observe(rib.Route{Backend: b.Name, State: rib.Up, Role: rib.Primary, Timeline: 2})
				for _, r := range replicas {
					if c.passed != 0 {
						env.positions.Saw(rib.Position{Backend: r.Name, Shard: r.Shard, Addr: r.Addr, Role: rib.Replica, Timeline: 1, LSN: c.passed, Asked: env.made.Add(time.Hour)})
					}
					if c.followed {
						d.observe(rib.Route{Backend: r.Name, State: rib.Up, Role: rib.Replica, Timeline: 2})
					}
				}
				if !c.unseen {
					saw(2, 2, 0x300, c.forks)
				}
				return c.then
			}
			d.run()
			if got := types(t, d.out); got != c.want {
				t.Errorf("got  %s\nwant %s; %q", got, c.want, d.out)
			}
		})
	}
}

// A transaction that commits on the old primary while another server is the primary already is one of the old timeline: what the new one
// lacks of it is not read as if it were there.
func TestCoreWritesOnTheOldPrimary(t *testing.T) {
	e := testEnv(t)
	k := keyOf(t, e, "shard_1")
	d := newDrive(t, append(query("BEGIN"), query(fmt.Sprintf("UPDATE orders SET item = 'x' WHERE customer_id = %d", k))...))
	env := *d.core.env
	env.made, env.now = time.Now(), func() time.Duration { return time.Hour }
	d.core.env = &env
	list := env.fib.Load().Slot("shard_1").Candidates()
	old := list.Writes[0].Backend
	var promoted *rib.Backend
	for i := range list.Reads {
		if b := list.Reads[i].Backend; b.Name != old.Name {
			promoted = b
		}
	}
	saw := func(b *rib.Backend, after time.Duration, timeline uint32, lsn uint64, forks ...rib.Fork) {
		env.positions.Saw(rib.Position{Backend: b.Name, Shard: b.Shard, Addr: b.Addr, Role: rib.Primary, Timeline: timeline, LSN: lsn, Asked: env.made.Add(time.Hour + after), Forks: forks})
	}
	saw(old, -2, 1, 0x40)
	d.then = func() []byte {
		d.out = nil
		d.table.Health().Observe(rib.Route{Backend: promoted.Name, Observer: "n1", Stamp: rib.Stamp{Seq: 100}, State: rib.Up, Role: rib.Primary, Timeline: 2})
		if env.fib.Load().Flip(d.table.Snapshot()) == 0 { // as a node does it: the session's own slot changes under it
			t.Error("nothing has changed")
		}
		saw(promoted, -1, 2, 0x300, rib.Fork{Timeline: 2, From: 1, Least: 0x200, Most: 0x200})
		read := query(fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", k))
		return append(query("COMMIT"), append(bytes.Clone(read), read...)...)
	}
	d.run()
	if got, want := types(t, d.out), "C ZI E(55000) ZI T D C ZI"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// That a write is lost does not have the session forget what it has written since, on the new primary: a replica that lacks this is not read.
func TestCoreKeepsWritesBehindALoss(t *testing.T) {
	k := keyOf(t, testEnv(t), "shard_1")
	write, read := query(fmt.Sprintf("UPDATE orders SET item = 'x' WHERE customer_id = %d", k)), query(fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", k))
	d := newDrive(t, write)
	env := *d.core.env
	env.made, env.now = time.Now(), func() time.Duration { return time.Hour }
	d.core.env = &env
	b := env.fib.Load().Slot("shard_1").Candidates().Writes[0].Backend
	d.mark(time.Hour-1, 1, 0x40)
	d.then = func() []byte {
		d.out, d.log = nil, nil
		d.observe(rib.Route{Backend: b.Name, State: rib.Up, Role: rib.Primary, Timeline: 2})
		d.observe(rib.Route{Backend: "shard_1-here", State: rib.Up, Role: rib.Replica, Timeline: 2})
		d.mark(time.Hour+2, 2, 0x300, rib.Fork{Timeline: 2, From: 1, Least: 0x200, Most: 0x200})
		return slices.Concat(write, read, read)
	}
	d.run()
	if got, want := types(t, d.out), "T D C ZI E(55000) ZI T D C ZI"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(d.log) != 2 || !strings.HasPrefix(d.log[1], b.Name+" ") {
		t.Errorf("ran on %q, want the read on %s", d.log, b.Name)
	}
}
