package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

// TestTablesMadePastTheNodesOnRealPostgreSQL: tables of planned keyspaces that were made on the servers themselves. What each server would compute for itself is
// computed once, and rows are refused whose key PostgreSQL may store otherwise.
func TestTablesMadePastTheNodesOnRealPostgreSQL(t *testing.T) {
	c := startCluster(t)
	n := c.follower(t)
	shards := "shard_1,shard_2,shard_3"
	n.mustAdmin(t, "keyspace", "create", "app.fees", "--planned", "--reference", "--shards", shards)
	n.mustAdmin(t, "keyspace", "create", "app.cut", "--planned", "--key", "name", "--type", "text", "--shards", shards)
	n.mustAdmin(t, "keyspace", "create", "app.made", "--planned", "--key", "id", "--type", "bigint", "--shards", shards)
	n.mustAdmin(t, "keyspace", "create", "app.named", "--planned", "--key", "id", "--type", "text", "--shards", shards)
	n.mustAdmin(t, "keyspace", "create", "app.numbered", "--planned", "--key", "id", "--type", "bigint", "--shards", shards)
	n.sees(t, "app.made")
	n.sees(t, "app.numbered")
	c.everywhere(t, "CREATE TABLE fees (id int PRIMARY KEY, at timestamptz DEFAULT clock_timestamp(), n bigserial)", "CREATE TABLE cut (name varchar(10) PRIMARY KEY)",
		"CREATE TABLE made (a bigint, id bigint GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY)",
		"CREATE DOMAIN short AS varchar(10)", "CREATE DOMAIN shorter AS short", "CREATE TABLE named (id shorter PRIMARY KEY)",
		"CREATE DOMAIN number AS bigint", "CREATE TABLE numbered (id number PRIMARY KEY)", "GRANT ALL ON fees, cut, made, named, numbered TO app", "GRANT ALL ON fees_n_seq TO app",
		"GRANT SELECT ON fees, cut, made TO probe", "GRANT CREATE ON DATABASE app TO probe", "GRANT app TO probe")
	conn := n.connect(t)
	exec := func(sql string) error {
		_, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
		return err
	}
	if err := exec("SET rangefinder.cross_shard_writes = '2pc'"); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"INSERT INTO cut (name) VALUES ('0123456789   ')", "INSERT INTO named (id) VALUES ('0123456789   ')", "UPDATE cut SET name = '0123456789   '", "UPDATE made SET a = a + 1"} {
		pgtest.Eventually(t, dependentsEvery+2*dependentsAsk, func() error {
			if err := exec(sql); err == nil || sqlStateOf(err) != "0A000" {
				return fmt.Errorf("%s: %v", sql, err)
			}
			return nil
		})
	}
	if err := exec("INSERT INTO numbered (id) VALUES (1), (2), (3)"); err != nil { // its rows are stored as they are given
		t.Error(err)
	}
	pgtest.Eventually(t, 20*time.Second, func() error { return exec("INSERT INTO fees (id) VALUES (1), (2)") })
	var all []string
	for _, s := range c.servers {
		admin, err := s.ConnTo(t.Context(), "app", "")
		if err != nil {
			t.Fatal(err)
		}
		var rows string
		err = admin.QueryRow(t.Context(), "SELECT string_agg(f::text, ' ' ORDER BY id) FROM fees f").Scan(&rows)
		_ = admin.Close(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if all = append(all, rows); rows != all[0] {
			t.Errorf("the copies differ: %q", all)
		}
	}
}

func sqlStateOf(err error) string {
	code, _ := sqlState(err)
	return code
}
