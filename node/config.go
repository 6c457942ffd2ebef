package node

import "time"

// Config is one node's configuration file. The same file serves every node but for region and backends. The comment tags
// are the documentation of each key (its unit, and what zero means); `rangefinder config` prints them. The tag live:"yes" says
// that a reload changes the key, or all keys of the table: see reload.go. What has no such tag needs a restart.
type Config struct {
	Region         string     `toml:"region" comment:"The datacenter this node stands in: letters, digits, '-', '_' and '.'. Required."`
	Name           string     `toml:"name" comment:"This node's name, unique in the cluster. Empty: the region and 4 random hex digits, kept in data_dir."`
	Bind           string     `toml:"bind" comment:"IP address that the Postgres and cluster ports listen on. Anything but loopback needs a cluster key."`
	Advertise      string     `toml:"advertise" comment:"Address, or address:port, by which other nodes reach the cluster port. Empty: bind."`
	HTTPBind       string     `toml:"http_bind" comment:"IP address of the HTTP port: loopback, unless [api] asks for a token or a certificate, or insecure is set. Empty: bind if that is loopback, else 127.0.0.1."`
	DataDir        string     `toml:"data_dir" comment:"Directory of this node's state and ledger; one process at a time."`
	Join           []string   `toml:"join" comment:"Cluster ports (host:port) of nodes to join. Empty: the first start makes a new cluster; a restart never does."`
	ClusterKeyFile string     `toml:"cluster_key_file" comment:"File that holds the cluster key: 32 bytes as base64 or hex, see 'rangefinder key'. Up to two more below it are accepted from other nodes, while the key is changed. Empty: see cluster_key_env."`
	ClusterKeyEnv  string     `toml:"cluster_key_env" comment:"Environment variable that holds the cluster key. Both empty: no key, loopback only."`
	Insecure       bool       `toml:"insecure" comment:"true: listen beyond loopback even without a cluster key, and let http_bind be any address. Anyone who reaches the ports can then join the cluster."`
	DrainTimeout   Duration   `toml:"drain_timeout" live:"yes" comment:"On SIGTERM, how long sessions may take to finish their transaction. 0s: they are closed at once."`
	DrainDelay     Duration   `toml:"drain_delay" live:"yes" comment:"When this node is drained by 'rangefinder node drain' or with its region, how long /readyz says so before its sessions are told to go: as long as load balancers take to notice. 0s: at once."`
	TakeoverWait   Duration   `toml:"takeover_timeout" live:"yes" comment:"After another process has taken over by --takeover, how long idle sessions of this one may stay; then it drains as on SIGTERM. 0s: not at all."`
	FailoverWait   Duration   `toml:"failover_wait" live:"yes" comment:"How long a statement that needs the primary waits for the next one while its shard has none, from when it came; then it fails with 57P03. Nothing of it has been sent until then. 0s: it fails at once."`
	Watchdog       Duration   `toml:"watchdog_timeout" live:"yes" comment:"This node goes a statement's way through its routing table twice a second. If that does not come back for so long, it writes the stacks of all goroutines to standard error and exits with status 70, for its supervisor to start it again. 0s: it stays as it is."`
	IOUring        bool       `toml:"io_uring" comment:"true: what many sessions have to read and write at a time is done in one call of the kernel, by io_uring, which saves up to a third of the processor time under load. Where the kernel or a container does not allow that, and with false: in a call for each."`
	Ports          Ports      `toml:"ports" comment:"TCP ports. 0: any free port, written to the log (for tests)."`
	Log            Log        `toml:"log"`
	Probe          Probe      `toml:"probe" live:"yes" comment:"How this node looks at the backends near it."`
	Admin          Admin      `toml:"admin" live:"yes" comment:"Who looks at the shards when a keyspace is made, and at what they keep of passwords (rangefinder user). No user: the probe's."`
	API            API        `toml:"api" comment:"Who may use the admin API. Neither a token nor client_ca_file: everybody on this machine, and nobody from elsewhere."`
	TLS            TLS        `toml:"tls" live:"yes" comment:"TLS towards Postgres clients. The files are read again when they change, at most once a second."`
	BackendTLS     BackendTLS `toml:"backend_tls" live:"yes" comment:"TLS towards all backends: statements, cancel requests, probes and checks alike."`
	Pool           Pool       `toml:"pool" live:"yes" comment:"Connections to each backend."`
	Scatter        Scatter    `toml:"scatter" live:"yes" comment:"Statements over several shards."`
	Moves          Moves      `toml:"moves" comment:"Ranges on their way from one shard to another, while this node leads the ledger."`
	Reads          Reads      `toml:"reads" live:"yes" comment:"Which backends reads go to. What an observer of a backend finds (load) is told to all nodes; the rest is this node's own."`
	KeepAlive      KeepAlive  `toml:"keepalive" live:"yes" comment:"TCP keepalive towards clients and backends, of connections made from now on."`
	Limits         Limits     `toml:"limits" live:"yes" comment:"Bounds on what clients may ask for."`
	Console        Console    `toml:"console" live:"yes" comment:"The admin database: psql with the database rangefinder."`
	HBA            []HBA      `toml:"hba" live:"yes" comment:"Who may come in how, the console included, as in pg_hba.conf: the first rule that matches counts, and whom none matches is refused. No rule: scram-sha-256 for everybody."`
	Auth           Auth       `toml:"auth" live:"yes" comment:"Users that are not under [[users]]: a backend is asked what it keeps of their password."`
	Databases      []Listing  `toml:"databases" live:"yes" comment:"Databases that clients may name."`
	Users          []User     `toml:"users" live:"yes" comment:"Users that clients may log in as; the same name and password are used on the backends."`
	Backends       []Backend  `toml:"backends" live:"yes" comment:"The PostgreSQL servers near this node. Other nodes hear of them by gossip."`
	Lab            []Lab      `toml:"lab" comment:"Demos and tests only: delay added to all that this node dials or sends into a network."`

	from source
}

