package node

import "errors"

type demoCmd struct {
	Once bool `help:"End after the last step; exit 0 only if every step showed what it should."`
}

// Run runs the demo.
func (c *demoCmd) Run(e *env) error { return errors.New("the demo is not built yet") }
