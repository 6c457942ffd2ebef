package probe

import (
	"errors"
	"fmt"
	"strings"
)

// NoPlain is pgconn's RequireAuth for a server that may not be told the password in clear text. MD5 tells it a hash that can be tried out.
const NoPlain = "scram-sha-256,md5,none"

// ErrPlain says that a server asks for the password in clear text, and that nothing has shown yet who it is.
var ErrPlain = errors.New("it asks for the password in clear text, and only other nodes have named its address: list it under [[backends]] of this node, " +
	"or set backend_tls.mode = \"verify-full\" and its ca_file, or let its pg_hba.conf ask for scram-sha-256")

// Refusal makes ErrPlain of what pgconn says where NoPlain has forbidden what a server asks for; other errors stay. pgconn has no type for it.
func Refusal(err error) error {
	if err != nil && !answeredBy(err) && strings.Contains(err.Error(), "server requested password authentication") {
		return fmt.Errorf("%w (%w)", ErrPlain, err)
	}
	return err
}
