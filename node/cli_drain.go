package node

import (
	"fmt"
	"io"
	"net/url"
	"os/user"
	"strings"
	"time"
)

type regionCmd struct {
	Drain   regionDrainCmd   `cmd:"" help:"Move all that can move away from a region, and show what is left."`
	Undrain regionUndrainCmd `cmd:"" help:"Take the drain of a region back."`
}

type backendCmd struct {
	Drain   backendDrainCmd   `cmd:"" help:"Move reads away from a backend, and show what is left."`
	Undrain backendUndrainCmd `cmd:"" help:"Take the drain of a backend back."`
}

type nodeCmd struct {
	Drain   nodeDrainCmd   `cmd:"" help:"Send a node's clients elsewhere, and show what is left."`
	Undrain nodeUndrainCmd `cmd:"" help:"Take the drain of a node back."`
}

type (
	regionDrainCmd    struct{ drainFlags }
	backendDrainCmd   struct{ drainFlags }
	nodeDrainCmd      struct{ drainFlags }
	regionUndrainCmd  struct{ undrainFlags }
	backendUndrainCmd struct{ undrainFlags }
	nodeUndrainCmd    struct{ undrainFlags }
)

type drainFlags struct {
	adminFlags
	Name    string        `arg:"" help:"Which one."`
	Why     string        `placeholder:"TEXT" help:"Why: everybody who looks is shown it."`
	By      string        `placeholder:"NAME" help:"Who wants it; default: the name you are logged in by."`
	For     time.Duration `placeholder:"1h" help:"How long; default: until it is taken back."`
	Timeout time.Duration `default:"60s" placeholder:"60s" help:"How long to wait for what can move; 0: do not. It stays drained either way."`
}

type undrainFlags struct {
	adminFlags
	Name string `arg:"" help:"Which one."`
	Why  string `placeholder:"TEXT" help:"Why, for the log."`
	By   string `placeholder:"NAME" help:"Who wants it; default: the name you are logged in by."`
}

// drainHelp is part of the help of all three.
const drainHelp = `

Any node can be told; it tells all others, and they remember it over restarts until it is taken back or its time (--for) is over.
It needs no vote. Told the opposite at the same time by two who have not heard of each other, all nodes come to the same; that it
is drained then. 'rangefinder status' shows who has drained what, since when and why.

The command waits until what can move has moved, and prints what is left and why. The exit code is 0 if nothing is, else 1.

Examples:

  rangefinder region drain fra --why 'power works' --for 2h
  rangefinder backend drain db-fra-2 --why 'new disks'
  rangefinder node drain fra-1
  rangefinder region undrain fra`

const backendHelp = `A drained backend gets no reads as long as another copy of its shard is any good: up, and not further behind than [reads] allows.
If there is none, it is read all the same: better drained than nothing. A primary keeps its writes, for they cannot move: promote
a replica elsewhere. Open transactions and sessions that are tied to it (temporary tables, advisory locks) finish where they are;
connections that nobody uses are closed. Back again, it gets its share of reads little by little (reads.warm_up).`

const nodeHelp = `A drained node goes on running, but its /readyz says 503, so that load balancers send nobody there any more. After drain_delay (5 s) its
sessions end with 57P01, each as soon as it has no transaction open; none is cut off. Who connects after that is served, and
stays: he may have nowhere else to go. The node observes no backends any more, as soon as others do, and does not lead the ledger.`

// Help is shown by `rangefinder region drain --help`.
func (regionDrainCmd) Help() string {
	return "A drained region is all its backends and all its nodes.\n\n" + backendHelp + "\n\n" + nodeHelp + drainHelp
}

// Help is shown by `rangefinder backend drain --help`.
func (backendDrainCmd) Help() string { return backendHelp + drainHelp }

// Help is shown by `rangefinder node drain --help`.
func (nodeDrainCmd) Help() string { return nodeHelp + drainHelp }

// Run drains a region.
func (c *regionDrainCmd) Run(e *env) error { return c.run(e, "region") }

// Run drains a backend.
func (c *backendDrainCmd) Run(e *env) error { return c.run(e, "backend") }

// Run drains a node.
func (c *nodeDrainCmd) Run(e *env) error { return c.run(e, "node") }

// Run takes a region's drain back.
func (c *regionUndrainCmd) Run(e *env) error { return c.run(e, "region") }

// Run takes a backend's drain back.
func (c *backendUndrainCmd) Run(e *env) error { return c.run(e, "backend") }

// Run takes a node's drain back.
func (c *nodeUndrainCmd) Run(e *env) error { return c.run(e, "node") }

// drainPoll is how often what is left is asked for.
const drainPoll = 300 * time.Millisecond

