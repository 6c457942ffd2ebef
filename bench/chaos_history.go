package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/wire/pg"
)

// outcome is what a client was told of a write.
type outcome byte

const (
	fateUnknown outcome = iota // nobody knows
	fateAcked                  // it is done
	fateRefused                // it was not done
)

func (f outcome) String() string { return [...]string{"unknown", "acknowledged", "refused"}[f] }

// What a write does.
const (
	writeInsert   = "insert"   // one row of the ledger
	writeRegister = "register" // the client's newest number, over its last one
	writeTransfer = "transfer" // in one transaction a row of the ledger, and an amount from one account of the key to the other
	writeAcross   = "across"   // in one transaction a transfer of one key, and the same amount back of another key, which may be on another shard
)

// chaosWrite is one line of the history. No two of a client's have one seq.
type chaosWrite struct {
	client int
	seq    int64 // from 1
	over   int64 // of a register that was acknowledged: the number that it has overwritten, 0 is the first
	kind   string
	key    int
	other  int // key of writeAcross
	fate   outcome
	code   string        // SQLSTATE, or what took its place
	node   string        // that was asked
	at     time.Duration // since the start
	took   time.Duration
}

func (w chaosWrite) String() string {
	return fmt.Sprintf("%8.3fs +%.3fs client %d seq %d: %s of key %d through %s: %s %s", w.at.Seconds(), w.took.Seconds(), w.client, w.seq, w.kind, w.key, w.node, w.fate, w.code)
}

// rows is what the ledger has of the write when it was done.
func (w *chaosWrite) rows() []ledgerRow {
	switch row := (ledgerRow{key: w.key, client: w.client, seq: w.seq}); w.kind {
	case writeTransfer:
		row.amount = amount(w.seq)
		return []ledgerRow{row}
	case writeAcross:
		row.amount = amount(w.seq)
		return []ledgerRow{row, {key: w.other, client: w.client, seq: w.seq, amount: -row.amount}}
	default:
		return []ledgerRow{row}
	}
}

// missing reports whether some of the rows are not there.
func missing(rows, there []ledgerRow) bool {
	return slices.ContainsFunc(rows, func(r ledgerRow) bool { return !slices.Contains(there, r) })
}

// amount is what a transfer moves.
func amount(seq int64) int64 { return seq%7 + 1 }

// outcomeOf is what an error says of the write that met it: whatever is an error, and does not say that nobody knows, promises that nothing
// was done.
func outcomeOf(err error) (outcome, string) {
	var pe *pgconn.PgError
	switch {
	case err == nil:
		return fateAcked, ""
	case errors.As(err, &pe):
		if pe.Code == pg.CodeTransactionResolutionUnknown || pe.Code == pg.CodeStatementCompletionUnknown {
			return fateUnknown, pe.Code
		}
		return fateRefused, pe.Code
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return fateRefused, "rolled back"
	case errors.Is(err, errNoConnection):
		return fateRefused, "no connection"
	}
	// pgconn.SafeToRetry is not asked: of a connection that broke after a simple query was sent, pgx 5.12 says that it was closed before.
	return fateUnknown, "connection"
}

// ledgerRow is a row of the ledger as a server has it.
type ledgerRow struct {
	key, client int
	seq         int64
	amount      int64
}

// shardEnd is what a shard's primary holds in the end.
type shardEnd struct {
	shard     string
	misplaced []string // rows, of any table, that it does not own
	ledger    []ledgerRow
	registers map[int]int64    // by key
	accounts  map[int][2]int64 // balances, by key
}

// finding is something that must not be.
type finding struct {
	kind string
	key  int // -1: none
	text string
}

// The kinds of findings.
const (
	foundWrong   = "wrong_shard"
	foundLost    = "lost_acked_write"
	foundPhantom = "phantom_write"
	foundTwice   = "duplicated_write"
	foundStale   = "stale_read"
	foundTorn    = "torn_transaction"
	foundOther   = "trouble"
)

