package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
)

// stopCopyStart is what one does without a mover: writers stop, the rows are dumped to a file and restored on the other server, counted, and
// writers go on. The rows come to a table beside the real one, which is all the same to the server; what telling the routers and deleting the
// rows takes is not counted.
func (w *moveWorld) stopCopyStart(ctx context.Context, l *moveLoad) (ms float64, err error) {
	from, to, err := w.other(ctx)
	if err != nil {
		return 0, err
	}
	source, err := w.shards[from].ConnTo(ctx, benchDatabase, "")
	if err != nil {
		return 0, err
	}
	defer source.Close(context.WithoutCancel(ctx))
	target, err := w.shards[to].ConnTo(ctx, benchDatabase, "")
	if err != nil {
		return 0, err
	}
	defer target.Close(context.WithoutCancel(ctx))
	if _, err := target.Exec(ctx, "CREATE TABLE stopped (LIKE parcels INCLUDING ALL)"); err != nil {
		return 0, err
	}
	began := time.Now()
	l.hold.Lock() // all that is under way comes to its end first
	defer l.hold.Unlock()
	file, err := os.Create(filepath.Join(w.farm.Dir(), "dump"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	dumped, err := source.PgConn().CopyTo(ctx, file, "COPY (SELECT * FROM parcels WHERE "+w.where+") TO STDOUT")
	if err == nil {
		_, err = file.Seek(0, 0)
	}
	if err == nil {
		_, err = target.PgConn().CopyFrom(ctx, file, "COPY stopped FROM STDIN")
	}
	var restored int64
	if err == nil {
		err = target.QueryRow(ctx, "SELECT count(*) FROM stopped", pgx.QueryExecModeExec).Scan(&restored)
	}
	if err == nil && restored != dumped.RowsAffected() {
		err = fmt.Errorf("%d rows were dumped, and %d are restored", dumped.RowsAffected(), restored)
	}
	if err != nil {
		return 0, err
	}
	ms = float64(time.Since(began).Milliseconds())
	w.say("the same by stopping: dump and restore of %d rows have all writers stand still for %.0f ms", restored, ms)
	_, err = target.Exec(ctx, "DROP TABLE stopped")
	return ms, err
}
