package wire

import (
	"bytes"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"rangefinder/wire/pg"
)

func TestCoreOwnParameters(t *testing.T) {
	e := testEnv(t)
	k := keyOf(t, e, "shard_1")
	read, write := fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", k), fmt.Sprintf("UPDATE orders SET item = 'x' WHERE customer_id = %d", k)
	const set, show = "SET rangefinder.read_consistency = ", "SHOW rangefinder.read_consistency"
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, c := range []struct {
		name, want string
		client     []byte
		on         string // which backends were asked, in order
		says       []string
	}{
		{"the default", "T D C ZI", query(show), "", []string{"session"}},
		{"a write, and a read that must see it", "T D C ZI T D C ZI", join(query(write), query(read)), "far far", nil},
		{"eventual", "C ZI T D C ZI T D C ZI T D C ZI", join(query(set+"eventual"), query(write), query(read), query(show)), "far here", []string{"eventual"}},
		{"primary", "C ZI T D C ZI", join(query(set+"'PRIMARY'"), query(read)), "far", nil},
		{"primary, then reset", "C ZI T D C ZI C ZI T D C ZI", join(query(set+"'primary'"), query(read), query("RESET rangefinder.read_consistency"), query(read)), "far here", nil},
		{"to the default", "C ZI C ZI T D C ZI", join(query(set+"'primary'"), query(set+"DEFAULT"), query(show)), "", []string{"session"}},
		{"RESET ALL", "C ZI C ZI T D C ZI", join(query(set+"'primary'"), query("RESET ALL"), query(show)), "far", []string{"session"}},
		{"DISCARD ALL", "C ZI C ZI T D C ZI", join(query(set+"'primary'"), query("DISCARD ALL"), query(show)), "far", []string{"session"}},
		{"among pooled statements", "C ZI T D C ZI C ZI T D C ZI", join(query(set+"eventual"), query(write), query("SET work_mem = '1MB'"), query(read)), "far here here", nil},
		{"in the extended protocol", "1 2 n C ZI 1 2 T D C ZI", join(ext("", set+"eventual"), ext("", show)), "", []string{"eventual"}},
		{"described before it is bound", "1 t T ZI 1 t n ZI", join(
			pg.AppendSync(pg.AppendDescribe(pg.AppendParse(nil, "a", show, nil), 'S', "a")), pg.AppendSync(pg.AppendDescribe(pg.AppendParse(nil, "b", set+"eventual", nil), 'S', "b"))), "", nil},
		{"in a transaction that is open on a server", "C ZT T D C ZT C ZT T D C ZT C ZI", join(query("BEGIN"), query(write), query(set+"eventual"), query(show), query("COMMIT")), "far", []string{"eventual"}},
		{"writes on several shards", "T D C ZI C ZI T D C ZI C ZI T D C ZI", join(query("SHOW rangefinder.cross_shard_writes"), query("SET rangefinder.cross_shard_writes = '2PC'"), query("SHOW rangefinder.cross_shard_writes"),
			query("RESET rangefinder.cross_shard_writes"), query("SHOW rangefinder.cross_shard_writes")), "", []string{"refuse", "2pc", "refuse"}},
		{"writes on several shards: a value that is none", "E(22023) ZI T D C ZI", join(query("SET rangefinder.cross_shard_writes = 'yes'"), query("SHOW rangefinder.cross_shard_writes")), "", []string{"refuse", "Available values: refuse, 2pc."}},
		{"one does not touch the other", "C ZI T D C ZI", join(query("SET rangefinder.cross_shard_writes = '2pc'"), query(show)), "", []string{"session"}},
		{"a value that is none", "E(22023) ZI T D C ZI", join(query(set+"'strong'"), query(show)), "", []string{"session", "Available values: session, eventual, primary."}},
		{"a value that is none, in a transaction on a server", "C ZT T D C ZT E(22023) ZE E(25P02) ZE C ZI", join(query("BEGIN"), query(write), query(set+"'strong'"), query(read), query("COMMIT")), "far", nil},
		{"in the extended protocol too", "1 2 n E(22023) ZI", ext("", set+"'strong'"), "", nil},
		{"a parameter that is none", "E(42704) ZI E(42704) ZI E(42704) ZI", join(query("SET rangefinder.colour = 'red'"), query("SHOW rangefinder.colour"), query("RESET rangefinder.colour")), "", nil},
		{"for one transaction", "C ZT E(0A000) ZE", join(query("BEGIN"), query("SET LOCAL rangefinder.read_consistency = 'eventual'")), "", nil},
		{"among others", "E(0A000) ZI", query(set + "eventual; SELECT 1"), "", nil},
		{"by a function", "E(0A000) ZI", query("SELECT set_config('rangefinder.read_consistency', 'eventual', false)"), "", nil},
		{"in a failed transaction", "C ZT E(53000) ZE E(25P02) ZE", join(query("BEGIN"), query("SELECT * FROM orders"), query(show)), "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDrive(t, c.client)
			d.run()
			if got := types(t, d.out); got != c.want {
				t.Errorf("got  %s\nwant %s\nlog %q", got, c.want, d.log)
			}
			var on []string
			for _, l := range d.log {
				if !strings.Contains(l, " parse ") && !strings.Contains(l, " execute ") && !strings.Contains(l, "work_mem = '1MB'\n;") && !strings.Contains(l, " COMMIT") {
					on = append(on, strings.TrimPrefix(strings.Fields(l)[0], "shard_1-"))
				}
				if strings.Contains(l, "rangefinder") {
					t.Errorf("a backend was told: %s", l)
				}
			}
			if got := strings.Join(on, " "); got != c.on {
				t.Errorf("ran on %q, want %q; log %q", got, c.on, d.log)
			}
			for _, s := range c.says {
				if !bytes.Contains(d.out, []byte(s)) {
					t.Errorf("no %q in %q", s, d.out)
				}
			}
		})
	}
}

