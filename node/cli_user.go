package node

import (
	"fmt"
	"io"
	"net/url"
	"strings"
)

type userCmd struct {
	Check userCheckCmd `cmd:"" help:"Compare what the shards keep of users' passwords."`
	Copy  userCopyCmd  `cmd:"" help:"Have every shard keep the same of a user's password as one does."`
}

type userCheckCmd struct {
	adminFlags
	Name string `arg:"" optional:"" help:"One user; without: all who may log in by a password on some shard."`
}

// Help is shown by `rangefinder user check --help`.
func (userCheckCmd) Help() string {
	return `Users without a password in the node's configuration log in to each backend with what their login has shown to the node, which is
good for shards that keep the very same verifier: not another one of the same password. Shards with the same letter keep the same;
what it is is never shown. The node asks the primaries as the [admin] user, a superuser. With NAME, the exit code is 1 if they differ.`
}

// Run prints what the shards keep.
func (c *userCheckCmd) Run(e *env) error {
	path := "/api/v1/users"
	if c.Name != "" {
		path += "?" + url.Values{"name": {c.Name}}.Encode()
	}
	var v UsersView
	if err := c.call(e, path, nil, &v); err != nil || c.JSON {
		return err
	}
	if err := printUsers(e.stdout, v); err != nil {
		return err
	}
	if c.Name != "" && (len(v.Failed) > 0 || len(v.Users) != 1 || !v.Users[0].Alike) {
		return &Failure{Message: fmt.Sprintf("the shards do not keep the same of %q, or could not be asked", c.Name), Hint: "Make them alike: rangefinder user copy " + c.Name + " --from SHARD"}
	}
	return nil
}

func printUsers(w io.Writer, v UsersView) error {
	err := table(w, func(row func(...any)) {
		row("USER", "ALIKE", "SHARDS")
		for _, u := range v.Users {
			alike := "yes"
			if !u.Alike {
				alike = "no"
			}
			var kept []string
			for _, s := range u.Shards {
				kept = append(kept, strings.TrimSpace(s.Shard+": "+s.Kept+" "+s.Same))
			}
			row(u.Name, alike, strings.Join(kept, ", "))
		}
	})
	for _, f := range v.Failed {
		fmt.Fprintf(w, "%s could not be asked: %s\n", f.Shard, f.Error)
	}
	return err
}

type userCopyCmd struct {
	adminFlags
	Name string `arg:"" help:"The user. The role must exist on every shard."`
	From string `required:"" placeholder:"SHARD" help:"The shard whose stored password the others shall keep too."`
}

// Run has it copied.
func (c *userCopyCmd) Run(e *env) error {
	var v UsersView
	if err := c.call(e, "/api/v1/users/copy", UserCopy{Name: c.Name, From: c.From}, &v); err != nil || c.JSON {
		return err
	}
	return printUsers(e.stdout, v)
}
