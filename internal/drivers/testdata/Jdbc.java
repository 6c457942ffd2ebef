import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.Properties;
import java.util.Random;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

/** PostgreSQL's JDBC driver. Runs as it stands: java -cp postgresql.jar Jdbc.java */
public class Jdbc {
    static final long BASE = Long.parseLong(System.getenv("BASE")); // the first key of this driver's own
    static final String NAME = System.getenv("NAME");
    static final String THINGS = "things_" + NAME; // this driver's own table, on one shard
    static final String PORT = System.getenv("PGPORT");
    static final String INSERT = "INSERT INTO orders (customer_id, id, note) VALUES (?, ?, ?)";
    static final String BY_KEY = "SELECT note FROM orders WHERE customer_id = ? ORDER BY id";

    interface Step { void run() throws Exception; }

    static final List<String> failed = new ArrayList<>();

    /** Runs a step and says how it went. The steps after a failed one are tried too. */
    static void step(String name, Step s) {
        try {
            s.run();
            System.out.println("ok " + name);
        } catch (Throwable e) {
            failed.add(name);
            System.out.println("FAILED " + name);
            e.printStackTrace(System.out);
        }
    }

    static void same(Object got, Object want) {
        if (!Objects.deepEquals(got, want)) {
            throw new AssertionError("got " + text(got) + ", want " + text(want));
        }
    }

    static String text(Object o) {
        String s = o instanceof byte[] b ? Arrays.toString(b) : String.valueOf(o);
        return s.length() > 500 ? s.substring(0, 500) + "..." : s;
    }

    /** What the step is refused with. */
    static SQLException error(Step s) throws Exception {
        try {
            s.run();
        } catch (SQLException e) {
            return e;
        }
        throw new AssertionError("no error");
    }

    static Connection connect(String port, String... options) throws SQLException {
        Properties p = new Properties();
        p.setProperty("user", System.getenv("PGUSER"));
        p.setProperty("password", System.getenv("PGPASSWORD"));
        p.setProperty("sslmode", "verify-full");
        p.setProperty("sslrootcert", System.getenv("PGSSLROOTCERT"));
        p.setProperty("ApplicationName", NAME);
        p.setProperty("connectTimeout", "20");
        for (int i = 0; i < options.length; i += 2) {
            p.setProperty(options[i], options[i + 1]);
        }
        return DriverManager.getConnection("jdbc:postgresql://127.0.0.1:" + port + "/" + System.getenv("PGDATABASE"), p);
    }

    static Connection connect() throws SQLException { return connect(PORT); }