// What a database is configured for holds for the sessions that go on, unless they say otherwise.
func TestCoreDatabaseConsistency(t *testing.T) {
	e := testEnv(t)
	read := query(fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", keyOf(t, e, "shard_1")))
	var database atomic.Uint32
	database.Store(uint32(Primary))
	d := newDrive(t, read)
	d.core.own.database = &database
	d.then = func() []byte {
		database.Store(uint32(Eventual))
		return bytes.Join([][]byte{read, query("SET rangefinder.read_consistency = 'primary'"), read}, nil)
	}
	d.run()
	var on []string
	for _, l := range d.log {
		on = append(on, strings.Fields(l)[0])
	}
	if got, want := strings.Join(on, " "), "shard_1-far shard_1-here shard_1-far"; got != want {
		t.Errorf("ran on %s, want %s", got, want)
	}
}

func TestStartupOwnParameters(t *testing.T) {
	var o own
	s, _, err := startupSettings([]pg.Param{{Key: "options", Value: "-c rangefinder.read_consistency=primary -c work_mem=1MB"}}, nil, &o, testEnv(t))
	if err != nil || o.consistency() != Primary || strings.Contains(s.print, "rangefinder") || len(s.list) != 1 {
		t.Errorf("%v, %v, %q", err, o.consistency(), s.print)
	}
	eventual := Eventual
	o.set = &eventual
	if o.reset(); o.consistency() != Primary {
		t.Errorf("reset to %v, want what the session has begun with", o.consistency())
	}
	if _, _, err := startupSettings([]pg.Param{{Key: "rangefinder.read_consistency", Value: "strong"}}, nil, new(own), testEnv(t)); err == nil || err.(*pg.Error).Code != pg.CodeInvalidParameterValue {
		t.Errorf("a value that is none: %v", err)
	}
}
