package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"

	"rangefinder/node/port"
	"rangefinder/wire/pg"
)

// maxConfig bounds the configuration file, in bytes.
const maxConfig = 4 << 20

// Load is Read, and checks the whole. A *ConfigError holds every mistake.
func Load(file string, override func(*Config)) (Config, error) {
	cfg, err := Read(file, override)
	if err != nil {
		return cfg, err
	}
	if problems := cfg.check(cfg.from.at); len(problems) > 0 {
		return cfg, &ConfigError{File: file, Problems: problems}
	}
	return cfg, nil
}

// Read reads a configuration file over the defaults and lets override set flags over it. file may be "" (defaults and flags
// alone). Relative paths in the file are relative to the file. Keys have the right types then, and are not checked beyond.
func Read(file string, override func(*Config)) (Config, error) {
	cfg := Defaults()
	if file != "" {
		doc, err := readConfig(file)
		if err != nil {
			return cfg, err
		}
		o, problems := decode(doc, &cfg)
		if len(problems) > 0 {
			return cfg, &ConfigError{File: file, Problems: problems}
		}
		cfg.from = source{file, o.at}
		cfg.relativeTo(filepath.Dir(file))
	}
	if override != nil {
		override(&cfg)
	}
	return cfg, nil
}

func readConfig(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	doc, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", file, err)
	}
	if len(doc) > maxConfig {
		return nil, fmt.Errorf("configuration %s is larger than %d bytes", file, maxConfig)
	}
	return doc, nil
}

