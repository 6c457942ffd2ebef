package wire

import (
	"sync/atomic"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/heat"
	"rangefinder/wire/moving"
	"rangefinder/wire/oids"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/scatter"
	"rangefinder/wire/sqlkey"
)

// request is what a core wants from its transport next.
type request uint8

const (
	readClient    request = iota // write what is due to both sides, then read the client and call clientRead
	readServer                   // the same, then read the server and call serverRead or serverLost
	acquire                      // get a connection to hop() and call acquired or refused
	convene                      // make a coordinator, which gets the server connection if there is one, and call convened or refused
	standAside                   // wait until the range may have changed hands and call goOnMoved, or call moveRefused
	standBy                      // wait until the shard may have another primary and call resume, or call standDown
	releaseServer                // give the server connection back to its pool and call returned
	discardServer                // close the server connection and call returned
	locate                       // find out what locates asks for and call located
	learn                        // have the catalogs read anew and call learned
	subscribe                    // bring what the hub listens to in line with lis and call subscribed
	settle                       // have the node look at the schema and call schemaSettled
	washServer                   // take away all that the session has left there, give it back or close it, and call returned
	finish                       // write what is due to the client and end
)

// env is what all sessions of a node share and a core may ask without waiting.
type env struct {
	fib      *fib.Handle
	planner  *sqlkey.Planner
	catalog  func(*fib.Table) *sqlkey.Catalog
	made     time.Time            // when now was 0
	now      func() time.Duration // since the server was made; never 0
	random   func() uint32
	maxFrame int
	metrics  Metrics
	recheck  func(backend string)  // see Config.Recheck; never nil
	explain  func(*Route) []string // see Config.Explain; nil: nobody can
	unique   func() (int64, error) // see Config.Unique; nil: nobody makes them
	defines  bool                  // there is a Config.Defined
	learns   bool                  // there is a Config.Learn

	types *atomic.Pointer[map[string]*oids.Database] // see Server.SetTypes; never nil

	positions *rib.Positions
	moves     *moving.Moves        // nil: nobody tells of moves
	heat      *heat.Meter          // nil: nobody counts what ranges get
	leased    func() bool          // see Config.Leased; never nil
	alone     func(time.Time) bool // see Config.Alone; never nil
	fenced    func()               // see Config.Fenced; never nil
	zone      func(string) bool    // whether servers know a time zone, and by just that name; nil: nobody can tell
}

// maxOps bounds the messages that are kept until a client's Sync or Flush. If there are more, those there are run first, as if a
// Flush came behind them.
const maxOps = 50_000

