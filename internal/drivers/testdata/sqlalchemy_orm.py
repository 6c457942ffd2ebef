"""SQLAlchemy, over psycopg2: what applications do with an ORM, and what psycopg2 has ways of its own for."""

import io
import os
import select
import threading

import psycopg2
import sqlalchemy as sa
from psycopg2 import errors
from sqlalchemy import orm

from driver import BALANCER_PORT, BASE, NAME, THINGS, WRONG_ROOT, awkward, copy_text, finish, same, step, until


def engine(port=os.environ["PGPORT"], pool_size=1, **args):
    url = sa.engine.URL.create("postgresql+psycopg2", os.environ["PGUSER"], os.environ["PGPASSWORD"], "127.0.0.1", int(port), os.environ["PGDATABASE"])
    return sa.create_engine(url, future=True, pool_size=pool_size, connect_args=args)


Base = orm.declarative_base()


class Order(Base):  # sharded: it exists already
    __tablename__ = "orders"
    customer_id = sa.Column(sa.BigInteger, primary_key=True, autoincrement=False)
    id = sa.Column(sa.Integer, primary_key=True, autoincrement=False)
    note = sa.Column(sa.Text)
    data = sa.Column(sa.LargeBinary)


class Thing(Base):  # unsharded: made by create_all
    __tablename__ = THINGS
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.Text, index=True)
    parts = orm.relationship("Part", back_populates="thing", cascade="all, delete-orphan", order_by="Part.id")


class Part(Base):
    __tablename__ = THINGS + "_parts"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String(40), nullable=False)
    thing_id = sa.Column(sa.ForeignKey(THINGS + ".id"), nullable=False)
    thing = orm.relationship(Thing, back_populates="parts")


MAIN = engine()


def notes(on, k):
    return on.execute(sa.select(Order.note).where(Order.customer_id == k).order_by(Order.id)).scalars().all()


def error(kind, run):
    """What the driver raised."""
    try:
        run()
    except sa.exc.DBAPIError as e:
        assert isinstance(e.orig, kind), e
        return e.orig
    raise AssertionError("no error")


@step("connect")
def _():
    with MAIN.connect() as conn:
        same(conn.execute(sa.text("SELECT 42")).scalar(), 42)
        same(conn.connection.driver_connection.info.ssl_in_use, True)
        assert conn.dialect.server_version_info >= (15,)
        same(conn.dialect.default_schema_name, "public")
    assert "certificate verify failed" in str(error(psycopg2.OperationalError, engine(sslrootcert=WRONG_ROOT).connect))
    assert "password authentication failed" in str(error(psycopg2.OperationalError, engine(password="wrong").connect))


@step("rows by key")
def _():
    Base.metadata.create_all(MAIN)
    Base.metadata.create_all(MAIN)  # looks, and does nothing
    with orm.Session(MAIN) as session:
        for k in range(BASE, BASE + 40):
            session.add(Order(customer_id=k, id=1, note=f"note {k}"))
            session.commit()  # a transaction has one shard
        for k in range(BASE, BASE + 40):
            same(session.get(Order, (k, 1)).note, f"note {k}")
            same(notes(session, k), [f"note {k}"])
            session.rollback()
        order = session.get(Order, (BASE, 1))
        order.note = "changed"
        session.commit()
        same(order.note, "changed")  # read again
        session.rollback()
        session.delete(session.get(Order, (BASE + 1, 1)))
        session.commit()
        same(session.get(Order, (BASE + 1, 1)), None)
        session.rollback()
        session.add(Thing(name="whole", parts=[Part(name="left"), Part(name="right")]))
        session.commit()
        thing = session.execute(sa.select(Thing).options(orm.selectinload(Thing.parts)).where(Thing.name == "whole")).scalar_one()
        same([p.name for p in thing.parts], ["left", "right"])
        same(session.execute(sa.select(sa.func.count()).select_from(Thing).join(Part)).scalar(), 2)
        thing.parts.pop()
        session.commit()
        same([p.name for p in thing.parts], ["left"])
        session.delete(thing)
        session.commit()

    # Reflection reads the catalogs.
    found = sa.MetaData()
    found.reflect(MAIN, only=["orders", THINGS, THINGS + "_parts"])
    same([c.name for c in found.tables["orders"].primary_key], ["customer_id", "id"])
    same([f.target_fullname for f in found.tables[THINGS + "_parts"].foreign_keys], [THINGS + ".id"])
    look = sa.inspect(MAIN)
    assert {"orders", THINGS} <= set(look.get_table_names()), look.get_table_names()
    same([i["column_names"] for i in look.get_indexes(THINGS)], [["name"]])
    same([str(c["type"]) for c in look.get_columns("orders")], ["BIGINT", "INTEGER", "TEXT", "BYTEA"])
    same(look.has_table("not_there"), False)


