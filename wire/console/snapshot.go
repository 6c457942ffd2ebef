package console

import "time"

// Name is the database that stands for the console.
const Name = "rangefinder"

// Snapshot is the state of one node at one moment. Lists are in no order.
type Snapshot struct {
	At        time.Time
	Version   string
	Databases []Database
	Users     []string // who may log in to the node
	Clients   []Client
	Servers   []Server
	Logins    []Login
	LoggingIn int // connections of clients that are not let in yet
	Settings  []Setting
	TwoPhase  []TwoPhase
	// Statements are what was counted of statements. They are there if they are to be shown.
	Statements []Statement
	// So are these, which the cluster's ledger has.
	Keyspaces []Keyspace
	Ranges    []Range
	Moves     []Move
	Loans     []Loan
	Events    []Event
}

// TwoPhase is a transaction over several shards that has not come to its end.
type TwoPhase struct {
	GID          string // as pg_prepared_xacts has it
	Node         string // that has begun it
	Database     string
	Participants string // shards, with commas between them
	Open         string // of them, those where its part may still be prepared
	Decision     string // the shard that decides
	State        string
	Age          time.Duration
	Problem      string // why it could not be ended so far; ""
}

// Statement is what was counted of the statements of one normal form since the node started, or since RESET STATEMENTS.
type Statement struct {
	Database string
	Text     string // without its constants
	Calls    uint64 // that servers have carried out
	Errors   uint64 // that servers have refused
	Shards   uint64 // that the calls have touched, one by one
	Rows     uint64
	Total    time.Duration // of the calls, from when they came to when the last server had done with them
	Max      time.Duration
}

// State is what a client does.
type State string

// The states, in PgBouncer's words.
const (
	Idle    State = "idle"    // nothing of it is under way
	Active  State = "active"  // it has a server connection
	Waiting State = "waiting" // it needs one and has none yet
)

// Client is one client connection.
type Client struct {
	ID        uint32 // as in its cancel key
	User      string
	Database  string
	State     State
	Addr      string // host:port
	Local     string // host:port that it connected to
	Connected time.Time
	Requested time.Time // its last statement; before the first one, when it connected
	Server    uint64    // ID of the server connection that it has; 0: none
	Backend   string    // of that connection
	Pinned    string    // why it keeps that connection until it ends; "" if it does not
	TLS       string    // version and cipher, "" without TLS
}

// Server is one server connection.
type Server struct {
	ID          uint64
	User        string
	Database    string
	Backend     string
	Shard       string
	Idle        bool // in its pool
	CloseNeeded bool // it is closed when it comes back
	Addr        string
	Local       string
	Connected   time.Time
	PID         uint32 // as its server says
	Client      uint32 // ID of the client that has it; 0: none
}

// Login is a number of server connections that are being made.
type Login struct {
	User     string
	Database string
	Count    int
}

// Database is one that clients may name.
type Database struct {
	Name           string
	Shard          string // of tables without a keyspace; "": such tables cannot be used
	Paused         bool
	Disabled       bool // no new clients
	OwnConnections bool // sessions keep their server connections: pool_mode session
	Totals         Totals
	Lately         Totals        // of them, what was counted in the last whole period
	Span           time.Duration // of that period; 0: nothing has been counted yet
}

// Totals are what was counted for a database since the node started.
type Totals struct {
	Transactions uint64        // that servers have ended
	Queries      uint64        // requests that servers have answered
	Received     uint64        // bytes from clients
	Sent         uint64        // bytes to clients
	Wait         time.Duration // that clients have waited for server connections
}

// Change is one key of the configuration that a RELOAD has found changed.
type Change struct {
	Key     string
	Was     string
	Now     string
	Restart bool // it stays as it was until the node is started again
}

// Setting is one key of the configuration.
type Setting struct {
	Key     string
	Value   string
	Default string
	// Changeable: RELOAD puts another value in force; else the node has to be started again.
	Changeable bool
}