// source is where a configuration was read: for errors that are found later.
type source struct {
	file string              // "" if there is none
	at   map[string]position // of its keys
}

// Ports are the three listeners' ports.
type Ports struct {
	Postgres int `toml:"postgres" comment:"Postgres clients."`
	Cluster  int `toml:"cluster" comment:"Other nodes: gossip over UDP and TCP, Raft, forwarded calls."`
	HTTP     int `toml:"http" comment:"Debug page, metrics, admin API."`
}

// Log says what is logged, and how.
type Log struct {
	Level  string `toml:"level" live:"yes" comment:"debug, info, warn or error."`
	Format string `toml:"format" comment:"text or json, one record a line on standard error."`
}

// The values of Listing.PoolMode.
const (
	poolTransaction = "transaction"
	poolSession     = "session"
)

// The values of Listing.CrossShardWrites.
const (
	writesRefuse   = "refuse"
	writesTwoPhase = "2pc"
)

// Scatter bounds statements over several shards.
type Scatter struct {
	QueryMemory Size `toml:"query_memory" comment:"What one statement may keep of the rows that shards send it, if they cannot be passed on as they come. Beyond: error 53200. 0B: no limit."`
	Memory      Size `toml:"memory" comment:"What all such statements of this node may keep together. Beyond: error 53200. 0B: no limit."`
}

// Moves bounds what moves of ranges cost.
type Moves struct {
	Rate   Size     `toml:"rate" comment:"What a move copies, compares or removes in a second, in bytes of rows: the faster, the more statements lose to it. 0B: 8MiB."`
	Late   Duration `toml:"late" comment:"How long something that a node has sent to a backend may be on its way. So much longer than the last node takes to know the new owner the old one refuses writes. 0s: 10s."`
	CAFile string   `toml:"ca_file" comment:"While a range moves, the target's server connects to the source's, encrypted as backend_tls.mode says. verify-ca and verify-full: PEM file of the authorities it trusts, on that server and not here. Empty: where libpq looks, ~/.postgresql/root.crt of the server's user."`
}

