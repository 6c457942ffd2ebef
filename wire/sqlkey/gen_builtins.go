//go:build ignore

// gen_builtins writes builtins.txt: what a PostgreSQL server knows by itself. Run it against a freshly initialised server
// of the oldest supported major version (15), so that the list holds no name that a user or an extension made:
//
//	PGHOST=127.0.0.1 PGUSER=postgres go generate ./wire/sqlkey
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A function is immutable only if every overload is, and as well it is safe for a replica only if every overload is, for the planner does not resolve overloads. Two functions are
// called stable and yet need a transaction id, which a replica cannot give.
const functions = `
select case when bool_and(provolatile = 'i') then 'immutable'
            when bool_and(provolatile in ('i', 's')) and proname not in ('txid_current', 'pg_current_xact_id')
            then 'function' else 'volatile' end || ' ' || proname
  from pg_proc where pronamespace = 'pg_catalog'::regnamespace
 group by proname order by proname collate "C"`

const relations = `
select 'relation ' || relname
  from pg_class where relnamespace = 'pg_catalog'::regnamespace and relkind in ('r', 'v')
 order by relname collate "C"`

const operators = `
select distinct 'operator ' || oprname collate "C"
  from pg_operator where oprnamespace = 'pg_catalog'::regnamespace
 order by 1`

func main() {
	log.SetFlags(0)
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close(ctx)
	var version string
	if err := conn.QueryRow(ctx, "show server_version_num").Scan(&version); err != nil {
		log.Fatal(err)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "# Made by gen_builtins.go from PostgreSQL %s. Do not edit.\n", version)
	for _, sql := range []string{functions, relations, operators} {
		rows, err := conn.Query(ctx, sql)
		if err != nil {
			log.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			log.Fatal(err)
		}
		out.WriteString(strings.Join(lines, "\n") + "\n")
	}
	if err := os.WriteFile("builtins.txt", []byte(out.String()), 0o644); err != nil {
		log.Fatal(err)
	}
}