// relativeTo makes the file's relative paths relative to its directory.
func (cfg *Config) relativeTo(dir string) {
	paths := []*string{&cfg.DataDir, &cfg.ClusterKeyFile, &cfg.Probe.PasswordFile, &cfg.Admin.PasswordFile, &cfg.Auth.PasswordFile,
		&cfg.TLS.CertFile, &cfg.TLS.KeyFile, &cfg.TLS.ClientCAFile, &cfg.BackendTLS.CAFile}
	for i := range cfg.Users {
		paths = append(paths, &cfg.Users[i].PasswordFile, &cfg.Users[i].VerifierFile)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// Secrets are what the configuration only refers to.
type Secrets struct {
	ClusterKey []byte            // 32 bytes, nil if none is configured
	OtherKeys  [][]byte          // that other nodes may use while the cluster key is changed
	Users      map[string]Secret // passwords, by user name
	Verifiers  map[string]Secret // of users without one: what pg.ParseShadow takes
	Probe      Secret
	Admin      Secret
	Auth       Secret
	API        []Token // of the admin API
}

// salts is the salt secret of all nodes of the cluster; nil without a cluster key.
func (s *Secrets) salts() []byte { return port.KeyFor(s.ClusterKey, port.PurposeSalts) }

// Format keeps keys and passwords out of whatever prints the whole struct, whichever verb it uses.
func (s Secrets) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(secrets)") }

// LogValue is the same for a log.
func (s Secrets) LogValue() slog.Value { return slog.StringValue("(secrets)") }

// LoadSecrets follows the configuration's references. All that are missing come back as one *ConfigError; warnings are for
// the log. getenv is os.LookupEnv outside of tests.
func (cfg *Config) LoadSecrets(getenv func(string) (string, bool)) (s Secrets, warnings []string, err error) {
	if getenv == nil {
		getenv = os.LookupEnv
	}
	c := &checker{at: cfg.from.at}
	s, warnings = cfg.readSecrets(getenv, c)
	if len(c.problems) > 0 {
		err = &ConfigError{File: cfg.from.file, Problems: c.problems}
	}
	return s, warnings, err
}

// readSecrets does that, and tells c what is missing.
func (cfg *Config) readSecrets(getenv func(string) (string, bool), c *checker) (s Secrets, warnings []string) {
	read := func(prefix, name, env, file string) Secret {
		if env != "" && file != "" { // check says so
			return Secret{}
		}
		secret, warning, err := readSecret(env, file, getenv)
		if warning != "" {
			warnings = append(warnings, warning)
		}
		if err != nil {
			key := prefix + "_file"
			if env != "" {
				key = prefix + "_env"
			}
			c.fail(key, name+": "+err.Error(), "")
		}
		return secret
	}
	if key := read("cluster_key", "cluster_key", cfg.ClusterKeyEnv, cfg.ClusterKeyFile); key.Set() {
		var err error
		if s.ClusterKey, s.OtherKeys, err = port.ParseKeys(key.Reveal()); err != nil {
			c.fail("cluster_key_file", "cluster_key: "+err.Error(), "")
		}
	}
	s.Users = make(map[string]Secret, len(cfg.Users))
	s.Verifiers = make(map[string]Secret)
	for i, u := range cfg.Users {
		key, name := fmt.Sprintf("users[%d]", i), fmt.Sprintf("users[%d] (%s)", i, u.Name)
		if u.VerifierEnv == "" && u.VerifierFile == "" {
			s.Users[u.Name] = read(key+".password", name, u.PasswordEnv, u.PasswordFile)
			continue
		}
		verifier := read(key+".verifier", name, u.VerifierEnv, u.VerifierFile)
		if _, err := pg.ParseShadow(verifier.Reveal()); err != nil && verifier.Set() {
			c.fail(key+".verifier_file", name+": "+err.Error(), "take rolpassword from pg_authid, as it stands")
		}
		s.Verifiers[u.Name] = verifier
	}
	s.Probe = read("probe.password", "probe", cfg.Probe.PasswordEnv, cfg.Probe.PasswordFile)
	s.Auth = read("auth.password", "auth", cfg.Auth.PasswordEnv, cfg.Auth.PasswordFile)
	s.Admin = read("admin.password", "admin", cfg.Admin.PasswordEnv, cfg.Admin.PasswordFile)
	if text := read("api.token", "api", cfg.API.TokenEnv, cfg.API.TokenFile); text.Set() {
		var err error
		if s.API, err = parseTokens(text); err != nil {
			key := "api.token_file"
			if cfg.API.TokenEnv != "" {
				key = "api.token_env"
			}
			c.fail(key, "api: "+err.Error(), "make one with: rangefinder key")
		}
	}
	return s, warnings
}

// ErrNoKey is the refusal to listen beyond loopback without a cluster key.
var ErrNoKey = errors.New("no cluster key")

// checkExposure refuses what would let strangers in, unless the configuration says that it is meant.
func (cfg *Config) checkExposure(key []byte) error {
	addr := cfg.exposed()
	if addr == "" || key != nil || cfg.Insecure {
		return nil
	}
	return &Failure{
		Message: fmt.Sprintf("refusing to listen on %s: %v", addr, ErrNoKey),
		Detail:  "Without a key anyone who can reach the cluster port could join the cluster and read or change where rows go.",
		Hint: "Make a key and give it to every node:\n" +
			"  rangefinder key > cluster.key && chmod 600 cluster.key\n" +
			"  rangefinder start --cluster-key-file cluster.key ...\n" +
			"or listen on 127.0.0.1, or say --insecure.",
		Err: ErrNoKey,
	}
}

// Print writes the effective configuration as TOML that can be read again, each key under its description. It holds no
// secrets: only the names of the variables and files that do.
func (cfg *Config) Print(w io.Writer) error {
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).Encode(cfg); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	_, err := io.WriteString(w, "# Effective configuration: defaults, file and flags.\n"+b.String())
	return err
}

// Failure is an error for a person: what went wrong, what is known about it, and what to do.
type Failure struct {
	Message string
	Detail  string
	Hint    string
	Err     error // what errors.Is finds; may be nil
}

// Error is the message alone; the command line prints detail and hint on lines of their own.
func (f *Failure) Error() string { return f.Message }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }
