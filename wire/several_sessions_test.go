package wire_test

import (
	"fmt"
	"strings"
	"testing"
)

// sessionFeatures are what PostgreSQL sessions can do, each beside statements on several shards: {a} is a key on shard_1, {b} one on shard_2, and each
// of the two customers has orders 1 and 2. What psql prints is compared; errors by their SQLSTATE. Where the answer is an error of the node's, it says why.
var sessionFeatures = []struct{ name, script, want string }{
	{"SET holds on all shards", `SET application_name = 'mine'; SELECT DISTINCT current_setting('application_name') FROM orders; SHOW application_name;`, "mine\nmine"},
	{"RESET returns on all shards", `SET work_mem = '5MB'; SELECT count(*) FROM orders; RESET work_mem; SELECT DISTINCT current_setting('work_mem') FROM orders;`, "4\n4MB"},
	{"SET in a transaction that is open on several", `BEGIN; SELECT count(*) FROM orders; SET work_mem = '6MB'; SELECT DISTINCT current_setting('work_mem') FROM orders; COMMIT; SELECT DISTINCT current_setting('work_mem') FROM orders;`, "4\n6MB\n6MB"},
	{"SET is rolled back", `BEGIN; SELECT count(*) FROM orders; SET work_mem = '6MB'; ROLLBACK; SELECT DISTINCT current_setting('work_mem') FROM orders;`, "4\n4MB"},
	{"SET LOCAL ends with the transaction", `BEGIN; SET LOCAL work_mem = '7MB'; SELECT DISTINCT current_setting('work_mem') FROM orders; COMMIT; SELECT DISTINCT current_setting('work_mem') FROM orders;`, "7MB\n4MB"},
	{"SET LOCAL reaches shards that come later", `BEGIN; SELECT count(*) FROM orders WHERE customer_id = {a}; SET LOCAL work_mem = '7MB'; SELECT DISTINCT current_setting('work_mem') FROM orders; COMMIT;`, "2\n7MB"},
	{"SET LOCAL is taken back by ROLLBACK TO", `BEGIN; SELECT count(*) FROM orders; SAVEPOINT s; SET LOCAL work_mem = '7MB'; ROLLBACK TO s; SELECT DISTINCT current_setting('work_mem') FROM orders; COMMIT;`, "4\n4MB"},
	{"set_config for the session", `SELECT set_config('work_mem', '8MB', false); SELECT DISTINCT current_setting('work_mem') FROM orders;`, "8MB\n8MB"},
	{"set_config for the transaction", `BEGIN; SELECT set_config('work_mem', '8MB', true); SELECT DISTINCT current_setting('work_mem') FROM orders; COMMIT; SHOW work_mem;`, "8MB\n8MB\n4MB"},
	{"search_path", `SET search_path = pg_catalog; SELECT count(*) FROM orders; SELECT count(*) FROM public.orders; SET search_path = public; SELECT count(*) FROM orders;`, "42P01\n4\n4"},
	{"DISCARD ALL", `SET work_mem = '5MB'; SELECT count(*) FROM orders; DISCARD ALL; SELECT DISTINCT current_setting('work_mem') FROM orders;`, "4\n4MB"},
	{"RESET ALL", `SET work_mem = '5MB'; SELECT count(*) FROM orders; RESET ALL; SELECT DISTINCT current_setting('work_mem') FROM orders;`, "4\n4MB"},
	{"statement_timeout ends it on all shards", `SET statement_timeout = '200ms'; SELECT pg_sleep(30) FROM orders; SELECT count(*) FROM orders;`, "57014\n4"},
	{"time zone of the rows", `SET TIME ZONE 'Asia/Tokyo'; SELECT DISTINCT to_char(timestamptz '2024-01-01 00:00:00+00', 'HH24') FROM orders;`, "09"},
	{"SET ROLE to oneself", `SET ROLE app; SELECT DISTINCT current_user FROM orders; RESET ROLE; SELECT count(*) FROM orders;`, "app\n4"},

	{"isolation of all parts", `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT DISTINCT current_setting('transaction_isolation') FROM orders; COMMIT;`, "repeatable read"},
	{"SET TRANSACTION reaches all parts", `BEGIN; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT DISTINCT current_setting('transaction_isolation') FROM orders; COMMIT;`, "serializable"},
	{"READ ONLY on all parts", `BEGIN READ ONLY; SELECT count(*) FROM orders; DELETE FROM orders; ROLLBACK; SELECT count(*) FROM orders;`, "4\n25006\n4"},
	{"an error fails all parts", `BEGIN; DELETE FROM orders; SELECT 1/0; SELECT count(*) FROM orders; COMMIT; SELECT count(*) FROM orders;`, "22012\n25P02\n4"},
	{"savepoints on all parts", `BEGIN; DELETE FROM orders WHERE customer_id = {a}; SAVEPOINT s; DELETE FROM orders; ROLLBACK TO s; SELECT count(*) FROM orders; ROLLBACK;`, "2"},
	{"a savepoint of before a shard came", `BEGIN; SELECT count(*) FROM orders WHERE customer_id = {a}; SAVEPOINT s; DELETE FROM orders WHERE customer_id = {b}; ROLLBACK TO s; SELECT count(*) FROM orders; RELEASE s; COMMIT;`, "2\n4"},
	{"savepoints of one name", `BEGIN; SAVEPOINT s; DELETE FROM orders WHERE customer_id = {a}; SAVEPOINT s; DELETE FROM orders; ROLLBACK TO s; RELEASE s; ROLLBACK TO s; SELECT count(*) FROM orders; ROLLBACK;`, "4"},
	{"an error and ROLLBACK TO", `BEGIN; DELETE FROM orders WHERE customer_id = {a}; SAVEPOINT s; SELECT 1/0 FROM orders; ROLLBACK TO s; SELECT count(*) FROM orders; ROLLBACK;`, "22012\n2"},
	{"COMMIT AND CHAIN", `BEGIN; SELECT count(*) FROM orders; COMMIT AND CHAIN; SELECT count(*) FROM orders; ROLLBACK;`, "4\n4"},
	{"PREPARE TRANSACTION is nobody's", `BEGIN; DELETE FROM orders; PREPARE TRANSACTION 'x'; ROLLBACK; SELECT count(*) FROM orders;`, "0A000\n4"},
	{"SET CONSTRAINTS", `BEGIN; SELECT count(*) FROM orders; SET CONSTRAINTS ALL DEFERRED; SELECT count(*) FROM orders; COMMIT;`, "4\n4"},

	{"PREPARE over shards", `PREPARE p (text) AS SELECT count(*) FROM orders WHERE item >= $1; EXECUTE p ('a'); BEGIN; EXECUTE p (''); EXECUTE p ('z'); COMMIT; DEALLOCATE p; EXECUTE p ('a');`, "4\n4\n0\n26000"},
	{"PREPARE on one shard, in a transaction on several", `PREPARE p (bigint) AS SELECT count(*) FROM orders WHERE customer_id = $1; BEGIN; SELECT count(*) FROM orders; EXECUTE p ({a}); EXECUTE p ({b}); COMMIT; EXECUTE p ({a});`, "4\n2\n2\n2"},
	{"PREPARE in a transaction outlives it", `BEGIN; SELECT count(*) FROM orders; PREPARE p AS SELECT count(*) FROM orders; ROLLBACK; EXECUTE p;`, "4\n4"},
	{"DEALLOCATE ALL", `PREPARE p AS SELECT count(*) FROM orders; EXECUTE p; DEALLOCATE ALL; EXECUTE p;`, "4\n26000"},

	{"a cursor over shards", `BEGIN; DECLARE c CURSOR FOR SELECT id FROM orders ORDER BY id, customer_id; FETCH 3 FROM c; MOVE 1 IN c; FETCH c; CLOSE c; COMMIT;`, "1\n1\n2"},
	{"a cursor on one shard, in a transaction on several", `BEGIN; SELECT count(*) FROM orders; DECLARE c CURSOR FOR SELECT id FROM orders WHERE customer_id = {b} ORDER BY id; FETCH c; SELECT count(*) FROM orders; FETCH c; COMMIT;`, "4\n1\n4\n2"},
	{"a cursor ends with its transaction", `BEGIN; DECLARE c CURSOR FOR SELECT id FROM orders; COMMIT; FETCH c;`, "34000"},
	{"WITH HOLD over shards is refused", `DECLARE c CURSOR WITH HOLD FOR SELECT id FROM orders; SELECT count(*) FROM orders;`, "0A000\n4"},
	{"WITH HOLD on one shard ties the session to it", `DECLARE c CURSOR WITH HOLD FOR SELECT id FROM orders WHERE customer_id = {a} ORDER BY id; FETCH c; SELECT count(*) FROM orders; FETCH c; CLOSE c; SELECT count(*) FROM orders;`, "1\n0A000\n2\n4"},
	{"SCROLL over shards is refused", `BEGIN; DECLARE c SCROLL CURSOR FOR SELECT id FROM orders; ROLLBACK;`, "0A000"},

	{"a temporary table ties the session to its shard", `CREATE TEMPORARY TABLE mine (n int); INSERT INTO mine VALUES (1), (2); SELECT count(*) FROM orders; SELECT sum(n) FROM mine; DROP TABLE mine; SELECT count(*) FROM orders;`, "0A000\n3\n4"},
	{"so its transactions do not reach others", `CREATE TEMPORARY TABLE mine (n int); BEGIN; INSERT INTO mine VALUES (5); SELECT count(*) FROM orders; ROLLBACK; SELECT count(*) FROM mine;`, "0A000\n0"},
	{"a temporary table and rows of several shards are refused", `CREATE TEMPORARY TABLE mine (n int); INSERT INTO mine SELECT id FROM orders; SELECT count(*) FROM mine, orders; SELECT count(*) FROM mine;`, "0A000\n0A000\n0"},
	{"a temporary table that goes with its transaction", `BEGIN; CREATE TEMPORARY TABLE mine (n int) ON COMMIT DROP; INSERT INTO mine VALUES (1); SELECT count(*) FROM orders; SELECT n FROM mine; COMMIT; SELECT count(*) FROM orders; SELECT n FROM mine;`, "4\n1\n4\n42P01"},
	{"a transaction on several makes no temporary table that stays", `BEGIN; SELECT count(*) FROM orders; CREATE TEMPORARY TABLE mine (n int); ROLLBACK; SELECT n FROM mine; SELECT count(*) FROM orders;`, "4\n0A000\n42P01\n4"},

	{"an advisory lock ties the session to its shard", `SELECT pg_advisory_lock(7); SELECT count(*) FROM orders; SELECT pg_advisory_unlock(7); SELECT count(*) FROM orders;`, "\n0A000\nt\n4"},
	{"an advisory lock of a transaction on several", `BEGIN; SELECT count(*) FROM orders; SELECT pg_advisory_xact_lock(8); SELECT count(*) FROM orders; COMMIT; SELECT pg_try_advisory_lock(8); SELECT pg_advisory_unlock_all();`, "4\n\n4\nt\n"},
	{"an advisory lock per row is refused", `SELECT pg_advisory_lock(id) FROM orders; SELECT count(*) FROM orders;`, "0A000\n4"},

	{"what is rolled back is not heard", `LISTEN here; BEGIN; SELECT count(*) FROM orders; NOTIFY here, 'never'; ROLLBACK; SELECT count(*) FROM orders;`, "4\n4"},
	{"LISTEN in a transaction on several", `BEGIN; SELECT count(*) FROM orders; LISTEN here; COMMIT; NOTIFY here, 'x'; UNLISTEN *; NOTIFY here, 'y'; SELECT count(*) FROM orders;`, "4\nAsynchronous notification \"here\" with payload \"x\"\n4"},

	{"COPY in a transaction on several", "BEGIN; SELECT count(*) FROM orders;\nCOPY orders (customer_id, id) FROM STDIN;\n{a}\t8\n{b}\t8\n\\.\nSELECT count(*) FROM orders; ROLLBACK; SELECT count(*) FROM orders;", "4\n6\n4"},
	{"several statements in one string", `SELECT count(*) FROM orders\; DELETE FROM orders WHERE id = 2\; SELECT 1/0; SELECT count(*) FROM orders;`, "4\n22012\n4"},
	{"a transaction on several makes no temporary sequence", `BEGIN; SELECT count(*) FROM orders; CREATE TEMPORARY SEQUENCE counter; ROLLBACK; SELECT count(*) FROM orders;`, "4\n0A000\n4"},
	{"EXPLAIN changes nothing", `BEGIN; EXPLAIN (COSTS off) DELETE FROM orders WHERE customer_id = {a}; SELECT count(*) FROM orders; COMMIT;`, "*\n4"},
	{"DO is for one shard", `SELECT count(*) FROM orders; DO $$ BEGIN PERFORM 1; END $$; BEGIN; SELECT count(*) FROM orders; DO $$ BEGIN PERFORM 1; END $$; ROLLBACK; SELECT count(*) FROM orders;`, "4\n4\n0A000\n4"},
}

