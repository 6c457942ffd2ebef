package console

import (
	"cmp"
	"slices"
	"strconv"
	"time"
)

func totalColumns() []Column {
	return number("xact_count", "query_count", "bytes_received", "bytes_sent", "wait_time")
}

// counts are the values of totalColumns.
func (t *Totals) counts() []string {
	return []string{strconv.FormatUint(t.Transactions, 10), strconv.FormatUint(t.Queries, 10),
		strconv.FormatUint(t.Received, 10), strconv.FormatUint(t.Sent, 10), strconv.FormatInt(t.Wait.Microseconds(), 10)}
}

// Minus is what was counted since o.
func (t Totals) Minus(o Totals) Totals {
	return Totals{
		Transactions: t.Transactions - o.Transactions, Queries: t.Queries - o.Queries,
		Received: t.Received - o.Received, Sent: t.Sent - o.Sent, Wait: t.Wait - o.Wait,
	}
}

// averages are the values of totalColumns for one second, rounded down as PgBouncer's.
func (d *Database) averages() []string {
	if d.Span <= 0 {
		return (&Totals{}).counts()
	}
	per := func(n uint64) uint64 { return uint64(float64(n) / d.Span.Seconds()) }
	t := d.Lately
	t.Transactions, t.Queries, t.Received, t.Sent = per(t.Transactions), per(t.Queries), per(t.Received), per(t.Sent)
	t.Wait = max(0, d.Lately.Wait*1000/max(1, d.Span/1e6))
	return t.counts()
}

func stats(s *Snapshot) [][]string {
	rows := make([][]string, 0, len(s.Databases))
	for i := range s.Databases {
		d := &s.Databases[i]
		rows = append(rows, append(append([]string{d.Name}, d.Totals.counts()...), d.averages()...))
	}
	return sorted(rows)
}

func statsTotals(s *Snapshot) [][]string {
	rows := make([][]string, 0, len(s.Databases))
	for i := range s.Databases {
		rows = append(rows, append([]string{s.Databases[i].Name}, s.Databases[i].Totals.counts()...))
	}
	return sorted(rows)
}

func statsAverages(s *Snapshot) [][]string {
	rows := make([][]string, 0, len(s.Databases))
	for i := range s.Databases {
		rows = append(rows, append([]string{s.Databases[i].Name}, s.Databases[i].averages()...))
	}
	return sorted(rows)
}

// lists has PgBouncer's names, without what there is none of here.
func lists(s *Snapshot) [][]string {
	free := 0
	for i := range s.Servers {
		if s.Servers[i].Idle {
			free++
		}
	}
	row := func(name string, n int) []string { return []string{name, strconv.Itoa(n)} }
	return [][]string{
		row("databases", len(s.Databases)), row("users", len(s.Users)), row("pools", len(pools(s))), row("used_clients", len(s.Clients)),
		row("login_clients", s.LoggingIn), row("free_servers", free), row("used_servers", len(s.Servers)-free),
	}
}

// state has PgBouncer's keys; nothing is ever suspended here.
func state(s *Snapshot) [][]string {
	paused := len(s.Databases) > 0
	for i := range s.Databases {
		paused = paused && s.Databases[i].Paused
	}
	yes := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	return [][]string{{"active", yes(!paused)}, {"paused", yes(paused)}, {"suspended", "no"}}
}

// statements are those that took the most time first.
func statements(s *Snapshot) [][]string {
	list := slices.SortedFunc(slices.Values(s.Statements), func(a, b Statement) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(b.Calls, a.Calls), cmp.Compare(a.Database, b.Database), cmp.Compare(a.Text, b.Text))
	})
	rows := make([][]string, 0, len(list))
	for i := range list {
		x := &list[i]
		count := func(n uint64) string { return strconv.FormatUint(n, 10) }
		micros := func(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }
		rows = append(rows, []string{x.Database, count(x.Calls), count(x.Errors), count(x.Shards), count(x.Rows),
			micros(x.Total), micros(x.Total / time.Duration(max(x.Calls, 1))), micros(x.Max), x.Text})
	}
	return rows
}
