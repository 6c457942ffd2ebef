package node

import "fmt"

type reloadCmd struct{ adminFlags }

// Help is shown by `rangefinder reload --help`.
func (reloadCmd) Help() string {
	return `The file is read and checked as a whole: with any mistake in it nothing changes, and all mistakes are listed. SIGHUP and the
console's RELOAD do the same. What cannot change while the node runs (ports, addresses, data_dir, names, the cluster's key) is
listed, and stays as it was until the node is started again.`
}

// Run has the node reload and prints what came of it.
func (c *reloadCmd) Run(e *env) error {
	var answer ReloadAnswer
	if err := c.call(e, "/api/v1/reload", struct{}{}, &answer); err != nil || c.JSON {
		return err
	}
	if len(answer.Changed)+len(answer.Restart) == 0 {
		_, err := fmt.Fprintln(e.stdout, "nothing has changed")
		return err
	}
	return table(e.stdout, func(row func(...any)) {
		row("KEY", "WAS", "NOW", "IN FORCE")
		for _, x := range answer.Changed {
			row(x.Key, x.Was, x.Now, "now")
		}
		for _, x := range answer.Restart {
			row(x.Key, x.Was, x.Now, "after a restart")
		}
	})
}
