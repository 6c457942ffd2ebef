package wire_test

// undoneStories are of what is taken back: by a ROLLBACK, by an error, or by a statement that takes all away, while what stands behind
// it has been sent already.
func undoneStories() []story {
	one := extended("SELECT 1")
	set, back := "SET work_mem = '15MB'", "ROLLBACK"
	failed := []step{{simple("BEGIN"), "Z"}, {simple("SELECT 1/0 FROM notes"), "Z"}}
	show := []step{{simple("SHOW work_mem"), "Z"}, {simple("SHOW DateStyle"), "Z"}, {simple("SELECT date '2020-02-01'"), "Z"}}
	return []story{
		{name: "settings before a ROLLBACK without a block", steps: each(
			set+"; ROLLBACK", "SHOW work_mem", set+"; ABORT; SET DateStyle = 'German'", "SHOW work_mem", "SHOW DateStyle", "SET DateStyle = 'SQL'; COMMIT; "+set+"; ROLLBACK", "SHOW work_mem", "SHOW DateStyle",
			set+"; BEGIN; ROLLBACK", "SHOW work_mem", "RESET DateStyle; "+set, "SHOW work_mem")},
		{name: "settings before a ROLLBACK in a pipeline", steps: []step{
			{msg(extended(set), extended(back), syncs()), "Z"}, {simple("SHOW work_mem"), "Z"}, {msg(extended("SET DateStyle = 'German'"), extended(set), extended("ABORT"), extended("SET DateStyle = 'SQL'"), one, syncs()), "Z"}, show[0], show[1], show[2],
			{msg(extended(set), extended("COMMIT"), extended("RESET DateStyle"), extended(back), syncs()), "Z"}, show[0], show[1], show[2],
		}},
		{name: "what is reported of a COMMIT without a block, and an error behind it", steps: []step{
			{msg(extended("SET TimeZone = 'Asia/Kolkata'"), extended("COMMIT"), extended("SELECT 1/0"), syncs()), "Z"}, {simple("SHOW TimeZone"), "Z"}, {msg(extended("SET LOCAL work_mem = '9MB'"), syncs()), "Z"},
			{msg(extended("SELECT set_config('TimeZone', 'Asia/Seoul', false)"), extended("SET datestyle = 'SQL, DMY'"), extended("COMMIT"), extended("SELECT 1/0"), syncs()), "Z"}, {simple("SHOW TimeZone"), "Z"}, {simple("SHOW datestyle"), "Z"},
			{msg(extended("SET TimeZone = 'UTC'"), extended("SET search_path = public, pg_catalog"), extended("COMMIT"), extended("SELECT 1/0"), syncs()), "Z"}, {simple("SHOW TimeZone"), "Z"},
			{msg(extended("SET TimeZone = 'Asia/Kolkata'"), extended("SET search_path = public"), extended("BEGIN"), extended("ROLLBACK"), syncs()), "Z"}, {simple("SHOW TimeZone"), "Z"},
			{msg(extended("SET TimeZone = 'Asia/Tokyo'"), extended("SET search_path = public"), extended("SELECT 1/0"), syncs()), "Z"}, {simple("SHOW TimeZone"), "Z"},
		}},
		{name: "BEGIN within a block", steps: each("BEGIN", "BEGIN READ ONLY", "INSERT INTO notes VALUES (880)", "COMMIT", "BEGIN", "START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY", "SHOW transaction_isolation", "SHOW transaction_read_only", "SELECT count(*) FROM notes WHERE id = 880", "COMMIT",
			"BEGIN READ ONLY", "BEGIN READ WRITE", "INSERT INTO notes VALUES (881)", "ROLLBACK", "BEGIN", "SAVEPOINT a", "BEGIN READ ONLY", "ROLLBACK TO a", "INSERT INTO notes VALUES (882)", "ROLLBACK",
			"BEGIN", "BEGIN", "SELECT 1", "COMMIT", "BEGIN", "SELECT count(*) FROM notes WHERE id = 880", "BEGIN READ ONLY", "INSERT INTO notes VALUES (883)", "BEGIN", "ROLLBACK", "BEGIN", "SELECT 1 FROM notes WHERE id = 880", "BEGIN ISOLATION LEVEL SERIALIZABLE", "ROLLBACK", "BEGIN; BEGIN READ ONLY; INSERT INTO notes VALUES (884)", "ROLLBACK")},
		{name: "BEGIN within a block, extended", steps: eachExtended("BEGIN", "BEGIN READ ONLY", "INSERT INTO notes VALUES (885)", "COMMIT", "BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "SHOW transaction_isolation", "COMMIT", "SHOW transaction_isolation")},
		{name: "what a transaction is to be said too late", steps: each("BEGIN", "SELECT 1", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "ROLLBACK", "BEGIN", "SELECT 1", "SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "SHOW transaction_isolation", "COMMIT",
			"BEGIN", "SHOW work_mem", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SHOW transaction_isolation", "ROLLBACK", "BEGIN", "SAVEPOINT a", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT 1", "ROLLBACK TO a", "SELECT 2", "ROLLBACK",
			"BEGIN READ ONLY", "SELECT 1", "SET TRANSACTION READ WRITE", "ROLLBACK", "BEGIN READ ONLY", "SAVEPOINT a", "SET TRANSACTION READ WRITE", "ROLLBACK", "BEGIN", "SELECT 1", "SET TRANSACTION READ ONLY", "INSERT INTO notes VALUES (886)", "ROLLBACK",
			"BEGIN", "SELECT 1", "SET TRANSACTION DEFERRABLE", "ROLLBACK", "BEGIN", "SAVEPOINT a", "SET transaction_deferrable = off", "ROLLBACK", "BEGIN", "SAVEPOINT a", "SELECT 1", "SET transaction_isolation = 'serializable'", "ROLLBACK", "BEGIN", "SELECT 1", "BEGIN ISOLATION LEVEL SERIALIZABLE", "ROLLBACK",
			"SET default_transaction_isolation = 'serializable'", "BEGIN", "SELECT 1", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "ROLLBACK", "BEGIN ISOLATION LEVEL SERIALIZABLE", "SELECT 1", "COMMIT AND CHAIN", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SHOW transaction_isolation", "COMMIT")},
		{name: "what a transaction is to be said behind what it has set", steps: isolated(each)},
		{name: "what a transaction is to be said behind what it has set, extended", steps: isolated(eachExtended)},
		{name: "what a transaction is to be said too late, extended", steps: eachExtended("BEGIN", "SELECT 1", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "ROLLBACK", "BEGIN", "SAVEPOINT a", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "ROLLBACK TO a", "SELECT 2", "ROLLBACK")},
		{name: "a pipeline goes on behind the end of a failed block", steps: append(append(append(append(failed[:2:2],
			step{msg(extended("ABORT"), extended("SET DateStyle = 'German'"), one, syncs()), "Z"}), show...), append(failed[:2:2],
			step{msg(extended("COMMIT"), extended("SELECT count(*) FROM notes"), extended("SET DateStyle = 'SQL'"), extended("SELECT 1/0"), one, syncs()), "Z"})...), append(append(show[:3:3], failed...),
			step{msg(extended("END"), extended("BEGIN"), extended("SET work_mem = '14MB'"), one, syncs()), "Z"}, step{simple("SHOW work_mem"), "Z"}, step{simple("ROLLBACK"), "Z"}, show[0], failed[0], failed[1],
			step{msg(extended("SELECT 2"), extended("ROLLBACK"), one, syncs()), "Z"}, step{msg(extended("ROLLBACK AND CHAIN"), one, syncs()), "Z"}, step{simple("COMMIT"), "Z"}, step{simple("SELECT 3"), "Z"})...)},
		{name: "a text goes on behind the end of a failed block", steps: behind(failed, "ROLLBACK; SELECT 1", "COMMIT; SELECT count(*) FROM notes", "ABORT; BEGIN; SELECT 1", "END; BEGIN; SET LOCAL work_mem = '14MB'; SHOW work_mem", "ROLLBACK; SELECT 1/0; SELECT 2",
			"ROLLBACK; INSERT INTO notes VALUES (890); SELECT 1/0", "ROLLBACK; INSERT INTO notes VALUES (891)", "ROLLBACK AND CHAIN; SELECT 1", "COMMIT AND CHAIN; SELECT 1/0", "SELECT 1; ROLLBACK; SELECT 2", "ROLLBACK; ROLLBACK", "ROLLBACK; "+set, "ROLLBACK; BEGIN; "+set+"; ROLLBACK; SHOW work_mem",
			"ROLLBACK; SELEC 1", "SELEC 1; ROLLBACK", "ROLLBACK; SELECT no_such_column FROM notes; SELECT 1", ";ROLLBACK", "ROLLBACK;;", "/* x */ ROLLBACK; /* y */ SELECT 3", "SAVEPOINT a; ROLLBACK", "ROLLBACK; SAVEPOINT a", "ROLLBACK TO a; SELECT 1", "ROLLBACK; BEGIN; SAVEPOINT a; SELECT 1/0; ROLLBACK TO a",
			"BEGIN; ROLLBACK", "ROLLBACK; PREPARE p AS SELECT 7; EXECUTE p", "ROLLBACK; RESET ALL", "ROLLBACK; CREATE TEMP TABLE own (a int); SELECT * FROM own")},
		{name: "a text goes on behind the end of a failed block with a savepoint", steps: behind([]step{{simple("BEGIN"), "Z"}, {simple("INSERT INTO notes VALUES (892)"), "Z"}, {simple("SAVEPOINT a"), "Z"}, {simple("SELECT 1/0 FROM notes"), "Z"}},
			"ROLLBACK TO a; SELECT 1", "ROLLBACK TO a; COMMIT; SELECT count(*) FROM notes", "ROLLBACK TO a; SELECT 1/0", "ROLLBACK TO b; SELECT 1", "SELECT 1; ROLLBACK TO a", "ROLLBACK TO a; ROLLBACK; SELECT 1", "RELEASE a; ROLLBACK", "ROLLBACK TO a; RELEASE a; COMMIT; SELECT 7")},
		{name: "a text goes on behind the end of a block that failed before a server knew of it", steps: behind([]step{{simple("BEGIN"), "Z"}, {simple("SELECT no_such_function()"), "Z"}},
			"ROLLBACK; SELECT 1", "COMMIT; SELECT count(*) FROM notes", "ABORT; BEGIN; SELECT 1", "SELECT 1; ROLLBACK", "ROLLBACK AND CHAIN; SELECT 1", "ROLLBACK; INSERT INTO notes VALUES (893); SELECT 1/0", "ROLLBACK; "+set)},
		{name: "settings behind a COMMIT in a pipeline that fails", steps: append([]step{{simple("BEGIN"), "Z"}, {simple("SELECT count(*) FROM notes"), "Z"}, {simple("SET work_mem = '13MB'"), "Z"},
			{msg(extended("COMMIT"), extended("SET DateStyle = 'German'"), extended("SELECT 1/0"), syncs()), "Z"}}, show...)},
		{name: "what names mean is set in front of a block in a pipeline", steps: inFront()},
		{name: "what names mean is set in front of an error in a pipeline of a session that is tied to its connection", steps: append([]step{{simple("CREATE TEMP TABLE own (a int)"), "Z"}}, inFront()...)},
		{name: "RESET ALL in front of an error in a pipeline", steps: append([]step{{simple("SET client_encoding = 'LATIN1'"), "Z"}, {simple("SET DateStyle = 'German'"), "Z"}, {msg(extended("RESET ALL"), extended("SELECT 1/0"), syncs()), "Z"}, {simple("SHOW client_encoding"), "Z"}}, show...)},
		{name: "BEGIN, COMMIT and ROLLBACK behind a Parse that fails", steps: []step{
			{msg(parse("a", "SELECT * FROM missing"), extended("BEGIN"), syncs()), "Z"}, {simple("SELECT 1"), "Z"}, {msg(parse("a", "SELECT * FROM missing"), extended("BEGIN"), one, extended("COMMIT"), syncs()), "Z"}, {simple("SELECT 1"), "Z"},
			{simple("BEGIN"), "Z"}, {msg(parse("a", "SELECT * FROM missing"), extended("COMMIT"), syncs()), "Z"}, {simple("SELECT 1"), "Z"}, {simple("ROLLBACK"), "Z"}, {simple("BEGIN"), "Z"}, {msg(parse("a", "SELECT 1"), extended("SAVEPOINT b"), describe('S', "a"), syncs()), "Z"}, {simple("ROLLBACK TO b"), "Z"},
			{msg(parse("c", "SELECT * FROM missing"), extended("ROLLBACK TO b"), syncs()), "Z"}, {simple("ROLLBACK TO b"), "Z"}, {msg(parse("c", "SELECT * FROM missing"), extended("ROLLBACK"), syncs()), "Z"}, {simple("COMMIT"), "Z"}, {msg(bind("", "a"), run("", 0), syncs()), "Z"},
		}},
		{name: "DISCARD ALL in front of a Parse", steps: []step{
			{msg(extended("DISCARD ALL"), parse("s", "SELECT 6789"), bind("", "s"), run("", 0), syncs()), "Z"}, {msg(bind("", "s"), run("", 0), syncs()), "Z"},
			{msg(extended("DISCARD ALL"), extended("PREPARE p AS SELECT 12345"), syncs()), "Z"}, {simple("EXECUTE p"), "Z"}, {msg(bind("", "s"), run("", 0), syncs()), "Z"},
			{msg(extended("DISCARD ALL"), extended("CREATE TEMP TABLE own (a int)"), syncs()), "Z"}, {simple("SELECT * FROM own"), "Z"}, {msg(extended("DISCARD ALL"), extended(set), syncs()), "Z"}, {simple("SHOW work_mem"), "Z"}, {simple("SELECT * FROM own"), "Z"},
		}},
		{name: "a portal of PREPARE that is executed twice", steps: []step{
			{msg(parse("", "PREPARE p AS SELECT 777"), bind("", ""), run("", 0), run("", 0), syncs()), "Z"}, {simple("EXECUTE p"), "Z"}, {simple("DEALLOCATE p"), "Z"}, {simple("PREPARE p AS SELECT 777"), "Z"}, {simple("EXECUTE p"), "Z"},
		}},
		{name: "the unnamed statement behind an error", steps: []step{
			{msg(parse("", "SELECT 41"), syncs()), "Z"}, {msg(bind("", "missing"), parse("", "SELECT 42"), syncs()), "Z"}, {msg(bind("", ""), run("", 0), syncs()), "Z"}, {msg(extended("SELECT 1/0"), parse("", "SELECT 43"), syncs()), "Z"},
			{msg(parse("", "SELECT 44"), parse("a", "SELECT 5"), parse("a", "SELECT 6"), parse("", "SELECT 45"), syncs()), "Z"}, {msg(bind("", ""), run("", 0), syncs()), "Z"}, {msg(parse("", "SELECT missing"), syncs()), "Z"}, {msg(bind("", ""), run("", 0), syncs()), "Z"},
		}},
	}
}

// isolated are blocks that say what they are to be behind something that takes no snapshot, or, at last, one.
func isolated(as func(...string) []step) (all []step) {
	for _, set := range []string{"SET lock_timeout = 0", "SET LOCAL work_mem = '5MB'", "SET ROLE app", "RESET work_mem", "RESET ALL", "SHOW work_mem", "SELECT set_config('work_mem', '5MB', false)"} {
		all = append(all, as("BEGIN", set, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SHOW transaction_isolation", "SELECT count(*) FROM notes", "ROLLBACK", "BEGIN", set, "SET TRANSACTION READ ONLY", "DELETE FROM notes", "COMMIT")...)
	}
	return all
}

// inFront are pipelines that set the search_path in front of what begins or ends a transaction, with what is left of it behind each.
func inFront() (all []step) {
	for _, end := range []string{"SELECT 1", "SELECT 1/0"} {
		for _, middle := range [][]string{{"COMMIT"}, {"ROLLBACK"}, {"BEGIN"}, {"BEGIN", "COMMIT"}, {"BEGIN", "ROLLBACK"}, {"BEGIN", "SELECT current_schema()", "COMMIT"}, {"BEGIN", "SELECT current_schema()", "ROLLBACK"},
			{"BEGIN", "SET search_path = pg_toast", "SELECT current_schema()", "COMMIT"}, {"BEGIN", "SAVEPOINT a", "RESET search_path", "ROLLBACK TO a"}, {"SELECT 2", "ROLLBACK"}, {"SELECT 2", "COMMIT"}, {"SELECT 2", "BEGIN"}, {"DELETE FROM notes", "ROLLBACK"}} {
			for _, set := range []string{"SET search_path = pg_catalog", "RESET search_path", "SELECT set_config('search_path', 'information_schema', false)"} {
				pipeline := extended(set)
				for _, sql := range append(middle, "SELECT current_schema()", end) {
					pipeline = msg(pipeline, extended(sql))
				}
				all = append(all, step{msg(pipeline, syncs()), "Z"})
				all = append(all, each("SHOW search_path", "ROLLBACK", "SELECT current_schema()", "SET search_path = public")...)
			}
		}
	}
	return all
}

// behind are steps that send each of the texts after the steps before, and see then what is left of it.
func behind(before []step, list ...string) (all []step) {
	for _, sql := range list {
		all = append(append(all, before...), each(sql, "SELECT 10", "ROLLBACK", "SHOW work_mem", "SELECT count(*) FROM notes WHERE id > 800", "DISCARD ALL")...)
	}
	return all
}
