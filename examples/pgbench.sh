#!/usr/bin/env bash
# pgbench's own tables and its own script on the three shards, through the three nodes of README.md, "Three nodes by hand": each table is keyed by its own id, so
# nearly every transaction writes on several shards. At the end the balances must agree.
#
#   examples/pgbench.sh     SCALE=10 and TIME=30 (seconds) are what it does if nothing else is said
set -euo pipefail

DIR=${DIR:-/tmp/rangefinder-example}
NODES=(127.0.2.1 127.0.1.1 127.0.3.1)
PGPASSWORD=$(cat "$DIR/app.password")
export PGPASSWORD PGUSER=app PGPORT=6432 PGDATABASE=app RANGEFINDER_ADMIN=${RANGEFINDER_ADMIN:-http://${NODES[0]}:8080}

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1 || true)
[ -n "$bin" ] || bin=$(dirname "$(command -v pgbench)")

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin/rangefinder keyspace create app.pgbench_accounts --planned --key aid --type int --shards shard_1,shard_2,shard_3 \
	--table app.pgbench_tellers:tid --table app.pgbench_branches:bid --table app.pgbench_history:aid

"$bin/pgbench" -h "${NODES[0]}" -i -s "${SCALE:-10}"
"$bin/pgbench" -h "${NODES[0]}" -T "${TIME:-30}" -c 8
echo "the same through all three nodes at once:"
for node in "${NODES[@]}"; do
	"$bin/pgbench" -h "$node" -n -T "${TIME:-30}" -c 8 &
	pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done

sums=$("$bin/psql" -h "${NODES[0]}" -XAtq -v ON_ERROR_STOP=1 -c "SELECT sum(abalance) FROM pgbench_accounts" -c "SELECT sum(tbalance) FROM pgbench_tellers" \
	-c "SELECT sum(bbalance) FROM pgbench_branches" -c "SELECT sum(delta) FROM pgbench_history")
echo "sums of accounts, tellers, branches and history:" $sums
[ "$(sort -u <<<"$sums" | wc -l)" = 1 ] || { echo "they do not agree" >&2; exit 1; }
