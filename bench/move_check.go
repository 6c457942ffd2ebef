package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// moveCounts are what the rows on the shards say.
type moveCounts struct {
	acked      int
	lost       int // acknowledged before the check began, or there before all clients, and nowhere as it was acknowledged
	duplicated int // there more than once, or refused, or of no client, or half a transaction, or changed by nobody
	unheard    int // there, and nobody heard of it
}

// moveFound is what the shards have of one row.
type moveFound struct {
	times byte // at most 2
	notes byte // a bit for each of moveNotes
}

// says tells whether the row is there with that note.
func (f moveFound) says(note byte) bool { return f.notes&(1<<note) != 0 }

// check holds what clients were told against what is on the shards. No range may be on its way.
func (l *moveLoad) check(ctx context.Context) (c moveCounts, err error) {
	l.mu.Lock()
	before := slices.Clone(l.rows)
	l.mu.Unlock()
	found, err := l.w.found(ctx)
	if err != nil {
		return c, err
	}
	filled, err := l.w.fill(ctx)
	if err != nil {
		return c, err
	}
	switch was := l.w.filled; {
	case filled.rows < was.rows:
		c.lost = int(was.rows - filled.rows)
	case filled != was: // or they are as many, and others
		c.duplicated = int(max(1, filled.rows-was.rows))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, was := range before {
		if was.fate == moveAcked {
			c.acked++
			if id >= len(found) || !found[id].says(was.note) {
				c.lost++
			}
		}
	}
	for id, f := range found {
		switch {
		case f.times == 0:
		case f.times > 1, id >= len(l.rows), l.rows[id].fate == moveRefused:
			c.duplicated++
		case l.rows[id].fate == moveUnknown && f.says(l.rows[id].note):
			c.unheard++
		case l.rows[id].fate == moveUnknown:
			c.duplicated++
		}
	}
	return c, nil
}

// moveFilled is what the rows come to that were there before any client was: nobody changes them.
type moveFilled struct{ rows, sum int64 }

// fill reads that from all shards.
func (w *moveWorld) fill(ctx context.Context) (all moveFilled, err error) {
	for _, s := range w.shards {
		conn, err := s.ConnTo(ctx, benchDatabase, "")
		if err != nil {
			return all, err
		}
		var one moveFilled
		err = conn.QueryRow(ctx, "SELECT count(*), coalesce(sum(hashtextextended(coalesce(note, ''), customer # id) % 1000000007), 0)::bigint FROM parcels WHERE id <= 0", pgx.QueryExecModeExec).Scan(&one.rows, &one.sum)
		conn.Close(ctx)
		if err != nil {
			return all, err
		}
		all.rows, all.sum = all.rows+one.rows, all.sum+one.sum
	}
	return all, nil
}

// found reads the rows that clients wrote from all shards, by number.
func (w *moveWorld) found(ctx context.Context) (found []moveFound, err error) {
	for _, s := range w.shards {
		conn, err := s.ConnTo(ctx, benchDatabase, "")
		if err != nil {
			return nil, err
		}
		rows, err := conn.Query(ctx, "SELECT id, coalesce(note, '') FROM parcels WHERE id > 0")
		var id int64
		var note string
		if err == nil {
			_, err = pgx.ForEachRow(rows, []any{&id, &note}, func() error {
				for int64(len(found)) <= id {
					found = append(found, moveFound{})
				}
				f := &found[id]
				f.times = min(f.times+1, 2)
				if i := slices.Index(moveNotes, note); i >= 0 {
					f.notes |= 1 << i
				}
				return nil
			})
		}
		conn.Close(ctx)
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// What a move must keep to, beside what is a fault.
const (
	movePauseMust = 500 // ms
	moveRatioMust = 0.8
)

// musts says what the undisturbed move has measured of them. They are no fault when they are missed: a machine that is busy with other things does that.
func (r *moveResult) musts() string {
	return fmt.Sprintf("the longest pause %.1f ms (must %d%s), throughput while copying %.2f of before (must %.1f%s)",
		r.PauseMax, movePauseMust, verdict(r.PauseMax <= movePauseMust), r.Ratio, moveRatioMust, verdict(r.Ratio >= moveRatioMust))
}

// fault is an error if something is wrong that no machine excuses.
func (r *moveResult) fault() error {
	var list []string
	add := func(n int, what string) {
		if n > 0 {
			list = append(list, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(r.Lost, "rows were lost")
	add(r.Duplicated, "rows are there twice, or as nobody may have them")
	add(int(r.Failed), "statements failed while nobody disturbed the move")
	add(int(r.Stale), "reads did not see what had been acknowledged")
	for _, k := range r.Kills {
		when := fmt.Sprintf("when the %s was killed in phase %s", k.Who, k.Phase)
		add(k.Lost, "rows were lost "+when)
		add(k.duplicated, "rows were there twice, or as nobody may have them, "+when)
		// A server that is away for long has its move aborted, as it should. Another leader just goes on, and after the flip there is no way back.
		if !k.Resumed && (k.Who == "leader" || k.Phase == "flipped") {
			list = append(list, "the move did not come to its end "+when)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return errors.New(strings.Join(list, "; "))
}
