package wire

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"rangefinder/wire/pg"
)

// TestCoreHints: what is set says where statements run that do not tell, as long as it is set.
func TestCoreHints(t *testing.T) {
	e := testEnv(t)
	one, two := keyOf(t, e, "shard_1"), keyOf(t, e, "shard_2")
	const (
		read  = "SELECT item FROM orders"
		write = "UPDATE orders SET item = 'x'"
		shard = "SET rangefinder.shard = "
		show  = "SHOW rangefinder.shard"
	)
	of := func(k int) string { return fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", k) }
	key := func(k int) string { return fmt.Sprintf("SET rangefinder.key = '%d'", k) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	queries := func(list ...string) (b []byte) {
		for _, sql := range list {
			b = append(b, query(sql)...)
		}
		return b
	}
	// A pipeline: messages of several statements before one Sync.
	pipeline := func(list ...string) (b []byte) {
		for _, sql := range list {
			b = append(b, bytes.TrimSuffix(ext("", sql), pg.AppendSync(nil))...)
		}
		return pg.AppendSync(b)
	}
	for _, c := range []struct {
		name, want string
		client     []byte
		on         string // which shards were asked, in order
		says       []string
	}{
		{"a shard", "C ZI T D C ZI T D C ZI", queries(shard+"'shard_2'", read, show), "2", []string{"shard_2"}},
		{"a shard, unquoted", "C ZI T D C ZI", queries(shard+"shard_2", read), "2", nil},
		{"a shard that is none", "E(22023) ZI E(53000) ZI", queries(shard+"'shard_9'", read), "", []string{"shard_9, which is not known"}},
		{"a key", "C ZI T D C ZI C ZI T D C ZI", queries(key(one), read, key(two), read), "1 2", nil},
		{"a key that does not parse", "E(22P02) ZI", queries("SET rangefinder.key = 'blue'"), "", []string{"rangefinder.key", "app.orders"}},
		{"a key out of range", "E(22003) ZI", queries("SET rangefinder.key = '99999999999999999999'"), "", nil},
		{"a key of several columns", "E(22P02) ZI", queries("SET rangefinder.key = '1,2'"), "", nil},
		{"set to nothing", "C ZI C ZI E(53000) ZI", queries(shard+"'shard_2'", shard+"''", read), "", nil},
		{"RESET", "C ZI C ZI E(53000) ZI", queries(shard+"'shard_2'", "RESET rangefinder.shard", read), "", nil},
		{"to the default", "C ZI C ZI E(53000) ZI", queries(key(one), "SET rangefinder.key TO DEFAULT", read), "", nil},
		{"RESET ALL", "C ZI C ZI E(53000) ZI", queries(shard+"'shard_2'", "RESET ALL", read), "1", nil},
		{"DISCARD ALL", "C ZI C ZI E(53000) ZI", queries(key(two), "DISCARD ALL", read), "1", nil},
		{"a statement that names another shard's key", "C ZI E(22023) ZI T D C ZI", queries(shard+"'shard_2'", of(one), of(two)), "2", []string{"contradicts rangefinder.shard", "belongs to shard_1"}},
		{"a key of another shard", "C ZI E(22023) ZI T D C ZI", queries(key(two), of(one), of(two)), "2", []string{"contradicts rangefinder.key"}},
		{"key and shard disagree", "C ZI C ZI E(22023) ZI", queries(key(two), shard+"'shard_1'", read), "", []string{"contradicts rangefinder.shard"}},
		{"a comment wins", "C ZI T D C ZI", queries(shard+"'shard_2'", read+" /* rangefinder: shard=shard_1 */"), "1", nil},
		{"tables of no keyspace stay", "C ZI T D C ZI", queries(shard+"'shard_2'", "SELECT item FROM elsewhere"), "1", nil},
		{"in the extended protocol", "1 2 n C ZI 1 2 T D C ZI 1 2 T D C ZI", join(ext("", shard+"'shard_2'"), ext("", read), ext("", show)), "2", []string{"shard_2"}},
		{"a statement prepared before", "C ZI 1 ZI 2 T D C ZI C ZI 2 T D C ZI", join(
			query(shard+"'shard_1'"), pg.AppendSync(pg.AppendParse(nil, "p", read, nil)), bindRun("p"), query(shard+"'shard_2'"), bindRun("p")), "1 2", nil},
		{"in one pipeline", "1 2 n C 1 2 T D C ZI", pipeline(shard+"'shard_2'", read), "2", nil},
		{"in a pipeline that fails", "1 2 n C E(22P02) ZI T D C ZI", join(pipeline(shard+"'shard_2'", read+" WHERE customer_id = 'a'"), query(show)), "", nil},
		{"in a pipeline that fails on the server", "1 2 n C 1 2 T E(22012) ZI T D C ZI E(53000) ZI", join(pipeline(shard+"'shard_2'", "SELECT fail FROM orders"), queries(show, read)), "2", nil},
		{"committed", "C ZT C ZT T D C ZT C ZI T D C ZI", queries("BEGIN", shard+"'shard_2'", write, "COMMIT", read), "2 2", nil},
		{"rolled back", "C ZT C ZT T D C ZT C ZI E(53000) ZI", queries("BEGIN", shard+"'shard_2'", write, "ROLLBACK", read), "2", nil},
		{"rolled back, open nowhere", "C ZT C ZT C ZI E(53000) ZI", queries("BEGIN", shard+"'shard_2'", "ROLLBACK", read), "", nil},
		{"back to a savepoint", "C ZT C ZT C ZT C ZT C ZT T D C ZT C ZI T D C ZI", queries("BEGIN", shard+"'shard_2'", "SAVEPOINT a", shard+"'shard_1'", "ROLLBACK TO a", write, "COMMIT", read), "2 2", nil},
		{"for the transaction", "C ZT C ZT T D C ZT T D C ZT C ZI E(53000) ZI T D C ZI", queries("BEGIN", "SET LOCAL rangefinder.shard = 'shard_2'", show, write, "COMMIT", read, show), "2", nil},
		{"for the transaction, over the session's", "C ZI C ZT C ZT T D C ZT C ZI T D C ZI", queries(shard+"'shard_1'", "BEGIN", "SET LOCAL rangefinder.shard = 'shard_2'", write, "COMMIT", read), "2 1", nil},
		{"for a transaction that is open on a server", "C ZT T D C ZT C ZT T D C ZT C ZI E(53000) ZI", queries("BEGIN", strings.Replace(of(two), "SELECT item FROM orders", write, 1), "SET LOCAL rangefinder.shard = 'shard_2'", write, "COMMIT", read), "2 2", nil},
		{"for no transaction", "N C ZI E(53000) ZI", queries("SET LOCAL rangefinder.shard = 'shard_2'", read), "", []string{"SET LOCAL can only be used in transaction blocks"}},
		{"a wrong one in a transaction", "C ZT E(22023) ZE E(25P02) ZE C ZI", queries("BEGIN", shard+"'shard_9'", show, "COMMIT"), "", nil},
		{"EXECUTE", "C ZI C ZI C ZI", queries(shard+"'shard_2'", "PREPARE q AS "+read, "EXECUTE q"), "2 2", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDrive(t, c.client)
			d.run()
			if got := types(t, d.out); got != c.want {
				t.Errorf("got  %s\nwant %s\nlog %q", got, c.want, d.log)
			}
			var on []string
			for _, l := range d.log {
				if !strings.Contains(l, " execute ") && !strings.Contains(l, " COMMIT") && !strings.Contains(l, " ROLLBACK") && !strings.Contains(l, "SAVEPOINT") && !strings.Contains(l, "BEGIN") {
					on = append(on, strings.TrimPrefix(strings.Fields(l)[0], "shard_")[:1])
				}
				if strings.Contains(l, "rangefinder.") {
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

// bindRun binds a prepared statement and runs it.
func bindRun(name string) []byte {
	return pg.AppendSync(pg.AppendExecute(pg.AppendDescribe(bindFrame("", name), 'P', ""), "", 0))
}
