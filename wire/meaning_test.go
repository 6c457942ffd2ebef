package wire_test

import (
	"fmt"
	"slices"
	"testing"

	"rangefinder/wire/pg"
)

// What a text means is told by what is in force when it runs, also if that is set in front of it in the same pipeline: no row goes where
// a table of the same name belongs.
func TestMeaningMovesInPipelines(t *testing.T) {
	r := newRig(t, rigOptions{shards: []shardServers{{primary: servers(t)[0].primary}, {primary: servers(t)[1].primary}}})
	onAll := func(sql string) {
		t.Helper()
		for _, s := range r.servers {
			conn, err := s.primary.ConnTo(ctxOf(t), "app", "postgres")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(ctxOf(t), sql); err != nil {
				t.Fatal(err)
			}
			conn.Close(ctxOf(t))
		}
	}
	onAll("DROP SCHEMA IF EXISTS s2 CASCADE; CREATE SCHEMA s2; CREATE TABLE s2.orders (LIKE public.orders); GRANT ALL ON SCHEMA s2 TO PUBLIC; GRANT ALL ON s2.orders TO PUBLIC")
	defer onAll("DROP SCHEMA s2 CASCADE")
	home, away := r.keyOn("shard_1", 1), r.keyOn("shard_2", 1)
	id := 5000
	insert := func(key int64) []byte {
		id++
		return extended(fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, %d)", key, id))
	}
	path, begin, commit := "SET search_path = s2", step{simple("BEGIN"), "Z"}, extended("COMMIT")
	open := step{simple(fmt.Sprintf("SELECT 1 FROM public.orders WHERE customer_id = %d", home)), "Z"}
	for _, c := range []struct {
		name  string
		steps func() []step
		own   []int // rows in s2.orders by shard
		all   []int // in public.orders
	}{
		{"SET", func() []step { return []step{{msg(extended(path), insert(home), insert(away), syncs()), "Z"}} }, []int{2, 0}, []int{0, 0}},
		{"set_config", func() []step {
			return []step{{msg(extended("SELECT set_config('search_path', $1, false)", "s2"), insert(home), insert(away), syncs()), "Z"}}
		}, []int{2, 0}, []int{0, 0}},
		{"named statements", func() []step {
			return []step{{msg(parse("i", "INSERT INTO orders (customer_id, id) VALUES ($1, 5900)"), syncs()), "Z"},
				{msg(extended(path), bind("", "i", fmt.Sprint(home)), run("", 0), bind("", "i", fmt.Sprint(away)), run("", 0), syncs()), "Z"}}
		}, []int{2, 0}, []int{0, 0}},
		{"RESET", func() []step {
			return []step{{simple(path), "Z"}, {msg(extended("RESET search_path"), insert(away), syncs()), "Z"}, {msg(insert(home), syncs()), "Z"}}
		}, []int{0, 0}, []int{1, 1}},
		{"DISCARD ALL", func() []step {
			return []step{{simple(path), "Z"}, {msg(extended("DISCARD ALL"), insert(away), syncs()), "Z"}}
		}, []int{0, 0}, []int{0, 1}},
		{"in a block", func() []step {
			return []step{{msg(extended("BEGIN"), extended(path), insert(home), insert(away), commit, syncs()), "Z"}}
		}, []int{2, 0}, []int{0, 0}},
		{"behind the end of a block", func() []step {
			return []step{begin, open, {simple("SET LOCAL search_path = s2"), "Z"}, {msg(commit, insert(away), syncs()), "Z"}}
		}, []int{0, 0}, []int{0, 1}},
		{"behind a ROLLBACK", func() []step {
			return []step{begin, open, {simple(path), "Z"}, {msg(extended("ROLLBACK"), insert(away), syncs()), "Z"}}
		}, []int{0, 0}, []int{0, 1}},
		{"what fails takes back what was set", func() []step {
			return []step{{msg(extended(path), extended("SELECT 1/0"), insert(home), syncs()), "Z"}, {msg(insert(away), syncs()), "Z"}}
		}, []int{0, 0}, []int{0, 1}},
		{"what is refused takes it back as well", func() []step {
			return []step{{msg(extended(path), extended("PREPARE TRANSACTION 'x'"), syncs()), "Z"}, {msg(insert(away), syncs()), "Z"}}
		}, []int{0, 0}, []int{0, 1}},
		{"and BEGIN takes it into its block", func() []step {
			return []step{{msg(extended(path), extended("BEGIN"), syncs()), "Z"}, {simple("ROLLBACK"), "Z"}, {msg(insert(away), syncs()), "Z"}}
		}, []int{0, 0}, []int{0, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onAll("TRUNCATE s2.orders; DELETE FROM public.orders WHERE id > 5000")
			words := tell(t, r.addr, "app", c.steps())
			own, _ := r.onShards(t, "SELECT count(*) FROM s2.orders")
			all, _ := r.onShards(t, "SELECT count(*) FROM public.orders WHERE id > 5000")
			if !slices.Equal(own, c.own) || !slices.Equal(all, c.all) {
				t.Errorf("rows in s2 %v, want %v; in public %v, want %v; told\n%q", own, c.own, all, c.all, words)
			}
		})
	}
	for _, text := range []string{"COMMIT", "ROLLBACK"} {
		conn := r.pgConn(t)
		for _, sql := range []string{"BEGIN", "SET LOCAL search_path = s2", fmt.Sprintf("SELECT 1 FROM public.orders WHERE customer_id = %d", home)} {
			if _, err := conn.Exec(ctxOf(t), sql).ReadAll(); err != nil {
				t.Fatal(err)
			}
		}
		_, err := conn.Exec(ctxOf(t), fmt.Sprintf("%s; INSERT INTO orders (customer_id, id) VALUES (%d, 5999)", text, home)).ReadAll()
		if e := wantCode(t, err, pg.CodeFeatureNotSupported); e.Hint == "" {
			t.Error("no hint")
		}
	}
}
