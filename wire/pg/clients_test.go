package pg

import (
	"context"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// answering is a server that admits clients by cfg and answers every simple query with one row: what it knows of the
// client. It serves one connection at a time and stops at the test's end.
func answering(t testing.TB, cfg *AcceptConfig) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if c, err := Accept(conn, cfg); err == nil {
				answer(c)
			}
		}
	}()
	t.Cleanup(func() { ln.Close(); <-stopped })
	return ln.Addr().String()
}

func answer(c *Client) {
	defer c.Conn.Close()
	secret := []byte{1, 2, 3, 4}
	if c.Minor >= 2 {
		secret = make([]byte, 32)
	}
	out := AppendParameterStatus(nil, "server_version", "15.0 (fake)")
	out = AppendParameterStatus(out, "client_encoding", "UTF8")
	out = AppendParameterStatus(out, "standard_conforming_strings", "on")
	out = AppendReady(AppendBackendKeyData(out, 1, secret), StatusIdle)
	if _, err := c.Conn.Write(out); err != nil {
		return
	}
	var buf []byte
	for piece := make([]byte, 4096); ; {
		n, err := c.Conn.Read(piece)
		if err != nil {
			return
		}
		buf = append(buf, piece[:n]...)
		for {
			typ, n, err := Next(buf, 1<<20)
			if err != nil || typ == TypeTerminate {
				return
			}
			if n == 0 {
				break
			}
			if typ == TypeQuery {
				out, _ := (&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("v"), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1}}}).Encode(nil)
				out, _ = (&pgproto3.DataRow{Values: [][]byte{fmt.Appendf(nil, "%s@%s 3.%d %T", c.User, c.Database, c.Minor, c.Conn)}}).Encode(out)
				if _, err := c.Conn.Write(AppendReady(AppendCommandComplete(out, "SELECT 1"), StatusIdle)); err != nil {
					return
				}
			}
			buf = buf[n:]
		}
	}
}

func TestPsql(t *testing.T) {
	server, _ := certificate(t)
	der := server.Certificates[0].Certificate[0]
	root := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{MethodSCRAM, MethodPassword} {
		plain := answering(t, &AcceptConfig{Lookup: users, Rule: by(method), Timeout: pgTimeout})
		secure := answering(t, &AcceptConfig{Lookup: users, Rule: by(method), Timeout: pgTimeout, TLS: always(server)})
		for _, c := range []struct {
			name, addr, options, password string
			want                          string
		}{
			{"clear text", plain, "sslmode=disable", "secret", "app@shop 3.0 *net.TCPConn\n"},
			{"TLS refused", plain, "sslmode=prefer", "secret", "app@shop 3.0 *net.TCPConn\n"},
			{"TLS demanded in vain", plain, "sslmode=require", "secret", "server does not support SSL"},
			{"TLS preferred", secure, "sslmode=prefer", "secret", "app@shop 3.0 *tls.Conn\n"},
			{"TLS verified", secure, "sslmode=verify-full host=localhost sslrootcert=" + root, "secret", "app@shop 3.0 *tls.Conn\n"},
			{"channel binding preferred", secure, "sslmode=require channel_binding=prefer", "secret", "app@shop 3.0 *tls.Conn\n"},
			{"wrong password", plain, "sslmode=disable", "sesame", `FATAL:  password authentication failed for user "app"`},
			{"wrong password over TLS", secure, "sslmode=require", "sesame", `FATAL:  password authentication failed for user "app"`},
			{"unknown user", plain, "sslmode=disable user=eve", "secret", `FATAL:  password authentication failed for user "eve"`},
		} {
			t.Run(method+", "+c.name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), pgTimeout)
				defer cancel()
				host, port, err := net.SplitHostPort(c.addr)
				if err != nil {
					t.Fatal(err)
				}
				dsn := fmt.Sprintf("user=app hostaddr=%s port=%s dbname=shop %s", host, port, c.options)
				cmd := exec.CommandContext(ctx, "psql", "-XAtq", "-c", "select 1", dsn)
				cmd.Env = append(os.Environ(), "PGPASSWORD="+c.password)
				out, err := cmd.CombinedOutput()
				if refused := strings.Contains(c.want, " password ") || strings.Contains(c.want, "SSL"); refused != (err != nil) || !strings.Contains(string(out), c.want) {
					t.Fatalf("psql: %v\n%s, want %q", err, out, c.want)
				}
			})
		}
	}
}

func TestPgx(t *testing.T) {
	server, client := certificate(t)
	ctx, cancel := context.WithTimeout(t.Context(), pgTimeout)
	defer cancel()
	for _, c := range []struct {
		name    string
		minor   uint16
		options string
		want    string
	}{
		{"3.0", 0, "", "app@shop 3.0 *net.TCPConn"},
		{"3.2 asked, 3.0 agreed", 0, "&max_protocol_version=3.2", "app@shop 3.0 *net.TCPConn"},
		{"3.2 agreed", 2, "&max_protocol_version=3.2", "app@shop 3.2 *net.TCPConn"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := answering(t, &AcceptConfig{Lookup: users, Timeout: pgTimeout, MaxMinor: c.minor})
			conn, err := pgx.Connect(ctx, "postgres://app:secret@"+addr+"/shop?sslmode=disable&default_query_exec_mode=simple_protocol"+c.options)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(ctx)
			var got string
			if err := conn.QueryRow(ctx, "select 1").Scan(&got); err != nil || got != c.want {
				t.Fatalf("got %q, %v", got, err)
			}
		})
	}
	t.Run("TLS", func(t *testing.T) {
		addr := answering(t, &AcceptConfig{Lookup: users, Timeout: pgTimeout, TLS: always(server)})
		cfg, err := pgconn.ParseConfig("postgres://app:secret@" + addr + "/shop?sslmode=require")
		if err != nil {
			t.Fatal(err)
		}
		cfg.TLSConfig = client
		conn, err := pgconn.ConnectConfig(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		res, err := conn.Exec(ctx, "select 1").ReadAll()
		if err != nil || string(res[0].Rows[0][0]) != "app@shop 3.0 *tls.Conn" {
			t.Fatalf("got %v, %v", res, err)
		}
	})
	t.Run("3.2 demanded in vain", func(t *testing.T) {
		addr := answering(t, &AcceptConfig{Lookup: users, Timeout: pgTimeout})
		_, err := pgconn.Connect(ctx, "postgres://app:secret@"+addr+"/shop?sslmode=disable&min_protocol_version=3.2&max_protocol_version=3.2")
		if err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Fatalf("error %v", err)
		}
	})
	t.Run("wrong password", func(t *testing.T) {
		addr := answering(t, &AcceptConfig{Lookup: users, Timeout: pgTimeout})
		_, err := pgconn.Connect(ctx, "postgres://app:sesame@"+addr+"/shop?sslmode=disable")
		if err == nil || !strings.Contains(err.Error(), `password authentication failed for user "app"`) {
			t.Fatalf("error %v", err)
		}
	})
}
