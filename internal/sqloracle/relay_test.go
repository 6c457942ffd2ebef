package sqloracle

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

// relay stands between the node and one shard, and counts the statements of clients that come by.
type relay struct {
	// constant
	ln   net.Listener
	to   string
	user string // whose statements count

	// atomic
	statements atomic.Int64

	wg sync.WaitGroup
}

func newRelay(to, user string) (*relay, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{ln: ln, to: to, user: user}
	r.wg.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.carry(client) })
		}
	})
	return r, nil
}

// close ends the listener and waits until all who came have gone.
func (r *relay) close() {
	r.ln.Close()
	r.wg.Wait()
}

func (r *relay) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer server.Close()
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(client, server)
		client.Close()
	}()
	r.forward(server, client)
	server.Close()
	<-back
}

// The codes of startup packets that are none.
const (
	sslRequest    = 80877103
	gssRequest    = 80877104
	cancelRequest = 80877102
)

// forward passes on what the client sends, and looks at each message.
func (r *relay) forward(server io.Writer, client io.Reader) {
	in, out := bufio.NewReader(client), bufio.NewWriter(server)
	counts := false
	for begun := false; !begun; {
		var head [8]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		body := make([]byte, max(8, min(binary.BigEndian.Uint32(head[:]), 1<<16))-8)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		out.Write(head[:])
		out.Write(body)
		if out.Flush() != nil {
			return
		}
		switch binary.BigEndian.Uint32(head[4:]) {
		case sslRequest, gssRequest, cancelRequest:
		default:
			begun, counts = true, strings.Contains(string(body), "user\x00"+r.user+"\x00")
		}
	}
	for {
		var head [5]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		out.Write(head[:])
		n := int64(binary.BigEndian.Uint32(head[1:])) - 4
		if counts && (head[0] == 'Q' || head[0] == 'B') {
			begin, _ := in.Peek(int(min(n, 30)))
			if head[0] == 'B' || !housekeeping(string(begin)) {
				r.statements.Add(1)
			}
		}
		if _, err := io.CopyN(out, in, n); err != nil {
			return
		}
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
}

// housekeeping tells whether a query is one by which a node begins, ends or cleans.
func housekeeping(sql string) bool {
	for _, word := range []string{"ROLLBACK", "BEGIN", "COMMIT", "DISCARD", "RESET", "SET ", "START", "PREPARE TRANSACTION", "DEALLOCATE", "SELECT pg_catalog.set_config"} {
		if strings.HasPrefix(strings.ToUpper(sql), strings.ToUpper(word)) {
			return true
		}
	}
	return false
}