// Listing is a database that clients may name when they connect.
type Listing struct {
	Name     string `toml:"name" comment:"As clients and shards name it."`
	Shard    string `toml:"shard" comment:"Where tables that no keyspace names live. Empty: such tables cannot be used."`
	PoolMode string `toml:"pool_mode" comment:"transaction: server connections are shared from one transaction to the next. session: a client keeps its connection, to a primary, from the first use to its end; on one shard only. Empty: transaction."`

	ReadConsistency string `toml:"read_consistency" comment:"What a session's plain reads must see. session: whatever the session itself has written; they go to the primary until a replica is known to have it. eventual: anything; they go to the closest copy, however far behind. primary: whatever anybody has written; they all go to the primary. A session may SET rangefinder.read_consistency; with session and primary, SET rangefinder.lsn has it also see what SHOW rangefinder.lsn told another session that it had written. Empty: session."`

	Scatter string `toml:"scatter" comment:"What becomes of a statement that runs on several shards because nothing binds it to one. allow: it runs. warn: it runs, and the log tells of it, once a second at most. forbid: it gets an error (0A000). A session may SET rangefinder.scatter. Empty: allow."`

	CrossShardWrites string `toml:"cross_shard_writes" comment:"Whether a transaction may write on several shards. refuse: it gets an error (0A000). 2pc: it commits on all of them or on none, by two-phase commit: each shard's backends need max_prepared_transactions above 0, and the node's user (admin.user, else probe.user) may create the schema rangefinder, or has rights on it, and is a member of the clients' roles or a superuser. A session may SET rangefinder.cross_shard_writes. Empty: refuse."`

	Isolated string `toml:"isolated" comment:"What becomes of statements on sharded tables on a node that has lost the cluster (its lease: it has not reached the leader for 2 s). serve: they run by what the node last knew; in a range that has moved meanwhile its shard refuses what would change a row, reads may be out of date, and UPDATE and DELETE may find no row. refuse_writes: what writes gets an error (57P03). refuse: all of them get it. Empty: serve."`

	Regions []string `toml:"regions" comment:"Regions that its reads go to first, in this order, before all others. Empty: the closest by measured distance."`
	Pinned  bool     `toml:"pinned" comment:"true: its reads go to no other region than those of regions, even if nothing is left there. false: to the others when nothing better is left. Writes go to the primary, wherever it is."`

	StatementTimeout         *Duration `toml:"statement_timeout" comment:"Instead of limits.statement_timeout. 0s: none. Not given: as there."`
	IdleTimeout              *Duration `toml:"idle_timeout" comment:"Instead of limits.idle_timeout. 0s: none. Not given: as there."`
	IdleInTransactionTimeout *Duration `toml:"idle_in_transaction_timeout" comment:"Instead of limits.idle_in_transaction_timeout. 0s: none. Not given: as there."`

	MaxClients *int `toml:"max_clients" comment:"Sessions of this database at once on this node. 0: no limit of its own. Not given: limits.database_clients."`
}

// User is somebody who may log in.
type User struct {
	Name string `toml:"name"`
	SecretRef
	VerifierEnv  string `toml:"verifier_env" comment:"Instead of the password: name of the environment variable that holds what PostgreSQL keeps of it (rolpassword in pg_authid, alike on every shard). Backends are then met with what the user's login shows. Empty: see verifier_file."`
	VerifierFile string `toml:"verifier_file" comment:"File that holds it. Empty: see verifier_env."`
	MaxClients   *int   `toml:"max_clients" comment:"Sessions of this user at once on this node. 0: no limit of its own. Not given: limits.user_clients."`
}

// HBA is one rule of who may come in how.
type HBA struct {
	Connection string   `toml:"connection" comment:"any, hostssl (TLS alone) or hostnossl (clear text alone). Empty: any."`
	Databases  []string `toml:"databases" comment:"Databases that the client may have named; rangefinder is the console. Empty, or all: every one."`
	Users      []string `toml:"users" comment:"Users that the client may have named. Empty, or all: every one."`
	Address    string   `toml:"address" comment:"The client's network, for example 10.0.0.0/8, or its address. Empty, or all: any."`
	Method     string   `toml:"method" comment:"trust, password (in clear text: over TLS or loopback), md5, scram-sha-256, cert (a certificate from tls.client_ca_file whose common name is the user) or reject."`
}

