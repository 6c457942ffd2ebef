package twophase

import (
	"context"

	"rangefinder/wire/pg"
)

// Branch is a server connection on the primary of one shard, inside an open transaction.
type Branch interface {
	// Shard names the shard.
	Shard() string
	// Exec runs a string of statements as one Query message, and returns the command tag of the last. An error that the server has
	// answered with is a *pg.Error; with any other, the connection is lost, and nobody knows what was done.
	Exec(ctx context.Context, sql string) (tag string, err error)
}

// Participant is one branch of a transaction that is to be committed.
type Participant struct {
	Branch
	Wrote bool // false: it can have changed nothing
}

// run executes a string of statements whose last one has to end with a tag. A server answers COMMIT and PREPARE in a transaction that has
// failed with ROLLBACK, which is no error to it.
func run(ctx context.Context, b Branch, sql, tag string) error {
	got, err := b.Exec(ctx, sql)
	if err == nil && got != tag {
		return pg.Errorf(pg.CodeTransactionRollback, "shard %s has rolled the transaction back", b.Shard())
	}
	return err
}

// codeUniqueViolation is that there is a row of this name already.
const codeUniqueViolation = "23505"

// each runs f for all of a list at once, and returns what each came to.
func each[T any](list []T, f func(T) error) []error {
	errs := make([]error, len(list))
	if len(list) == 1 {
		errs[0] = f(list[0])
		return errs
	}
	done := make(chan struct{})
	for i := range list {
		go func() {
			errs[i] = f(list[i])
			done <- struct{}{}
		}()
	}
	for range list {
		<-done
	}
	return errs
}
