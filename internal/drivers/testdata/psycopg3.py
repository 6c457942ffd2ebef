"""psycopg 3."""

import datetime
import decimal
import os
import threading
import uuid

import psycopg
from psycopg import errors
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum

from driver import BALANCER_PORT, BASE, NAME, THINGS, WRONG_ROOT, awkward, finish, same, step, until


def connect(**options):
    return psycopg.connect("", autocommit=True, **options)  # all else from the environment, as libpq takes it


@step("connect")
def _():
    with connect(channel_binding="require") as conn:
        same(conn.pgconn.ssl_in_use, True)
        same(conn.execute("SELECT 42").fetchone(), (42,))
        assert conn.info.server_version >= 150000
    try:
        connect(sslrootcert=WRONG_ROOT)
    except psycopg.OperationalError as e:
        assert "certificate verify failed" in str(e), e
    else:
        raise AssertionError("a certificate of another authority was taken")
    try:
        connect(password="wrong")
    except psycopg.OperationalError as e:
        assert 'password authentication failed for user "app"' in str(e), e
    else:
        raise AssertionError("a wrong password was taken")


@step("rows by key")
def _():
    with connect() as conn:
        conn.execute(f"CREATE TABLE {THINGS} (id int PRIMARY KEY, name text)")
        for k in range(BASE, BASE + 40):
            same(conn.execute("INSERT INTO orders (customer_id, id, note) VALUES (%s, 1, %s)", (k, f"note {k}")).rowcount, 1)
        for k in range(BASE, BASE + 40):
            same(conn.execute("SELECT customer_id, note FROM orders WHERE customer_id = %s", (k,)).fetchall(), [(k, f"note {k}")])
            same(conn.execute(f"SELECT customer_id, note FROM orders WHERE customer_id = {k}").fetchall(), [(k, f"note {k}")])
        same(conn.execute("UPDATE orders SET note = 'changed' WHERE customer_id = %s RETURNING id", (BASE,)).fetchall(), [(1,)])
        same(conn.execute("DELETE FROM orders WHERE customer_id = %s", (BASE + 1,)).rowcount, 1)
        same(conn.execute("SELECT note FROM orders WHERE customer_id = %s", (BASE,)).fetchall(), [("changed",)])
        same(conn.execute("SELECT note FROM orders WHERE customer_id = %s", (BASE + 1,)).fetchall(), [])


@step("transactions")
def _():
    def notes(k):
        return [row[0] for row in conn.execute("SELECT note FROM orders WHERE customer_id = %s ORDER BY id", (k,))]

    insert = "INSERT INTO orders (customer_id, id, note) VALUES (%s, %s, %s)"
    k = BASE + 100
    with connect() as conn:
        with conn.transaction():
            conn.execute(insert, (k, 1, "committed"))
            same(notes(k), ["committed"])
        same(notes(k), ["committed"])
        with conn.transaction(force_rollback=True):
            conn.execute(insert, (k, 2, "rolled back"))
            same(notes(k), ["committed", "rolled back"])
        same(notes(k), ["committed"])
        conn.autocommit = False
        conn.execute(insert, (k, 3, "before the error"))
        try:
            conn.execute("SELECT 1 / (customer_id - customer_id) FROM orders WHERE customer_id = %s", (k,))
        except errors.DivisionByZero as e:
            same(e.sqlstate, "22012")
        try:
            notes(k)
        except errors.InFailedSqlTransaction as e:
            same(e.sqlstate, "25P02")
        else:
            raise AssertionError("a statement went through in a failed transaction")
        conn.rollback()
        same(notes(k), ["committed"])
        conn.rollback()
        conn.autocommit = True
        with conn.transaction():
            conn.execute(insert, (k, 4, "kept"))
            try:
                with conn.transaction("sp"):
                    conn.execute(insert, (k, 5, "undone"))
                    conn.execute(insert, (k, 4, "twice"))
            except errors.UniqueViolation:
                pass
            conn.execute(insert, (k, 6, "kept too"))
        same(notes(k), ["committed", "kept", "kept too"])
        same(conn.info.transaction_status.name, "IDLE")


