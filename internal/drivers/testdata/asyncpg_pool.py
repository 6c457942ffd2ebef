"""asyncpg. Everything it asks is prepared, and comes in binary; its pool cleans a connection that it gets back in one query."""

import asyncio
import datetime
import decimal
import os
import ssl
import uuid

import asyncpg

from driver import BALANCER_PORT, BASE, NAME, THINGS, WRONG_ROOT, awkward, copy_text, finish, same, step

INSERT = "INSERT INTO orders (customer_id, id, note) VALUES ($1, $2, $3)"
BY_KEY = "SELECT note FROM orders WHERE customer_id = $1 ORDER BY id"


def options(port=os.environ["PGPORT"], root=os.environ["PGSSLROOTCERT"], **more):
    given = dict(
        host="127.0.0.1", port=int(port), user=os.environ["PGUSER"], password=os.environ["PGPASSWORD"], database=os.environ["PGDATABASE"],
        ssl=ssl.create_default_context(cafile=root), timeout=20, command_timeout=60,
    )
    return {**given, **more}


class connect:
    """A connection of its own, closed at the end."""

    def __init__(self, *args, **more):
        self.options = options(*args, **more)

    async def __aenter__(self):
        self.conn = await asyncpg.connect(**self.options)
        return self.conn

    async def __aexit__(self, *_):
        await self.conn.close()


def astep(name):
    return lambda function: step(name)(lambda: asyncio.run(function()))


async def notes(conn, k):
    return [r["note"] for r in await conn.fetch(BY_KEY, k)]


async def error(kind, awaitable):
    try:
        await awaitable
    except kind as e:
        return e
    raise AssertionError("no error")


@astep("connect")
async def _():
    async with connect() as conn:
        same(await conn.fetchval("SELECT 42"), 42)
        assert conn.get_server_version().major >= 15
    await error(ssl.SSLCertVerificationError, asyncpg.connect(**options(root=WRONG_ROOT)))
    await error(asyncpg.InvalidPasswordError, asyncpg.connect(**options(password="wrong")))


@astep("rows by key")
async def _():
    async with connect() as conn:
        await conn.execute(f"CREATE TABLE {THINGS} (id int PRIMARY KEY, name text)")
        for k in range(BASE, BASE + 40):
            same(await conn.execute(INSERT, k, 1, f"note {k}"), "INSERT 0 1")
        for k in range(BASE, BASE + 40):
            same(await notes(conn, k), [f"note {k}"])
            same(await conn.fetchval(f"SELECT note FROM orders WHERE customer_id = {k}"), f"note {k}")
        same(await conn.fetchval("UPDATE orders SET note = 'changed' WHERE customer_id = $1 RETURNING id", BASE), 1)
        same(await conn.execute("DELETE FROM orders WHERE customer_id = $1", BASE + 1), "DELETE 1")
        same((await notes(conn, BASE), await notes(conn, BASE + 1)), (["changed"], []))


@astep("transactions")
async def _():
    k = BASE + 100
    async with connect() as conn:
        async with conn.transaction():
            await conn.execute(INSERT, k, 1, "committed")
        rolled = conn.transaction(isolation="serializable")
        await rolled.start()
        await conn.execute(INSERT, k, 2, "rolled back")
        same(await notes(conn, k), ["committed", "rolled back"])
        await rolled.rollback()
        same(await notes(conn, k), ["committed"])
        failed = conn.transaction()
        await failed.start()
        await conn.execute(INSERT, k, 3, "before the error")
        await error(asyncpg.DivisionByZeroError, conn.fetch("SELECT 1 / (customer_id - customer_id) FROM orders WHERE customer_id = $1", k))
        await error(asyncpg.InFailedSQLTransactionError, notes(conn, k))
        await failed.rollback()
        same(await notes(conn, k), ["committed"])
        async with conn.transaction():
            await conn.execute(INSERT, k, 4, "kept")

            async def twice():
                async with conn.transaction():  # a savepoint
                    await conn.execute(INSERT, k, 5, "undone")
                    await conn.execute(INSERT, k, 4, "twice")

            await error(asyncpg.UniqueViolationError, twice())
            await conn.execute(INSERT, k, 6, "kept too")
        same(await notes(conn, k), ["committed", "kept", "kept too"])


@astep("a prepared statement")
async def _():
    async with connect() as conn:
        statement = await conn.prepare(BY_KEY)
        for i in range(200):
            k = BASE + 2 + i % 38
            same(await statement.fetchval(k), f"note {k}")