@step("transactions")
def _():
    k = BASE + 100
    with orm.Session(MAIN) as session:
        with session.begin():
            session.add(Order(customer_id=k, id=1, note="committed"))
            session.flush()
            same(notes(session, k), ["committed"])
        session.add(Order(customer_id=k, id=2, note="rolled back"))
        same(notes(session, k), ["committed", "rolled back"])
        session.rollback()
        same(notes(session, k), ["committed"])
        session.rollback()
        session.add(Order(customer_id=k, id=3, note="before the error"))
        session.flush()
        error(errors.DivisionByZero, lambda: session.execute(sa.select(1 / (Order.id - Order.id)).where(Order.customer_id == k)))
        error(errors.InFailedSqlTransaction, lambda: notes(session, k))
        session.rollback()
        same(notes(session, k), ["committed"])
        session.rollback()
        with session.begin():
            session.add(Order(customer_id=k, id=4, note="kept"))
            session.flush()

            def twice():
                with session.begin_nested():
                    session.execute(sa.insert(Order).values(customer_id=k, id=5, note="undone"))
                    session.execute(sa.insert(Order).values(customer_id=k, id=4, note="twice"))

            error(errors.UniqueViolation, twice)
            session.add(Order(customer_id=k, id=6, note="kept too"))
        same(notes(session, k), ["committed", "kept", "kept too"])
    serial = MAIN.execution_options(isolation_level="SERIALIZABLE")
    with serial.begin() as conn:
        same(conn.execute(sa.text("SHOW transaction_isolation")).scalar(), "serializable")
        same(notes(conn, k), ["committed", "kept", "kept too"])
    with MAIN.execution_options(isolation_level="AUTOCOMMIT").connect() as conn:
        same(notes(conn, k), ["committed", "kept", "kept too"])
        same(notes(conn, BASE + 2), [f"note {BASE + 2}"])


@step("a prepared statement")
def _():
    raw = MAIN.raw_connection()
    with raw.cursor() as cur:  # psycopg2 has no other way
        cur.execute("PREPARE by_key (bigint) AS SELECT note FROM orders WHERE customer_id = $1")
        raw.commit()
        for i in range(200):
            k = BASE + 2 + i % 38
            cur.execute("EXECUTE by_key (%s)", (k,))
            same(cur.fetchall(), [(f"note {k}",)])
            raw.commit()
        cur.execute("DEALLOCATE by_key")
        raw.commit()
    raw.close()


@step("many prepared statements")
def _():
    raw = MAIN.raw_connection()
    with raw.cursor() as cur:
        for i in range(30):
            cur.execute(f"PREPARE s{i} AS SELECT note || ' {i}' FROM orders WHERE customer_id = $1")
            raw.commit()
        for turn in range(3):
            for i in range(30):
                k = BASE + 2 + (i + turn) % 38
                cur.execute(f"EXECUTE s{i} (%s)", (k,))
                same(cur.fetchall(), [(f"note {k} {i}",)])
                raw.rollback()
        cur.execute("DEALLOCATE ALL")
        raw.commit()
    raw.close()


@step("batches")
def _():
    with orm.Session(MAIN) as session:
        things = [Thing(name=f"thing {i}") for i in range(500)]  # inserted with few statements, their ids returned
        session.add_all(things)
        session.commit()
        same(len({t.id for t in things}), 500)
        session.rollback()
        session.execute(sa.insert(Order), [{"customer_id": BASE + 200, "id": i, "note": "many"} for i in range(50)])
        session.commit()
        same(len(notes(session, BASE + 200)), 50)
        session.rollback()
        with session.begin():
            rows = session.execute(sa.select(Thing.name).order_by(Thing.id), execution_options={"yield_per": 70})  # a cursor of the server
            same([name for (name,) in rows], [f"thing {i}" for i in range(500)])


@step("copy in")
def _():
    raw = MAIN.raw_connection()
    with raw.cursor() as cur:
        cur.execute(f"TRUNCATE {THINGS} CASCADE")
        cur.copy_expert(f"COPY {THINGS} (id, name) FROM STDIN", io.StringIO("".join(copy_text(i) for i in range(2000))))
        same(cur.rowcount, 2000)
        raw.commit()
        try:
            cur.copy_expert(f"COPY {THINGS} (id, name) FROM STDIN", io.StringIO("3000\tfine\n1\ttwice\n"))
        except errors.UniqueViolation as e:
            same(e.diag.context, f"COPY {THINGS}, line 2")
        else:
            raise AssertionError("a second row 1")
        raw.rollback()
    raw.close()
    with orm.Session(MAIN) as session:
        same(session.query(Thing).count(), 2000)


@step("copy out")
def _():
    raw, out = MAIN.raw_connection(), io.StringIO()
    with raw.cursor() as cur:
        cur.copy_expert(f"COPY (SELECT id, name FROM {THINGS} ORDER BY id) TO STDOUT", out)
    raw.close()
    same(out.getvalue(), "".join(copy_text(i) for i in range(2000)))
    with orm.Session(MAIN) as session:
        same(session.execute(sa.select(Thing.name).order_by(Thing.id)).scalars().all(), [awkward(i) for i in range(2000)])


