package wire

import (
	"testing"
	"time"

	"rangefinder/wire/console"
)

// TestPeriods: averages are of the last whole period; of the first one, as far as it has come.
func TestPeriods(t *testing.T) {
	begin := time.Unix(1000, 0)
	at := func(s int) time.Time { return begin.Add(time.Duration(s) * time.Second) }
	total := func(n uint64) console.Totals { return console.Totals{Queries: n} }
	s := NewServer(Config{})
	s.period.since = begin
	s.ended["app"] = new(console.Totals)
	expect := func(now int, all, queries uint64, span time.Duration) {
		t.Helper()
		if got, over := s.period.lately("app", at(now), total(all)); got.Queries != queries || over != span {
			t.Errorf("%d s: %d in %v, want %d in %v", now, got.Queries, over, queries, span)
		}
	}
	expect(30, 300, 300, 30*time.Second)
	s.ended["app"].Queries = 600
	s.endPeriod(at(60))
	expect(60, 600, 600, time.Minute)
	expect(90, 5000, 600, time.Minute)
	s.ended["app"].Queries = 1000
	s.endPeriod(at(120))
	expect(130, 9000, 400, time.Minute)
	if got, _ := s.period.lately("new", at(130), total(3)); got != (console.Totals{}) {
		t.Errorf("a database that came since: %+v", got)
	}
}
