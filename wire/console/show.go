package console

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"time"
)

// Column is one column of a table.
type Column struct {
	Name   string
	Number bool // bigint; else text
}

// Table is an answer.
type Table struct {
	Columns []Column
	Rows    [][]string
}

// viewDef is one thing to SHOW.
type viewDef struct {
	name    string
	help    string
	columns []Column
	rows    func(*Snapshot) [][]string
}

// poolMode is how server connections to a database are shared.
func (s *Snapshot) poolMode(database string) string {
	for i := range s.Databases {
		if s.Databases[i].Name == database {
			return s.Databases[i].poolMode()
		}
	}
	return "transaction"
}

func (d *Database) poolMode() string {
	if d.OwnConnections {
		return "session"
	}
	return "transaction"
}

func text(names ...string) []Column {
	list := make([]Column, len(names))
	for i, n := range names {
		list[i] = Column{Name: n}
	}
	return list
}

func number(names ...string) []Column {
	list := make([]Column, len(names))
	for i, n := range names {
		list[i] = Column{Name: n, Number: true}
	}
	return list
}

func views() []viewDef {
	return []viewDef{
		{"POOLS", "server connections and clients of each database and user", slices.Concat(
			text("database", "user"), number("cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_login", "maxwait", "maxwait_us"), text("pool_mode")), pools},
		{"CLIENTS", "each client connection", slices.Concat(
			text("type", "user", "database", "state", "addr"), number("port"), text("local_addr"), number("local_port"),
			text("connect_time", "request_time"), number("wait", "wait_us"), text("ptr", "link", "tls", "backend", "pinned")), clients},
		{"SERVERS", "each server connection", slices.Concat(
			text("type", "user", "database", "state", "addr"), number("port"), text("local_addr"), number("local_port"),
			text("connect_time"), number("close_needed"), text("ptr", "link"), number("remote_pid"), text("backend", "shard")), servers},
		{"STATS", "what was counted for each database since the node started, and averages per second of the last minute", slices.Concat(
			text("database"), number("total_xact_count", "total_query_count", "total_received", "total_sent", "total_wait_time",
				"avg_xact_count", "avg_query_count", "avg_recv", "avg_sent", "avg_wait_time")), stats},
		{"STATS_TOTALS", "the totals alone", slices.Concat(text("database"), totalColumns()), statsTotals},
		{"STATS_AVERAGES", "the averages alone", slices.Concat(text("database"), totalColumns()), statsAverages},
		{"STATEMENTS", "statements by what they have in common, those that took the most time first; times in microseconds", slices.Concat(
			text("database"), number("calls", "errors", "shards", "rows", "total_time", "mean_time", "max_time"), text("statement")), statements},
		{"DATABASES", "what clients may connect to", slices.Concat(
			text("name", "database", "shard", "pool_mode"), number("current_connections", "current_client_connections", "paused", "disabled")), databases},
		{"USERS", "who may log in", slices.Concat(
			text("name"), number("current_connections", "current_client_connections")), users},
		{"CONFIG", "the configuration in effect", text("key", "value", "default", "changeable"), config},
		{"TWO_PHASE", "transactions over several shards that have not come to their end: this node's, and what it has found left on the shards that it observes", slices.Concat(
			text("gid", "node", "database", "participants", "prepared_on", "decision_shard", "state"), number("age", "age_us"), text("problem")), twoPhase},
		{"KEYSPACES", "sharding rules: which tables are sharded, and by which key", keyspaceColumns(), keyspaces},
		{"RANGES", "ranges of keys and their owners; with a keyspace's name, only its", rangeColumns(), func(s *Snapshot) [][]string { return ranges(s.Ranges) }},
		{"MOVES", "ranges on their way to another shard, and how far they are; with a number, that one, also when it is over", moveColumns(), func(s *Snapshot) [][]string { return moves(s.Moves) }},
		{"LENT", "ranges that go back to the shard that had them, and when", text("keyspace", "range", "shard", "goes_back_to", "until", "why_it_stays"), lent},
		{"HISTORY", "who changed what of these, when and why, the newest first; [keyspace] [LIMIT number]",
			text("epoch", "time", "change", "keyspace", "range", "from", "to", "move", "author", "reason", "request_id"), events},
		{"LISTS", "how many there are of everything", slices.Concat(text("list"), number("items")), lists},
		{"STATE", "what the node does", text("key", "value"), state},
		{"VERSION", "what runs here", text("version"), func(s *Snapshot) [][]string { return [][]string{{"Rangefinder " + s.Version}} }},
		{"HELP", "this list", text("command", "shows"), func(*Snapshot) [][]string { return help() }},
	}
}

