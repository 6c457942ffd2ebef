package console

import (
	"slices"
	"strconv"
	"strings"

	"rangefinder/wire/pg"
)

// The commands about ranges and moves.
const (
	VerbMove       = "MOVE"
	VerbPauseMove  = "PAUSE MOVE"
	VerbResumeMove = "RESUME MOVE"
	VerbAbortMove  = "ABORT MOVE"
	VerbSplit      = "SPLIT RANGE"
	VerbMerge      = "MERGE RANGE"
	VerbMap        = "MAP RANGE"
)

// Order is what a command about ranges and moves is about, and what a SHOW of them is to show.
type Order struct {
	Keyspace string
	Range    string   // as the command line takes it: 1000-2000, ..1000, 2000..
	At       []string // of SPLIT RANGE: where new ranges begin
	To       string   // the shard
	Move     uint64   // its number; 0: of SHOW MOVES all that are not over
	TTL      *int64   // seconds; nil: for good
	Reason   string   // for the history
	Limit    int      // of SHOW HISTORY: at most so many; 0: 100
}

// maxSplits bounds the bounds in one SPLIT RANGE.
const maxSplits = 4096

// Ledgers reports whether the command is about who owns what: the cluster's ledger answers it, and not this node alone.
func (c Command) Ledgers() bool {
	switch c.Verb {
	case VerbMove, VerbPauseMove, VerbResumeMove, VerbAbortMove, VerbSplit, VerbMerge, VerbMap:
		return true
	}
	return false
}

// LooksIntoLedger reports whether the command shows what a snapshot has of the ledger only on demand.
func (c Command) LooksIntoLedger() bool {
	return c.Verb == "SHOW" && slices.Contains([]string{"KEYSPACES", "RANGES", "MOVES", "LENT", "HISTORY"}, c.View)
}

// clauses reads the words of one command, one clause after the other.
type clauses struct {
	text string // that the words were cut from
	left []token
	form string // how the command is written, for the hint
}

func (c *clauses) wrong() *pg.Error {
	at := "the end"
	if len(c.left) > 0 {
		at = strconv.Quote(clip(c.left[0].text))
	}
	return pg.NewError(pg.CodeSyntaxError, "syntax error at or near "+at).WithHint("Write it as " + c.form + ".")
}

// keyword takes a word if it is this one.
func (c *clauses) keyword(word string) bool {
	if len(c.left) == 0 || c.left[0].keyword() != word {
		return false
	}
	c.left = c.left[1:]
	return true
}

// name takes a name, which is not empty.
func (c *clauses) name(into *string) bool { return c.word(into) && *into != "" }

// word takes what may be in quotes; one that is not ends with the next blank, or comma: shard-3 needs none.
func (c *clauses) word(into *string) bool {
	if len(c.left) == 0 || !c.left[0].name && !c.left[0].literal {
		return false
	}
	n := 1
	for !c.left[0].quoted && !c.left[0].literal && n < len(c.left) && c.left[n].begin == c.left[n-1].end && c.left[n].text != "," {
		n++
	}
	*into = c.source(n)
	c.left = c.left[n:]
	return true
}

// source is what the next n words are; of one in quotes, what is in it.
func (c *clauses) source(n int) string {
	if n == 1 {
		return c.left[0].text
	}
	return c.text[len(c.text)-c.left[0].begin : len(c.text)-c.left[n-1].end]
}

// number takes a whole number above zero.
func (c *clauses) number(bits int) (n uint64, ok bool) {
	if len(c.left) == 0 || !c.left[0].name {
		return 0, false
	}
	n, err := strconv.ParseUint(c.left[0].text, 10, bits)
	if err != nil || n == 0 {
		return 0, false
	}
	c.left = c.left[1:]
	return n, true
}

// raw takes what stands before the next of these words, as it is written; of a text in quotes that stands alone, what is in it.
func (c *clauses) raw(into *string, until ...string) bool {
	n := 0
	for n < len(c.left) && !slices.Contains(until, c.left[n].keyword()) && (c.left[n].text != "," || c.left[n].name || !slices.Contains(until, ",")) {
		n++
	}
	if n == 0 {
		return false
	}
	*into = c.source(n)
	c.left = c.left[n:]
	return true
}

// reason takes the clause that every command may end with, and reports whether nothing follows.
func (c *clauses) reason(o *Order) bool {
	if c.keyword("REASON") && !c.word(&o.Reason) {
		return false
	}
	return len(c.left) == 0
}