// Auth is how users are found that the configuration does not list.
type Auth struct {
	User string `toml:"user" comment:"PostgreSQL user that runs the query. Empty: only users under [[users]] can log in by a password."`
	SecretRef
	Query    string   `toml:"query" comment:"$1 is the user's name; it gives one row, of the name and the stored password (a SCRAM-SHA-256 verifier or an MD5 hash), or none. The default needs a superuser; a function of his, SECURITY DEFINER, does for anybody."`
	Database string   `toml:"database" comment:"Where it runs, on the closest backend of that database's shards. Empty: in the database that the client names."`
	Lifetime Duration `toml:"lifetime" comment:"How long an answer holds; a login that fails makes it be asked for again after one second."`
	Timeout  Duration `toml:"timeout" comment:"How long a login waits for the answer."`
}

// Backend is one PostgreSQL server near this node.
type Backend struct {
	Name    string `toml:"name" comment:"Unique in the cluster."`
	Shard   string `toml:"shard" comment:"The shard it holds a copy of."`
	Address string `toml:"address" comment:"host:port."`
	Region  string `toml:"region" comment:"Empty: this node's."`
}

// Probe is how a node observes its backends.
type Probe struct {
	User string `toml:"user" comment:"PostgreSQL user that may connect; it needs no right on any table. GRANT pg_read_all_stats TO it, so that it is told which timeline a replica receives: else replicas get no reads for minutes after a failover."`
	SecretRef
	Database string   `toml:"database" comment:"Database that the probe connects to."`
	Interval Duration `toml:"interval" comment:"Time from one probe to the next."`
	Timeout  Duration `toml:"timeout" comment:"A probe without an answer after this long has failed. Connecting takes several answers, and each may take this long: at least twice the round trip to the farthest backend."`
	Fall     int      `toml:"fall" comment:"This many failed probes in a row make a backend down; a refused connection counts at once."`
	Rise     int      `toml:"rise" comment:"This many good probes in a row make it up again."`
}

// Admin is who checks the shards' tables and rows when a keyspace is made.
type Admin struct {
	User string `toml:"user" comment:"PostgreSQL user that may read the tables of new keyspaces; a superuser for rangefinder user. Empty: the probe's user and password."`
	SecretRef
}

// API is who may use the admin API on the HTTP port, and how that port encrypts.
type API struct {
	TokenEnv     string `toml:"token_env" live:"yes" comment:"Name of the environment variable that holds the bearer tokens, one a line: the token alone, or a name for the audit log and the token. 16 to 512 characters each. Empty: see token_file."`
	TokenFile    string `toml:"token_file" live:"yes" comment:"File that holds them. Empty: see token_env. Both empty: no token."`
	CertFile     string `toml:"cert_file" comment:"PEM file of the HTTP port's certificate, read again when it changes. Empty: the port speaks clear text."`
	KeyFile      string `toml:"key_file" comment:"PEM file of its private key."`
	ClientCAFile string `toml:"client_ca_file" comment:"PEM file of authorities: who shows a certificate signed by one of them needs no token. Needs cert_file. Empty: no certificates are asked for."`
}

// guarded reports whether the API asks for anything at all.
func (a *API) guarded() bool { return a.TokenEnv != "" || a.TokenFile != "" || a.ClientCAFile != "" }

// TLS is how Postgres clients may encrypt.
type TLS struct {
	CertFile     string `toml:"cert_file" comment:"PEM file of the certificate that clients are shown, intermediate ones behind it. Empty: no TLS for clients."`
	KeyFile      string `toml:"key_file" comment:"PEM file of its private key."`
	ClientCAFile string `toml:"client_ca_file" comment:"PEM file of authorities: clients must then show a certificate signed by one of them, besides their password. Needs require. With [[hba]] rules they may show one, and rules with the method cert insist. Empty: no certificates are asked for."`
	MinVersion   string `toml:"min_version" comment:"Oldest version of TLS to agree to: 1.2 or 1.3."`
	Require      bool   `toml:"require" comment:"true: clients without TLS are refused, but for cancel requests, which most clients can only send in clear text."`
}