@astep("many prepared statements")
async def _():
    for cache in (100, 20, 0):  # with 20 it closes the oldest again and again
        async with connect(statement_cache_size=cache) as conn:
            for turn in range(3):
                for i in range(30):
                    k = BASE + 2 + (i + turn) % 38
                    same(await conn.fetchval(f"SELECT note || ' {i}' FROM orders WHERE customer_id = $1", k), f"note {k} {i}")


@astep("batches")
async def _():
    async with connect() as conn:
        await conn.executemany(f"INSERT INTO {THINGS} VALUES ($1, $2)", [(i, f"thing {i}") for i in range(500)])
        await conn.executemany(INSERT, [(BASE + 200, i, "many") for i in range(100)])
        same(len(await notes(conn, BASE + 200)), 100)
        await error(asyncpg.UniqueViolationError, conn.executemany(f"INSERT INTO {THINGS} VALUES ($1, $2)", [(1000, "lost"), (1, "twice")]))
        same(await conn.fetchval(f"SELECT count(*) FROM {THINGS}"), 500)
        async with conn.transaction():  # a portal that stays open between requests
            got = [r["id"] async for r in conn.cursor(f"SELECT id FROM {THINGS} ORDER BY id", prefetch=70)]
        same(got, list(range(500)))


@astep("copy in")
async def _():
    async with connect() as conn:
        await conn.execute(f"TRUNCATE {THINGS}")
        rows = [(i, awkward(i)) for i in range(2000)]
        same(await conn.copy_records_to_table(THINGS, records=rows, columns=["id", "name"]), "COPY 2000")
        e = await error(asyncpg.UniqueViolationError, conn.copy_records_to_table(THINGS, records=[(3000, "fine"), (1, "twice")]))
        same(e.context, f"COPY {THINGS}, line 2")
        same(await conn.fetchval(f"SELECT count(*) FROM {THINGS}"), 2000)


@astep("copy out")
async def _():
    async with connect() as conn:
        parts = []

        async def take(data):
            parts.append(data)

        same(await conn.copy_from_query(f"SELECT id, name FROM {THINGS} ORDER BY id", output=take), "COPY 2000")
        same(b"".join(parts).decode(), "".join(copy_text(i) for i in range(2000)))
        same([tuple(r) for r in await conn.fetch(f"SELECT id, name FROM {THINGS} ORDER BY id")], [(i, awkward(i)) for i in range(2000)])


async def cancelled(conn):
    """Ends the task that waits for a statement: the driver sends a cancel request. The session lives on."""
    slow = f"SELECT pg_sleep(60) FROM one -- {NAME}"
    task = asyncio.create_task(conn.execute(slow))
    async with connect() as other:
        for _ in range(1000):
            if await other.fetchval("SELECT count(*) FROM running WHERE query = $1", slow) == 1:
                break
            await asyncio.sleep(0.02)
        else:
            raise AssertionError("it does not run")
        task.cancel()
        await error(asyncio.CancelledError, task)
        same(await asyncio.wait_for(notes(conn, BASE + 2), 20), [f"note {BASE + 2}"])
        same(await other.fetchval("SELECT count(*) FROM running WHERE query = $1", slow), 0)


@astep("cancel")
async def _():
    async with connect() as conn:
        await cancelled(conn)


@astep("cancel through another node")
async def _():
    async with connect(BALANCER_PORT) as conn:
        await cancelled(conn)


@astep("listen")
async def _():
    async with connect() as conn, connect() as other:
        heard = asyncio.get_running_loop().create_future()
        await conn.add_listener(NAME, lambda _conn, _pid, channel, payload: heard.set_result((channel, payload)))
        await other.execute(f"NOTIFY {NAME}, 'hello é'")
        same(await asyncio.wait_for(heard, 20), (NAME, "hello é"))


@astep("errors")
async def _():
    async with connect() as conn:
        e = await error(asyncpg.UniqueViolationError, conn.execute(INSERT, BASE + 2, 1, ""))
        same((e.sqlstate, e.constraint_name, e.table_name, e.detail), ("23505", "orders_pkey", "orders", f"Key (customer_id, id)=({BASE + 2}, 1) already exists."))
        e = await error(asyncpg.PostgresSyntaxError, conn.fetch("SELCT 1"))
        same((e.message, e.position), ('syntax error at or near "SELCT"', "1"))
        e = await error(asyncpg.UndefinedColumnError, conn.fetch("SELECT nothing FROM one WHERE n = $1", 1))
        same(e.position, "8")
        e = await error(asyncpg.FeatureNotSupportedError, conn.execute("UPDATE orders SET note = $1 WHERE id = 0", "all"))
        assert "customer_id" in e.hint, e.hint
        notices = []
        conn.add_log_listener(lambda _conn, m: notices.append(m.message))
        await conn.execute("DROP TABLE IF EXISTS not_there")
        await conn.fetchval("SELECT 1")
        same(notices, ['table "not_there" does not exist, skipping'])


