package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// TestMoveCheck holds what clients were told against rows of a real server: one for each thing that can have become of it.
func TestMoveCheck(t *testing.T) {
	farm, err := pgtest.Open(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer farm.Close()
	server, err := farm.Primary(t.Context(), pgtest.Options{Name: "shard_1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Exec(t.Context(), "CREATE DATABASE "+benchDatabase); err != nil {
		t.Fatal(err)
	}
	const table = "CREATE TABLE parcels (customer bigint, id bigint, note text, PRIMARY KEY (customer, id)); INSERT INTO parcels VALUES (1, -1, repeat('x', 100))"
	if err := server.ExecIn(t.Context(), benchDatabase, table); err != nil {
		t.Fatal(err)
	}
	l := &moveLoad{w: &moveWorld{shards: map[string]*pgtest.Server{"shard_1": server}}}
	if l.w.filled, err = l.w.fill(t.Context()); err != nil || l.w.filled.rows != 1 {
		t.Fatal(l.w.filled, err)
	}
	put := func(id int64, notes ...string) {
		for customer, note := range notes {
			if err := server.ExecIn(t.Context(), benchDatabase, fmt.Sprintf("INSERT INTO parcels VALUES (%d, %d, %s)", customer, id, note)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var want moveCounts
	for _, row := range []struct {
		name  string
		note  byte     // what it is to say
		fate  byte     // what the client was told
		there []string // what the server has
		count *int     // what that is; nil: as it should be
	}{
		{"inserted", moveInserted, moveAcked, []string{"'new'"}, nil},
		{"a transaction", moveSecond, moveAcked, []string{"'second'"}, nil},
		{"a transaction without its update", moveSecond, moveAcked, []string{"'first'"}, &want.lost},
		{"held", moveHeld, moveAcked, []string{"'open'"}, nil},
		{"inserted and gone", moveInserted, moveAcked, nil, &want.lost},
		{"changed by nobody", moveInserted, moveAcked, []string{"'second'"}, &want.lost},
		{"without its note", moveInserted, moveAcked, []string{"NULL"}, &want.lost},
		{"twice", moveInserted, moveAcked, []string{"'new'", "'new'"}, &want.duplicated},
		{"three times", moveInserted, moveAcked, []string{"'new'", "'new'", "'new'"}, &want.duplicated},
		{"refused and there", moveInserted, moveRefused, []string{"'new'"}, &want.duplicated},
		{"refused", moveInserted, moveRefused, nil, nil},
		{"unknown", moveSecond, moveUnknown, nil, nil},
		{"unknown and there", moveSecond, moveUnknown, []string{"'second'"}, &want.unheard},
		{"unknown and half there", moveSecond, moveUnknown, []string{"'first'"}, &want.duplicated},
	} {
		id := l.sends(row.note)
		l.heard(id, row.fate)
		put(id, row.there...)
		if row.fate == moveAcked {
			want.acked++
		}
		if row.count != nil {
			*row.count++
		}
		if got, err := l.check(t.Context()); err != nil || got != want {
			t.Fatalf("%s: %+v, %v; want %+v", row.name, got, err, want)
		}
	}
	put(int64(len(l.rows)+5), "'new'") // which nobody sent
	want.duplicated++
	if got, err := l.check(t.Context()); err != nil || got != want {
		t.Errorf("a row of nobody: %+v, %v; want %+v", got, err, want)
	}
	for _, row := range []struct {
		sql              string
		lost, duplicated int
	}{
		{"INSERT INTO parcels VALUES (2, -1, 'x'), (3, -1, 'x')", 0, 2},
		{"DELETE FROM parcels WHERE id = -1 AND customer > 1; UPDATE parcels SET note = 'y' WHERE id = -1", 0, 1},
		{"DELETE FROM parcels WHERE id = -1", 1, 0},
	} {
		if err := server.ExecIn(t.Context(), benchDatabase, row.sql); err != nil {
			t.Fatal(err)
		}
		with := want
		with.lost, with.duplicated = with.lost+row.lost, with.duplicated+row.duplicated
		if got, err := l.check(t.Context()); err != nil || got != with {
			t.Errorf("rows that were there before, after %s: %+v, %v; want %+v", row.sql, got, err, with)
		}
	}
}

// TestMoveOwner: rows of the range that moves on two shards are found.
func TestMoveOwner(t *testing.T) {
	farm, err := pgtest.Open(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer farm.Close()
	w := &moveWorld{shards: map[string]*pgtest.Server{}, where: "(customer < 10)"}
	for _, name := range []string{"shard_1", "shard_2"} {
		if w.shards[name], err = farm.Primary(t.Context(), pgtest.Options{Name: name}); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.shards[name].Exec(t.Context(), "CREATE DATABASE "+benchDatabase), w.shards[name].ExecIn(t.Context(), benchDatabase, "CREATE TABLE parcels (customer bigint)")); err != nil {
			t.Fatal(err)
		}
	}
	if owner, err := w.owner(t.Context()); err == nil {
		t.Errorf("nobody has the rows, and the owner is %s", owner)
	}
	if err := w.shards["shard_2"].ExecIn(t.Context(), benchDatabase, "INSERT INTO parcels VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	if owner, err := w.owner(t.Context()); err != nil || owner != "shard_2" {
		t.Errorf("%s, %v", owner, err)
	}
	if err := w.shards["shard_1"].ExecIn(t.Context(), benchDatabase, "INSERT INTO parcels VALUES (2), (12)"); err != nil {
		t.Fatal(err)
	}
	if owner, err := w.owner(t.Context()); err == nil || !strings.Contains(err.Error(), "two shards") {
		t.Errorf("%s, %v", owner, err)
	}
}

// TestMovePauses: a pause counts whole, also of what ended long after the flip.
func TestMovePauses(t *testing.T) {
	began := time.Now()
	at := func(begin, took time.Duration, what string) moveTook {
		return moveTook{end: began.Add(begin + took), took: took, moving: true, what: what}
	}
	l := &moveLoad{took: []moveTook{at(-3*time.Second, 2*time.Second, "before"), at(-time.Second, 1100*time.Millisecond, "at the beginning"), at(time.Second, 5*time.Second, "over the end"), at(3*time.Second, time.Minute, "after")}}
	if p := l.around(began, began.Add(2*time.Second)); p.count != 2 || p.longest != 5000 || p.p99 != 5000 {
		t.Errorf("%+v", p)
	}
}

// What is wrong is an error, each kind by itself; what is slow is told.
func TestMoveJudges(t *testing.T) {
	good := moveResult{PauseMax: 500, Ratio: 0.8, Kills: []moveKill{{Who: "leader", Phase: "frozen", Resumed: true}, {Who: "source", Phase: "frozen"}, {Who: "target", Phase: "flipped", Resumed: true}}}
	if err := good.fault(); err != nil {
		t.Errorf("nothing is wrong: %v", err)
	}
	if said := good.musts(); strings.Contains(said, "MISSED") {
		t.Errorf("nothing is missed: %s", said)
	}
	slow := good
	slow.PauseMax, slow.Ratio = 500.1, 0.79
	if err, said := slow.fault(), slow.musts(); err != nil || strings.Count(said, "MISSED") != 2 {
		t.Errorf("slow: %v; %s", err, said)
	}
	for word, spoil := range map[string]func(*moveResult){
		"lost":                            func(r *moveResult) { r.Lost = 1 },
		"twice":                           func(r *moveResult) { r.Duplicated = 1 },
		"failed":                          func(r *moveResult) { r.Failed = 1 },
		"did not see":                     func(r *moveResult) { r.Stale = 1 },
		"source was killed in phase copy": func(r *moveResult) { r.Kills = []moveKill{{Who: "source", Phase: "copy", Resumed: true, Lost: 1}} },
		"target was killed in phase follow": func(r *moveResult) {
			r.Kills = []moveKill{{Who: "target", Phase: "follow", Resumed: true, duplicated: 1}}
		},
		"leader was killed in phase frozen":  func(r *moveResult) { r.Kills = []moveKill{{Who: "leader", Phase: "frozen"}} },
		"target was killed in phase flipped": func(r *moveResult) { r.Kills = []moveKill{{Who: "target", Phase: "flipped"}} },
	} {
		bad := good
		spoil(&bad)
		if err := bad.fault(); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", word, err)
		}
	}
}

// TestMissed: a read looks at a customer's rows with the highest numbers, and tells of those alone.
func TestMissed(t *testing.T) {
	var n moveNewest
	if len(n.known()) != 0 || missed(n.known(), nil) {
		t.Error("nothing is known, and something is missed")
	}
	all := make([]int64, moveRead)
	for i := range all {
		all[i] = int64(100 - i)
		n.add(all[i])
	}
	known := n.known()
	slices.Sort(known)
	if !slices.Equal(known, []int64{85, 86, 87, 88, 89, 90, 91, 92}) {
		t.Errorf("%v", known)
	}
	for _, c := range []struct {
		name        string
		known, read []int64
		want        bool
	}{
		{"all there", known, all, false},
		{"one is not", known, slices.DeleteFunc(slices.Clone(all), func(id int64) bool { return id == 90 }), true},
		{"none is", known, nil, true},
		{"it may be below what was read", []int64{3}, all, false},
		{"few were read, and it is not among them", []int64{3}, all[:4], true},
	} {
		if got := missed(c.known, c.read); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
