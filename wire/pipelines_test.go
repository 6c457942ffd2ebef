package wire_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"
)

// loneTexts come with no other statement in a pipeline. Behind one PostgreSQL refuses them, as it has a transaction by then; a node may have none.
var loneTexts = []string{"DISCARD ALL", "START TRANSACTION ISOLATION LEVEL REPEATABLE READ"}

// Whatever a client pipelines, sets and undoes: it is answered as by PostgreSQL, and who gets its server connection next finds nothing of it.
func TestPipelinesAreThoseOfPostgreSQL(t *testing.T) {
	for _, place := range places(t) {
		t.Run(place.name, func(t *testing.T) {
			r := newRig(t, rigOptions{poolSize: 1, shards: place.shards})
			primary := place.shards[0].primary
			if place.database != "app" {
				plainDatabase(t, primary, place.database)
			}
			for _, s := range place.shards {
				if err := s.primary.Exec(ctxOf(t), makeHelper, "GRANT helper TO app"); err != nil {
					t.Fatal(err)
				}
				if err := s.primary.ExecIn(ctxOf(t), place.database, "GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO helper"); err != nil {
					t.Fatal(err)
				}
			}
			key := r.keyOn("shard_1", 1)
			admin, err := primary.ConnTo(ctxOf(t), place.database, "postgres")
			if err != nil {
				t.Fatal(err)
			}
			defer admin.Close(context.Background())
			other, err := pgx.Connect(ctxOf(t), r.dsnOf(place.database))
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close(context.Background())
			looks := shown + fmt.Sprintf(" || '|' || count(*) FROM orders WHERE customer_id = %d", key)
			find := func() string {
				return outcome(other, looks)
			}
			want := ""
			texts := slices.Concat(settingTexts, []string{
				shown, looks, "UPDATE notes SET body = body || 'x' WHERE id = 1 RETURNING body", "SELECT body FROM notes WHERE id = 1", "SELEC",
				fmt.Sprintf("UPDATE orders SET item = item || 'x' WHERE customer_id = %d AND id = 1 RETURNING item", key), fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d AND id = 1", key),
				"PREPARE p AS SELECT 7", "EXECUTE p", "DEALLOCATE p", "SELECT missing FROM notes",
			})
			texts = slices.DeleteFunc(texts, func(sql string) bool { return slices.Contains(loneTexts, sql) })
			repeatable(t)
			rapid.Check(t, func(rt *rapid.T) {
				var steps []step
				var script []string
				for range rapid.IntRange(1, 8).Draw(rt, "steps") {
					switch rapid.IntRange(0, 4).Draw(rt, "how") {
					case 0:
						sql := rapid.SampledFrom(slices.Concat(texts, severalTexts, loneTexts)).Draw(rt, "text")
						steps, script = append(steps, step{simple(sql), "Z"}), append(script, sql)
					default:
						var b []byte
						until := "Z"
						for i := range rapid.IntRange(1, 5).Draw(rt, "messages") {
							if i > 0 && rapid.IntRange(0, 4).Draw(rt, "sync") == 0 {
								b, until, script = append(b, syncs()...), until+"Z", append(script, "Sync")
							}
							sql := rapid.SampledFrom(texts).Draw(rt, "text")
							b, script = append(b, extended(sql)...), append(script, sql)
						}
						steps, script = append(steps, step{append(b, syncs()...), until}), append(script, "Sync")
					}
				}
				var told [2][]string
				for i, addr := range []string{primary.Addr(), r.addr} {
					if _, err := admin.Exec(ctxOf(t), fmt.Sprintf("TRUNCATE orders, notes; INSERT INTO notes VALUES (1, 'note'); INSERT INTO orders VALUES (%d, 1, 'item')", key)); err != nil {
						rt.Fatal(err)
					}
					if want == "" {
						want = find()
					}
					told[i] = settledReports(tell(t, addr, place.database, steps))
				}
				if !slices.Equal(told[0], told[1]) {
					rt.Fatalf("%s\nPostgreSQL and the router differ:\n%s", strings.Join(script, "\n"), sideBySide(told[0], told[1]))
				}
				if got := find(); got != want {
					rt.Fatalf("%s\nanother session finds %s, want %s", strings.Join(script, "\n"), got, want)
				}
			})
		})
	}
}

// settledReports brings the reports of parameters within one answer into an order, and leaves out those that are taken back in it.
func settledReports(words []string) (out []string) {
	var reports []string
	for _, w := range words {
		if name, _, ok := strings.Cut(w, `\x00`); ok && strings.HasPrefix(w, "S ") {
			reports = slices.DeleteFunc(reports, func(old string) bool { return strings.HasPrefix(old, name+`\x00`) })
			reports = append(reports, w)
			continue
		}
		if strings.HasPrefix(w, "Z ") {
			slices.Sort(reports)
			out, reports = append(out, reports...), nil
		}
		out = append(out, w)
	}
	return out
}
