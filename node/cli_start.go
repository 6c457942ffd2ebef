package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"rangefinder/node/port"
)

// configFlags are the keys of the configuration that can be given by hand. A flag that is absent leaves the key alone.
type configFlags struct {
	Config         string    `short:"c" placeholder:"FILE" help:"Configuration file (TOML)."`
	Region         *string   `key:"region" help:"Datacenter this node stands in."`
	Name           *string   `key:"name" help:"This node's name; default: made once from the region."`
	Bind           *string   `key:"bind" placeholder:"IP" help:"Address to listen on; anything but loopback needs a cluster key."`
	Advertise      *string   `key:"advertise" placeholder:"HOST[:PORT]" help:"How other nodes reach the cluster port."`
	HTTPBind       *string   `key:"http_bind" name:"http-bind" placeholder:"IP" help:"Address of the HTTP port."`
	DataDir        *string   `key:"data_dir" placeholder:"DIR" help:"Where this node keeps its state."`
	Join           []string  `key:"join" placeholder:"HOST:PORT" help:"Cluster ports of nodes to join; may be repeated. Without it, the first start makes a new cluster."`
	ClusterKeyFile *string   `key:"cluster_key_file" placeholder:"FILE" help:"The cluster key."`
	ClusterKeyEnv  *string   `key:"cluster_key_env" placeholder:"VARIABLE" help:"Environment variable with the cluster key."`
	Insecure       *bool     `key:"insecure" negatable:"" help:"Listen beyond loopback without a cluster key."`
	DrainTimeout   *Duration `key:"drain_timeout" placeholder:"10s" help:"How long sessions may finish on SIGTERM."`
	PostgresPort   *int      `key:"ports.postgres" placeholder:"6432" help:"Port for Postgres clients."`
	ClusterPort    *int      `key:"ports.cluster" placeholder:"7946" help:"Port for other nodes."`
	HTTPPort       *int      `key:"ports.http" name:"http-port" placeholder:"8080" help:"Port of debug page, metrics and admin API."`
	LogLevel       *string   `key:"log.level" placeholder:"info" help:"debug, info, warn or error."`
	LogFormat      *string   `key:"log.format" placeholder:"text" help:"text or json."`
}

// apply sets what was given over what the file says.
func (f *configFlags) apply(cfg *Config) {
	set(&cfg.Region, f.Region)
	set(&cfg.Name, f.Name)
	set(&cfg.Bind, f.Bind)
	set(&cfg.Advertise, f.Advertise)
	set(&cfg.HTTPBind, f.HTTPBind)
	set(&cfg.DataDir, f.DataDir)
	if len(f.Join) > 0 {
		cfg.Join = f.Join
	}
	if f.ClusterKeyFile != nil || f.ClusterKeyEnv != nil { // either flag replaces whichever of both the file has
		cfg.ClusterKeyFile, cfg.ClusterKeyEnv = "", ""
	}
	set(&cfg.ClusterKeyFile, f.ClusterKeyFile)
	set(&cfg.ClusterKeyEnv, f.ClusterKeyEnv)
	set(&cfg.Insecure, f.Insecure)
	set(&cfg.DrainTimeout, f.DrainTimeout)
	set(&cfg.Ports.Postgres, f.PostgresPort)
	set(&cfg.Ports.Cluster, f.ClusterPort)
	set(&cfg.Ports.HTTP, f.HTTPPort)
	set(&cfg.Log.Level, f.LogLevel)
	set(&cfg.Log.Format, f.LogFormat)
}

func set[T any](to *T, flag *T) {
	if flag != nil {
		*to = *flag
	}
}

type startCmd struct {
	configFlags
	Takeover    bool `help:"Take over from the process that runs with this data_dir, without refusing a client or ending a session. If none runs, start as usual."`
	PrintConfig bool `help:"Print the effective configuration and exit."`
}

