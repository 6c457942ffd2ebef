package node

import (
	"strings"
	"testing"
)

func TestValuesBelowZero(t *testing.T) {
	office := &fakeOffice{view: exampleView()}
	url := serveOffice(t, office)
	for _, c := range []struct {
		args string // spaces between words
		call string // what the node was asked
	}{
		{"range split app.accounts 5 -5", "split app.accounts at [5 -5]"},
		{"range split app.accounts -5 5 -.5", "split app.accounts at [-5 5 -.5]"},
		{"range split app.accounts -- 5 -5", "split app.accounts at [5 -5]"},
		{"range split app.accounts 5 -- -5 --7", "split app.accounts at [5 -5 --7]"},
		{"range split app.accounts 5 --reason hot -5 --json 7", "split app.accounts at [5 -5 7]"},
		{"range split --reason -1 app.accounts -5", "split app.accounts at [-5]"},
		{"range --json split app.accounts -5", "split app.accounts at [-5]"},
		{"range merge app.accounts -20..-10", "merge app.accounts -20..-10"},
		{"range merge -- app.accounts -20..-10", "merge app.accounts -20..-10"},
		{"range map -5..5 --to shard_3", "map -5..5 to shard_3"},
		{"range map --to shard_3 --ttl 1h -5..5", "map -5..5 to shard_3"},
		{"range history app.accounts --range -5..5", "history /api/v1/history?keyspace=app.accounts&limit=50&range=-5..5"},
		{"move start app.accounts -5..5 --to shard_3 --reason x", "move app.accounts -5..5 to shard_3"},
		{"move start --to shard_3 app.accounts -- -5..5", "move app.accounts -5..5 to shard_3"},
		{"move start app.accounts -5..5 --to shard_3 --ttl -1s", ""},
		{"move abort -7", ""},
		{"range history --limit -1", ""},
	} {
		office.changes = nil
		words := append([]string{}, strings.Fields(c.args)...)
		words = append(words[:2:2], append([]string{"--admin", url}, words[2:]...)...)
		code, out, errs := runCLI(words...)
		got := strings.Join(office.changes, "; ")
		switch {
		case strings.ContainsAny(errs, valueMark) || strings.Contains(errs, `x00`) || strings.ContainsAny(out, valueMark):
			t.Errorf("%s: a mark is shown: %q %q", c.args, out, errs)
		case c.call != "" && (code != 0 || !strings.HasPrefix(got, c.call)):
			t.Errorf("%s: exit %d, the node was asked %q, want %q\n%s%s", c.args, code, got, c.call, out, errs)
		case c.call == "" && code == 0:
			t.Errorf("%s: not refused; the node was asked %q", c.args, got)
		}
	}
	if code, _, _ := runCLI("route", "--admin", url, "SELECT $1, $2", "-a", "-5", "--arg", "-7..8"); code != 0 || len(office.asked) != 1 || strings.Join(office.asked[0].Args, "|") != "-5|-7..8" {
		t.Errorf("exit %d: %+v", code, office.asked)
	}
	code, _, errs := runCLI("keyspace", "create", "--admin", url, "app.accounts", "--key", "id", "--type", "bigint", "--method", "list", "--value", "-5=shard_1", "--value", "5=shard_2")
	if code != 0 || len(office.created) != 1 || len(office.created[0].Values) != 2 {
		t.Errorf("exit %d %s: %+v", code, errs, office.created)
	}
	if code, _, errs := runCLI("keyspace", "add", "app.accounts", "--value", "-7=shard_1", "--admin", url); code != 0 || len(office.added) != 1 {
		t.Errorf("exit %d %s: %+v", code, errs, office.added)
	}
}
