package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func connect(ctx context.Context, d door) (*pgconn.PgConn, error) {
	u := url.URL{Scheme: "postgres", Host: d.addr, Path: "/" + d.database, User: url.UserPassword(benchUser, benchPassword), RawQuery: "sslmode=disable&connect_timeout=20"}
	return pgconn.Connect(ctx, u.String())
}

// checkRow asks for one row and compares it.
func checkRow(ctx context.Context, c *pgconn.PgConn, aid int) error {
	results, err := c.Exec(ctx, fmt.Sprintf("SELECT abalance FROM pgbench_accounts WHERE aid = %d", aid)).ReadAll()
	if err != nil {
		return err
	}
	want := strconv.Itoa(aid * 7919 % 999983)
	if len(results) != 1 || len(results[0].Rows) != 1 || string(results[0].Rows[0][0]) != want {
		return fmt.Errorf("row %d: want %s, got %v", aid, want, results)
	}
	return nil
}

// result is what came back of a large one.
type result struct {
	bytes int
	rows  int
	sum   uint32 // over all that is in rows, or in COPY's data
}

// fetch sends a query on a connection of its own and reads what comes as it comes, looking at no more than the frames' headers:
// a client that takes its time would be what is measured. around is called with the query's own part of the work.
func fetch(ctx context.Context, d door, sql string, around func(func() error) error) (result, error) {
	c, err := connect(ctx, d)
	if err != nil {
		return result{}, err
	}
	if err := c.SyncConn(ctx); err != nil { // it may read in the background, and take the answer away
		return result{}, err
	}
	h, err := c.Hijack()
	if err != nil {
		return result{}, err
	}
	defer h.Conn.Close()
	defer context.AfterFunc(ctx, func() { h.Conn.Close() })()
	var r result
	err = around(func() error {
		if _, err := h.Conn.Write(query(sql)); err != nil {
			return err
		}
		r, err = frames(h.Conn)
		return err
	})
	if err != nil {
		return result{}, err
	}
	_, err = h.Conn.Write([]byte{'X', 0, 0, 0, 4})
	return r, err
}

// frames reads until ReadyForQuery.
func frames(conn net.Conn) (r result, err error) {
	buffer := make([]byte, 256<<10)
	start, end := 0, 0
	for {
		for end-start >= 5 {
			size := 1 + int(binary.BigEndian.Uint32(buffer[start+1:]))
			if size > len(buffer) {
				return r, fmt.Errorf("a message of %d bytes", size)
			}
			if end-start < size {
				break
			}
			switch f := buffer[start : start+size]; f[0] {
			case 'D', 'd':
				r.rows++
				r.sum = crc32.Update(r.sum, crc32.IEEETable, f)
			case 'E':
				return r, fmt.Errorf("error: %q", f[5:])
			case 'Z':
				return r, nil
			}
			start += size
		}
		end, start = copy(buffer, buffer[start:end]), 0
		n, err := conn.Read(buffer[end:])
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return r, err
		}
		end += n
		r.bytes += n
	}
}

// crowd is many clients that do nothing.
type crowd struct{ conns []*pgconn.PgConn }

// gather logs n clients in, at each door as many as at the others. Each asks for one row and checks it, where there are any.
func gather(ctx context.Context, doors []door, n int) (*crowd, error) {
	c := &crowd{conns: make([]*pgconn.PgConn, n)}
	errs := make([]error, n)
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	next := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range next {
				d := doors[i%len(doors)]
				conn, err := connect(ctx, d)
				if err == nil && d.to > 0 {
					err = checkRow(ctx, conn, d.from+i)
				}
				if errs[i], c.conns[i] = err, conn; err != nil {
					cancel() // one that fails is enough to know
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			c.leave()
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		c.leave()
		return nil, err
	}
	return c, nil
}

func (c *crowd) leave() {
	for _, conn := range c.conns {
		if conn != nil {
			conn.Conn().Close()
		}
	}
}