// Help is shown under the flags of `rangefinder start --help`.
func (startCmd) Help() string {
	return `The first node of a cluster is started without --join and makes the cluster; every other node names one or more that run:

  rangefinder start --config iad.toml
  rangefinder start --config fra.toml --join 10.0.0.1:7946

A restart needs no --join: the node knows its cluster from data_dir and never makes a second one.
Every flag has a key in the file, which it overrides; 'rangefinder config' prints them all.
With --takeover a new process takes over from the one that runs with the same data_dir: no client is refused, no session ends.
SIGHUP reads the configuration again. SIGTERM drains: readyz turns 503, sessions finish their transaction (drain_timeout), the node leaves. A second signal ends it at once.`
}

// Run starts a node and stays until it is told to stop.
func (c *startCmd) Run(e *env) error {
	cfg, err := Load(c.Config, c.apply)
	if err != nil {
		return err
	}
	if c.PrintConfig {
		return cfg.Print(e.stdout)
	}
	level := new(slog.LevelVar)
	level.Set(levelOf(cfg.Log))
	log := newLogger(cfg.Log, level, e)
	n, err := New(cfg, Options{
		Logger: log, Level: level, Getenv: e.getenv, Takeover: c.Takeover,
		Load: func() (Config, error) { return Read(c.Config, c.apply) },
	})
	if err != nil {
		return err
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP) // from now on it ends the process no more
	defer signal.Stop(reload)
	if err := n.Open(e.ctx); err != nil {
		if e.ctx.Err() != nil {
			return nil // asked to stop before it was ready: Open has stopped everything again
		}
		return err
	}
	e.notify(fmt.Sprintf("READY=1\nMAINPID=%d", os.Getpid()))
	steer, stop := context.WithCancel(context.Background())
	defer stop()
	go steerProcessors(steer, runtime.GOMAXPROCS(0))
	for {
		select {
		case <-reload:
			_, _ = n.Reload("SIGHUP") // it has logged what came of it
			continue
		case <-e.ctx.Done():
			if phase(n.phase.Load()) != phaseHanded { // else another process is the service
				e.notify("STOPPING=1")
			}
			log.Info("asked to stop; a second signal ends the process at once", "drain_timeout", n.cfg().DrainTimeout.Duration)
		case <-n.Failed():
		case <-n.Retired():
		}
		return n.Close()
	}
}

// notify tells systemd how this process does, if it was started by systemd and wants to know (Type=notify).
func (e *env) notify(state string) {
	path, _ := e.getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.Dial("unixgram", path) // '@' at its beginning: an abstract one
	if err != nil {
		return // nobody can be told
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}

func levelOf(l Log) (level slog.Level) {
	_ = level.UnmarshalText([]byte(l.Level)) // checked when the configuration was
	return level
}

// newLogger writes one record a line to standard error.
func newLogger(l Log, level *slog.LevelVar, e *env) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(e.stderr, options))
	}
	return slog.New(slog.NewTextHandler(e.stderr, options))
}

type configCmd struct {
	configFlags
}

// Run prints the configuration.
func (c *configCmd) Run(e *env) error {
	cfg, err := Load(c.Config, c.apply)
	if err != nil {
		return err
	}
	return cfg.Print(e.stdout)
}

type keyCmd struct{}

// Help is shown by `rangefinder key --help`.
func (keyCmd) Help() string {
	return `Give the same key to every node of a cluster:

  rangefinder key > cluster.key && chmod 600 cluster.key
  rangefinder start --config iad.toml --cluster-key-file cluster.key`
}

// Run prints a key.
func (keyCmd) Run(e *env) error {
	_, err := fmt.Fprintln(e.stdout, port.NewKey())
	return err
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(e *env) error {
	_, err := fmt.Fprintln(e.stdout, "rangefinder", Version())
	return err
}

// Version is the module's version, or the commit it was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version, dirty := info.Main.Version, ""
	if version == "" || version == "(devel)" {
		version = "devel"
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision" && len(s.Value) >= 12:
				version = "devel " + s.Value[:12]
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = " with changes"
			}
		}
	}
	return version + dirty + " " + info.GoVersion
}