def cancelled(eng):
    """Cancels a statement that runs, and shows that the session lives on."""
    slow, caught = f"SELECT pg_sleep(60) FROM one -- {NAME}", []
    raw = eng.raw_connection()
    with raw.cursor() as cur:

        def run():
            try:
                cur.execute(slow)
            except BaseException as e:
                caught.append(e)

        thread = threading.Thread(target=run)
        thread.start()
        with MAIN.execution_options(isolation_level="AUTOCOMMIT").connect() as other:  # a transaction would see one snapshot of running
            until(lambda: other.execute(sa.text("SELECT count(*) FROM running WHERE query = :q"), {"q": slow}).scalar() == 1)
        raw.cancel()
        thread.join(20)
        assert caught and isinstance(caught[0], errors.QueryCanceled), caught
        raw.rollback()
        cur.execute("SELECT note FROM orders WHERE customer_id = %s", (BASE + 2,))
        same(cur.fetchall(), [(f"note {BASE + 2}",)])
    raw.close()


@step("cancel")
def _():
    cancelled(engine())


@step("cancel through another node")
def _():
    eng = engine(BALANCER_PORT)
    cancelled(eng)


@step("listen")
def _():
    pooled = MAIN.raw_connection()
    raw = pooled.driver_connection
    pooled.detach()
    raw.autocommit = True
    raw.cursor().execute(f"LISTEN {NAME}")
    with MAIN.begin() as conn:
        conn.execute(sa.text(f"NOTIFY {NAME}, 'hello é'"))
    while not raw.notifies:
        assert select.select([raw], [], [], 20)[0], "no notification"
        raw.poll()
    same((raw.notifies[0].channel, raw.notifies[0].payload), (NAME, "hello é"))
    raw.close()


@step("errors")
def _():
    with MAIN.execution_options(isolation_level="AUTOCOMMIT").connect() as conn:
        e = error(errors.UniqueViolation, lambda: conn.execute(sa.insert(Order).values(customer_id=BASE + 2, id=1)))
        same((e.pgcode, e.diag.constraint_name, e.diag.message_detail), ("23505", "orders_pkey", f"Key (customer_id, id)=({BASE + 2}, 1) already exists."))
        e = error(errors.SyntaxError, lambda: conn.execute(sa.text("SELCT 1")))
        same((e.diag.message_primary, e.diag.statement_position), ('syntax error at or near "SELCT"', "1"))
        e = error(errors.FeatureNotSupported, lambda: conn.execute(sa.update(Order).values(note="all").where(Order.id == 0)))
        assert "customer_id" in e.diag.message_hint, e.diag.message_hint


@step("settings")
def _():
    eng, other = engine(options="-c statement_timeout=12345"), engine()
    settings = "SELECT current_setting('search_path'), current_setting('TimeZone') FROM orders WHERE customer_id = :k"
    with eng.connect() as conn, other.connect() as beside:
        same(conn.execute(sa.text("SHOW statement_timeout")).scalar(), "12345ms")
        conn.execute(sa.text(f"CREATE SCHEMA {NAME}_schema CREATE TABLE mine (v text)"))
        conn.commit()
        conn.execute(sa.text(f"SET search_path = {NAME}_schema, public"))
        conn.execute(sa.text("SET TIME ZONE 'Asia/Tokyo'"))
        conn.commit()
        conn.execute(sa.text("INSERT INTO mine VALUES ('seen')"))
        conn.commit()
        for k in range(BASE + 2, BASE + 12):
            same(tuple(conn.execute(sa.text(settings), {"k": k}).one()), (f"{NAME}_schema, public", "Asia/Tokyo"))
            same(tuple(beside.execute(sa.text(settings), {"k": k}).one()), ('"$user", public', "UTC"))
            conn.commit()
            beside.commit()
        same(conn.execute(sa.text("SELECT v FROM mine")).scalar(), "seen")
        conn.execute(sa.text("SET TIME ZONE 'Europe/Paris'"))
        conn.rollback()  # takes the setting back
        same(conn.execute(sa.text("SHOW TimeZone")).scalar(), "Asia/Tokyo")


@step("large values")
def _():
    text, blob = "é" * (1 << 19), os.urandom(1 << 20)
    with orm.Session(MAIN) as session:
        for k in (BASE + 300, BASE + 301, BASE + 302):
            session.add(Order(customer_id=k, id=1, note=text, data=blob))
            session.commit()
            order = session.get(Order, (k, 1), populate_existing=True)
            same((order.note, order.data), (text, blob))
            session.rollback()


@step("eight connections")
def _():
    wrong, eng = [], engine(pool_size=8)

    def work(n):
        try:
            for k in range(BASE + 1000 + n * 100, BASE + 1025 + n * 100):
                with orm.Session(eng) as session:
                    session.add(Order(customer_id=k, id=1, note=f"note {k}"))
                    session.commit()
                    same(notes(session, k), [f"note {k}"])
        except BaseException as e:
            wrong.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    same(wrong, [])
    Base.metadata.drop_all(eng, tables=[Part.__table__])
    same(sa.inspect(eng).has_table(THINGS + "_parts"), False)


finish()
