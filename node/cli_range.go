package node

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"rangefinder/cluster"
)

type rangeCmd struct {
	List    rangeListCmd    `cmd:"" help:"List ranges and their owners."`
	Split   rangeSplitCmd   `cmd:"" help:"Put bounds into ranges."`
	Merge   rangeMergeCmd   `cmd:"" help:"Make one range of those within an interval."`
	Map     rangeMapCmd     `cmd:"" help:"Give a range that holds no rows another shard, for good or for a time."`
	Lent    rangeLentCmd    `cmd:"" help:"List ranges that go back to the shard that had them, and when."`
	History rangeHistoryCmd `cmd:"" help:"Show who changed what, when and why."`
}

type rangeListCmd struct {
	adminFlags
	Keyspace string `placeholder:"NAME" help:"Only this one's."`
}

// Run prints the ranges.
func (c *rangeListCmd) Run(e *env) error {
	path := "/api/v1/ranges"
	if c.Keyspace != "" {
		path = rangesOf(c.Keyspace)
	}
	var v RangesAnswer
	if err := c.call(e, path, nil, &v); err != nil || c.JSON {
		return err
	}
	return printRanges(e.stdout, v.Ranges)
}

// reasonFlag is for what the history keeps.
type reasonFlag struct {
	Reason string `placeholder:"TEXT" help:"For the history: why."`
}

func (r reasonFlag) origin() cluster.Origin {
	return cluster.Origin{Reason: r.Reason, RequestID: randomHex(16)}
}

type rangeSplitCmd struct {
	adminFlags
	reasonFlag
	Keyspace string   `arg:"" help:"The keyspace."`
	At       []string `arg:"" help:"Where new ranges begin: values of the key; of the hash method positions of 16 digits, as range list shows them." sep:"none"`
}

// Help is shown by `rangefinder range split --help`.
func (rangeSplitCmd) Help() string {
	return "A split moves no row and changes no owner: it makes parts that can be moved each by itself.\n\nExamples:\n\n" +
		"  rangefinder range split app.accounts 1500             # 1000..2000 becomes 1000..1500 and 1500..2000\n" +
		"  rangefinder range split app.accounts 1250 1500 1750   # four parts at once\n" +
		"  rangefinder range split app.orders 0x4000000000000000 # of the method hash: a position, not a key\n\n" +
		"A range that is on its way to another shard is not split before that is over."
}

// Run splits.
func (c *rangeSplitCmd) Run(e *env) error {
	var v RangesAnswer
	if err := c.call(e, "/api/v1/ranges/split", cluster.SplitSpec{Keyspace: c.Keyspace, At: c.At, Origin: c.origin()}, &v); err != nil || c.JSON {
		return err
	}
	return printRanges(e.stdout, v.Ranges)
}

type rangeMergeCmd struct {
	adminFlags
	reasonFlag
	Keyspace string `arg:"" help:"The keyspace."`
	Range    string `arg:"" help:"The interval: 1000-2000, ..1000 or 2000.. ; of the hash method positions, as range list shows them."`
}

// Help is shown by `rangefinder range merge --help`.
func (rangeMergeCmd) Help() string {
	return "The interval is made of whole ranges of one owner. No row moves.\n\nExample:\n\n  rangefinder range merge app.accounts 1000-2000   # undoes a split at 1500"
}

// Run merges.
func (c *rangeMergeCmd) Run(e *env) error {
	var v RangesAnswer
	if err := c.call(e, "/api/v1/ranges/merge", cluster.MergeSpec{Keyspace: c.Keyspace, Range: c.Range, Origin: c.origin()}, &v); err != nil || c.JSON {
		return err
	}
	return printRanges(e.stdout, v.Ranges)
}

type rangeMapCmd struct {
	adminFlags
	reasonFlag
	Range    string         `arg:"" help:"The range: 1000-2000, ..1000 or 2000.. ."`
	To       string         `required:"" placeholder:"SHARD" help:"The shard that is to own it."`
	TTL      *time.Duration `name:"ttl" placeholder:"TIME" help:"For how long, such as 1h; then it goes back, unless it holds rows. Default: for good."`
	Keyspace string         `placeholder:"NAME" help:"Which one, if there are several of the method range."`
}

// Help is shown by `rangefinder range map --help`.
func (rangeMapCmd) Help() string {
	return "Rows in the range are counted first: if there are any, nothing happens, and the command that moves them is named. There is no force.\n\nExamples:\n\n" +
		"  rangefinder range map 1000-2000 --to shard_3 --ttl 1h\n" +
		"  rangefinder range lent                               # what goes back, and when\n\n" +
		"If the range holds rows when its time is over it stays where it is, and an alarm in 'rangefinder status' says so."
}