// ttl takes a number of seconds, which may be no good one: that is for the ledger to say.
func (c *clauses) ttl(o *Order) bool {
	if !c.keyword("TTL") {
		return true
	}
	var text string
	was := c.left
	if !c.raw(&text, "KEYSPACE", "REASON") {
		return false
	}
	seconds, err := strconv.ParseInt(strings.ReplaceAll(text, " ", ""), 10, 64)
	if err != nil {
		c.left = was
	}
	o.TTL = &seconds
	return err == nil
}

// ledgerCommand reads a command about ranges and moves. known is false if it is none.
func ledgerCommand(text string, words []token) (cmd Command, known bool, e *pg.Error) {
	c := clauses{text: text, left: words}
	o := &cmd.Order
	ok := false
	switch verb, next := words[0].keyword(), second(words); {
	case verb == "MOVE":
		cmd.Verb, c.form = VerbMove, "MOVE keyspace 1000-2000 TO shard [TTL seconds] [REASON 'text']"
		c.left = words[1:]
		ok = c.name(&o.Keyspace) && c.raw(&o.Range, "TO") && c.keyword("TO") && c.name(&o.To) && c.ttl(o) && c.reason(o)
	case next == "MOVE" && len(words) > 2 && (verb == "PAUSE" || verb == "RESUME") || verb == "ABORT": // PAUSE move is about a database
		cmd.Verb, c.form = verb+" MOVE", verb+" MOVE number [REASON 'text']"
		if c.left = words[1:]; c.keyword("MOVE") {
			if o.Move, ok = c.number(64); ok {
				ok = c.reason(o)
			}
		}
	case verb == "SPLIT":
		cmd.Verb, c.form = VerbSplit, "SPLIT RANGE keyspace AT value, ... [REASON 'text']"
		c.left = words[1:]
		ok = c.keyword("RANGE") && c.name(&o.Keyspace) && c.keyword("AT") && c.values(o) && c.reason(o)
		if len(o.At) > maxSplits {
			return Command{}, true, pg.Errorf(pg.CodeProgramLimitExceeded, "more than %d bounds in one SPLIT RANGE", maxSplits).WithHint("Split by several commands.")
		}
	case verb == "MERGE":
		cmd.Verb, c.form = VerbMerge, "MERGE RANGE keyspace 1000-2000 [REASON 'text']"
		c.left = words[1:]
		ok = c.keyword("RANGE") && c.name(&o.Keyspace) && c.raw(&o.Range, "REASON") && c.reason(o)
	case verb == "MAP":
		cmd.Verb, c.form = VerbMap, "MAP RANGE 1000-2000 TO shard [TTL seconds] [KEYSPACE name] [REASON 'text']"
		c.left = words[1:]
		ok = c.keyword("RANGE") && c.raw(&o.Range, "TO") && c.keyword("TO") && c.name(&o.To) && c.ttl(o) && (!c.keyword("KEYSPACE") || c.name(&o.Keyspace)) && c.reason(o)
	case verb == "SHOW":
		cmd.Verb, cmd.View = verb, next
		if !cmd.LooksIntoLedger() {
			return Command{}, false, nil
		}
		c.left = words[2:]
		ok = c.shown(cmd.View, o)
	default:
		return Command{}, false, nil
	}
	if !ok {
		return Command{}, true, c.wrong()
	}
	return cmd, true, nil
}

// shown reads what is to be shown of a view, and reports whether nothing follows.
func (c *clauses) shown(view string, o *Order) (ok bool) {
	c.form = "SHOW " + view
	switch view {
	case "RANGES":
		c.form += " [keyspace]"
		_ = c.name(&o.Keyspace)
	case "MOVES":
		if c.form += " [number]"; len(c.left) > 0 {
			if o.Move, ok = c.number(64); !ok {
				return false
			}
		}
	case "HISTORY":
		c.form += " [keyspace] [LIMIT number]"
		if len(c.left) > 0 && c.left[0].keyword() != "LIMIT" {
			_ = c.name(&o.Keyspace)
		}
		if c.keyword("LIMIT") {
			n, ok := c.number(31)
			if !ok {
				return false
			}
			o.Limit = int(n)
		}
	}
	return len(c.left) == 0
}

// values takes bounds with commas between them. A key of several columns stands in quotes.
func (c *clauses) values(o *Order) bool {
	for {
		var at string
		if !c.raw(&at, ",", "REASON") {
			return false
		}
		o.At = append(o.At, at)
		if len(c.left) == 0 || c.left[0].text != "," || c.left[0].literal {
			return true
		}
		c.left = c.left[1:]
	}
}

func second(words []token) string {
	if len(words) < 2 {
		return ""
	}
	return words[1].keyword()
}
