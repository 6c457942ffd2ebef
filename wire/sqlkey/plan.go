package sqlkey

import (
	"strings"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// Target is where a statement may run.
type Target uint8

// The targets.
const (
	// Any: it names no table, or only the system catalogs (see Plan.Catalogs). Any shard of Catalog.Shards will do.
	Any Target = iota
	// Unsharded: its tables are in no keyspace and live on Plan.Shard.
	Unsharded
	// Keyed: all of Plan.Keys must fall on one shard, which runs it.
	Keyed
	// Many: several shards answer, as Plan.Fan says.
	Many
	// None: it cannot be routed. Plan.Err says why.
	None
)

// Intent is what a statement may do to a backend.
type Intent uint8

// The intents.
const (
	// Read: a plain read. It takes no row locks and calls no function that might write: a replica may run it.
	Read Intent = iota
	// Write: it must run on the primary.
	Write
)

// TxOp is what a transaction statement does.
type TxOp uint8

// The transaction statements.
const (
	TxNone       TxOp = iota
	TxBegin           // BEGIN, START TRANSACTION
	TxCommit          // COMMIT, END
	TxRollback        // ROLLBACK, ABORT
	TxSavepoint       // SAVEPOINT name
	TxRelease         // RELEASE name
	TxRollbackTo      // ROLLBACK TO name
	TxSet             // SET TRANSACTION, SET LOCAL, SET CONSTRAINTS: the rest of the transaction alone
	TxPrepare         // PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED: always refused
)

// SessionOp is what a statement does to the session's state on its server connection.
type SessionOp uint8

// What a statement does to the session.
const (
	SessNone    SessionOp = iota
	SessSet               // SET or RESET of one parameter for the session: it can be replayed
	SessReset             // RESET ALL, DISCARD ALL
	SessSeveral           // several statements in one text, each doing what Plan.Parts says
	SessPin               // state that cannot be replayed: from here on the session must keep its server connection
)

// ListenOp is what a statement does to the channels that a session listens to. The node itself carries it out.
type ListenOp uint8

// The operations on channels.
const (
	ListenNone    ListenOp = iota
	Listen                 // LISTEN Plan.Channel
	Unlisten               // UNLISTEN Plan.Channel
	UnlistenAll            // UNLISTEN *
	ListenSeveral          // those of Plan.Parts, nothing else
)

// Remains is a set of things that a statement may leave in the server's session.
type Remains uint8

// What may remain. For all but the last two the server can be asked.
const (
	RemainLocks   Remains = 1 << iota // advisory locks of the session
	RemainTemp                        // temporary tables and other temporary objects
	RemainCursors                     // cursors WITH HOLD
	RemainUnknown                     // something else that DISCARD ALL takes away
	RemainForever                     // what not even DISCARD ALL takes away
)

// Plan is what is known of a statement before its parameters are. Plans are shared and must not be changed.
type Plan struct {
	// SQL is the text; "" if texts that differ in their constants share the plan (see Planner.PlanQuery). Such a plan is never
	// one of a statement that concerns the session or the transaction, nor a refusal.
	SQL        string
	Statements int // 0: an empty query
	Target     Target

	// Err is set for the target None alone: SQLSTATE, message, detail and hint.
	Err *pg.Error

	// Syntax: our parser does not understand the text. The target is Any, so that PostgreSQL can report the error in its
	// own words. As a server newer than our parser may understand it after all, it must only be parsed there (a Parse
	// message, never Query or Execute).
	Syntax bool

	Keyspace     rib.KeyspaceID // Keyed, Many
	KeyspaceName string         // Keyed, Many
	Keys         []KeyRef       // Keyed: at least one; none twice, unless constants of a shared plan happen to be equal
	Shard        string         // Unsharded
	Fan          *Fan           // Many

	// Copies are the shards that have a copy of all reference tables that are named; nil: none is. With the target Any it may run on one of
	// these alone; where it runs otherwise must be one of them.
	Copies []string

	// Apart: with the target Keyed, of a plan that texts share: if the keys belong to several shards, the text's own plan (Planner.PlanBytes)
	// says how it runs on them.
	Apart bool

	// Catalogs: the system catalogs are named, or a name is turned into a number of theirs, or back. With the target Any they are best read on Catalog.CatalogShard.
	Catalogs bool

	// Shows: it is SHOW, which takes no snapshot.
	Shows bool

	// OfPrimary: a plain read whose answer must be a primary's, for it tells the client what it may do here.
	OfPrimary bool

	// HintShard, with the target Keyed: a hint says that this shard owns the keys. If another one does, the statement is refused.
	// HintedBySession: it is the session's (Env.HintShard), not a comment's.
	HintShard       string
	HintedBySession bool
	Hint            string // for people: the hint that was heeded; "" if there was none

	Intent   Intent
	WhyWrite string // "" for Read; for people: "FOR UPDATE", "function nextval may be volatile"
	Locks    bool   // it is Write for the locks on rows alone: nothing is changed
	// Unchanging, of Write: it changes no rows. It is no plain read for other reasons, as COPY TO STDOUT, or reads between BEGIN and COMMIT in one text.
	Unchanging bool

	// Of a sole transaction statement.
	Tx           TxOp
	TxReadOnly   bool   // TxBegin, TxSet: READ ONLY is asked for
	TxReadWrite  bool   // TxBegin, TxSet: READ WRITE is asked for
	TxDeferrable bool   // TxBegin, TxSet: DEFERRABLE, or NOT DEFERRABLE, is asked for
	Snapshot     bool   // TxSet: it is SET TRANSACTION SNAPSHOT, of a name that one server has given
	Isolation    string // TxBegin, TxSet: "serializable", "repeatable read", ...; "" if not given
	Chain        bool   // TxCommit, TxRollback: AND CHAIN
	Savepoint    string // TxSavepoint, TxRelease, TxRollbackTo
	Tag          string // the command tag of a Tx or Own statement that succeeds outside any error: "BEGIN", "START TRANSACTION"
	MixedTx      bool   // several statements in one text, transaction statements among them

	Session SessionOp
	Remains Remains // SessPin: what keeps the connection; 0: the server must be asked, and Frees is set
	WhyPin  string  // SessPin: for people: "a temporary table"
	// Made is the name of what it makes that is the session's own, or may be: a temporary view or sequence, an index.
	Made string
	// Unmade are the names of relations that it drops, or gives the name Made: Renames. UnmadeMore: it may take away others as well.
	Unmade     []string
	Renames    bool
	UnmadeMore bool
	// Frees: it may take away something that remains of an earlier statement, or undo it.
	Frees bool
	// Listen is what it does to the channels; such a statement needs no server.
	Listen  ListenOp
	Channel string // Listen, Unlisten; and NOTIFY's
	Payload string // NOTIFY's
	// Notifies: it may send notifications itself. If that is all that binds it to Shard, any shard of the database will do, for
	// all are listened to: then AnyHome is set.
	Notifies bool
	AnyHome  bool
	// Parts are the plans of several statements in one text if some of them concern the session or the transaction. If it is
	// SessSet, the others read what depends on no table; if it is ListenSeveral, there are no others. UNLISTEN may be among them.
	Parts []*Plan
	// Deallocate: DEALLOCATE of the prepared statement named Statement, of all if that is "".
	Deallocate bool
	Statement  string
	// Names are the places where the text names prepared statements of the session, in their order. What they stand for
	// decides where the text may run (see Plan.Executing); the plan by itself knows of their arguments alone.
	Names []NameUse
	// Setting is the parameter that SessSet or TxSet sets, in lower case, "" if none; for SessReset "RESET ALL" or
	// "DISCARD ALL". SET SESSION CHARACTERISTICS is "session characteristics". With SessPin it is set if the search path or
	// the role changes, as by set_config.
	Setting string
	// Value is Setting's new value as SHOW would give it back, unless Default says that it returns to its default. For
	// search_path it is what Env.SearchPath takes.
	Value   string
	Default bool

	// Own is what it does to a parameter of the node's own, Setting. OwnLocal: for the transaction alone.
	Own      OwnOp
	OwnLocal bool
	// OwnCall: it does so by set_config, and so has a row. The value is that of parameter OwnParam, unless that is 0.
	OwnCall  bool
	OwnParam int
	// Explained is the plan that OwnExplain tells of, ExplainJSON in which form.
	Explained   *Plan
	ExplainJSON bool
	Cursor      *Cursor  // what it does to a cursor of SQL; nil: nothing
	Explains    *Explain // of an EXPLAIN that PostgreSQL answers; nil: it is none

	// Sets is what SessSet sets by set_config, or by a SET of several parameters at once; Setting is "" then. (If there are Parts,
	// they tell.) SetsOnly: it does
	// nothing else.
	Sets     []Assignment
	SetsOnly bool

	// Opaque: it runs code that no parser sees, which may change what the session has set.
	Opaque bool
	// Commits: outside of a transaction block it may commit before it ends: CALL, DO.
	Commits bool
	// Defines: it makes, changes or takes away tables or views on which plans may depend: see Dependent.
	Defines bool

	// Unique are the places of rangefinder.unique_id() in the text. Such a plan says nothing else: the text is to be planned again once they
	// are replaced (see WithUnique).
	Unique []Span

	NumParams int      // the highest $n
	Tables    []string // every table named, resolved as far as known, for people
	Reason    string   // why this target, for people
	CopyIn    bool     // COPY FROM STDIN
	CopyOut   bool     // COPY TO STDOUT

	usage   *usage    // nil: its use is not counted
	about   *keyspace // of a refusal, or a plan for several shards, that a hint may take away: of the table that it is about
	method  rib.Method
	fixed   bool   // constants decide more of it than its keys
	shared  bool   // by texts that differ in their constants
	foreign uint64 // see Env.Foreign

	bound []bound // shared: the constants that key columns are compared with
}

// KeyRef is one value that the sharding key must have.
type KeyRef struct {
	// Literal is the key if the statement holds it as a constant; else the value comes from a parameter, or, in a shared
	// plan, from the Constants.
	Literal rib.Key
	// Param is the parameter's number, from 1; 0 if there is none or the key has several columns (see Parts).
	Param int
	// Type is the type of the key's (first) column.
	Type rib.Type
	// Text is the condition, for messages: "customer_id = 42"; in a shared plan "customer_id = ..." (see Plan.KeyText).
	Text string
	// Session: it is the key that the session has set (Env.HintKey), which the session alone knows: AppendKey does not.
	Session bool
	// Parts are the columns of a key that has several and is not all constant, in the keyspace's order.
	Parts []KeyRef

	column   string   // the key column
	cast     rib.Type // the parameter is cast to this type: a text parameter is parsed as it
	origin   *origin  // of a shared plan: the constant that the key is made of
	made     *formula // what the key is computed of; nil: of nothing
	unknown  int      // of a key of which nothing is known (see spread): the number of the column, from 1
	nonASCII bool     // Literal was made from text beyond ASCII: it depends on client_encoding
}

// Shapes reports whether a statement may make, change or take away tables that only the catalogs of the shard tell of that it runs on.
func (p *Plan) Shapes() bool {
	if p.Intent != Write || p.Target != Unsharded {
		return false
	}
	return p.Statements > 1 || !isOneOf(p.WhyWrite, "INSERT", "UPDATE", "DELETE", "MERGE", "COPY") && !strings.HasPrefix(p.WhyWrite, "FOR ") && !strings.HasPrefix(p.WhyWrite, "function ")
}
