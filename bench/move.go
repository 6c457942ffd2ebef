package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
)

// moveResult is the last line of `bench move`.
type moveResult struct {
	GB         float64    `json:"gb"`
	Failed     int64      `json:"failed_statements"` // of the move that nobody disturbed
	Lost       int        `json:"lost"`
	Duplicated int        `json:"duplicated"`
	PauseP99   float64    `json:"pause_p99_ms"` // of statements around the flip
	PauseMax   float64    `json:"pause_max_ms"`
	Ratio      float64    `json:"throughput_ratio"` // while the range moved, to before
	AbortMS    float64    `json:"abort_ms"`
	StopMS     float64    `json:"stop_copy_start_ms"` // the same by stopping the writers: how long they stand still
	Kills      []moveKill `json:"kills"`
}

// moveKill is a move during which something was killed.
type moveKill struct {
	Who     string `json:"who"`
	Phase   string `json:"phase"`
	Lost    int    `json:"lost"`
	Resumed bool   `json:"resumed"` // it came to its end; false: it was aborted, and nothing was left
}

// runMove moves a quarter of a keyspace between two servers under load, and kills what takes part.
func runMove(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench move", flag.ContinueOnError)
	mb := f.Int("mb", 1200, "megabytes of rows, of which a quarter moves")
	before := f.Duration("before", 20*time.Second, "how long the load runs before the move, to compare with")
	clients := f.Int("clients", 8, "clients")
	kills := f.Bool("kills", true, "kill the leader and both servers in each phase")
	quick := f.Bool("quick", false, "64 MB, 5 s, one kill of each")
	asJSON := f.Bool("json", false, "print one JSON object as the last line")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *quick {
		*mb, *before = 64, 5*time.Second
	}
	if *mb < 1 || *clients < 1 || *before <= 0 {
		return errors.New("-mb, -clients and -before want more than 0")
	}
	fmt.Printf("making %d MB on two servers, and three nodes\n", *mb)
	w, err := newMoveWorld(ctx, *mb)
	if err != nil {
		return err
	}
	defer w.close()
	r := moveResult{GB: float64(*mb) / 1000, Kills: []moveKill{}}
	l := w.load(ctx, *clients)
	defer l.end()
	if err := w.undisturbed(ctx, l, *before, &r); err != nil {
		return err
	}
	fmt.Printf("undisturbed: %d statements failed, pause p99 %.1f ms, max %.1f ms, throughput while moving %.2f of before\n", r.Failed, r.PauseP99, r.PauseMax, r.Ratio)
	for _, failure := range l.failures {
		fmt.Println("  failed:", failure)
	}
	if r.AbortMS, err = w.aborted(ctx); err != nil {
		return err
	}
	if r.StopMS, err = w.stopCopyStart(ctx, l); err != nil {
		return err
	}
	fmt.Printf("an abort while copying took %.0f ms; stop, copy, start has writers stand still for %.0f ms\n", r.AbortMS, r.StopMS)
	if *kills {
		if err := w.kills(ctx, l, *quick, &r); err != nil {
			return err
		}
	}
	l.end()
	if r.Lost, r.Duplicated, err = l.check(ctx); err != nil {
		return err
	}
	fmt.Printf("of %d acknowledged rows %d are lost; %d rows are there more than once or were never written\n", len(l.acked), r.Lost, r.Duplicated)
	if *asJSON {
		if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
			return err
		}
	}
	if r.Lost+r.Duplicated > 0 {
		return errors.New("rows were lost, or are there more than once")
	}
	return nil
}

// other is the shard to move to.
func (w *moveWorld) other(ctx context.Context) (string, error) {
	owner, err := w.owner(ctx)
	if owner == "shard_1" {
		return "shard_2", err
	}
	return "shard_1", err
}

func (w *moveWorld) undisturbed(ctx context.Context, l *moveLoad, before time.Duration, r *moveResult) error {
	if err := pause(ctx, before/4); err != nil { // caches
		return err
	}
	calm, err := l.rate(ctx, before)
	if err != nil {
		return err
	}
	failed, count, began := l.failed.Load(), l.count.Load(), time.Now()
	id, err := w.begin(ctx, "shard_2")
	if err != nil {
		return err
	}
	if err := w.until(ctx, id, func(m *moveStatus) bool { return m == nil || m.Phase != "prepare" }); err != nil {
		return err
	}
	frozen := time.Now()
	r.Ratio = float64(l.count.Load()-count) / frozen.Sub(began).Seconds() / calm
	if err := w.until(ctx, id, func(m *moveStatus) bool { return m == nil || m.Phase != "frozen" }); err != nil {
		return err
	}
	flipped := time.Now()
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	r.PauseP99, r.PauseMax = l.slowest(frozen.Add(-time.Second), flipped.Add(time.Second))
	if err := w.over(ctx, id); err != nil {
		return err
	}
	r.Failed = l.failed.Load() - failed
	if owner, err := w.owner(ctx); err != nil || owner != "shard_2" {
		return fmt.Errorf("the move was aborted: the range is on %s: %w", owner, err)
	}
	return nil
}

// over waits until a move is out of the table.
func (w *moveWorld) over(ctx context.Context, id uint64) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	return w.until(ctx, id, func(m *moveStatus) bool { return m == nil })
}

