package node

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
)

// print writes an answer as --json does.
func (adminFlags) print(e *env, v any) error {
	j := json.NewEncoder(e.stdout)
	j.SetEscapeHTML(false)
	j.SetIndent("", "  ")
	return j.Encode(v)
}

// printLine writes one of several answers, in a line of its own.
func (adminFlags) printLine(e *env, v any) error {
	j := json.NewEncoder(e.stdout)
	j.SetEscapeHTML(false)
	return j.Encode(v)
}

// table writes columns that line up.
func table(w io.Writer, rows func(row func(cells ...any))) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	rows(func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, printable(fmt.Sprint(c)))
		}
		fmt.Fprintln(t)
	})
	return t.Flush()
}

// printable is a text whose control characters are written as Go does: what others have put into a reason or a bound neither begins a line of its own
// nor changes the terminal.
func printable(s string) string {
	if strings.IndexFunc(s, unicode.IsControl) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsControl(r) {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

type statusCmd struct{ adminFlags }

// Run prints the cluster.
func (c *statusCmd) Run(e *env) error {
	var v ClusterView
	if err := c.call(e, "/debug/cluster", nil, &v); err != nil || c.JSON {
		return err
	}
	ready := "ready"
	if len(v.Node.NotReady) > 0 {
		ready = "not ready: " + strings.Join(v.Node.NotReady, "; ")
	}
	fmt.Fprintf(e.stdout, "node %s in %s: %s\ncluster %s, epoch %s, leader %s, %d sessions\n", v.Node.Name, v.Node.Region, ready, v.ClusterID, v.Epoch, orNone(v.Raft.Leader), v.Sessions.Open)
	fmt.Fprintln(e.stdout, v.Lease.words())
	for _, alarm := range v.Alarms {
		fmt.Fprintf(e.stdout, "ALARM: %s\n", printable(alarm))
	}
	for _, d := range v.Drains {
		fmt.Fprintf(e.stdout, "DRAINED: %s\n", d.Text)
	}
	for _, lab := range v.Node.Lab {
		fmt.Fprintf(e.stdout, "delay injected: %s\n", lab)
	}
	distance := func(region string) string {
		for _, r := range v.RTT {
			if r.From == v.Node.Region && r.To == region {
				return showMS(r.MS)
			}
		}
		return "-"
	}
	fmt.Fprintln(e.stdout)
	err := table(e.stdout, func(row func(...any)) {
		row("NODE", "REGION", "RTT MS", "CLUSTER PORT", "LEDGER")
		for _, m := range v.Members {
			ledger := "follows"
			if m.Leader {
				ledger = "leader"
			} else if m.Voter {
				ledger = "voter"
			}
			if m.Drained != "" {
				ledger += ", drained"
			}
			name := m.Name
			if m.Self {
				name += " *"
			}
			row(name, m.Region, distance(m.Region), m.Addr, ledger)
		}
		for _, l := range v.Lost {
			row(l.Name, l.Region, "-", l.Addr, "lost: "+l.Stale)
		}
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(e.stdout)
	err = table(e.stdout, func(row func(...any)) {
		row("SHARD", "BACKEND", "REGION", "ROLE", "FOR ALL", "FOR US", "LAG MS", "ADDRESS", "WHY")
		for _, b := range v.Backends {
			var why []string
			if b.Refused != "" {
				why = append(why, "refused: "+b.Refused)
			}
			if b.Drained != "" {
				why = append(why, b.Drained)
			}
			if b.Evidence != "" {
				why = append(why, b.WhyUnreached)
			}
			if b.Choice != "" {
				why = append(why, b.Choice)
			}
			if b.Reason != "" {
				why = append(why, b.Reason)
			}
			if b.Stale != "" {
				why = append(why, b.Stale)
			}
			row(b.Shard, b.Name, b.Region, b.Role, b.ForAll, b.ForUs, showMS(b.LagMS), b.Addr, strings.Join(why, "; "))
		}
	})
	if err != nil || len(v.Keyspaces) == 0 {
		return err
	}
	fmt.Fprintln(e.stdout)
	return printKeyspaces(e.stdout, v.Keyspaces)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

type routeCmd struct {
	adminFlags
	SQL      string   `arg:"" name:"sql" help:"The statement."`
	Database string   `short:"d" placeholder:"NAME" help:"Database of the client; default: the first configured."`
	User     string   `short:"U" placeholder:"NAME" help:"User of the client; default: the first configured."`
	Arg      []string `short:"a" placeholder:"VALUE" sep:"none" help:"Value of $$1, $$2, ... in order; may be repeated."`
}

// Help is shown by `rangefinder route --help`.
func (routeCmd) Help() string {
	return `Examples:

  rangefinder route 'SELECT * FROM orders WHERE customer_id = 42'
  rangefinder route --database app --arg 42 'UPDATE orders SET paid = true WHERE customer_id = $1'`
}

// Run prints the explanation.
func (c *routeCmd) Run(e *env) error {
	v := url.Values{"sql": {c.SQL}, "arg": c.Arg}
	if c.Database != "" {
		v.Set("database", c.Database)
	}
	if c.User != "" {
		v.Set("user", c.User)
	}
	var a RouteAnswer
	if err := c.call(e, "/debug/route?"+v.Encode(), nil, &a); err != nil || c.JSON {
		return err
	}
	a.write(e.stdout)
	if a.Error != nil {
		return &Failure{Message: fmt.Sprintf("a client would get %s: %s", a.Error.Code, a.Error.Message), Detail: a.Error.Detail, Hint: a.Error.Hint}
	}
	fmt.Fprintln(e.stdout)
	return a.writeCandidates(e.stdout)
}

// write tells where the statement goes and why, but for the backends.
func (a *RouteAnswer) write(w io.Writer) {
	intent := a.Intent
	if a.WhyWrite != "" {
		intent += " (" + a.WhyWrite + ")"
	}
	fmt.Fprintf(w, "from node %s in %s, database %s\n", a.Node, a.Region, a.Database)
	fmt.Fprintf(w, "%-10s%s\n", "intent", intent)
	fmt.Fprintf(w, "%-10s%s", "target", a.Target)
	if a.Keyspace != "" {
		fmt.Fprint(w, ", "+strings.Join(append([]string{"keyspace " + a.Keyspace}, a.Keys...), ", "))
	}
	fmt.Fprintln(w)
	if a.Reason != "" {
		fmt.Fprintf(w, "%-10s%s\n", "because", a.Reason)
	}
	if a.Shard != "" {
		fmt.Fprintf(w, "%-10s%s", "shard", a.Shard)
		if a.Range != "" {
			fmt.Fprintf(w, ", range %s, epoch %s", a.Range, a.Epoch)
		}
		fmt.Fprintln(w)
	}
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-10s"+format+"\n", append([]any{name}, args...)...)
	}
	if a.Hint != "" {
		line("hint", "%s", a.Hint)
	}
	if len(a.Shards) > 0 {
		line("shards", "%s", strings.Join(a.Shards, ", "))
	}
	for _, p := range a.Parts {
		line("  at", "%s: %s", p.Shard, p.line())
	}
	if a.Asks != "" {
		line("each runs", "%s", oneLine(a.Asks))
	}
	if a.Final != "" {
		line("and then", "%s", oneLine(a.Final))
	}
	if len(a.Copies) > 0 {
		line("copies on", "%s", strings.Join(a.Copies, ", "))
	}
	for _, n := range a.Notes {
		line("session", "%s", n)
	}
}

// line is where a shard's part of a statement goes.
func (p *PartView) line() string {
	if p.Backend == "" {
		return "nowhere: " + p.Reason
	}
	return fmt.Sprintf("%s, %s in %s, %s ms: %s", p.Backend, p.Role, p.Region, showMS(p.CostMS), p.Reason)
}

// oneLine is a text without line breaks.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// writeCandidates lists the backends in the order in which they would be tried, and those left out.
func (a *RouteAnswer) writeCandidates(w io.Writer) error {
	return table(w, func(row func(...any)) {
		row("TRY", "BACKEND", "REGION", "ROLE", "COST MS", "ADDRESS", "WHY")
		for _, b := range a.Candidates {
			why := b.Reason
			if !b.Healthy && b.Drained == "" {
				why = "unhealthy; " + why
			}
			row(b.Place, b.Backend, b.Region, b.Role, showMS(b.CostMS), b.Addr, why)
		}
		for _, b := range a.LeftOut {
			row("-", b.Backend, b.Region, b.Role, "", b.Addr, "left out: "+b.Reason)
		}
	})
}
