package move

import (
	"cmp"
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// question is one statement of several that are sent to a server together. Each is a transaction of its own, unless they say otherwise: what one of
// them fails with does not keep the others from being answered.
type question struct {
	sql    string
	args   []string                            // as text
	answer func(rows pgx.Rows) error           // reads the rows; nil: there are none, or they do not matter
	failed func(refused *pgconn.PgError) error // what it means that the server refuses; nil: the questions have failed
}

// each has an answer read row by row.
func each(scans []any, f func() error) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, scans, f)
		return err
	}
}

// one has an answer of one row read.
func one(scans ...any) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		n := 0
		_, err := pgx.ForEachRow(rows, scans, func() error { n++; return nil })
		if err == nil && n != 1 {
			err = pgx.ErrNoRows
		}
		return err
	}
}

// ask sends questions to a server in one go, and reads the answers in their order: whatever is asked, it takes one round trip. An error does not keep it from
// reading on to the last one, so that the connection can be used again; it returns the first.
func ask(ctx context.Context, conn *pgx.Conn, questions ...question) (err error) {
	p := conn.PgConn().StartPipeline(ctx)
	defer func() {
		if again := p.Close(); err == nil {
			err = again
		}
	}()
	for _, q := range questions {
		args := make([][]byte, len(q.args))
		for i, a := range q.args {
			args[i] = []byte(a)
		}
		p.SendQueryParams(q.sql, args, nil, nil, nil)
		p.SendPipelineSync()
	}
	if err := p.Flush(); err != nil {
		return err
	}
	for _, q := range questions {
		more, again := q.read(conn, p)
		if err == nil {
			err = again
		}
		if !more {
			return err
		}
	}
	return err
}

// read reads the answer to one question, and the end of its transaction. more false: the connection has ended.
func (q *question) read(conn *pgx.Conn, p *pgconn.Pipeline) (more bool, err error) {
	result, err := p.GetResults()
	if reader, ok := result.(*pgconn.ResultReader); ok {
		if q.answer != nil {
			err = q.answer(pgx.RowsFromResultReader(conn.TypeMap(), reader))
		}
		if _, again := reader.Close(); err == nil {
			err = again
		}
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) && q.failed != nil {
		err = q.failed(refused)
	}
	for {
		result, again := p.GetResults()
		if _, ended := result.(*pgconn.PipelineSync); ended {
			return true, err
		}
		if !errors.As(again, &refused) {
			return false, cmp.Or(err, again, errGone)
		}
		if err == nil { // the commit has failed
			err = again
		}
	}
}

var errGone = errors.New("the connection has ended before all was answered")

// beside does two things at the same time.
func beside(first, second func() error) error {
	done := make(chan error, 1)
	go func() { done <- second() }()
	return errors.Join(first(), <-done)
}