// aborted aborts a move that copies, and returns how long it took until nothing of it was left.
func (w *moveWorld) aborted(ctx context.Context) (ms float64, err error) {
	to, err := w.other(ctx)
	if err != nil {
		return 0, err
	}
	id, err := w.begin(ctx, to)
	if err == nil {
		err = w.until(ctx, id, func(m *moveStatus) bool { return m != nil && (m.Part > 0.2 || m.Step != "check" && m.Step != "copy") })
	}
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := w.nodes[0].call(ctx, "POST", fmt.Sprintf("/api/v1/moves/%d/abort", id), map[string]string{"reason": "of the benchmark"}, nil); err != nil {
		return 0, err
	}
	if err := w.over(ctx, id); err != nil {
		return 0, err
	}
	ms = float64(time.Since(began).Milliseconds())
	owner, err := w.owner(ctx)
	if err == nil && owner == to {
		err = errors.New("a move that was aborted has moved the range")
	}
	return ms, err
}

// stopCopyStart is what one does without a mover: writers stop, the rows are copied to the other server, and writers go on there.
func (w *moveWorld) stopCopyStart(ctx context.Context, l *moveLoad) (ms float64, err error) {
	from, err := w.owner(ctx)
	if err != nil {
		return 0, err
	}
	to, err := w.other(ctx)
	if err != nil {
		return 0, err
	}
	source, err := w.shards[from].ConnTo(ctx, benchDatabase, "")
	if err != nil {
		return 0, err
	}
	defer source.Close(ctx)
	target, err := w.shards[to].ConnTo(ctx, benchDatabase, "")
	if err != nil {
		return 0, err
	}
	defer target.Close(ctx)
	if _, err := target.Exec(ctx, "CREATE TABLE stopped (LIKE parcels INCLUDING ALL)"); err != nil {
		return 0, err
	}
	began := time.Now()
	l.hold.Store(true)
	defer l.hold.Store(false)
	if err := pipeRows(ctx, source, target, w.where); err != nil {
		return 0, err
	}
	ms = float64(time.Since(began).Milliseconds())
	_, err = target.Exec(ctx, "DROP TABLE stopped")
	return ms, err
}

func pipeRows(ctx context.Context, source, target *pgx.Conn, where string) error {
	from, to := io.Pipe()
	read := make(chan error, 1)
	go func() {
		_, err := source.PgConn().CopyTo(ctx, to, "COPY (SELECT * FROM parcels WHERE "+where+") TO STDOUT")
		to.CloseWithError(err)
		read <- err
	}()
	_, err := target.PgConn().CopyFrom(ctx, from, "COPY stopped FROM STDIN")
	from.CloseWithError(err)
	return errors.Join(err, <-read)
}

// movePhases are where something is killed, and how one sees that a move is there.
var movePhases = []struct {
	name string
	at   func(*moveStatus) bool
}{
	{"copy", func(m *moveStatus) bool { return m.Phase == "prepare" && m.Step == "copy" && m.Part > 0.1 }},
	{"follow", func(m *moveStatus) bool { return m.Step == "follow" }},
	{"frozen", func(m *moveStatus) bool { return m.Phase == "frozen" }},
	{"flipped", func(m *moveStatus) bool { return m.Phase == "flipped" }},
}

// kills moves the range to and fro. What is killed comes back.
func (w *moveWorld) kills(ctx context.Context, l *moveLoad, quick bool, r *moveResult) error {
	l.calm.Store(false)
	for i, phase := range movePhases {
		for k, who := range []string{"leader", "source", "target"} {
			if quick && k != i {
				continue
			}
			if err := w.killOne(ctx, l, who, phase.name, phase.at, r); err != nil {
				return fmt.Errorf("%s killed in phase %s: %w", who, phase.name, err)
			}
		}
	}
	return nil
}

func (w *moveWorld) killOne(ctx context.Context, l *moveLoad, who, phase string, at func(*moveStatus) bool, r *moveResult) error {
	from, err := w.owner(ctx)
	if err != nil {
		return err
	}
	to, err := w.other(ctx)
	if err != nil {
		return err
	}
	id, err := w.begin(ctx, to)
	if err == nil { // a phase that is over between two looks is killed in the next one
		err = w.until(ctx, id, func(m *moveStatus) bool { return m == nil || at(m) || m.Phase == "flipped" || m.Phase == "aborted" })
	}
	if err != nil {
		return err
	}
	switch who {
	case "leader":
		n, err := w.leader(ctx)
		if err != nil {
			return err
		}
		n.kill()
		if err := w.start(ctx, n); err != nil {
			return err
		}
	default:
		s := w.shards[map[string]string{"source": from, "target": to}[who]]
		if err := errors.Join(s.Kill(), s.Start(ctx)); err != nil {
			return err
		}
	}
	if err := w.over(ctx, id); err != nil {
		return err
	}
	owner, err := w.owner(ctx)
	if err != nil {
		return err
	}
	k := moveKill{Who: who, Phase: phase, Resumed: owner == to}
	if k.Lost, _, err = l.check(ctx); err != nil {
		return err
	}
	r.Kills = append(r.Kills, k)
	fmt.Printf("%-7s killed in %-8s: resumed %v, lost %d\n", who, phase, k.Resumed, k.Lost)
	return nil
}