// BackendTLS is how the node encrypts towards PostgreSQL.
type BackendTLS struct {
	Mode   string `toml:"mode" comment:"disable: clear text. require: TLS, whoever answers. verify-ca: with a certificate signed by ca_file. verify-full: and made out to the host of the backend's address."`
	CAFile string `toml:"ca_file" comment:"PEM file of the authorities that verify-ca and verify-full trust, read again when it changes. Empty: the operating system's."`
}

// Pool bounds the connections to each backend.
type Pool struct {
	Size int      `toml:"size" comment:"Connections to one backend, over all users and databases."`
	Wait Duration `toml:"wait" comment:"How long a statement waits for a free connection before it fails. 0s: it does not wait."`
	Idle Duration `toml:"idle" comment:"A connection unused for this long is closed. 0s: never."`

	Connect Duration `toml:"connect_timeout" comment:"How long a connection may take to be made, authentication included, for a statement or for a login; after it another backend is tried, and this one counts as out of reach for this node."`

	Budget   int      `toml:"budget" comment:"Connections to one backend of the whole cluster, shared out evenly among its nodes, at least one each; probes and listeners for notifications are not counted. A dead node's share comes back after a minute. 0: only size counts."`
	Lifetime Duration `toml:"lifetime" comment:"A connection this old is closed once it is free; some up to a fifth earlier, so that not all end at once. 0s: never."`
	Prepared int      `toml:"prepared" comment:"Prepared statements that one connection keeps for all sessions; beyond it those unused for longest are closed, and prepared anew when they are needed: at least 100. 0: no limit."`
	Min      int      `toml:"min" comment:"Connections kept ready for each user and database that has sessions, at each backend they have used; two a second are made. 0: none."`
	Standby  int      `toml:"standby" comment:"The same at the backend of the shard that their reads would go to next, so that they need no login there when theirs has failed; only where three quarters of size are free and the backend is below reads.load_soft. 0: none."`
}

// Reads says which backends reads go to.
type Reads struct {
	MaxLag      Duration `toml:"max_lag" comment:"A replica that is further behind its primary than this, or of which nobody knows, serves no reads. 0s: no bound."`
	MaxLagBytes Size     `toml:"max_lag_bytes" comment:"The same for what it has still to replay, in bytes of WAL. 0B: no bound."`
	LoadSoft    int      `toml:"load_soft" comment:"Percentage of a backend's connections in use (max_connections without the reserved ones) from which on others as close are asked first. 0: never."`
	LoadHard    int      `toml:"load_hard" comment:"The same, from which on it is asked only when nothing else is left in any region. 0: never."`
	EjectErrors int      `toml:"eject_errors" comment:"A backend that in ten seconds answers this node with so many errors of the server (lost connections, no memory, no disk), spread over three of them and half of its answers, gets no reads for eject_time. 0: never."`
	EjectSlow   int      `toml:"eject_slow" comment:"The same for one whose reads take so many times longer than those of the shard's other backends, the way there not counted, and 10ms more at least. 0: never."`
	EjectTime   Duration `toml:"eject_time" comment:"How long the first ejection lasts; the second one twice as long, and so on. As long without another one forgets one. Never more than half of a shard's replicas are left out. 0s: nothing is ejected."`
	EjectMax    Duration `toml:"eject_max" comment:"The longest that an ejection lasts. 0s: no bound."`
	WarmUp      Duration `toml:"warm_up" comment:"How long a backend that was down or ejected takes to get its full share of the reads among those as close. 0s: it gets it at once."`
}

// KeepAlive is TCP's own question whether the other side is still there.
type KeepAlive struct {
	Idle     Duration `toml:"idle" comment:"It is asked when nothing was heard for this long. 0s: never."`
	Interval Duration `toml:"interval" comment:"And again after this long."`
}

// Console says who may use the admin database.
type Console struct {
	Users []string `toml:"users" comment:"Users that may look at this node, and pause databases on it. Empty: nobody."`
}

