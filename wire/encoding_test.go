package wire_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/wire/pg"
)

// Notifications come in the client's encoding, as PostgreSQL writes them.
func TestNotificationsInTheClientsEncoding(t *testing.T) {
	r := newRig(t, rigOptions{shards: alone(t)})
	primary := r.servers[0].primary
	connect := func(dsn, encoding string) *pgx.Conn {
		t.Helper()
		cfg, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		cfg.RuntimeParams["client_encoding"] = encoding
		cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
		conn, err := pgx.ConnectConfig(ctxOf(t), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
	sender := connect(r.dsn(), "UTF8")
	const latin, greek, cyrillic = "plain, and Grüße, ÿ¡", "Ω αβγ", "Привет"
	for encoding, payload := range map[string]string{
		"UTF8": latin + greek + cyrillic + "€ 名", "SQL_ASCII": latin + greek, "latin1": latin, "LATIN2": "Łódź ąę", "LATIN3": "ĦĝŝÜ", "LATIN4": "ĸŖ", "LATIN5": "İış", "LATIN6": "ĐŠŧ", "LATIN7": "ØŖ’", "LATIN8": "ŴŶẀ", "LATIN9": "€ œ Ž", "LATIN10": "Ș ț €",
		"ISO_8859_5": cyrillic, "ISO_8859_6": "سلام", "ISO_8859_7": greek, "ISO_8859_8": "שלום", "WIN1250": "Łódź €", "WIN1251": cyrillic + "€", "WIN1252": latin + "€ œ", "WIN1253": greek, "WIN1254": "İış", "WIN1255": "שלום", "WIN1256": "سلام", "WIN1257": "ąčę", "WIN1258": "ươ",
		"WIN866": cyrillic, "WIN874": "สวัสดี", "KOI8R": cyrillic, "KOI8U": cyrillic + "їґ",
	} {
		direct, routed := connect(primary.DSN("app", testUser), encoding), connect(r.dsn(), encoding)
		for _, conn := range []*pgx.Conn{direct, routed} {
			r.exec(conn, "LISTEN ch")
		}
		for _, p := range []string{payload, "nothing but ASCII"} {
			r.exec(sender, fmt.Sprintf("NOTIFY ch, '%s'", p))
			want, got := told(t, direct), told(t, routed)
			if got.Payload != want.Payload || got.Channel != want.Channel {
				t.Errorf("%s: %q, and PostgreSQL %q", encoding, got.Payload, want.Payload)
			}
		}
		for _, conn := range []*pgx.Conn{direct, routed} {
			conn.Close(context.Background())
		}
	}
	// What cannot be written is not kept silent.
	for _, encoding := range []string{"LATIN1", "EUC_JP"} {
		conn := connect(r.dsn(), encoding)
		r.exec(conn, "LISTEN ch")
		r.exec(sender, "NOTIFY ch, '名'")
		_, err := conn.WaitForNotification(ctxOf(t))
		if e := wantCode(t, err, pg.CodeUntranslatableCharacter); !strings.Contains(e.Detail, encoding) || e.Hint == "" {
			t.Errorf("%s, %s", e.Detail, e.Hint)
		}
	}
}

// A channel that the database's encoding cannot write is refused to who asks for it, in PostgreSQL's words. Those who listen already go on, and so does the node's
// connection that listens for all.
func TestListenThatTheServerRefuses(t *testing.T) {
	r := newRig(t, rigOptions{shards: alone(t)})
	primary := r.servers[0].primary
	if err := primary.Exec(ctxOf(t), "DROP DATABASE IF EXISTS plain WITH (FORCE)", "CREATE DATABASE plain TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"); err != nil {
		t.Fatal(err)
	}
	connect := func(dsn string, mode pgx.QueryExecMode) *pgx.Conn {
		t.Helper()
		cfg, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		cfg.RuntimeParams["client_encoding"] = "UTF8"
		cfg.DefaultQueryExecMode = mode
		conn, err := pgx.ConnectConfig(ctxOf(t), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
	listening := func() (pids string) {
		t.Helper()
		if err := primary.Ask(ctxOf(t), func(conn *pgx.Conn) error {
			return conn.QueryRow(ctxOf(t), "SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_activity WHERE application_name = 'rangefinder LISTEN' AND datname = 'plain'").Scan(&pids)
		}); err != nil {
			t.Fatal(err)
		}
		return pids
	}
	good := connect(r.dsnOf("plain"), pgx.QueryExecModeSimpleProtocol)
	r.exec(good, "LISTEN good", `LISTEN "Grüße"`)
	pid := listening()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		direct, routed := connect(primary.DSN("plain", testUser), mode), connect(r.dsnOf("plain"), mode)
		var told [2][]string
		for i, conn := range []*pgx.Conn{direct, routed} {
			for _, sql := range []string{
				`LISTEN "☃"`, `LISTEN "☃"`, "LISTEN good", "BEGIN", "LISTEN inside", `LISTEN "☃"`, "LISTEN good", "COMMIT", "BEGIN", "LISTEN kept", "COMMIT",
			} {
				_, err := conn.Exec(ctxOf(t), sql)
				told[i] = append(told[i], fmt.Sprint(sql, ": ", err, " ", string(conn.PgConn().TxStatus())))
			}
		}
		if got, want := strings.Join(told[1], "\n"), strings.Join(told[0], "\n"); got != want {
			t.Errorf("%s\nfrom PostgreSQL\n%s", got, want)
		}
		// What it could listen to it hears, and nothing that was undone.
		r.exec(good, "NOTIFY inside", "NOTIFY kept, 'a'", "NOTIFY good, 'ö'", "SELECT 1")
		expect(t, routed, "kept a", "good ö")
		expect(t, good, "good ö")
		routed.Close(context.Background())
	}
	r.exec(good, `NOTIFY "Grüße"`)
	expect(t, good, "Grüße ")
	if now := listening(); now != pid || pid == "" {
		t.Errorf("listened over connection %s, and now over %s", pid, now)
	}
}
