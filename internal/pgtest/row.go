package pgtest

import (
	"net"

	"github.com/jackc/pgproto3/v2"
)

// ServeRow lets everybody in who comes to ln, and answers whatever is asked with one row of text, as columns gives it at that moment. It
// returns when ln is closed. It is for networks in memory, where no real server is.
func ServeRow(ln net.Listener, columns func() []string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go serveRow(c, columns)
	}
}

func serveRow(c net.Conn, columns func() []string) {
	defer func() { _ = c.Close() }()
	b := pgproto3.NewBackend(pgproto3.NewChunkReader(c), c)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	said := []pgproto3.BackendMessage{&pgproto3.AuthenticationOk{}}
	for {
		out, err := encode(append(said, &pgproto3.ReadyForQuery{TxStatus: 'I'}))
		if err != nil {
			return
		}
		if _, err := c.Write(out); err != nil {
			return
		}
		if _, err := b.Receive(); err != nil {
			return
		}
		fields, row := &pgproto3.RowDescription{}, &pgproto3.DataRow{}
		for _, v := range columns() {
			fields.Fields = append(fields.Fields, pgproto3.FieldDescription{Name: []byte("c"), DataTypeOID: 25, DataTypeSize: -1})
			row.Values = append(row.Values, []byte(v))
		}
		said = []pgproto3.BackendMessage{fields, row, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}}
	}
}