@astep("binary results")
async def _():
    at = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc)
    async with connect() as conn:
        row = await conn.fetchrow(
            "SELECT customer_id, 1.5::float8, 12.34::numeric, true, $2::timestamptz, $3::uuid, $4::int[], $5::bytea, NULL FROM orders WHERE customer_id = $1",
            BASE + 2, at, uuid.UUID(int=7), [1, 2, 3], b"\0\xff",
        )
        same(tuple(row), (BASE + 2, 1.5, decimal.Decimal("12.34"), True, at, uuid.UUID(int=7), [1, 2, 3], b"\0\xff", None))


@astep("types of one's own")
async def _():
    async def read(conn, k):
        row = await conn.fetchrow("SELECT m, l, p FROM felt WHERE customer_id = $1", k)
        same((row["m"], row["l"], tuple(row["p"])), ("happy", ["sad", "happy"], ("ok", 7)))

    async with connect() as conn:
        for k in range(BASE + 400, BASE + 420):
            same(await conn.execute("INSERT INTO felt (customer_id, id, m, l, p) VALUES ($1, 1, $2, $3, $4)", k, "happy", ["sad", "happy"], ("ok", 7)), "INSERT 0 1")
        for k in range(BASE + 400, BASE + 420):
            await read(conn, k)
        all = await conn.fetch("SELECT m, l, p FROM felt WHERE l = $1 AND customer_id >= $2 AND customer_id < $3 ORDER BY customer_id", ["sad", "happy"], BASE + 400, BASE + 420)
        same([(r["m"], r["l"], tuple(r["p"])) for r in all], [("happy", ["sad", "happy"], ("ok", 7))] * 20)
    for k in range(BASE + 400, BASE + 405):  # types that the driver does not know yet it looks up where it is: in a transaction that is open on either shard
        async with connect() as conn, conn.transaction():
            same(await conn.execute("UPDATE felt SET id = 2 WHERE customer_id = $1", k), "UPDATE 1")
            await read(conn, k)


@astep("settings")
async def _():
    settings = "SELECT current_setting('search_path'), current_setting('TimeZone') FROM orders WHERE customer_id = $1"
    async with connect(server_settings={"statement_timeout": "12345"}) as conn, connect() as other:
        same(await conn.fetchval("SHOW statement_timeout"), "12345ms")
        await conn.execute(f"CREATE SCHEMA {NAME}_schema CREATE TABLE mine (v text)")
        await conn.execute(f"SET search_path = {NAME}_schema, public; SET TIME ZONE 'Asia/Tokyo'")
        await conn.execute("INSERT INTO mine VALUES ('seen')")
        for k in range(BASE + 2, BASE + 12):
            same(tuple(await conn.fetchrow(settings, k)), (f"{NAME}_schema, public", "Asia/Tokyo"))
            same(tuple(await other.fetchrow(settings, k)), ('"$user", public', "UTC"))
        same(await conn.fetchval("SELECT v FROM mine"), "seen")
        same(conn.get_settings().TimeZone, "Asia/Tokyo")
        async with conn.transaction():
            await conn.execute("SET LOCAL TIME ZONE 'Europe/Paris'")
            same(await conn.fetchval("SHOW TimeZone"), "Europe/Paris")
        same(await conn.fetchval("SHOW TimeZone"), "Asia/Tokyo")
        await conn.reset()
        same(await conn.fetchval("SHOW search_path"), '"$user", public')


@astep("large values")
async def _():
    text, blob = "é" * (1 << 19), os.urandom(1 << 20)
    async with connect() as conn:
        for k in (BASE + 300, BASE + 301, BASE + 302):
            await conn.execute("INSERT INTO orders (customer_id, id, note, data) VALUES ($1, 1, $2, $3)", k, text, blob)
            same(tuple(await conn.fetchrow("SELECT note, data FROM orders WHERE customer_id = $1", k)), (text, blob))


@astep("eight connections")
async def _():
    async with asyncpg.create_pool(**options(), min_size=8, max_size=8) as pool:

        async def work(n):
            for k in range(BASE + 1000 + n * 100, BASE + 1025 + n * 100):
                async with pool.acquire() as conn:  # cleaned each time it is given back
                    await conn.execute("SET lock_timeout = '7s'")
                    await conn.execute(INSERT, k, 1, f"note {k}")
                    same(await notes(conn, k), [f"note {k}"])
                same(await pool.fetchval("SHOW lock_timeout"), "0")

        await asyncio.gather(*(work(n) for n in range(16)))


finish()
