package pg

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"syscall"
)

// identityQuery asks a server which one it is: the number is made by initdb and shared by a primary and its replicas, so the servers of
// two shards never have the same.
const identityQuery = "SELECT system_identifier FROM pg_catalog.pg_control_system()"

// warmIdentityQuery asks the same and has the server plan something on the way. A new process of PostgreSQL knows nothing of its catalogs: the first
// statement that is planned takes it ten to twenty times as long as the second, and a good part of that is over once any has been.
const warmIdentityQuery = identityQuery + ", pg_catalog.pg_class WHERE pg_class.oid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND pg_class.relkind OPERATOR(pg_catalog.=) 'r'"

// identityQueryOfStandby asks the same of a hot standby whose transactions are serializable unless they say otherwise: it takes none of these. The two
// statements are one transaction, which ends with them.
const identityQueryOfStandby = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; " + identityQuery

// OtherServerError says that another server answers than the one that was meant. Both numbers are PostgreSQL's system identifiers.
type OtherServerError struct{ Want, Got uint64 }

func (e *OtherServerError) Error() string {
	return fmt.Sprintf("another server answers there: its system identifier is %d, not %d", e.Got, e.Want)
}

// ErrLetGo says that the server let us in and ended the connection before it had said which one it is: somebody has ended that one
// connection, or the server is going down. Another try tells.
var ErrLetGo = errors.New("the server ended the connection after the login")

// identify makes sure that the server is the one that is meant. One that may not, or cannot, say who it is (somebody has revoked what
// PUBLIC may execute) is let through: then the probe's word is all there is, as for a server that was never asked.
func (c *connector) identify() error {
	query := identityQuery
	if c.cfg.Warm {
		query = warmIdentityQuery
	}
	if _, err := c.conn.Write(AppendQuery(nil, query)); err != nil {
		return err
	}
	var got uint64
	var silent, again, last bool
	for {
		typ, body, err := c.next()
		if err == io.ErrUnexpectedEOF || errors.Is(err, syscall.ECONNRESET) {
			return fmt.Errorf("%w: %w", ErrLetGo, err)
		}
		if err != nil {
			return err
		}
		switch typ {
		case TypeRowDescription, TypeCommandComplete:
		case TypeDataRow:
			r := reader{rest: body}
			columns, size := r.uint16(), r.uint32()
			got, err = strconv.ParseUint(string(r.take(int64(size))), 10, 64)
			if err != nil || r.end() != nil || columns != 1 {
				return garbled("it did not say which server it is")
			}
		case TypeErrorResponse:
			e, err := DecodeError(body)
			if err != nil {
				return Garbled(err)
			}
			switch {
			case e.Code == CodeInsufficientPrivilege, e.Code == CodeUndefinedFunction:
				silent = true
			case e.Code == CodeAdminShutdown:
				return fmt.Errorf("%w: %w", ErrLetGo, e)
			case e.OfStandby() && !last:
				again = true
			default:
				return e
			}
		default:
			ready, err := c.message(typ, body)
			switch {
			case err != nil:
				return err
			case ready && again:
				again, last, c.server.Strict = false, true, true
				if _, err := c.conn.Write(AppendQuery(nil, identityQueryOfStandby)); err != nil {
					return err
				}
			case ready && silent, ready && got == c.cfg.SystemID:
				return nil
			case ready && got == 0:
				return garbled("it did not say which server it is")
			case ready:
				return &OtherServerError{Want: c.cfg.SystemID, Got: got}
			}
		}
	}
}
