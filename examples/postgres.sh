#!/usr/bin/env bash
# Starts the PostgreSQL servers that iad.toml, fra.toml and syd.toml name: three shards, each a primary and two streaming
# replicas, one copy in each "region" (a loopback address of this machine).
#
#   examples/postgres.sh start     make them if they are missing, and start them
#   examples/postgres.sh stop      stop them; their data stays
#   examples/postgres.sh remove    stop them and remove everything
#
# All is under $DIR, by default /tmp/rangefinder-example: servers, passwords and the nodes' own state.
set -euo pipefail

DIR=${DIR:-/tmp/rangefinder-example}
REGIONS=(iad fra syd)

fail() { echo "$*" >&2; exit 1; }

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1 || true)
[ -n "$bin" ] || bin=$(dirname "$(command -v initdb || true)")
[ -x "$bin/initdb" ] || fail "PostgreSQL is missing: apt-get install postgresql, or put initdb on the PATH"

# PostgreSQL refuses to run as root.
as_pg() { if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi; }

address() { echo "127.0.$1.1"; }                             # of region 1 to 3
data() { echo "$DIR/postgres/shard_$1-${REGIONS[$2 - 1]}"; } # of shard $1's copy in region $2
port() { echo $((5500 + $1)); }

configure() { # shard region
	as_pg tee -a "$(data "$1" "$2")/postgresql.conf" >/dev/null <<-CONF
		listen_addresses = '$(address "$2")'
		port = $(port "$1")
		unix_socket_directories = ''
		cluster_name = 'shard_$1-${REGIONS[$2 - 1]}'
		shared_buffers = 16MB
		max_connections = 60
		max_wal_senders = 8
		max_prepared_transactions = 50 # for transactions over several shards
	CONF
}

launch() { # shard region
	as_pg "$bin/pg_ctl" -D "$(data "$1" "$2")" status >/dev/null 2>&1 && return
	as_pg "$bin/pg_ctl" -D "$(data "$1" "$2")" -l "$(data "$1" "$2").log" -w start >/dev/null ||
		fail "shard_$1 in ${REGIONS[$2 - 1]} does not start; see $(data "$1" "$2").log"
}

# Shard n's primary stands in region n.
make_primary() { # shard
	local d; d=$(data "$1" "$1")
	as_pg "$bin/initdb" -D "$d" -U postgres -A scram-sha-256 --pwfile "$DIR/postgres/password" --no-sync >/dev/null
	as_pg tee "$d/pg_hba.conf" >/dev/null <<-HBA
		host all all 127.0.0.0/8 scram-sha-256
		host replication all 127.0.0.0/8 scram-sha-256
	HBA
	configure "$1" "$1"
	launch "$1" "$1"
	PGPASSWORD=$(cat "$DIR/postgres/password") as_pg "$bin/psql" -qX -v ON_ERROR_STOP=1 -h "$(address "$1")" -p "$(port "$1")" -U postgres >/dev/null <<-SQL
		CREATE ROLE app LOGIN PASSWORD '$(cat "$DIR/app.password")';
		CREATE ROLE rangefinder LOGIN PASSWORD '$(cat "$DIR/rangefinder.password")';
		GRANT pg_read_all_data, pg_monitor TO rangefinder;
		CREATE DATABASE app OWNER app;
		-- The nodes end what a crash leaves prepared: with a table of theirs in a schema of theirs, and as who has prepared it.
		GRANT CREATE ON DATABASE app TO rangefinder;
		GRANT app TO rangefinder;
		\c app
		SET ROLE app;
		CREATE TABLE orders (customer_id bigint, id int, note text, PRIMARY KEY (customer_id, id));
		CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint);
	SQL
}

make_replica() { # shard region
	PGPASSWORD=$(cat "$DIR/postgres/password") as_pg "$bin/pg_basebackup" -D "$(data "$1" "$2")" -R --no-sync -c fast \
		-d "host=$(address "$1") port=$(port "$1") user=postgres application_name=shard_$1-${REGIONS[$2 - 1]} password=$(cat "$DIR/postgres/password")"
	configure "$1" "$2"
	launch "$1" "$2"
}

secret() { # file
	[ -s "$1" ] || (umask 077 && head -c 18 /dev/urandom | base64 | tr '+/' '-_' >"$1")
}

start() {
	mkdir -p "$DIR/postgres"
	secret "$DIR/app.password"
	secret "$DIR/rangefinder.password"
	secret "$DIR/postgres/password"
	if [ "$(id -u)" = 0 ]; then chown -R postgres "$DIR/postgres"; fi
	for shard in 1 2 3; do
		if [ -d "$(data $shard $shard)" ]; then launch $shard $shard; else make_primary $shard; fi
		for region in 1 2 3; do
			[ $region = $shard ] && continue
			if [ -d "$(data $shard $region)" ]; then launch $shard $region; else make_replica $shard $region; fi
		done
		echo "shard_$shard: primary in ${REGIONS[$shard - 1]}, port $(port $shard) of 127.0.1.1, 127.0.2.1 and 127.0.3.1"
	done
	echo "password of user app: PGPASSWORD=\$(cat $DIR/app.password)"
}

stop() {
	for shard in 1 2 3; do
		for region in 1 2 3; do
			[ -d "$(data $shard $region)" ] || continue
			as_pg "$bin/pg_ctl" -D "$(data $shard $region)" -m fast -w stop >/dev/null 2>&1 || true
		done
	done
}

case ${1:-} in
start) start ;;
stop) stop ;;
remove) stop && rm -rf "$DIR" ;;
*) fail "usage: $0 start|stop|remove" ;;
esac