// view finds what SHOW names; nil: there is no such thing.
func view(name string) *viewDef {
	for _, v := range views() {
		if v.name == name {
			return &v
		}
	}
	return nil
}

// Columns are the columns of a command's answer; none if it answers with its tag alone.
func (c Command) Columns() []Column {
	if v := view(c.View); c.Verb == "SHOW" && v != nil {
		return v.columns
	}
	switch c.Verb {
	case "RELOAD":
		return text("key", "was", "now", "in_force")
	case VerbSplit, VerbMerge:
		return rangeColumns()
	case VerbMove, VerbPauseMove, VerbResumeMove, VerbAbortMove:
		return moveColumns()
	case VerbMap:
		return mapColumns()
	}
	return nil
}

// Reloaded is the answer to a RELOAD.
func Reloaded(changes []Change) Table {
	t := Table{Columns: Command{Verb: "RELOAD"}.Columns()}
	for _, c := range changes {
		when := "now"
		if c.Restart {
			when = "after a restart"
		}
		t.Rows = append(t.Rows, []string{c.Key, c.Was, c.Now, when})
	}
	return t
}

// Show makes the answer to a SHOW.
func Show(c Command, s *Snapshot) Table {
	v := view(c.View)
	if v == nil {
		return Table{}
	}
	return Table{Columns: v.columns, Rows: v.rows(s)}
}

// owner is whom a pool belongs to.
type owner struct{ database, user string }

func pools(s *Snapshot) [][]string {
	type pool struct {
		active, waiting, svActive, svIdle, login int
		longest                                  time.Duration
	}
	all := map[owner]*pool{}
	of := func(database, user string) *pool {
		k := owner{database, user}
		if all[k] == nil {
			all[k] = new(pool)
		}
		return all[k]
	}
	for i := range s.Clients {
		c := &s.Clients[i]
		p := of(c.Database, c.User)
		if c.State == Waiting {
			p.waiting++
			p.longest = max(p.longest, s.waits(c))
		} else {
			p.active++
		}
	}
	for i := range s.Servers {
		p := of(s.Servers[i].Database, s.Servers[i].User)
		if s.Servers[i].Idle {
			p.svIdle++
		} else {
			p.svActive++
		}
	}
	for _, l := range s.Logins {
		of(l.Database, l.User).login += l.Count
	}
	rows := make([][]string, 0, len(all))
	for k, p := range all {
		sec, us := seconds(p.longest)
		rows = append(rows, []string{k.database, k.user, strconv.Itoa(p.active), strconv.Itoa(p.waiting),
			strconv.Itoa(p.svActive), strconv.Itoa(p.svIdle), strconv.Itoa(p.login), sec, us, s.poolMode(k.database)})
	}
	return sorted(rows)
}

// waits is how long a client has been waiting.
func (s *Snapshot) waits(c *Client) time.Duration {
	if c.State != Waiting {
		return 0
	}
	return max(0, s.At.Sub(c.Requested))
}

func clients(s *Snapshot) [][]string {
	list := slices.SortedFunc(slices.Values(s.Clients), func(a, b Client) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.User, b.User), a.Connected.Compare(b.Connected), cmp.Compare(a.ID, b.ID))
	})
	rows := make([][]string, 0, len(list))
	for i := range list {
		c := &list[i]
		host, port := address(c.Addr)
		localHost, localPort := address(c.Local)
		sec, us := seconds(s.waits(c))
		rows = append(rows, []string{"C", c.User, c.Database, string(c.State), host, port, localHost, localPort,
			moment(c.Connected), moment(c.Requested), sec, us, ident(uint64(c.ID)), ident(c.Server), c.TLS, c.Backend, c.Pinned})
	}
	return rows
}

func servers(s *Snapshot) [][]string {
	list := slices.SortedFunc(slices.Values(s.Servers), func(a, b Server) int {
		return cmp.Or(cmp.Compare(a.Backend, b.Backend), cmp.Compare(a.Database, b.Database), cmp.Compare(a.User, b.User), cmp.Compare(a.ID, b.ID))
	})
	rows := make([][]string, 0, len(list))
	for i := range list {
		v := &list[i]
		state := Active
		if v.Idle {
			state = Idle
		}
		host, port := address(v.Addr)
		localHost, localPort := address(v.Local)
		rows = append(rows, []string{"S", v.User, v.Database, string(state), host, port, localHost, localPort,
			moment(v.Connected), flag(v.CloseNeeded), ident(v.ID), ident(uint64(v.Client)), strconv.FormatUint(uint64(v.PID), 10), v.Backend, v.Shard})
	}
	return rows
}

