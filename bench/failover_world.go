package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/internal/program"
)

// faultWorld is a shard of three servers, and a node and HAProxy in front of it.
type faultWorld struct {
	farm     *pgtest.Farm
	primary  *pgtest.Server
	replicas [2]*pgtest.Server // the first is the closest
	link     *link             // the way to that one; nil: a straight one
	programs []*program.Process

	node, haproxyWrite, haproxyRead string // addresses
}

func newFaultWorld(ctx context.Context, farm *pgtest.Farm, fault, name string) (w *faultWorld, err error) {
	w = &faultWorld{farm: farm}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	params := map[string]string{"max_connections": "100"}
	if w.primary, err = farm.Primary(ctx, pgtest.Options{Params: params}); err != nil {
		return w, err
	}
	err = errors.Join(w.primary.CreateUser(ctx, benchUser, benchPassword, ""), w.primary.Exec(ctx, "CREATE DATABASE "+benchDatabase+" OWNER "+benchUser))
	if err == nil {
		err = w.primary.ExecIn(ctx, benchDatabase, "SET ROLE "+benchUser,
			"CREATE TABLE ledger (side text, writer int, id bigint, PRIMARY KEY (side, writer, id))",
			"CREATE TABLE facts (id int PRIMARY KEY, body text)", "INSERT INTO facts SELECT i, 'fact ' || i FROM generate_series(1, 1000) AS i")
	}
	if err != nil {
		return w, err
	}
	for i := range w.replicas {
		if w.replicas[i], err = farm.Replica(ctx, w.primary, pgtest.Options{Params: params}); err != nil {
			return w, err
		}
		if err = errors.Join(w.replicas[i].Streaming(ctx), w.replicas[i].CaughtUp(ctx)); err != nil {
			return w, err
		}
	}
	if fault != faultPrimaryAsync { // of the primary alone: whoever is promoted has no replica
		if err = w.primary.Exec(ctx, "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'", "SELECT pg_reload_conf()"); err != nil {
			return w, err
		}
	}
	closest := w.replicas[0].Addr()
	if fault == faultCut {
		if w.link, err = newLink(ctx, closest); err != nil {
			return w, err
		}
		closest = w.link.addr()
	}
	return w, errors.Join(w.startNode(ctx, name, closest), w.startHAProxy(ctx, name, closest))
}

func (w *faultWorld) startNode(ctx context.Context, name, closest string) error {
	dir := filepath.Join(w.farm.Dir(), name+"-node")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	more := ""
	for _, b := range []struct{ name, region, addr string }{
		{"primary", "there", w.primary.Addr()}, {"closest", "here", closest}, {"farther", "there", w.replicas[1].Addr()},
	} {
		more += fmt.Sprintf("[[backends]]\nname = %q\nshard = \"shard_1\"\nregion = %q\naddress = %q\n", b.name, b.region, b.addr)
	}
	node, err := program.PrepareNode(ctx, program.NodeConfig{Dir: dir, User: benchUser, Password: benchPassword, Database: benchDatabase, More: more})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	p, err := node.Start(ctx, w.farm)
	if err != nil {
		return err
	}
	w.programs, w.node = append(w.programs, p), node.Addr
	return nil
}

// startHAProxy starts it as the managers of PostgreSQL recommend: writes go where a query says that the server is no replica, reads to
// the closest replica and, if that is down, to the other. Sessions with a server that is found down are ended.
func (w *faultWorld) startHAProxy(ctx context.Context, name, closest string) error {
	haproxy, err := installed("haproxy")
	if err != nil {
		return err
	}
	ports, err := program.FreePorts(2)
	if err != nil {
		return err
	}
	w.haproxyWrite, w.haproxyRead = program.Loopback(ports[0]), program.Loopback(ports[1])
	dir := filepath.Join(w.farm.Dir(), name+"-haproxy")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	config := fmt.Sprintf(`global
  maxconn 1000
defaults
  mode tcp
  timeout connect 5s
  timeout client 10m
  timeout server 10m
  timeout check 1s
  option redispatch
  default-server inter 5s fall 3 rise 2 on-marked-down shutdown-sessions
listen writes
  bind %s
  option tcp-check
  tcp-check connect
  tcp-check send-binary %s
  tcp-check expect binary 440000000b00010000000166
  server primary %s check
  server closest %s check
  server farther %s check
listen reads
  bind %s
  option pgsql-check user %s
  server closest %s check
  server farther %s check backup
`, w.haproxyWrite, hex.EncodeToString(askRecovery()), w.primary.Addr(), closest, w.replicas[1].Addr(), w.haproxyRead, benchUser, closest, w.replicas[1].Addr())
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	p, err := program.Launch(w.farm, dir, program.User{}, nil, haproxy, "-db", "-f", file)
	if err != nil {
		return err
	}
	w.programs = append(w.programs, p)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return errors.Join(p.Listening(ctx, w.haproxyWrite), p.Listening(ctx, w.haproxyRead))
}