@step("a prepared statement")
def _():
    with connect() as conn:
        for i in range(200):
            k = BASE + 2 + i % 38
            same(conn.execute("SELECT note FROM orders WHERE customer_id = %s", (k,), prepare=True).fetchall(), [(f"note {k}",)])


@step("many prepared statements")
def _():
    with connect() as conn:
        conn.prepared_max = 30
        for turn in range(3):
            for i in range(40):  # ten more than it keeps: it sends DEALLOCATE for them
                k = BASE + 2 + (i + turn) % 38
                rows = conn.execute(f"SELECT note, {i} FROM orders WHERE customer_id = %s", (k,), prepare=True).fetchall()
                same(rows, [(f"note {k}", i)])
        conn.execute("DEALLOCATE ALL")


@step("batches")
def _():
    with connect() as conn:
        with conn.cursor() as cur:
            cur.executemany(f"INSERT INTO {THINGS} VALUES (%s, %s)", [(i, f"thing {i}") for i in range(500)])
            same(cur.rowcount, 500)
            cur.executemany("INSERT INTO orders (customer_id, id, note) VALUES (%s, %s, %s)", [(BASE + 200, i, "many") for i in range(100)])
            same(cur.rowcount, 100)
            cur.executemany("SELECT note FROM orders WHERE customer_id = %s", [(BASE + 2,), (BASE + 2,)], returning=True)
            same(cur.fetchall(), [(f"note {BASE + 2}",)])
        with conn.pipeline() as p:
            cursors = []
            for k in range(BASE + 2, BASE + 40):  # a sync after each: they belong to different shards
                cursors.append(conn.execute("SELECT note FROM orders WHERE customer_id = %s", (k,)))
                p.sync()
            same([c.fetchone()[0] for c in cursors], [f"note {k}" for k in range(BASE + 2, BASE + 40)])
        with conn.pipeline():
            cursors = [conn.execute(f"SELECT name FROM {THINGS} WHERE id = %s", (i,)) for i in range(100)]
            same([c.fetchone()[0] for c in cursors], [f"thing {i}" for i in range(100)])
        try:
            with conn.pipeline():
                conn.execute(f"UPDATE {THINGS} SET name = 'lost' WHERE id = 1")
                conn.execute(f"INSERT INTO {THINGS} VALUES (1, 'twice')")
                conn.execute(f"UPDATE {THINGS} SET name = 'never' WHERE id = 1")
        except errors.UniqueViolation as e:
            same(e.sqlstate, "23505")
        else:
            raise AssertionError("no error in the pipeline")
        same(conn.execute(f"SELECT name FROM {THINGS} WHERE id = 1").fetchall(), [("thing 1",)])


@step("copy in")
def _():
    with connect() as conn:
        conn.execute(f"TRUNCATE {THINGS}")
        with conn.cursor() as cur, cur.copy(f"COPY {THINGS} (id, name) FROM STDIN") as copy:
            for i in range(2000):
                copy.write_row((i, awkward(i)))
        try:
            with conn.cursor() as cur, cur.copy(f"COPY {THINGS} (id, name) FROM STDIN") as copy:
                copy.write_row((3000, "fine"))
                copy.write_row((1, "twice"))
        except errors.UniqueViolation as e:
            same(e.diag.context, f"COPY {THINGS}, line 2")
        else:
            raise AssertionError("a second row 1")
        try:
            with conn.cursor() as cur, cur.copy(f"COPY {THINGS} (id, name) FROM STDIN") as copy:
                copy.write_row((3001, "given up"))
                raise ZeroDivisionError
        except errors.QueryCanceled as e:  # what the server says to the driver's CopyFail
            assert "ZeroDivisionError" in str(e), e
        else:
            raise AssertionError("a copy that was given up went through")
        same(conn.execute(f"SELECT count(*) FROM {THINGS}").fetchall(), [(2000,)])