// Run hands the range over.
func (c *rangeMapCmd) Run(e *env) error {
	req := RoutingMapRequest{Range: c.Range, Target: c.To, Keyspace: c.Keyspace, Reason: c.Reason, RequestID: randomHex(16)}
	if c.TTL != nil {
		if *c.TTL%time.Second != 0 {
			return &usageError{message: "--ttl is no whole number of seconds", hint: "For example 90s or 1h"}
		}
		seconds := int64(*c.TTL / time.Second)
		req.TTL = &seconds
	}
	var v RoutingMapView
	if err := c.call(e, routingMapPath, req, &v); err != nil || c.JSON {
		return err
	}
	if v.status() == http.StatusAccepted {
		return &Failure{Message: fmt.Sprintf("range %s of %s still belongs to %s: move %d is at %s", v.Range, v.Keyspace, v.From, v.Move, v.Phase),
			Hint: fmt.Sprintf("It goes on by itself: rangefinder move status %d --watch", v.Move)}
	}
	if !v.Changed && v.Until != nil {
		fmt.Fprintf(e.stdout, "range %s of %s belongs to %s already, epoch %s, and goes back to %s at %s from now on, unless it holds rows then\n", v.Range, v.Keyspace, v.Target, v.Epoch, v.From, v.Until.Format(time.RFC3339))
		return nil
	}
	if !v.Changed {
		fmt.Fprintf(e.stdout, "range %s of %s belongs to %s for good, epoch %s\n", v.Range, v.Keyspace, v.Target, v.Epoch)
		return nil
	}
	fmt.Fprintf(e.stdout, "range %s of %s: from %s to %s by move %d, epoch %s\n", v.Range, v.Keyspace, v.From, v.Target, v.Move, orNone(v.Epoch))
	switch {
	case len(v.Drained.Missing) > 0:
		fmt.Fprintf(e.stdout, "drained in %d ms; not yet said to know it: %s (what they send to %s is refused there)\n", v.Drained.MS, strings.Join(v.Drained.Missing, ", "), v.From)
	default:
		fmt.Fprintf(e.stdout, "drained in %d ms; every node knows it\n", v.Drained.MS)
	}
	if v.Until != nil {
		fmt.Fprintf(e.stdout, "it goes back to %s at %s, unless it holds rows then\n", v.From, v.Until.Format(time.RFC3339))
	}
	return nil
}

type rangeLentCmd struct{ adminFlags }

// Run prints the ranges that go back.
func (c *rangeLentCmd) Run(e *env) error {
	var v LoansAnswer
	if err := c.call(e, routingMapPath, nil, &v); err != nil || c.JSON {
		return err
	}
	return table(e.stdout, func(row func(...any)) {
		row("KEYSPACE", "RANGE", "SHARD", "GOES BACK TO", "AT", "STAYS SINCE IT HOLDS")
		for _, l := range v.Loans {
			row(l.Keyspace, l.Range, l.Target, l.From, l.Until.Format(time.RFC3339), l.Why)
		}
	})
}

type rangeHistoryCmd struct {
	adminFlags
	Keyspace string `arg:"" optional:"" help:"Only this keyspace's changes."`
	Range    string `placeholder:"RANGE" help:"Only what meets this range of it."`
	Limit    int    `default:"50" help:"At most so many, the newest."`
}

// Help is shown by `rangefinder range history --help`.
func (rangeHistoryCmd) Help() string {
	return "Examples:\n\n  rangefinder range history app.accounts --range 1000-2000\n  rangefinder range history --limit 4096 --json > history.json   # export all that the ledger remembers"
}

// Run prints the history, newest first.
func (c *rangeHistoryCmd) Run(e *env) error {
	var v HistoryAnswer
	if err := c.call(e, HistoryQuery{Keyspace: c.Keyspace, Range: c.Range, Limit: c.Limit}.path(), nil, &v); err != nil || c.JSON {
		return err
	}
	return table(e.stdout, func(row func(...any)) {
		row("EPOCH", "TIME", "CHANGE", "KEYSPACE", "RANGE", "FROM", "TO", "MOVE", "BY", "WHY")
		for _, x := range v.Events {
			at, move, what := "", "", x.Range
			if x.At != nil {
				at = x.At.Format(time.RFC3339)
			}
			if x.Move != 0 {
				move = strconv.FormatUint(x.Move, 10)
			}
			if what == "" {
				what = x.Subject
			}
			row(x.Epoch, at, x.change(), x.Keyspace, what, x.From, x.To, move, x.Author, x.Reason)
		}
	})
}