// Sessions can do with statements on several shards what they can do without; what they cannot is refused, and the session goes on.
func TestSessionFeaturesBesideSeveralShards(t *testing.T) {
	r := newRig(t, rigOptions{across: true})
	keys := strings.NewReplacer("{a}", fmt.Sprint(r.keyOn("shard_1", 1)), "{b}", fmt.Sprint(r.keyOn("shard_2", 1)))
	fill := keys.Replace("DELETE FROM orders; INSERT INTO orders VALUES ({a}, 1, 'a'), ({a}, 2, 'b'), ({b}, 1, 'a'), ({b}, 2, 'b');")
	for _, f := range sessionFeatures {
		t.Run(f.name, func(t *testing.T) {
			if out, err := r.program(t, fill, "psql", "-Xq", "-v", "ON_ERROR_STOP=1"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, s := range r.servers {
				if s.replica != nil {
					if err := s.replica.CaughtUp(ctxOf(t)); err != nil {
						t.Fatal(err)
					}
				}
			}
			out, err := r.program(t, keys.Replace(f.script), "psql", "-XAtq", "-v", "VERBOSITY=sqlstate")
			if err != nil {
				t.Errorf("psql: %v", err)
			}
			var lines []string
			for line := range strings.Lines(out) {
				line = strings.TrimSuffix(line, "\n")
				if at := strings.Index(line, "ERROR:  "); at >= 0 { // psql:<stdin>:1: ERROR:  0A000
					line = line[at+len("ERROR:  "):]
				}
				if strings.HasPrefix(line, "Asynchronous") {
					line, _, _ = strings.Cut(line, " received")
				}
				lines = append(lines, line)
			}
			got := strings.Join(lines, "\n")
			if before, after, ok := strings.Cut(f.want, "*"); ok && strings.HasPrefix(got, before) && strings.HasSuffix(got, after) {
				got = f.want
			}
			if got != f.want {
				t.Errorf("%s\nprints\n%s\nwant\n%s", f.script, got, f.want)
			}
			r.busy(t, 0)
		})
	}
}