// core is one client's session as a state machine. It does no I/O and starts no goroutine; one goroutine drives it.
type core struct {
	// constant
	env     *env
	user    string
	db      string
	ownConn bool   // pool_mode = "session"
	pid     uint32 // of its cancel key
	id      uint64 // unlike all other sessions of the node; never 0 in one that serves

	tally tally // atomic

	drawn heat.Draw // which of its statements is noted next

	// bytes
	in       []byte // from the client, from inOff on not consumed yet
	inOff    int
	out      []byte   // for the client
	toServer []byte   // for the server connection
	held     *buffers // that in, out, toServer and batch began as; nil while they are the core's own
	passing  int      // bytes still to come of a server frame that is passed on unseen
	passHide bool     // or not even passed on
	popAfter bool     // it ends what the first expectation waits for
	copyLeft int      // bytes still to come of a client's CopyData frame that is passed on unseen
	copyDrop bool     // or not even passed on: the COPY has failed

	// the client's view
	settings   settings
	unsynced   settings              // what an error before the next Sync returns to, outside a transaction block
	unsyncedIn string                // and what was in force on the server then
	carried    bool                  // both are of an earlier part of the client's segment: see cut
	base       settings              // what the session began with: RESET and DISCARD ALL come back here
	implied    []setting             // but for what was the default then
	freshPath  string                // the search_path of a fresh server connection: see pool.Identity
	freshLevel string                // its default_transaction_isolation
	freshRole  string                // whom it acts as; "": its user
	params     params                // as the client knows them
	late       []param               // but for these, as it was told of them last: see tellLate
	firm       int                   // how many of these no error takes back any more
	opened     map[string]blockParam // transaction.told of a block that the request in hand opens
	stmts      registry
	catalog    *sqlkey.Catalog // what its texts are planned with
	under      sqlkey.Env      // and under
	era        uint64          // grows when these two change
	tx         transaction
	fixes      []string  // what the server connection is still to be told
	hushed     bool      // a RESET in the request in hand goes too far: see fixes
	reports    []string  // parameters that the server has reported since the transaction began
	explains   []string  // parameters that its statements have set, or may have
	explained  bool      // any may have been
	lis        *channels // nil: nothing was ever listened to
	closing    bool
	violated   bool    // it is closing because the client broke the protocol
	own        own     // the values of the node's own parameters
	alone      bool    // it has been told that the node has no lease
	wrote      []wrote // by shard, what its reads must see
	defines    bool    // its transaction may have changed the schema
	settling   bool    // it has, and the client is to hear of its end when this node knows
	hinted     hintedKey
	sought     []uint32 // numbers of types that have been looked for

	// the request in hand
	*inHand
	came      time.Duration // env.now of it
	served    time.Duration // the same, or since when it has not waited for anything on this node: what follows is its backend's time
	kind      byte          // 'Q', 'F', or 'S' for a segment of the extended protocol
	batch     []byte
	ahead     *pg.Error // what is wrong with the request, found before it is sent; see lookAhead
	unlocal   int       // how many of its statements are not known to be about what is on this connection's shard alone; see asksLocal
	skip      bool      // discard extended messages up to the next Sync: one of them failed
	first     int
	left      uint64 // which of hops are still to be tried: see setHop
	wanting   bool
	convening bool
	lastErr   error
	outMark   int  // length of out when the request was dispatched
	silent    bool // nothing has come from the server since the request was sent
	flushed   bool // bytes of the answer have left for the client
	redo      bool // the replica cannot do it: run it again on the primary once its answer is read
	retrying  bool // the backend died: run it again on the next candidate
	unfit     bool // that is because its server takes no reads: see shuns

	// the server connection
	srv        *pool.Conn
	srvHop     *fib.NextHop
	reigns     *fib.Candidates // by which its backend was last seen not to be deposed; nil: it was not looked
	srvShard   string
	pinned     string // why the connection is kept; "" if it is not
	remains    sqlkey.Remains
	doubt      bool   // some of that may be gone
	asks       string // why the server is to be asked what remains once the transaction is over; "": it need not be
	status     byte   // of the last ReadyForQuery
	scratch    bool   // a block is open there for one statement only; the client's own is still open nowhere
	serverOpen bool   // extended messages were sent and no Sync yet
	copyIn     bool
	copied     bool // the request in hand is or was a COPY FROM
	copyExt    bool
	looseSync  bool // a Sync was sent behind the COPY: the server ignores it while it takes data, but may have failed before
	broken     bool // close the connection instead of giving it back
	worn       bool // the same, once it is idle: what is prepared there is out of date
	notified   bool // the transaction has sent notifications
	fatal      *pg.Error
	crossed    []*moving.Crossing // on whose ranges its transaction is
	begun      begun              // the transaction there, or the last one

	// if that is a coordinator's
	coordinator *scatter.Coordinator
	host        *host

	finds *findings // it decides for a chooser, and the session is to learn this from it; nil: it is the session's own
}

// inHand is the part of a core that nothing of is kept between two requests. A session that sleeps has none.
type inHand struct {
	table     *fib.Table
	frame     []byte
	behind    []byte // what the client has sent with it, as a Query of its own, and runs if it succeeds: see endsFirst
	plan      *sqlkey.Plan
	ops       []op
	bind      pg.Bind
	args      pg.Arguments
	keyBuf    rib.Key
	cover     fib.Cover        // of a statement with several keys
	covered   []*fib.Slot      // by it
	values    sqlkey.Constants // of the Query in hand
	uses      []use            // what its text names
	told      time.Duration    // env.now when the last of its statements was done; before, of its coming
	rows      uint64           // of the Query in hand: that its statements have told of
	erred     bool             // one of them has failed
	asked     int              // how many shards it touches
	completed int              // how many of its statements the server has carried out, if it names any
	seg       segment
	hazy      bool            // what is being sent comes behind a statement that may change its meaning: no other session knows its name on the server
	list      *fib.Candidates // of the slot below
	slot      *fib.Slot
	hops      []fib.NextHop
	hop       *fib.NextHop
	noPrimary *pg.Error     // it waits for one, and has this error if none comes; nil: it does not
	after     owing         // what it must see, if it runs on a replica
	locates   location      // what must be known first
	unlocated bool          // that could not be had, and the request goes on
	fateless  []rib.Verdict // of the session's own writes, whose fate is not known: the client is to be told
	deferred  deferral      // the segment that waits for that
	expect    []expectation
	expectOff int
	lastTag   []byte // of the last command; an error's is ROLLBACK
	srvIn     []byte // from the server, the start of a frame that is not whole yet
	parting   []byte // its notice that it ends the connection, held back until it is known what comes behind it; see parts
	need      need
	changes   int // of the registry, before the message that is being sent; see op
	shelves   shelves
	moves     inMoves
	numbers   numbers
}

