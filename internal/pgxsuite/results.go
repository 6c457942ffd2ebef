package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
)

// result is what became of one test.
type result struct {
	action string // pass, fail or skip
	output strings.Builder
}

// event is a line of go test -json.
type event struct {
	Action, Package, Test, Output string
}

// goTest runs the suite against a server and returns the results by package and test. That tests fail is no error.
func goTest(ctx context.Context, dir, addr, run string, packages []string) (map[string]*result, error) {
	args := []string{"test", "-json", "-count=1", "-p=1", "-timeout=10m"}
	if run != "" {
		args = append(args, "-run", run)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, packages...)...)
	host, port, _ := net.SplitHostPort(addr)
	dsn := fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s sslmode=disable", host, port, user, password, database)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	for _, name := range []string{"DATABASE", "TCP_CONN_STRING", "SCRAM_PASSWORD_CONN_STRING", "PGBOUNCER_CONN_STRING"} {
		cmd.Env = append(cmd.Env, "PGX_TEST_"+name+"="+dsn)
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	results := make(map[string]*result)
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var e event
		if json.Unmarshal(line, &e) != nil {
			continue
		}
		name := strings.TrimPrefix(strings.TrimPrefix(e.Package, "github.com/jackc/pgx/v5"), "/")
		if name == "" {
			name = "pgx"
		}
		name += " " + temporary.ReplaceAllString(e.Test, "")
		r := results[name]
		if r == nil {
			r = new(result)
			results[name] = r
		}
		switch e.Action {
		case "output":
			r.output.WriteString(e.Output)
		case "pass", "fail", "skip":
			r.action = e.Action
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || len(results) == 0) {
		return nil, fmt.Errorf("%w: %s", err, complaints.String())
	}
	return results, nil
}

//go:embed DIFFERENCES.md
var differences string

// temporary is a folder in a subtest's name that is another one in each run.
var temporary = regexp.MustCompile(`/[^' ]*/Test\w+/\d+/`)

// known reports whether DIFFERENCES.md explains a test.
func known(test string) bool { return strings.Contains(differences, "`"+test+"`") }

// report prints a table of what differs, and returns whether all of it is known.
func report(w io.Writer, direct, through map[string]*result, verbose bool) bool {
	same, counts := true, make(map[string]int)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "test\tdirect\tnode\tknown")
	names := make(map[string]bool)
	for name := range direct {
		names[name] = true
	}
	for name := range through {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if strings.HasSuffix(name, " ") { // the package
			continue
		}
		d, n := action(direct[name]), action(through[name])
		counts["direct "+d]++
		counts["node "+n]++
		if d == n {
			continue
		}
		is := known(name)
		same = same && is
		fmt.Fprintf(table, "%s\t%s\t%s\t%v\n", name, d, n, is)
		if verbose && !is && through[name] != nil {
			fmt.Fprintln(os.Stderr, through[name].output.String())
		}
	}
	table.Flush()
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(w, "%s: %d\n", k, counts[k])
	}
	return same
}

func action(r *result) string {
	if r == nil || r.action == "" {
		return "nothing"
	}
	return r.action
}
