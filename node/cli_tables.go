package node

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"rangefinder/cluster"
)

type keyspaceAddTableCmd struct {
	adminFlags
	reasonFlag
	Keyspace string   `arg:"" help:"The keyspace."`
	Table    string   `arg:"" help:"The table."`
	Column   []string `placeholder:"COLUMN" help:"Its key's columns, if they are named otherwise than in the keyspace's first table."`
	Planned  bool     `help:"The table may be missing on all shards: CREATE TABLE through a node makes it on all."`
}

// Help is shown by `rangefinder keyspace add-table --help`.
func (keyspaceAddTableCmd) Help() string {
	return "Examples:\n\n  rangefinder keyspace add-table app.orders app.order_lines\n  rangefinder keyspace add-table app.orders app.invoices --column customer\n\n" +
		"The table must exist on every shard of the keyspace, or on none with --planned. Rows that would lie wrong are counted first; if there are any, nothing is changed.\n\n" + nameRule
}

// Run adds the table, on whichever node leads.
func (c *keyspaceAddTableCmd) Run(e *env) error {
	req := TablesRequest{TablesSpec: cluster.TablesSpec{Keyspace: c.Keyspace, Planned: c.Planned, Origin: c.origin()}, Key: c.Column, Also: []string{c.Table}}
	var v KeyspaceView
	if err := c.call(e, "/api/v1/keyspaces/tables", req, &v); err != nil || c.JSON {
		return err
	}
	return printMade(e.stdout, &v, "has the table")
}

type keyspaceDropCmd struct {
	adminFlags
	reasonFlag
	Name string `arg:"" help:"The keyspace."`
	Yes  bool   `help:"Do not ask for the name again."`
}

// Help is shown by `rangefinder keyspace drop --help`.
func (keyspaceDropCmd) Help() string {
	return "Tables and rows stay on their shards. From then on the tables are in no keyspace: statements that name them go to the database's own shard, and\n" +
		"see the rows of that one alone. Gather them there first, or make another keyspace."
}

// Run asks for the name again, and drops the keyspace on whichever node leads.
func (c *keyspaceDropCmd) Run(e *env) error {
	if !c.Yes {
		fmt.Fprintf(e.stderr, "Rows of keyspace %s stay, and statements find those of one shard alone. Its name again: ", c.Name)
		if readLine(e) != c.Name {
			return &Failure{Message: "nothing was dropped: the name was not given again", Hint: "Give it, or use --yes."}
		}
	}
	var v KeyspaceView
	spec := cluster.DropSpec{Keyspace: c.Name, Origin: c.origin()}
	if err := c.call(e, "/api/v1/keyspaces/drop", spec, &v); err != nil || c.JSON {
		return err
	}
	_, err := fmt.Fprintf(e.stdout, "keyspace %s is dropped; the rows of its tables are where they were\n", v.Name)
	return err
}

// readLine reads what is typed; "" if nothing is.
func readLine(e *env) string {
	if e.stdin == nil {
		return ""
	}
	line, _ := bufio.NewReader(io.LimitReader(e.stdin, 1<<10)).ReadString('\n') // what is missing is no name
	return strings.TrimSpace(line)
}
