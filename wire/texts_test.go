package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/wire/pg"
)

// COMMIT and ROLLBACK in a text without BEGIN warn as PostgreSQL does, also where the text has come to several shards.
func TestCommitWithoutBlockWarns(t *testing.T) {
	s := newSpread(t, rigOptions{})
	config := s.conn.Config().Config
	var notices []string
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Code) }
	conn, err := pgconn.ConnectConfig(s.ctx, &config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(s.ctx)
	insert := fmt.Sprintf("INSERT INTO orders (customer_id, id) VALUES (%d, %%[1]d), (%d, %%[1]d)", s.one, s.two)
	for i, c := range []struct{ end, want string }{{"COMMIT", "25P01"}, {"ROLLBACK", "25P01"}, {"BEGIN; COMMIT", ""}} {
		notices = nil
		text := fmt.Sprintf(insert, 2*i) + "; " + c.end + "; " + fmt.Sprintf(insert, 2*i+1)
		if _, err := conn.Exec(s.ctx, text).ReadAll(); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := strings.Join(notices, " "); got != c.want {
			t.Errorf("%s: warnings %q, want %q", text, got, c.want)
		}
	}
	if _, rows := s.onShards(t, "SELECT count(*) FROM orders"); rows != 10 {
		t.Errorf("%d rows, want 10", rows)
	}
}

// What is defined on all shards and needs a table of one says where it can be defined.
func TestDefinitionNeedsATableOfOneShard(t *testing.T) {
	s := newSpread(t, rigOptions{})
	const define = "CREATE FUNCTION many() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM notes'"
	_, err := s.conn.Exec(s.ctx, define)
	if e := wantCode(t, err, pg.CodeUndefinedTable); !strings.Contains(e.Hint, "/* rangefinder: shard=shard_1 */") {
		t.Errorf("hint: %s", e.Hint)
	}
	s.exec("/* rangefinder: shard=shard_1 */ " + define)
	if each, _ := s.onShards(t, "SELECT count(*) FROM pg_proc WHERE proname = 'many'"); each[0] != 1 || each[1] != 0 {
		t.Errorf("functions: %v", each)
	}
}