// judgeHistory compares what clients were told with what is there.
func judgeHistory(writes []chaosWrite, ends []shardEnd, keys int) (found []finding) {
	add := func(kind string, key int, format string, args ...any) {
		found = append(found, finding{kind, key, fmt.Sprintf(format, args...)})
	}
	type id struct {
		client int
		seq    int64
	}
	rows, registers, accounts, moved := map[id][]ledgerRow{}, map[int][]int64{}, map[int][][2]int64{}, map[int]int64{}
	for _, e := range ends {
		for _, m := range e.misplaced {
			add(foundWrong, -1, "%s has a row that it does not own: %s", e.shard, m)
		}
		for _, r := range e.ledger {
			rows[id{r.client, r.seq}] = append(rows[id{r.client, r.seq}], r)
			moved[r.key] += r.amount
		}
		for key, seq := range e.registers {
			registers[key] = append(registers[key], seq)
		}
		for key, b := range e.accounts {
			accounts[key] = append(accounts[key], b)
		}
	}
	newest := map[int]int64{}            // acknowledged, by key
	known := map[int]map[int64]outcome{} // writes of registers, by key and seq
	for _, w := range writes {
		if w.kind == writeRegister {
			if known[w.key] == nil {
				known[w.key] = map[int64]outcome{}
			}
			if w.fate == fateAcked {
				f, ok := known[w.key][w.over]
				switch { // a client's writes come one after the other, and a key is one client's alone
				case w.over < newest[w.key]:
					add(foundLost, w.key, "overwrote %d, acknowledged was %d: %v", w.over, newest[w.key], w)
				case w.over != 0 && (!ok || f == fateRefused):
					add(foundPhantom, w.key, "overwrote %d, which nobody has written or which was refused: %v", w.over, w)
				}
			}
			known[w.key][w.seq] = w.fate
			if w.fate == fateAcked {
				newest[w.key] = max(newest[w.key], w.seq)
			}
			continue
		}
		there := rows[id{w.client, w.seq}]
		delete(rows, id{w.client, w.seq})
		want := w.rows()
		switch {
		case w.fate == fateAcked && len(there) == 0:
			add(foundLost, w.key, "not there: %v", w)
		case w.fate == fateRefused && len(there) > 0:
			add(foundPhantom, w.key, "there all the same: %v", w)
		case len(there) > len(want):
			add(foundTwice, w.key, "there %d times: %v", len(there), w)
		case len(there) > 0 && missing(want, there) && !missing(there, want):
			add(foundTorn, w.key, "there in part, %+v: %v", there, w)
		}
		for _, r := range there {
			if !slices.Contains(want, r) {
				add(foundPhantom, w.key, "there with key %d and amount %d: %v", r.key, r.amount, w)
			}
		}
	}
	for _, list := range rows {
		add(foundPhantom, list[0].key, "nobody has written %+v", list[0])
	}
	for key := range keys {
		if n := len(registers[key]); n != 1 {
			add(foundWrong, key, "there are %d registers of key %d", n, key)
			continue
		}
		if seq := registers[key][0]; seq < newest[key] {
			add(foundLost, key, "register %d holds %d, acknowledged was %d", key, seq, newest[key])
		} else if f, ok := known[key][seq]; seq != 0 && (!ok || f == fateRefused) {
			add(foundPhantom, key, "register %d holds %d, which nobody has written or which was refused", key, seq)
		}
		if n := len(accounts[key]); n != 1 {
			add(foundWrong, key, "there are %d pairs of accounts of key %d", n, key)
			continue
		}
		if b := accounts[key][0]; b[0]+b[1] != 0 || b[1] != moved[key] {
			add(foundTorn, key, "the accounts of key %d hold %v, the ledger says that %d was moved", key, b, moved[key])
		}
	}
	slices.SortFunc(found, func(a, b finding) int { return strings.Compare(a.kind+a.text, b.kind+b.text) })
	return found
}
