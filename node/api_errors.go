package node

import (
	"errors"
	"net/http"
	"time"

	"rangefinder/cluster"
)

// retryLeader is how soon a caller should ask again when no leader is known: an election takes about that long.
const retryLeader = 2 * time.Second

// The codes of errors, for programs. Those that are not named here follow from the status: see codeOf.
const (
	codeBadRequest   = "bad_request"
	codeUnauthorized = "unauthorized"
	codeForbidden    = "forbidden"
	codeNotFound     = "not_found"
	codeMethod       = "method_not_allowed"
	codeConflict     = "conflict"
	codeTooLarge     = "too_large"
	codeMediaType    = "unsupported_media_type"
	codeCannotWork   = "cannot_work"
	codeUnavailable  = "unavailable"
	codeUnknown      = "outcome_unknown"
	codeInternal     = "internal"

	codeBadRange      = "bad_range" // no interval of the keyspace's keys
	codeTTL           = "ttl_out_of_range"
	codeUnknownShard  = "unknown_shard"
	codeUnhealthy     = "shard_unhealthy"
	codeSeveralOwners = "several_owners" // a range of one owner is wanted
	codeOwner         = "other_owner"
	codeMoving        = "range_moving" // a move that is under way stands against it
	codeRows          = "rows_present" // the range is not empty
	codeObstacles     = "obstacles"    // what a move needs of the shards is not there
	codeAborted       = "aborted"
	codePhase         = "wrong_phase" // the move is too far for that, or over
	codeAlive         = "node_alive"
	codeBackendUp     = "backend_up" // which the cluster would lose
	codeTooMany       = "too_many"
	codeReused        = "request_id_reused"
)

// codeOf is the code of an error that has none of its own.
func codeOf(status int) string {
	switch status {
	case http.StatusBadRequest:
		return codeBadRequest
	case http.StatusUnauthorized:
		return codeUnauthorized
	case http.StatusForbidden:
		return codeForbidden
	case http.StatusNotFound:
		return codeNotFound
	case http.StatusMethodNotAllowed:
		return codeMethod
	case http.StatusConflict:
		return codeConflict
	case http.StatusRequestEntityTooLarge:
		return codeTooLarge
	case http.StatusUnsupportedMediaType:
		return codeMediaType
	case http.StatusUnprocessableEntity:
		return codeCannotWork
	case http.StatusServiceUnavailable:
		return codeUnavailable
	case http.StatusGatewayTimeout:
		return codeUnknown
	}
	return codeInternal
}

// reloadRefused says why a reload has changed nothing.
func reloadRefused(err error) *apiError {
	var wrong *ConfigError
	if errors.As(err, &wrong) {
		e := &apiError{Status: http.StatusUnprocessableEntity, ErrorView: ErrorView{
			Error: wrong.summary(), Detail: wrong.Error(), Hint: "Mend the file and reload again; 'rangefinder config -c FILE' checks it beforehand.",
		}}
		for _, p := range wrong.Problems {
			e.Problems = append(e.Problems, ProblemView{File: wrong.File, Line: p.Line, Column: p.Column, Key: p.Key, Message: p.Message, Hint: p.Hint})
		}
		return e
	}
	e := &apiError{Status: http.StatusUnprocessableEntity, ErrorView: ErrorView{Error: err.Error()}}
	var failure *Failure
	if errors.As(err, &failure) {
		e.Detail, e.Hint = failure.Detail, failure.Hint
	}
	switch {
	case errors.Is(err, errReloadTooEarly):
		e.Status, e.RetryAfter = http.StatusServiceUnavailable, time.Second
	case errors.Is(err, errReloadTooLate), errors.Is(err, errReloadTakeover), errors.Is(err, errNoReload):
		e.Status = http.StatusConflict
	}
	return e
}

// statusOf is the one place where errors of the ledger become answers of the API.
func statusOf(err error) *apiError {
	var already *apiError
	if errors.As(err, &already) {
		return already
	}
	e := &apiError{Status: http.StatusInternalServerError, ErrorView: ErrorView{Error: err.Error()}}
	var rejected *cluster.RejectedError
	var notLeader *cluster.NotLeaderError
	var unknown *cluster.OutcomeUnknownError
	var failure *Failure
	switch {
	case errors.As(err, &rejected):
		e.Status = http.StatusUnprocessableEntity
		e.Hint = "Nothing was changed. Mend the request and repeat it; --help of the command has examples."
		for _, conflict := range []error{cluster.ErrNameTaken, cluster.ErrTableTaken, cluster.ErrValueTaken, cluster.ErrShardConflict, cluster.ErrRequestReused} {
			if errors.Is(err, conflict) {
				e.Status = http.StatusConflict
				e.Hint = "Nothing was changed. 'rangefinder keyspace list' shows what there is."
			}
		}
		for _, c := range []struct {
			reason     error
			code, hint string
		}{
			{cluster.ErrMoving, codeMoving, movingHint(rejected.Move)},
			{cluster.ErrOwner, codeOwner, "Nothing was changed. 'rangefinder range list' shows who owns what."},
			{cluster.ErrPhase, codePhase, "Nothing was changed. 'rangefinder move status' shows how far the move is; after the flip it only goes forward: move the range back."},
			{cluster.ErrUnhealthy, codeUnhealthy, "Nothing was changed. 'rangefinder status' shows the shard's backends; ask again when its primary is up."},
			{cluster.ErrAlive, codeAlive, "Nothing was changed. Stop the node first, and ask again a few seconds later."},
			{cluster.ErrTooMany, codeTooMany, "Nothing was changed. Ask again when some are over: 'rangefinder move status' and 'rangefinder range lent' show them."},
			{cluster.ErrRequestReused, codeReused, "Nothing was changed. Give each call an id of its own."},
		} {
			if errors.Is(err, c.reason) {
				e.Status, e.Code, e.Hint = http.StatusConflict, c.code, c.hint
			}
		}
		if errors.Is(err, cluster.ErrUnknownShard) {
			e.Code = codeUnknownShard
		}
		if errors.Is(err, cluster.ErrNoNode) {
			e.Status = http.StatusNotFound
			e.Hint = "'rangefinder move status' names the nodes that a move waits for."
		}
		if errors.Is(err, cluster.ErrNoMove) {
			e.Status = http.StatusNotFound
			e.Hint = "'rangefinder move status' lists those under way, 'rangefinder range history' those that are over."
		}
		if errors.Is(err, cluster.ErrNoKeyspace) {
			e.Status = http.StatusNotFound
			e.Hint = "'rangefinder keyspace list' shows what there is."
		}
	case errors.As(err, &notLeader), errors.Is(err, cluster.ErrNoCluster), errors.Is(err, cluster.ErrNotOpen):
		e.Status, e.RetryAfter = http.StatusServiceUnavailable, retryLeader
		e.Hint = "Nothing was changed. Ask again in a moment; 'rangefinder status' shows whether a leader is known."
	case errors.Is(err, cluster.ErrTooBusy):
		e.Status, e.RetryAfter = http.StatusServiceUnavailable, time.Second
		e.Hint = "Nothing was changed. Ask again in a moment."
	case errors.As(err, &unknown):
		e.Status = http.StatusGatewayTimeout
		e.Hint = "Look with 'rangefinder keyspace list' before you repeat it."
	}
	if errors.As(err, &failure) {
		e.Detail, e.Hint = failure.Detail, failure.Hint
	}
	return e
}