// Limits bounds what clients may ask for.
type Limits struct {
	Clients                  int      `toml:"clients" comment:"Clients logged in at once on this node; 5 more may use the console. 0: no limit but the operating system's."`
	UserClients              int      `toml:"user_clients" comment:"Sessions of one user at once on this node. 0: no limit."`
	DatabaseClients          int      `toml:"database_clients" comment:"Sessions of one database at once on this node. 0: no limit."`
	Handshakes               int      `toml:"handshakes" comment:"Connections at once that have not logged in yet, apart from clients. Beyond it the oldest of them is closed. 0: no limit."`
	Logins                   int      `toml:"logins" comment:"Logins a second from one address (IPv6: from one /64 network), and ten times that at once. 0: no limit."`
	StatementTimeout         Duration `toml:"statement_timeout" comment:"A Query message, or what is sent up to a Sync, is canceled when it has run for this long on a backend. Strikes up to a tenth late, by 20ms at least and 1s at most. 0s: never."`
	IdleTimeout              Duration `toml:"idle_timeout" comment:"A client that has sent nothing for this long outside a transaction is disconnected (57P05), also if it only listens for notifications. As late as statement_timeout. 0s: never."`
	IdleInTransactionTimeout Duration `toml:"idle_in_transaction_timeout" comment:"The same in a transaction, which is rolled back (25P03). 0s: never."`
	StartupTimeout           Duration `toml:"startup_timeout" comment:"Time from the first byte to a finished login."`
	Frame                    Size     `toml:"frame" comment:"Largest message a client may send, up to PostgreSQL's own limit of 1GiB."`
}

// Lab is a delay injected for demos and tests.
type Lab struct {
	Net string   `toml:"net" comment:"Network whose packets and connections are delayed, for example 127.0.2.0/24."`
	RTT Duration `toml:"rtt" comment:"Round trip added: half of it on the way there, half on the way back."`
}

// defaultAuthQuery finds users as PostgreSQL itself would let them in.
const defaultAuthQuery = "SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin"

// Defaults is the configuration before any file or flag.
func Defaults() Config {
	return Config{
		Bind:         "127.0.0.1",
		DataDir:      "/var/lib/rangefinder",
		DrainTimeout: Duration{10 * time.Second},
		DrainDelay:   Duration{5 * time.Second},
		TakeoverWait: Duration{10 * time.Minute},
		FailoverWait: Duration{10 * time.Second},
		Watchdog:     Duration{20 * time.Second},
		IOUring:      true,
		Ports:        Ports{Postgres: 6432, Cluster: 7946, HTTP: 8080},
		Log:          Log{Level: "info", Format: "text"},
		Auth:         Auth{Query: defaultAuthQuery, Lifetime: Duration{30 * time.Second}, Timeout: Duration{3 * time.Second}},
		Probe:        Probe{Database: "postgres", Interval: Duration{time.Second}, Timeout: Duration{time.Second}, Fall: 3, Rise: 2},
		TLS:          TLS{MinVersion: "1.2"},
		BackendTLS:   BackendTLS{Mode: "disable"},
		Pool:         Pool{Size: 20, Wait: Duration{5 * time.Second}, Idle: Duration{10 * time.Minute}, Connect: Duration{5 * time.Second}, Lifetime: Duration{time.Hour}, Prepared: 1000, Standby: 1},
		Scatter:      Scatter{QueryMemory: Size{64 << 20}, Memory: Size{512 << 20}},
		Reads: Reads{
			MaxLag: Duration{10 * time.Second}, LoadSoft: 80, LoadHard: 95, EjectErrors: 5, EjectSlow: 4,
			EjectTime: Duration{30 * time.Second}, EjectMax: Duration{5 * time.Minute}, WarmUp: Duration{30 * time.Second},
		},
		KeepAlive: KeepAlive{Idle: Duration{time.Minute}, Interval: Duration{10 * time.Second}},
		Limits:    Limits{Clients: 10000, Handshakes: 1000, StartupTimeout: Duration{10 * time.Second}, Frame: Size{64 << 20}},
	}
}
