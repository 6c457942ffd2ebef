package wire_test

import (
	"fmt"
	"testing"
)

// What a function leaves that is called by its number is found as that of any other is.
func TestFunctionCallLeaves(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1, shards: alone(t)})
	number := func(signature string) (oid uint32) {
		t.Helper()
		got, err := r.pgConn(t).Exec(ctxOf(t), "SELECT '"+signature+"'::regprocedure::oid::int").ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Sscan(string(got[0].Rows[0][0]), &oid)
		return oid
	}
	lock, set := number("pg_advisory_lock(bigint)"), number("set_config(text,text,boolean)")
	tell(t, r.addr, "app", []step{{callFunction(lock, "4242"), "Z"}, {callFunction(set, "work_mem", "15MB", "false"), "Z"}})
	for sql, want := range map[string]string{"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'": "0", "SHOW work_mem": "4MB"} {
		if got, err := r.pgConn(t).Exec(ctxOf(t), sql).ReadAll(); err != nil || string(got[0].Rows[0][0]) != want {
			t.Errorf("%s: %v %v, want %s", sql, got, err, want)
		}
	}
}

// Neither does what an operator sets that somebody has made.
func TestOperatorLeaves(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1, shards: alone(t)})
	err := r.servers[0].primary.ExecIn(ctxOf(t), "app", "CREATE FUNCTION sets(int, int) RETURNS text LANGUAGE sql AS $$ SELECT set_config('work_mem', '15MB', false) $$",
		"CREATE OPERATOR === (FUNCTION = sets, LEFTARG = int, RIGHTARG = int)")
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"SELECT 1 === 2", "SELECT 1 FROM notes RIGHT JOIN (SELECT 1) x ON true WHERE (1 === 1) IS NOT NULL", "EXPLAIN ANALYZE SELECT 1 OPERATOR(public.===) 2"} {
		if _, err := r.pgConn(t).Exec(ctxOf(t), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
		if got, err := r.pgConn(t).Exec(ctxOf(t), "SHOW work_mem").ReadAll(); err != nil || string(got[0].Rows[0][0]) != "4MB" {
			t.Errorf("%s: %s %v", sql, got[0].Rows[0][0], err)
		}
	}
}
