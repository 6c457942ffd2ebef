package node

import (
	"context"
	"errors"

	"rangefinder/node/demo"
)

type demoCmd struct {
	Once bool   `help:"End after the last step; exit 0 only if every step showed what it should."`
	Dir  string `placeholder:"DIR" help:"Where to make the temporary folder that everything is in; default: in memory if there is plenty, else the system's place."`
}

// Help is shown by `rangefinder demo --help`.
func (demoCmd) Help() string {
	return `Three nodes, three regions with the delays between them, three shards of real PostgreSQL with a copy in every region: all on
loopback addresses of this machine, in a temporary folder. PostgreSQL must be installed ('make demo' sees to it).
Ctrl-C stops everything and removes its files.`
}

// Run runs the demo.
func (c *demoCmd) Run(e *env) error {
	err := demo.Run(e.ctx, demo.Options{Once: c.Once, Dir: c.Dir, Out: e.stdout})
	if errors.Is(err, context.Canceled) && e.ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}