func (c *drainFlags) run(e *env, kind string) error {
	if c.For < 0 || c.Timeout < 0 || c.For > 0 && c.For < time.Second {
		return &usageError{message: "--for and --timeout are times, --for of a second at least", hint: "For example --for 1h --timeout 30s"}
	}
	req := DrainRequest{Kind: kind, Name: c.Name, By: orUser(e, c.By), Why: c.Why}
	if c.For > 0 {
		req.For = c.For.String()
	}
	quiet := c.quiet() // the answers on the way are no output
	progress := e.stdout
	if c.JSON {
		progress = e.stderr
	}
	begun := time.Now()
	var told DrainView
	if err := quiet.call(e, "/api/v1/drains", req, &told); err != nil {
		return err
	}
	fmt.Fprintln(progress, told.Text)
	path := "/api/v1/drains/left?" + url.Values{"kind": {kind}, "name": {c.Name}}.Encode()
	var left DrainLeftView
	for said := ""; ; {
		left = DrainLeftView{}
		if err := quiet.call(e, path, nil, &left); err != nil {
			return err
		}
		if left.Drain == nil || left.Drain.Number != told.Number {
			message := kind + " " + c.Name + " has been ordered otherwise meanwhile"
			if left.Text != "" {
				message += ": " + left.Text
			}
			return &Failure{Message: message, Hint: "See who did: rangefinder status"}
		}
		moving := left.moving()
		now := left.progress()
		if now != said && moving > 0 {
			fmt.Fprintf(progress, "%5.1f s  %s\n", time.Since(begun).Seconds(), now)
			said = now
		}
		if moving == 0 || time.Since(begun) >= c.Timeout {
			break
		}
		if !pause(e.ctx, drainPoll) {
			return &Failure{Message: "stopped waiting: " + kind + " " + c.Name + " stays drained", Hint: fmt.Sprintf("Take it back: rangefinder %s undrain %s", kind, c.Name)}
		}
	}
	if c.JSON {
		if err := quiet.print(e, left); err != nil {
			return err
		}
	} else if err := left.print(e.stdout, time.Since(begun)); err != nil {
		return err
	}
	if len(left.Left) > 0 {
		return &Failure{Message: fmt.Sprintf("not all has moved away from %s %s, which stays drained", kind, c.Name), Hint: fmt.Sprintf("See what is left by the same command with the same flags: it is the order given anew, and --why and --for count from then on. Take it back: rangefinder %s undrain %s", kind, c.Name)}
	}
	return nil
}

// moving is how many of what is left go away by themselves.
func (v *DrainLeftView) moving() (n int) {
	for i := range v.Left {
		if v.Left[i].Moves {
			n++
		}
	}
	return n
}

// progress is what is waited for, in a line.
func (v *DrainLeftView) progress() string {
	list := []string{fmt.Sprintf("known to %d of %d nodes", v.Heard, v.Nodes)}
	for i := range v.Left {
		if v.Left[i].Moves {
			list = append(list, v.Left[i].Text)
		}
	}
	return strings.Join(list, "; ")
}

func (v *DrainLeftView) print(w io.Writer, took time.Duration) error {
	if v.moving() == 0 {
		fmt.Fprintf(w, "%5.1f s  known to %d of %d nodes; all that can move has moved\n", took.Seconds(), v.Heard, v.Nodes)
	} else {
		fmt.Fprintf(w, "%5.1f s  no longer waited for what still moves (--timeout)\n", took.Seconds())
	}
	if len(v.Left) == 0 {
		_, err := fmt.Fprintln(w, "nothing is left")
		return err
	}
	fmt.Fprintln(w, "left:")
	for i := range v.Left {
		l := &v.Left[i]
		fmt.Fprintf(w, "  %s\n", l.Text)
		if l.Hint != "" {
			fmt.Fprintf(w, "    hint: %s\n", l.Hint)
		}
	}
	return nil
}

func (c *undrainFlags) run(e *env, kind string) error {
	var v DrainView
	if err := c.call(e, "/api/v1/drains", DrainRequest{Kind: kind, Name: c.Name, Back: true, By: orUser(e, c.By), Why: c.Why}, &v); err != nil {
		return err
	}
	if !c.JSON {
		fmt.Fprintln(e.stdout, v.Text)
	}
	if v.Region != "" {
		return &Failure{Message: fmt.Sprintf("%s %s stays drained", kind, c.Name), Hint: "Take back the drain of its region: rangefinder region undrain " + v.Region}
	}
	if len(v.Silent) > 0 {
		return &Failure{Message: fmt.Sprintf("it is not known whether %s %s is drained: no answer from %s", kind, c.Name, strings.Join(v.Silent, ", ")), Hint: "Ask again when they answer, or ask one of them (--admin)."}
	}
	return nil
}

// orUser is who gives an order: as he says, or as this machine knows him.
func orUser(e *env, by string) string {
	if by != "" {
		return by
	}
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	if name, ok := e.getenv("USER"); ok && name != "" {
		return name
	}
	return "command line"
}
