package probe

import (
	"errors"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// weight is what a failure says about the server.
type weight int

const (
	counts   weight = iota // one failed probe of Fall
	definite               // down at once
	neutral                // the server works, but not for us now
	crowded                // it works, and has no connection left for us
)

// SQLSTATEs that a server answers a probe with.
const (
	cannotConnectNow   = "57P03" // it starts, stops or recovers
	adminShutdown      = "57P01"
	crashShutdown      = "57P02"
	tooManyConnections = "53300"
	notInThatState     = "55000" // it was promoted between two functions of the query
)

func judge(err error) weight {
	var pg *pgconn.PgError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return definite
	case errors.As(err, &pg):
		switch pg.Code {
		case cannotConnectNow, adminShutdown, crashShutdown:
			return definite
		case tooManyConnections:
			return crowded
		case notInThatState:
			return neutral
		}
	}
	return counts
}

// answeredBy tells whether the failure is a server's own answer.
func answeredBy(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg)
}

// limitOfOurs tells whether a server that has no connection left means its user's or its database's own limit: that says nothing of how busy
// it is. The places in PostgreSQL's source are in no language.
func limitOfOurs(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Routine == "InitializeSessionUserId" || pg.Routine == "CheckMyDatabase")
}