    /** The first column of all rows. */
    static List<Object> query(Connection c, String sql, Object... args) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            return query(s, args);
        }
    }

    static List<Object> query(PreparedStatement s, Object... args) throws SQLException {
        for (int i = 0; i < args.length; i++) {
            s.setObject(i + 1, args[i]);
        }
        List<Object> got = new ArrayList<>();
        try (ResultSet r = s.executeQuery()) {
            while (r.next()) {
                got.add(r.getObject(1));
            }
        }
        return got;
    }

    static int update(Connection c, String sql, Object... args) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < args.length; i++) {
                s.setObject(i + 1, args[i]);
            }
            return s.executeUpdate();
        }
    }

    static List<Object> notes(Connection c, long k) throws SQLException { return query(c, BY_KEY, k); }

    /** A text with whatever COPY's text format has to escape; null now and then. */
    static String awkward(int i) {
        return i % 10 == 9 ? null : i + "\ttab \\ back\\nslash \\. \r return \n line 'quote' \"double\", é 東 \uD83D\uDE00";
    }

    static String copyText(int i) {
        String s = awkward(i);
        return i + "\t" + (s == null ? "\\N" : s.replace("\\", "\\\\").replace("\t", "\\t").replace("\r", "\\r").replace("\n", "\\n")) + "\n";
    }

    public static void main(String[] args) {
        step("connect", Jdbc::connects);
        step("rows by key", Jdbc::rows);
        step("transactions", Jdbc::transactions);
        step("a prepared statement", Jdbc::prepared);
        step("many prepared statements", Jdbc::manyPrepared);
        step("batches", Jdbc::batches);
        step("copy in", Jdbc::copyIn);
        step("copy out", Jdbc::copyOut);
        step("cancel", () -> cancel(PORT));
        step("cancel through another node", () -> cancel(System.getenv("BALANCER_PORT")));
        step("listen", Jdbc::listen);
        step("errors", Jdbc::errors);
        step("binary results", Jdbc::binary);
        step("types of one's own", Jdbc::ownTypes);
        step("settings", Jdbc::settings);
        step("large values", Jdbc::large);
        step("eight connections", Jdbc::eight);
        System.exit(failed.isEmpty() ? 0 : 1);
    }

    static void connects() throws Exception {
        try (Connection c = connect()) {
            same(query(c, "SELECT 42"), List.of(42));
            same(c.isValid(5), true);
            if (c.getMetaData().getDatabaseMajorVersion() < 15) {
                throw new AssertionError(c.getMetaData().getDatabaseProductVersion());
            }
        }
        Exception e = error(() -> connect(PORT, "sslrootcert", System.getenv("WRONG_ROOT")).close());
        if (!String.valueOf(e.getCause()).contains("PKIX")) {
            throw e;
        }
        same(error(() -> connect(PORT, "password", "wrong").close()).getSQLState(), "28P01");
    }

    static void rows() throws Exception {
        try (Connection c = connect(); Connection simple = connect(PORT, "preferQueryMode", "simple")) {
            update(c, "CREATE TABLE " + THINGS + " (id int PRIMARY KEY, name text)");
            for (long k = BASE; k < BASE + 40; k++) {
                same(update(c, INSERT, k, 1, "note " + k), 1);
            }
            for (long k = BASE; k < BASE + 40; k++) {
                same(notes(c, k), List.of("note " + k));
                same(notes(simple, k), List.of("note " + k));
                same(query(c, "SELECT note FROM orders WHERE customer_id = " + k), List.of("note " + k));
            }
            same(query(c, "UPDATE orders SET note = 'changed' WHERE customer_id = ? RETURNING id", BASE), List.of(1));
            same(update(c, "DELETE FROM orders WHERE customer_id = ?", BASE + 1), 1);
            same(notes(c, BASE), List.of("changed"));
            same(notes(c, BASE + 1), List.of());
        }
    }

    static void transactions() throws Exception {
        long k = BASE + 100;
        try (Connection c = connect()) {
            c.setAutoCommit(false);
            update(c, INSERT, k, 1, "committed");
            same(notes(c, k), List.of("committed"));
            c.commit();
            update(c, INSERT, k, 2, "rolled back");
            same(notes(c, k), List.of("committed", "rolled back"));
            c.rollback();
            same(notes(c, k), List.of("committed"));
            c.rollback();
            c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            update(c, INSERT, k, 3, "before the error");
            same(error(() -> query(c, "SELECT 1 / (customer_id - customer_id) FROM orders WHERE customer_id = ?", k)).getSQLState(), "22012");
            same(error(() -> notes(c, k)).getSQLState(), "25P02");
            c.rollback();
            c.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
            update(c, INSERT, k, 4, "kept");
            Savepoint sp = c.setSavepoint("sp");
            update(c, INSERT, k, 5, "undone");
            same(error(() -> update(c, INSERT, k, 4, "twice")).getSQLState(), "23505");
            c.rollback(sp);
            update(c, INSERT, k, 6, "kept too");
            c.releaseSavepoint(sp);
            c.commit();
            c.setReadOnly(true);
            same(notes(c, k), List.of("committed", "kept", "kept too"));
            same(error(() -> update(c, INSERT, k, 7, "read only")).getSQLState(), "25006");
            c.rollback();
            c.setReadOnly(false);
            c.setAutoCommit(true);
            same(notes(c, k), List.of("committed", "kept", "kept too"));
        }
    }

    /** The driver gives a statement a name at its fifth execution, or at once if it is told so. */
    static void prepared() throws Exception {
        for (String threshold : List.of("5", "1", "-1")) {
            try (Connection c = connect(PORT, "prepareThreshold", threshold); PreparedStatement s = c.prepareStatement(BY_KEY)) {
                for (int i = 0; i < 200; i++) {
                    long k = BASE + 2 + i % 38;
                    same(query(s, k), List.of("note " + k));
                }
            }
        }
    }

    static void manyPrepared() throws Exception {
        // With a cache of 20 the driver closes the oldest of 30 again and again.
        for (String cache : List.of("256", "20")) {
            try (Connection c = connect(PORT, "prepareThreshold", "1", "preparedStatementCacheQueries", cache)) {
                for (int turn = 0; turn < 3; turn++) {
                    for (int i = 0; i < 30; i++) {
                        long k = BASE + 2 + (i + turn) % 38;
                        same(query(c, "SELECT note || ' " + i + "' FROM orders WHERE customer_id = ?", k), List.of("note " + k + " " + i));
                    }
                }
            }
        }
        // Eight connections with server-prepared statements of the same text, through few server connections.
        List<Connection> all = new ArrayList<>();
        try {
            for (int i = 0; i < 8; i++) {
                all.add(connect(PORT, "prepareThreshold", "1"));
            }
            for (int turn = 0; turn < 20; turn++) {
                for (Connection c : all) {
                    same(notes(c, BASE + 2 + turn), List.of("note " + (BASE + 2 + turn)));
                }
            }
            // The columns change under the prepared statements: the driver prepares anew when it is told to.
            String star = "SELECT * FROM " + NAME + "_columns";
            update(all.get(0), "CREATE TABLE " + NAME + "_columns AS SELECT 1 AS a");
            for (int turn = 0; turn < 2; turn++) {
                for (Connection c : all) {
                    same(query(c, star), List.of(1));
                }
            }
            update(all.get(0), "ALTER TABLE " + NAME + "_columns ADD b int");
            for (Connection c : all) {
                c.unwrap(org.postgresql.jdbc.PgConnection.class).setAutosave(org.postgresql.jdbc.AutoSave.ALWAYS);
                same(query(c, star), List.of(1));
            }
        } finally {
            for (Connection c : all) {
                c.close();
            }
        }
    }

    static void batches() throws Exception {
        for (String rewrite : List.of("false", "true")) {
            try (Connection c = connect(PORT, "reWriteBatchedInserts", rewrite)) {
                update(c, "TRUNCATE " + THINGS);
                try (PreparedStatement s = c.prepareStatement("INSERT INTO " + THINGS + " VALUES (?, ?)")) {
                    for (int i = 0; i < 1000; i++) {
                        s.setInt(1, i);
                        s.setString(2, "thing " + i);
                        s.addBatch();
                    }
                    same(s.executeBatch().length, 1000);
                }
                same(query(c, "SELECT count(*) FROM " + THINGS), List.of(1000L));
                try (PreparedStatement s = c.prepareStatement(INSERT)) { // rows of one key; keys of two shards do not fit into one batch
                    for (int i = 0; i < 100; i++) {
                        s.setLong(1, BASE + (rewrite.equals("true") ? 200 : 201));
                        s.setInt(2, i);
                        s.setString(3, "many");
                        s.addBatch();
                    }
                    same(s.executeBatch().length, 100);
                }
                same(notes(c, BASE + (rewrite.equals("true") ? 200 : 201)).size(), 100);
                try (Statement s = c.createStatement()) {
                    s.addBatch("UPDATE " + THINGS + " SET name = 'first' WHERE id = 1");
                    s.addBatch("INSERT INTO " + THINGS + " VALUES (1, 'twice')");
                    s.addBatch("UPDATE " + THINGS + " SET name = 'third' WHERE id = 1");
                    BatchUpdateException e = (BatchUpdateException) error(s::executeBatch);
                    same(e.getSQLState(), "23505");
                }
                same(query(c, "SELECT name FROM " + THINGS + " WHERE id = 1"), List.of("thing 1"));
                // A portal that stays open between requests: 70 rows at a time.
                c.setAutoCommit(false);
                try (PreparedStatement s = c.prepareStatement("SELECT id FROM " + THINGS + " ORDER BY id")) {
                    s.setFetchSize(70);
                    List<Object> want = new ArrayList<>();
                    for (int i = 0; i < 1000; i++) {
                        want.add(i);
                    }
                    same(query(s), want);
                }
                c.commit();
            }
        }
    }

    static void copyIn() throws Exception {
        try (Connection c = connect()) {
            update(c, "TRUNCATE " + THINGS);
            StringBuilder all = new StringBuilder();
            for (int i = 0; i < 2000; i++) {
                all.append(copyText(i));
            }
            var copy = c.unwrap(PGConnection.class).getCopyAPI();
            String in = "COPY " + THINGS + " (id, name) FROM STDIN";
            same(copy.copyIn(in, new StringReader(all.toString())), 2000L);
            PSQLException e = (PSQLException) error(() -> copy.copyIn(in, new StringReader("3000\tfine\n1\ttwice\n")));
            same(e.getSQLState(), "23505");
            same(e.getServerErrorMessage().getWhere(), "COPY " + THINGS + ", line 2");
            var given = copy.copyIn(in);
            byte[] row = "3001\tgiven up\n".getBytes();
            given.writeToCopy(row, 0, row.length);
            given.cancelCopy();
            same(query(c, "SELECT count(*) FROM " + THINGS), List.of(2000L));
        }
    }

    static void copyOut() throws Exception {
        try (Connection c = connect()) {
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            StringBuilder want = new StringBuilder();
            for (int i = 0; i < 2000; i++) {
                want.append(copyText(i));
            }
            same(c.unwrap(PGConnection.class).getCopyAPI().copyOut("COPY (SELECT id, name FROM " + THINGS + " ORDER BY id) TO STDOUT", out), 2000L);
            same(out.toString("UTF-8"), want.toString());
            List<Object> names = query(c, "SELECT name FROM " + THINGS + " ORDER BY id");
            for (int i = 0; i < 2000; i++) {
                same(names.get(i), awkward(i));
            }
        }
    }

    /** Cancels a statement that runs, and shows that the session lives on. */
    static void cancel(String port) throws Exception {
        String slow = "SELECT pg_sleep(60) FROM one -- " + NAME;
        try (Connection c = connect(port); Connection other = connect(); Statement s = c.createStatement()) {
            CompletableFuture<SQLException> ended = CompletableFuture.supplyAsync(() -> {
                try {
                    return error(() -> s.executeQuery(slow));
                } catch (Exception e) {
                    throw new RuntimeException(e);
                }
            });
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
            while (!query(other, "SELECT count(*) FROM running WHERE query = ?", slow).equals(List.of(1L))) {
                if (System.nanoTime() > deadline) {
                    throw new AssertionError("it does not run");
                }
                Thread.sleep(20);
            }
            s.cancel();
            SQLException e = ended.get(20, TimeUnit.SECONDS);
            same(e.getSQLState(), "57014");
            same(notes(c, BASE + 2), List.of("note " + (BASE + 2)));
        }
        try (Connection c = connect(port); Statement s = c.createStatement()) {
            s.setQueryTimeout(1); // the driver's timer sends a cancel request
            same(error(() -> s.executeQuery(slow)).getSQLState(), "57014");
            same(notes(c, BASE + 2), List.of("note " + (BASE + 2)));
        }
    }

    static void listen() throws Exception {
        try (Connection c = connect(); Connection other = connect()) {
            update(c, "LISTEN " + NAME);
            update(other, "NOTIFY " + NAME + ", 'hello é'");
            PGNotification[] got = c.unwrap(PGConnection.class).getNotifications(20000);
            same(got.length, 1);
            same(got[0].getName() + " " + got[0].getParameter(), NAME + " hello é");
            update(c, "UNLISTEN " + NAME);
        }
    }

    static void errors() throws Exception {
        try (Connection c = connect()) {
            SQLException e = error(() -> update(c, INSERT, BASE + 2, 1, ""));
            ServerErrorMessage m = ((PSQLException) e).getServerErrorMessage();
            same(List.of(e.getSQLState(), m.getConstraint(), m.getTable(), m.getDetail()),
                List.of("23505", "orders_pkey", "orders", "Key (customer_id, id)=(" + (BASE + 2) + ", 1) already exists."));
            m = ((PSQLException) error(() -> query(c, "SELCT 1"))).getServerErrorMessage();
            same(List.of(m.getSQLState(), m.getMessage(), m.getPosition()), List.of("42601", "syntax error at or near \"SELCT\"", 1));
            m = ((PSQLException) error(() -> query(c, "SELECT nothing FROM one WHERE n = ?", 1))).getServerErrorMessage();
            same(List.of(m.getSQLState(), m.getPosition()), List.of("42703", 8));
            m = ((PSQLException) error(() -> update(c, "UPDATE orders SET note = 'all' WHERE id = 0"))).getServerErrorMessage();
            same(m.getSQLState(), "0A000");
            same(m.getHint().contains("customer_id"), true);
            try (Statement s = c.createStatement()) {
                s.execute("DROP TABLE IF EXISTS not_there");
                same(s.getWarnings().getMessage(), "table \"not_there\" does not exist, skipping");
            }
        }
    }

    static void ownTypes() throws Exception {
        for (String threshold : List.of("-1", "5")) {
            long first = BASE + 400 + (threshold.equals("5") ? 100 : 0);
            for (boolean block : new boolean[] {false, true}) {
                try (Connection c = connect(PORT, "prepareThreshold", threshold)) {
                    c.setAutoCommit(true);
                    for (long k = first; k < first + 10 && !block; k++) {
                        try (PreparedStatement s = c.prepareStatement("INSERT INTO felt (customer_id, id, m, l, p) VALUES (?, 1, ?, ?, ?::feeling)")) {
                            s.setLong(1, k);
                            s.setObject(2, "happy", Types.OTHER);
                            s.setArray(3, c.createArrayOf("mood", new String[] {"sad", "happy"}));
                            s.setString(4, "(ok,7)");
                            same(s.executeUpdate(), 1);
                        }
                    }
                    try (PreparedStatement s = c.prepareStatement("SELECT m, l, p FROM felt WHERE customer_id = ? AND l = ?")) {
                        for (long k = first; k < first + 10; k++) {
                            if (block) {
                                c.setAutoCommit(false);
                                update(c, "UPDATE felt SET id = id WHERE customer_id = " + k);
                            }
                            s.setLong(1, k);
                            s.setArray(2, c.createArrayOf("mood", new String[] {"sad", "happy"}));
                            try (ResultSet r = s.executeQuery()) {
                                ResultSetMetaData of = r.getMetaData();
                                same(List.of(of.getColumnTypeName(1), of.getColumnTypeName(2), of.getColumnTypeName(3)), List.of("mood", "_mood", "feeling"));
                                same(of.isNullable(1), ResultSetMetaData.columnNullable);
                                same(r.next(), true);
                                same(r.getString(1), "happy");
                                same(List.of((Object[]) r.getArray(2).getArray()), List.of("sad", "happy"));
                                same(r.getObject(3).toString(), "(ok,7)");
                            }
                            if (block) {
                                c.commit();
                            }
                        }
                    }
                }
            }
        }
    }

    static void binary() throws Exception {
        OffsetDateTime at = OffsetDateTime.parse("2024-02-29T12:00:00Z");
        UUID id = UUID.fromString("00000000-0000-0000-0000-000000000007");
        for (String binary : List.of("true", "false")) {
            try (Connection c = connect(PORT, "binaryTransfer", binary, "prepareThreshold", "-1");
                PreparedStatement s = c.prepareStatement("SELECT customer_id, 1.5::float8, 12.34::numeric, true, ?::timestamptz, ?::uuid, ?::int[], ?::bytea, NULL FROM orders WHERE customer_id = ?")) {
                for (int i = 0; i < 8; i++) {
                    s.setObject(1, at);
                    s.setObject(2, id);
                    s.setArray(3, c.createArrayOf("int4", new Integer[] {1, 2, 3}));
                    s.setBytes(4, new byte[] {0, -1});
                    s.setLong(5, BASE + 2);
                    try (ResultSet r = s.executeQuery()) {
                        same(r.next(), true);
                        same(r.getLong(1), BASE + 2);
                        same(r.getDouble(2), 1.5);
                        same(r.getBigDecimal(3), new BigDecimal("12.34"));
                        same(r.getBoolean(4), true);
                        same(r.getObject(5, OffsetDateTime.class).toInstant(), at.toInstant());
                        same(r.getObject(6), id);
                        same(r.getArray(7).getArray(), new Integer[] {1, 2, 3});
                        same(r.getBytes(8), new byte[] {0, -1});
                        same(r.getObject(9), null);
                        same(r.next(), false);
                    }
                }
            }
        }
    }

    static void settings() throws Exception {
        try (Connection c = connect(PORT, "options", "-c statement_timeout=12345"); Connection other = connect()) {
            same(query(c, "SHOW statement_timeout"), List.of("12345ms"));
            update(c, "CREATE SCHEMA " + NAME + "_schema CREATE TABLE mine (v text)");
            update(c, "SET search_path = " + NAME + "_schema, public");
            update(c, "SET TIME ZONE 'Asia/Tokyo'");
            update(c, "INSERT INTO mine VALUES ('seen')");
            String settings = "SELECT current_setting('search_path') || ' ' || current_setting('TimeZone') FROM orders WHERE customer_id = ?";
            List<Object> others = query(other, settings, BASE + 2); // the driver's own time zone
            for (long k = BASE + 2; k < BASE + 12; k++) {
                same(query(c, settings, k), List.of(NAME + "_schema, public Asia/Tokyo"));
                same(query(other, settings, k), others);
            }
            same(others.get(0).toString().startsWith("\"$user\", public "), true);
            same(query(c, "SELECT v FROM mine"), List.of("seen"));
            same(c.unwrap(PGConnection.class).getParameterStatus("TimeZone"), "Asia/Tokyo");
            c.setAutoCommit(false);
            update(c, "SET LOCAL TIME ZONE 'Europe/Paris'");
            same(query(c, "SHOW TimeZone"), List.of("Europe/Paris"));
            c.commit();
            same(query(c, "SHOW TimeZone"), List.of("Asia/Tokyo"));
            c.commit();
            c.setAutoCommit(true);
            c.setSchema("public");
            same(c.getSchema(), "public");
            update(c, "RESET ALL");
            same(query(c, "SHOW search_path"), List.of("\"$user\", public"));
        }
    }

    static void large() throws Exception {
        String text = "é".repeat(1 << 19);
        byte[] data = new byte[1 << 20];
        new Random(1).nextBytes(data);
        try (Connection c = connect(); Connection binary = connect(PORT, "prepareThreshold", "-1")) {
            for (long k = BASE + 300; k < BASE + 303; k++) {
                same(update(c, "INSERT INTO orders (customer_id, id, note, data) VALUES (?, 1, ?, ?)", k, text, data), 1);
                for (Connection each : List.of(c, binary)) {
                    same(notes(each, k), List.of(text));
                    same(query(each, "SELECT data FROM orders WHERE customer_id = ?", k).get(0), data);
                }
            }
        }
    }

    static void eight() throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(8);
        List<Future<?>> all = new ArrayList<>();
        for (int n = 0; n < 8; n++) {
            long from = BASE + 1000 + n * 100;
            all.add(threads.submit((Callable<Void>) () -> {
                try (Connection c = connect(PORT, "prepareThreshold", "1")) {
                    for (long k = from; k < from + 25; k++) {
                        update(c, INSERT, k, 1, "note " + k);
                        same(notes(c, k), List.of("note " + k));
                    }
                }
                return null;
            }));
        }
        for (Future<?> f : all) {
            f.get(60, TimeUnit.SECONDS);
        }
        threads.shutdown();
    }
}