@step("copy out")
def _():
    with connect() as conn:
        for form in ("text", "binary"):
            with conn.cursor() as cur, cur.copy(f"COPY (SELECT id, name FROM {THINGS} ORDER BY id) TO STDOUT (FORMAT {form})") as copy:
                copy.set_types(["int4", "text"])
                same(list(copy.rows()), [(i, awkward(i)) for i in range(2000)])
        same(conn.execute("SELECT 1").fetchone(), (1,))


def cancelled(conn):
    """Cancels a statement that runs, and shows that the session lives on."""
    slow, caught = f"SELECT pg_sleep(60) FROM one -- {NAME}", []

    def run():
        try:
            conn.execute(slow)
        except BaseException as e:
            caught.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    with connect() as other:
        until(lambda: other.execute("SELECT count(*) FROM running WHERE query = %s", (slow,)).fetchone() == (1,))
    conn.cancel()
    thread.join(20)
    assert caught and isinstance(caught[0], errors.QueryCanceled), caught
    same((caught[0].sqlstate, caught[0].diag.message_primary), ("57014", "canceling statement due to user request"))
    same(conn.execute("SELECT note FROM orders WHERE customer_id = %s", (BASE + 2,)).fetchall(), [(f"note {BASE + 2}",)])


@step("cancel")
def _():
    with connect() as conn:
        cancelled(conn)


@step("cancel through another node")
def _():
    with connect(port=BALANCER_PORT) as conn:
        cancelled(conn)


@step("listen")
def _():
    with connect() as conn, connect() as other:
        conn.execute(f"LISTEN {NAME}")
        other.execute(f"NOTIFY {NAME}, 'hello é'")
        got = next(conn.notifies())
        same((got.channel, got.payload), (NAME, "hello é"))
        conn.execute(f"UNLISTEN {NAME}")


@step("errors")
def _():
    def error(query, *args):
        try:
            conn.execute(query, *args)
        except psycopg.Error as e:
            return e
        raise AssertionError("no error: " + query)

    with connect() as conn:
        e = error("INSERT INTO orders (customer_id, id) VALUES (%s, 1)", (BASE + 2,))
        assert isinstance(e, errors.UniqueViolation)
        same((e.diag.constraint_name, e.diag.table_name, e.diag.message_detail), ("orders_pkey", "orders", f"Key (customer_id, id)=({BASE + 2}, 1) already exists."))
        e = error("SELCT 1")
        same((e.sqlstate, e.diag.message_primary, e.diag.statement_position), ("42601", 'syntax error at or near "SELCT"', "1"))
        e = error("SELECT nothing FROM one")
        same((e.sqlstate, e.diag.statement_position), ("42703", "8"))
        e = error("UPDATE orders SET note = 'all' WHERE id = 0")
        same(e.sqlstate, "0A000")
        assert "customer_id" in e.diag.message_hint, e.diag.message_hint
        notices = []
        conn.add_notice_handler(lambda d: notices.append((d.severity, d.message_primary)))
        conn.execute("DROP TABLE IF EXISTS not_there")
        same(notices, [("NOTICE", 'table "not_there" does not exist, skipping')])


@step("binary results")
def _():
    with connect() as conn:
        for prepare in (False, True):
            row = conn.execute(
                "SELECT customer_id, 1.5::float8, 12.34::numeric, true, %s::timestamptz, %s::uuid, %s::int[], %s::bytea, NULL FROM orders WHERE customer_id = %s",
                (datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc), uuid.UUID(int=7), [1, 2, 3], b"\0\xff", BASE + 2),
                binary=True, prepare=prepare,
            ).fetchone()
            same(row, (BASE + 2, 1.5, decimal.Decimal("12.34"), True, datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc), uuid.UUID(int=7), [1, 2, 3], b"\0\xff", None))
        same(conn.execute("SELECT note FROM orders WHERE customer_id = %b", (BASE + 3,)).fetchall(), [(f"note {BASE + 3}",)])  # binary parameters