func newCore(e *env, user, db string) *core {
	c := &core{env: e, user: user, db: db, status: 'I', inHand: new(inHand)}
	c.tally.anew() // turn 0 is nobody's: nothing has overrun or expired yet
	return c
}

// next says what the transport must do next.
func (c *core) next() request {
	for {
		switch {
		case c.broken && c.srv != nil:
			return discardServer
		case c.wanting:
			return acquire
		case c.convening:
			return convene
		case c.moves.waits != nil:
			return standAside
		case c.noPrimary != nil:
			return standBy
		case c.subscribes() && !c.closing:
			return subscribe
		case c.locates.shard != "":
			return locate
		case c.numbers.learning != 0:
			return learn
		case !c.closing && c.fixing():
			return readServer
		case c.closing:
			if c.srv != nil {
				switch {
				case !c.washable():
					return discardServer
				case c.pinned != "":
					return washServer
				}
				return releaseServer
			}
			return finish
		case c.waiting() && !c.copyIn:
			return readServer
		case c.srv != nil && c.idleServer() && c.pinned == "":
			if c.worn || len(c.toServer)+len(c.srvIn)+len(c.parting) > 0 { // something is still on its way there, or from there
				return discardServer
			}
			return releaseServer
		case c.doubts():
			c.askRemains()
			return readServer
		case c.settling:
			return settle
		}
		if !c.consume() {
			return readClient
		}
	}
}

// waiting reports whether answers are due from the server.
func (c *core) waiting() bool { return c.expectOff < len(c.expect) }

// unsent reports whether the request in hand waits for where it can be sent to, a connection or a primary, or for what it is to be
// answered: all there is of it must stay.
func (c *core) unsent() bool {
	return c.wanting || c.convening || c.moves.waits != nil || c.noPrimary != nil || c.locates.shard != "" || c.numbers.learning != 0
}

// idleServer reports whether nothing of the session lives on the server connection: no transaction, no answer due.
func (c *core) idleServer() bool {
	return !c.waiting() && c.status == 'I' && !c.serverOpen && !c.copyIn && (c.copyLeft == 0 || c.copyDrop)
}

// idle reports whether the session could end here without loss.
func (c *core) idle() bool {
	return !c.waiting() && !c.unsent() && !c.settling && !c.tx.open && (c.srv == nil || c.status == 'I') && c.inOff == len(c.in) && len(c.ops) == 0
}

// terminate ends an idle session in the server's name.
func (c *core) terminate(e *pg.Error) {
	c.out = pg.AppendError(c.out, e.Fatal())
	c.closing = true
}

// holds reports whether the client's bytes wait for the server's: once the client has seen any of an answer, the request cannot
// go to another backend any more if this one dies. Nor must it see the answer of a request that is about to run again.
func (c *core) holds() bool {
	return c.redo || (c.silent || len(c.parting) > 0) && c.seg.retry && c.waiting()
}

// written tells that all of out has left for the client.
func (c *core) written() {
	c.tally.sent.Add(uint64(len(c.out)))
	if len(c.out) > c.outMark {
		c.flushed = true
	}
	c.out, c.outMark = c.out[:0], 0
}

// sent tells that all of toServer has left for the server.
func (c *core) sent() {
	c.toServer = c.toServer[:0]
	if cap(c.toServer) > clientFlush {
		c.toServer = nil
	}
}