func databases(s *Snapshot) [][]string {
	servers, clients := map[string]int{}, map[string]int{}
	for i := range s.Servers {
		servers[s.Servers[i].Database]++
	}
	for i := range s.Clients {
		clients[s.Clients[i].Database]++
	}
	rows := make([][]string, 0, len(s.Databases))
	for _, d := range s.Databases {
		rows = append(rows, []string{d.Name, d.Name, d.Shard, d.poolMode(), strconv.Itoa(servers[d.Name]), strconv.Itoa(clients[d.Name]), flag(d.Paused), flag(d.Disabled)})
	}
	return sorted(rows)
}

func users(s *Snapshot) [][]string {
	servers, clients := map[string]int{}, map[string]int{}
	for i := range s.Servers {
		servers[s.Servers[i].User]++
	}
	for i := range s.Clients {
		clients[s.Clients[i].User]++
	}
	rows := make([][]string, 0, len(s.Users))
	for _, u := range s.Users {
		rows = append(rows, []string{u, strconv.Itoa(servers[u]), strconv.Itoa(clients[u])})
	}
	return sorted(rows)
}

// config keeps the order of the settings, which is that of the file.
func config(s *Snapshot) [][]string {
	rows := make([][]string, 0, len(s.Settings))
	for _, x := range s.Settings {
		changeable := "no"
		if x.Changeable {
			changeable = "yes"
		}
		rows = append(rows, []string{x.Key, x.Value, x.Default, changeable})
	}
	return rows
}

func twoPhase(s *Snapshot) [][]string {
	rows := make([][]string, 0, len(s.TwoPhase))
	for i := range s.TwoPhase {
		t := &s.TwoPhase[i]
		sec, us := seconds(t.Age)
		rows = append(rows, []string{t.GID, t.Node, t.Database, t.Participants, t.Open, t.Decision, t.State, sec, us, t.Problem})
	}
	return rows
}

func help() [][]string {
	var rows [][]string
	for _, v := range views() {
		rows = append(rows, []string{"SHOW " + v.name, v.help})
	}
	for _, v := range verbs() {
		rows = append(rows, []string{v.name, v.help})
	}
	return rows
}

type verbDef struct{ name, help string }

// verbs are the commands that do something.
func verbs() []verbDef {
	return []verbDef{
		{"PAUSE [database]", "hold new statements, wait for those under way, close the server connections; on this node"},
		{"RESUME [database]", "let held statements go on"},
		{"DISABLE database", "refuse new clients; those that are there stay"},
		{"ENABLE database", "let new clients in again"},
		{"KILL database", "end its clients and server connections at once; new clients wait for RESUME"},
		{"RECONNECT [database]", "close each server connection once it is free"},
		{"MOVE keyspace 1000-2000 TO shard [TTL seconds] [REASON 'text']", "move a range with its rows to another shard while clients go on; ends at once: SHOW MOVES tells how far it is"},
		{"PAUSE MOVE number", "have it stop before its next step that costs something"},
		{"RESUME MOVE number", "have it go on"},
		{"ABORT MOVE number [REASON 'text']", "end it with the range where it was; before the flip alone"},
		{"MAP RANGE 1000-2000 TO shard [TTL seconds] [KEYSPACE name] [REASON 'text']", "give a range that holds no rows another shard, for good or for a time"},
		{"SPLIT RANGE keyspace AT value, ... [REASON 'text']", "put bounds into ranges; no row moves"},
		{"MERGE RANGE keyspace 1000-2000 [REASON 'text']", "make one range of those within an interval, which have one owner"},
		{"RESET STATEMENTS", "count statements from zero on"},
		{"RELOAD", "read the configuration again; any mistake in it, and nothing changes"},
		{"SHUTDOWN", "stop the node as SIGTERM does: transactions may finish within drain_timeout"},
		{"SHUTDOWN WAIT_FOR_CLIENTS", "accept nobody any more, and stop when the last client has left"},
	}
}

func sorted(rows [][]string) [][]string {
	slices.SortFunc(rows, slices.Compare[[]string])
	return rows
}

// address splits host:port; what is no such thing, a Unix socket for one, is a host at port 0.
func address(s string) (host, port string) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return s, "0"
	}
	return host, port
}

// moment is a time as PgBouncer writes it.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 MST")
}

// seconds splits a time into whole seconds and the microseconds beyond.
func seconds(d time.Duration) (sec, us string) {
	return strconv.FormatInt(int64(d/time.Second), 10), strconv.FormatInt(int64(d%time.Second/time.Microsecond), 10)
}

func ident(id uint64) string {
	if id == 0 {
		return ""
	}
	return strconv.FormatUint(id, 10)
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
