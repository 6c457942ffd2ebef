package pgtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNotRunning is returned when a server that does not run is asked for something that needs it.
var ErrNotRunning = errors.New("the PostgreSQL server does not run")

// superuser is the name of every server's superuser.
const superuser = "postgres"

// startTimeout bounds a start. It takes some 100 ms on an idle machine; tests run on busy ones.
const startTimeout = 60 * time.Second

// Options say how a server is made. The zero value is a good one.
type Options struct {
	Name     string            // in messages, logs and pg_stat_replication; "": one of the farm's choice
	Bind     string            // the address it listens on; "": 127.0.0.1
	Port     int               // 0: a free one
	Auth     string            // of all clients: trust, password, md5, scram-sha-256; "": trust
	HBA      []string          // pg_hba.conf's rules for all but the superuser and replicas; empty: one by Auth. A replica has its primary's
	Password string            // the superuser's (user postgres); "": a random one, the farm's. A replica has its primary's
	TLS      KeyPair           // what it shows clients that ask for TLS; zero: it speaks none
	Env      []string          // of its processes, over the farm's: NAME=value
	Params   map[string]string // settings, over the farm's own (and, for a replica, over its primary's)
	Logger   *slog.Logger      // starts, kills and the like; nil: silence
}

// Server is one PostgreSQL server. Its methods may be called concurrently.
type Server struct {
	// constant once made
	farm     *Farm
	name     string
	dir      string // holds the data folder and the log
	bind     string
	port     int
	auth     string
	hba      []string
	password string // superuser's
	env      []string
	tls      KeyPair
	systemID uint64
	log      *slog.Logger

	// guarded by mu
	mu     sync.Mutex
	pid    int           // postmaster's; 0: none runs
	exited chan struct{} // closed when that postmaster was waited for
	frozen bool
	users  map[string]string // passwords, by CreateUser
	kept   *pgx.Conn         // nil: none, or Ask uses it

	params   map[string]string
	upstream *Server // a replica's primary; of one that was promoted since, the one before
}

// Primary makes and starts a primary, with a system identifier of its own.
//
// It is a copy of one data folder that initdb has made for the farm (see template), unless it needs an initdb of its own: for a password that
// was asked for, or for one that is kept as MD5 (see initialize). WAL segments of 1 MB instead of 16 halve what nine servers write, and what
// has to be removed in the end.
func (f *Farm) Primary(ctx context.Context, o Options) (*Server, error) {
	s := f.newServer(o, nil)
	if err := f.register("primary", s); err != nil {
		return nil, err
	}
	var err error
	if o.Password != "" || s.auth == "md5" {
		err = f.initialize(ctx, s.data(), s.password, s.auth)
	} else {
		err = f.fromTemplate(ctx, s.data())
	}
	if err != nil {
		return nil, err
	}
	return s, s.firstStart(ctx)
}

// Replica makes and starts a replica of a running primary (or of another replica), and returns once it streams.
func (f *Farm) Replica(ctx context.Context, of *Server, o Options) (*Server, error) {
	s := f.newServer(o, of)
	if err := f.register("replica", s); err != nil {
		return nil, err
	}
	if err := s.copyOf(ctx, of); err != nil {
		return nil, err
	}
	if err := s.firstStart(ctx); err != nil {
		return nil, err
	}
	return s, s.Streaming(ctx)
}

func (f *Farm) newServer(o Options, of *Server) *Server {
	s := &Server{
		farm:     f,
		name:     o.Name,
		bind:     cmp.Or(o.Bind, "127.0.0.1"),
		port:     o.Port,
		auth:     cmp.Or(o.Auth, "trust"),
		hba:      o.HBA,
		password: cmp.Or(o.Password, f.template.password),
		env:      o.Env,
		params:   map[string]string{},
		tls:      o.TLS,
		upstream: of,
		log:      o.Logger,
		users:    map[string]string{},
	}
	if of != nil {
		s.password = of.password
		if o.Auth == "" {
			s.auth = of.auth
		}
		if o.HBA == nil {
			s.hba = of.hba
		}
		of.mu.Lock()
		maps.Copy(s.params, of.params)
		maps.Copy(s.users, of.users)
		of.mu.Unlock()
	}
	maps.Copy(s.params, o.Params)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// firstStart starts s on its port, or on a free one: another process may take that between the choice and the start, so
// it tries a few.
func (s *Server) firstStart(ctx context.Context) error {
	given := s.port != 0
	if !given && s.farm.net != nil {
		return fmt.Errorf("%s: a server in another network must be given its port", s.name)
	}
	var err error
	for range 5 {
		if !given {
			if s.port, err = freePort(s.bind); err != nil {
				return err
			}
		}
		if err = s.configure(); err != nil {
			return err
		}
		if err = s.Start(ctx); err == nil {
			s.systemID, err = identifier(s.data())
			return err
		}
		if given || ctx.Err() != nil || !strings.Contains(err.Error(), "could not bind") {
			return err
		}
	}
	return err
}

func freePort(bind string) (int, error) {
	ln, err := net.Listen("tcp", net.JoinHostPort(bind, "0"))
	if err != nil {
		return 0, err
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

// Start starts a server that was stopped or killed, on the same port, and returns once it takes connections.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid != 0 {
		return fmt.Errorf("%s already runs", s.name)
	}
	logFile, err := os.OpenFile(s.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = logFile.Close() }()
	from, err := logFile.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}

	cmd := exec.Command(filepath.Join(s.farm.bin, "postgres"), "-D", s.data())
	cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.Env = logFile, logFile, s.dir, append(environment(), s.env...)
	begin := time.Now()
	if err := s.farm.launch(cmd); err != nil {
		return err
	}
	pid, exited := cmd.Process.Pid, make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(exited)
	}()
	if err := s.ready(ctx, pid, exited); err != nil {
		if pids, stopErr := stopFamily(pid); stopErr == nil {
			signalAll(pids, syscall.SIGKILL)
		}
		<-exited
		return fmt.Errorf("start %s on %s: %w: %s", s.name, s.Addr(), err, s.logSince(from))
	}
	s.pid, s.exited, s.frozen = pid, exited, false
	s.log.Info("PostgreSQL started", "server", s.name, "addr", s.Addr(), "pid", pid, "took", time.Since(begin))
	return nil
}

