package console

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Keyspace is a sharding rule.
type Keyspace struct {
	Name     string
	Database string
	Method   string
	Key      string // types of the key's columns
	Tables   string
	Ranges   int
	Shards   string
}

// Range is a range of keys and its owner.
type Range struct {
	Keyspace string
	Bounds   string
	Shard    string // "": nobody owns it
	Epoch    string
	Rate     float64 // statements a second, lately
	Hot      string  // keys that get many of them
}

// Move is a range on its way to another shard.
type Move struct {
	ID       uint64
	Keyspace string
	Bounds   string
	From     string
	To       string
	Phase    string
	Step     string
	Part     float64 // of the rows that are copied, or removed, from 0 to 1; 1 in the steps behind that too
	Rows     int64
	Bytes    int64
	Left     time.Duration // estimated, of the step; 0: not known
	Lag      time.Duration
	Changed  int // rows still to be compared
	Paused   bool
	Thawed   int      // how often the range was frozen in vain
	Waits    []string // nodes that have not said that they know the new owner
	Problem  string
	Why      string // aborted: the reason
}

// Loan is a range that is to go back to the shard that had it.
type Loan struct {
	Keyspace string
	Bounds   string
	Shard    string
	From     string // the shard that it goes back to
	Until    time.Time
	Why      string // it is past its time, and stays: the reason
}

// Event is one change of the ledger.
type Event struct {
	Epoch    string
	At       time.Time // zero: not noted
	Change   string
	Keyspace string
	Bounds   string // or what else it was about
	From     string
	To       string
	Move     uint64 // 0: it was about none
	Author   string
	Reason   string
	Request  string
}

// Mapping is what became of a MAP RANGE.
type Mapping struct {
	Keyspace string
	Bounds   string
	From     string
	To       string
	Changed  bool // false: it was the shard's already
	Move     uint64
	Phase    string
	Epoch    string
	Waits    []string  // nodes that have not said that they know the new owner
	Until    time.Time // when it goes back; zero: never
}

func keyspaceColumns() []Column {
	return slices.Concat(text("name", "database", "method", "key", "tables"), number("ranges"), text("shards"))
}

func keyspaces(s *Snapshot) [][]string {
	rows := make([][]string, 0, len(s.Keyspaces))
	for _, k := range s.Keyspaces {
		rows = append(rows, []string{k.Name, k.Database, k.Method, k.Key, k.Tables, strconv.Itoa(k.Ranges), k.Shards})
	}
	return sorted(rows)
}

func rangeColumns() []Column {
	return slices.Concat(text("keyspace", "range", "shard", "epoch"), number("statements_s"), text("hot_keys"))
}

// ranges keeps the order of the keys.
func ranges(list []Range) [][]string {
	rows := make([][]string, 0, len(list))
	for _, r := range list {
		rows = append(rows, []string{r.Keyspace, r.Bounds, r.Shard, r.Epoch, strconv.FormatInt(int64(r.Rate+0.5), 10), r.Hot})
	}
	return rows
}

func moveColumns() []Column {
	return slices.Concat(number("move"), text("keyspace", "range", "from", "to", "phase", "step"),
		number("percent", "rows", "bytes", "left_seconds", "lag_ms", "changed_rows", "thawed"), text("paused", "waits_for", "problem", "why"))
}

func moves(list []Move) [][]string {
	rows := make([][]string, 0, len(list))
	for i := range list {
		m := &list[i]
		paused := "no"
		if m.Paused {
			paused = "yes"
		}
		rows = append(rows, []string{strconv.FormatUint(m.ID, 10), m.Keyspace, m.Bounds, m.From, m.To, m.Phase, m.Step,
			strconv.Itoa(int(100 * max(0, min(1, m.Part)))), strconv.FormatInt(m.Rows, 10), strconv.FormatInt(m.Bytes, 10),
			strconv.FormatInt(int64(m.Left/time.Second), 10), strconv.FormatInt(m.Lag.Milliseconds(), 10), strconv.Itoa(m.Changed),
			strconv.Itoa(m.Thawed), paused, strings.Join(m.Waits, ", "), m.Problem, m.Why})
	}
	return rows
}

func lent(s *Snapshot) [][]string {
	rows := make([][]string, 0, len(s.Loans))
	for _, l := range s.Loans {
		rows = append(rows, []string{l.Keyspace, l.Bounds, l.Shard, l.From, moment(l.Until), l.Why})
	}
	return rows
}

// events keeps the order, the newest first.
func events(s *Snapshot) [][]string {
	rows := make([][]string, 0, len(s.Events))
	for i := range s.Events {
		e := &s.Events[i]
		rows = append(rows, []string{e.Epoch, moment(e.At), e.Change, e.Keyspace, e.Bounds, e.From, e.To, ident(e.Move), e.Author, e.Reason, e.Request})
	}
	return rows
}

func mapColumns() []Column {
	return slices.Concat(text("keyspace", "range", "from", "to", "changed"), number("move"), text("phase", "epoch", "waits_for", "until"))
}

// Ranged is the answer to a SPLIT or MERGE: the ranges that there are now in their place.
func Ranged(list []Range) Table { return Table{Columns: rangeColumns(), Rows: ranges(list)} }

// Moved is the answer to a command about one move.
func Moved(m *Move) Table { return Table{Columns: moveColumns(), Rows: moves([]Move{*m})} }

// Mapped is the answer to a MAP RANGE.
func Mapped(m *Mapping) Table {
	changed := "no"
	if m.Changed {
		changed = "yes"
	}
	return Table{Columns: mapColumns(), Rows: [][]string{{m.Keyspace, m.Bounds, m.From, m.To, changed, strconv.FormatUint(m.Move, 10), m.Phase, m.Epoch,
		strings.Join(m.Waits, ", "), moment(m.Until)}}}
}