// askRecovery is what a check sends: a login, and the question whether the server is a replica.
func askRecovery() []byte {
	body := "\x00\x03\x00\x00user\x00" + benchUser + "\x00database\x00" + benchDatabase + "\x00\x00"
	startup := append(binary.BigEndian.AppendUint32(nil, uint32(4+len(body))), body...)
	return append(startup, query("SELECT pg_is_in_recovery()")...)
}

// strike does the fault, and what a manager of PostgreSQL does then. It returns the server that has the acknowledged writes.
func (w *faultWorld) strike(ctx context.Context, fault string) (*pgtest.Server, error) {
	switch fault {
	case faultReplicaKill:
		return w.primary, w.replicas[0].Kill()
	case faultFreeze:
		return w.primary, w.replicas[0].Freeze()
	case faultCut:
		w.link.cut()
		return w.primary, nil
	}
	if err := errors.Join(w.primary.Kill(), pause(ctx, promoteAfter)); err != nil {
		return nil, err
	}
	best, most := w.replicas[0], int64(-1)
	for _, r := range w.replicas {
		conn, err := r.Conn(ctx)
		if err != nil {
			return nil, err
		}
		var at int64
		err = conn.QueryRow(ctx, "SELECT (pg_last_wal_receive_lsn() - '0/0')::bigint").Scan(&at)
		conn.Close(ctx)
		if err != nil {
			return nil, err
		}
		if at > most {
			best, most = r, at
		}
	}
	return best, best.Promote(ctx)
}

// entry is one acknowledged write.
type entry struct {
	side   string
	writer int
	id     int64
}

// ledger are the writes that a server has.
func (w *faultWorld) ledger(ctx context.Context, s *pgtest.Server) (map[entry]bool, error) {
	conn, err := s.ConnTo(ctx, benchDatabase, "")
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT side, writer, id FROM ledger")
	if err != nil {
		return nil, err
	}
	there := make(map[entry]bool)
	var e entry
	_, err = pgx.ForEachRow(rows, []any{&e.side, &e.writer, &e.id}, func() error {
		there[e] = true
		return nil
	})
	return there, err
}

func (w *faultWorld) close() {
	for _, p := range w.programs {
		p.Stop(syscall.SIGTERM)
	}
	if w.link != nil {
		w.link.close()
	}
	for _, s := range []*pgtest.Server{w.replicas[0], w.replicas[1], w.primary} {
		if s != nil && s.PID() != 0 {
			_ = s.Kill() // the next fault has servers of its own
		}
	}
}

// link is a way to a server that can be cut: connections stay, new ones are taken, and nothing arrives any more.
type link struct {
	ln     net.Listener
	target string
	ctx    context.Context
	stop   context.CancelFunc
	gone   chan struct{} // closed when it is cut
}

func newLink(ctx context.Context, target string) (*link, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &link{ln: ln, target: target, gone: make(chan struct{})}
	l.ctx, l.stop = context.WithCancel(ctx)
	context.AfterFunc(l.ctx, func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go l.carry(c)
		}
	}()
	return l, nil
}

func (l *link) addr() string { return l.ln.Addr().String() }
func (l *link) cut()         { close(l.gone) }
func (l *link) close()       { l.stop() }

// carry takes one connection's bytes to the other end and back. After the cut it holds whatever comes.
func (l *link) carry(near net.Conn) {
	defer near.Close()
	select {
	case <-l.gone:
		<-l.ctx.Done()
		return
	default:
	}
	far, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	defer far.Close()
	ended := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		go func() {
			defer func() { ended <- struct{}{} }()
			buf := make([]byte, 32<<10)
			for {
				n, err := way[0].Read(buf)
				select {
				case <-l.gone:
					<-l.ctx.Done()
					return
				default:
				}
				if _, e := way[1].Write(buf[:n]); err != nil || e != nil {
					return
				}
			}
		}()
	}
	select {
	case <-ended:
	case <-l.ctx.Done():
	}
}