// launch starts a server unless the farm is being closed.
func (f *Farm) launch(cmd *exec.Cmd) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrClosed
	}
	return f.start.start(cmd, f.cred, immediateShutdown)
}

// ready waits until the postmaster says in postmaster.pid, as it does for pg_ctl, that it takes connections.
func (s *Server) ready(ctx context.Context, pid int, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if b, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid")); err == nil {
			lines := strings.Split(string(b), "\n")
			if len(lines) >= 8 && lines[0] == strconv.Itoa(pid) && strings.TrimSpace(lines[7]) == "ready" {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-exited:
			return errors.New("it ended")
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", ctx.Err())
		}
	}
}

// logSince returns the end of the log, from an offset on.
func (s *Server) logSince(from int64) string {
	b, err := os.ReadFile(s.LogFile())
	if err != nil || int64(len(b)) < from {
		return "(no log)"
	}
	b = b[from:]
	return strings.TrimSpace(string(b[max(0, len(b)-4096):]))
}

// LogEnd returns the last few lines of the server's log, 4 KB at most.
func (s *Server) LogEnd() string { return s.logSince(0) }

// Name returns the server's name.
func (s *Server) Name() string { return s.name }

// Addr returns host:port.
func (s *Server) Addr() string { return net.JoinHostPort(s.bind, strconv.Itoa(s.port)) }

// Port returns the port it listens on; it stays the same over restarts.
func (s *Server) Port() int { return s.port }

// Password returns the superuser's password.
func (s *Server) Password() string { return s.password }

// SystemID returns PostgreSQL's system identifier: a replica has its primary's.
func (s *Server) SystemID() uint64 { return s.systemID }

// LogFile returns the path of the server's log.
func (s *Server) LogFile() string { return filepath.Join(s.dir, "log") }

// PID returns the postmaster's process id, 0 if it does not run.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// DSN returns a connection URL. An empty database is postgres, an empty user the superuser; the password is in it for the
// superuser and for users made by CreateUser.
func (s *Server) DSN(database, user string) string {
	user = cmp.Or(user, superuser)
	password := s.password
	if user != superuser {
		s.mu.Lock()
		password = s.users[user]
		s.mu.Unlock()
	}
	u := url.URL{Scheme: "postgres", Host: s.Addr(), Path: "/" + cmp.Or(database, "postgres"), User: url.User(user), RawQuery: "sslmode=disable"}
	if password != "" {
		u.User = url.UserPassword(user, password)
	}
	return u.String()
}

// Conn connects to the database postgres as the superuser. The caller closes it.
func (s *Server) Conn(ctx context.Context) (*pgx.Conn, error) { return s.ConnTo(ctx, "", "") }

// ConnTo connects to a database as a user, both as DSN takes them. The caller closes it.
func (s *Server) ConnTo(ctx context.Context, database, user string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(s.DSN(database, user))
	if err != nil {
		return nil, err
	}
	if s.farm.net != nil {
		cfg.DialFunc = s.farm.net.Dial
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", s.name, err)
	}
	return conn, nil
}

// Ask calls f with a connection to the database postgres as the superuser, which is kept for the next call: a new one takes a server
// longer than most questions. f leaves nothing set in the session. If it fails over a connection that has ended since, as after a restart, it
// is called once more over a new one.
func (s *Server) Ask(ctx context.Context, f func(*pgx.Conn) error) error {
	s.mu.Lock()
	conn := s.kept
	s.kept = nil
	s.mu.Unlock()
	old := conn != nil
	for {
		if conn == nil {
			var err error
			if conn, err = s.Conn(ctx); err != nil {
				return err
			}
		}
		err := f(conn)
		if !conn.IsClosed() {
			s.mu.Lock()
			conn, s.kept = s.kept, conn
			s.mu.Unlock()
			if conn != nil { // another call has been faster
				_ = conn.Close(ctx)
			}
			return err
		}
		if !old || ctx.Err() != nil {
			return err
		}
		conn, old = nil, false
	}
}

// Exec runs statements in the database postgres as the superuser, one by one.
func (s *Server) Exec(ctx context.Context, sql ...string) error { return s.ExecIn(ctx, "", sql...) }

// ExecIn runs statements in a database as the superuser, one by one. Each may hold several, separated by semicolons, which
// then are one transaction.
func (s *Server) ExecIn(ctx context.Context, database string, sql ...string) error {
	conn, err := s.ConnTo(ctx, database, "")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, stmt := range sql {
		if _, err := conn.PgConn().Exec(ctx, stmt).ReadAll(); err != nil {
			return fmt.Errorf("%s: %q: %w", s.name, stmt, err)
		}
	}
	return nil
}

// CreateUser makes a role that may log in, with a password, which DSN then knows. attributes are those of CREATE ROLE, such
// as "SUPERUSER".
func (s *Server) CreateUser(ctx context.Context, name, password, attributes string) error {
	sql := fmt.Sprintf("CREATE ROLE %s LOGIN %s PASSWORD '%s'", pgx.Identifier{name}.Sanitize(), attributes, strings.ReplaceAll(password, "'", "''"))
	if err := s.Exec(ctx, sql); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[name] = password
	return nil
}