@step("types of one's own")
def _():
    for early in (True, False):
        for k in range(BASE + 400, BASE + 410):
            with connect() as conn:
                if not early:
                    conn.execute("UPDATE orders SET note = note WHERE customer_id = %s", (k,))  # the transaction is open on the shard of k
                mood = EnumInfo.fetch(conn, "mood")
                register_enum(mood, conn)
                feeling = CompositeInfo.fetch(conn, "feeling")
                register_composite(feeling, conn)
                happy, sad = mood.enum["happy"], mood.enum["sad"]
                p = feeling.python_type(mood.enum["ok"], 7)
                if early:
                    conn.execute("INSERT INTO felt (customer_id, id, m, l, p) VALUES (%s, 1, %s, %s, %s)", (k, happy, [sad, happy], p))
                for prepare in (False, True):
                    for binary in (False, True):
                        row = conn.execute("SELECT m, l, p FROM felt WHERE customer_id = %s AND l = %s", (k, [sad, happy]), binary=binary, prepare=prepare).fetchone()
                        same(row, (happy, [sad, happy], p))


@step("settings")
def _():
    with connect(options="-c statement_timeout=12345") as conn, connect() as other:
        same(conn.execute("SHOW statement_timeout").fetchone(), ("12345ms",))
        conn.execute(f"CREATE SCHEMA {NAME}_schema CREATE TABLE mine (v text)")
        conn.execute(f"SET search_path = {NAME}_schema, public")
        conn.execute("SET TIME ZONE 'Asia/Tokyo'")
        conn.execute("INSERT INTO mine VALUES ('seen')")
        for k in range(BASE + 2, BASE + 12):  # on both shards
            same(conn.execute("SELECT current_setting('search_path'), current_setting('TimeZone') FROM orders WHERE customer_id = %s", (k,)).fetchall(), [(f"{NAME}_schema, public", "Asia/Tokyo")])
            same(other.execute("SELECT current_setting('search_path'), current_setting('TimeZone') FROM orders WHERE customer_id = %s", (k,)).fetchall(), [('"$user", public', "UTC")])
        same(conn.execute("SELECT v FROM mine").fetchall(), [("seen",)])
        same(conn.info.timezone.key, "Asia/Tokyo")
        same(conn.info.parameter_status("application_name"), NAME)
        with conn.transaction():
            conn.execute("SET LOCAL TIME ZONE 'Europe/Paris'")
            same(conn.execute("SELECT current_setting('TimeZone')").fetchone(), ("Europe/Paris",))
        same(conn.execute("SELECT current_setting('TimeZone')").fetchone(), ("Asia/Tokyo",))
        conn.execute("RESET ALL")
        same(conn.execute("SELECT current_setting('search_path')").fetchone(), ('"$user", public',))


@step("large values")
def _():
    text, blob = "é" * (1 << 19), os.urandom(1 << 20)
    with connect() as conn:
        for k in (BASE + 300, BASE + 301, BASE + 302):
            conn.execute("INSERT INTO orders (customer_id, id, note, data) VALUES (%s, 1, %s, %s)", (k, text, blob))
            for binary in (False, True):
                same(conn.execute("SELECT note, data FROM orders WHERE customer_id = %s", (k,), binary=binary).fetchall(), [(text, blob)])


@step("eight connections")
def _():
    wrong = []

    def work(n):
        try:
            with connect() as conn:
                for i in range(25):
                    k = BASE + 1000 + n * 100 + i
                    conn.execute("INSERT INTO orders (customer_id, id, note) VALUES (%s, 1, %s)", (k, f"note {k}"))
                    same(conn.execute("SELECT note FROM orders WHERE customer_id = %s", (k,)).fetchall(), [(f"note {k}",)])
        except BaseException as e:
            wrong.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    same(wrong, [])


finish()
