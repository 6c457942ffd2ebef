package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit codes of the command line.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// cli is the command line. Each command is a struct with a Run method.
type cli struct {
	Start    startCmd    `cmd:"" help:"Run a node."`
	Status   statusCmd   `cmd:"" help:"Show the cluster as a node sees it."`
	Route    routeCmd    `cmd:"" help:"Explain where a statement would go, and why. Nothing is run."`
	Keyspace keyspaceCmd `cmd:"" help:"Make and list keyspaces: which tables are sharded, and by which key."`
	Range    rangeCmd    `cmd:"" help:"List, split and merge ranges of keys; give one without rows another shard; show who changed what."`
	Move     moveCmd     `cmd:"" help:"Move a range with its rows to another shard while clients go on."`
	Balance  balanceCmd  `cmd:"" name:"rebalance" help:"Measure what the shards hold and do, and even it out."`
	Shard    shardCmd    `cmd:"" help:"Give a new shard its part of the ranges; take all from one."`
	Region   regionCmd   `cmd:"" help:"Drain a region, and take that back."`
	Backend  backendCmd  `cmd:"" help:"Drain a backend, and take that back."`
	Node     nodeCmd     `cmd:"" help:"Drain a node, and take that back."`
	Cluster  clusterCmd  `cmd:"" help:"Recover a cluster that has lost a majority of its voters."`
	User     userCmd     `cmd:"" help:"Compare and copy what the shards keep of users' passwords."`
	Reload   reloadCmd   `cmd:"" help:"Have a node read its configuration again, without a restart."`
	Key      keyCmd      `cmd:"" help:"Print a new cluster key."`
	Config   configCmd   `cmd:"" help:"Check a configuration and print it as it takes effect, every key described."`
	Demo     demoCmd     `cmd:"" help:"Start a whole cluster on this machine, show what it does, and kill a replica under load."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

// env is what a command may touch: the process's own in main, a test's in tests.
type env struct {
	ctx    context.Context // ends with SIGINT or SIGTERM
	stdin  io.Reader       // nil: nothing is to be read
	stdout io.Writer
	stderr io.Writer
	getenv func(string) (string, bool)
}

// Main runs the command line and returns the exit code: 0 done, 1 failed, 2 used wrongly.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// The first signal asks; the second takes the handler's place away, so the default one ends the process at once.
	context.AfterFunc(ctx, stop)
	return run(args, &env{ctx: ctx, stdin: os.Stdin, stdout: stdout, stderr: stderr, getenv: os.LookupEnv})
}

// exited carries kong's wish to leave (after --help) up to run.
type exited int

func run(args []string, e *env) (code int) {
	defer func() {
		if r := recover(); r != nil {
			left, ok := r.(exited)
			if !ok {
				panic(r)
			}
			code = int(left)
		}
	}()
	parser, err := newParser(e)
	if err != nil {
		fmt.Fprintln(e.stderr, "rangefinder:", err)
		return exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(plainWords(parser.Model, args))
	if err != nil {
		fmt.Fprintf(e.stderr, "rangefinder: %s\n", unmarked(err.Error()))
		help := "rangefinder"
		var wrong *kong.ParseError
		if errors.As(err, &wrong) && wrong.Context != nil {
			for _, word := range strings.Fields(wrong.Context.Command()) {
				if !strings.HasPrefix(word, "<") {
					help += " " + word
				}
			}
		}
		fmt.Fprintf(e.stderr, "hint: %s --help\n", help)
		return exitUsage
	}
	if chosen := parsed.Selected(); chosen != nil {
		unmark(chosen.Target)
	}
	if err := parsed.Run(); err != nil {
		printError(e.stderr, err)
		var usage *usageError
		if errors.As(err, &usage) {
			return exitUsage
		}
		return exitFailed
	}
	return exitOK
}

// newParser makes what understands command lines.
func newParser(e *env) (*kong.Kong, error) {
	return kong.New(&cli{},
		kong.Name("rangefinder"),
		kong.Description("One Postgres endpoint per region: every statement goes to the closest healthy copy of the shard that owns its key.\n\n"+
			"Examples:\n"+
			"  rangefinder start --config iad.toml\n"+
			"  rangefinder start --config fra.toml --join 10.0.0.1:7946\n"+
			"  rangefinder keyspace create app.orders --key customer_id --type bigint --method hash --shards shard_1,shard_2\n"+
			"  rangefinder route 'SELECT * FROM orders WHERE customer_id = 42'\n"+
			"  rangefinder status"),
		kong.Writers(e.stdout, e.stderr),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.Bind(e),
	)
}

// usageError is a command line that parses but makes no sense.
type usageError struct {
	message string
	hint    string
}

func (e *usageError) Error() string { return e.message }

// printError writes what went wrong, what is known about it, and what to do, each on lines of its own.
func printError(w io.Writer, err error) {
	fmt.Fprintf(w, "rangefinder: %s\n", indent(err.Error(), "  "))
	detail, hint := "", ""
	var f *Failure
	var a *apiError
	var u *usageError
	switch {
	case errors.As(err, &a):
		detail, hint = a.Detail, a.Hint
	case errors.As(err, &f):
		detail, hint = f.Detail, f.Hint
	case errors.As(err, &u):
		hint = u.hint
	}
	if detail != "" {
		fmt.Fprintf(w, "detail: %s\n", indent(detail, "  "))
	}
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", indent(hint, "  "))
	}
}

// indent moves all lines but the first to the right.
func indent(s, by string) string {
	return strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n"+by)
}
