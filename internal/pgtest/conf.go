package pgtest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// defaults are the settings of every server: small, quick to start and to follow, and with all that later work needs, since
// several of them must be alike on a primary and its replicas. fsync is off: servers are killed here, machines are not.
func defaults() map[string]string {
	return map[string]string{
		"fsync":                        "off",
		"full_page_writes":             "off",
		"shared_buffers":               "16MB",
		"dynamic_shared_memory_type":   "mmap", // files in the data folder: nothing is left in /dev/shm after a kill
		"max_connections":              "100",
		"max_prepared_transactions":    "50",
		"max_wal_senders":              "20",
		"max_replication_slots":        "20",
		"max_worker_processes":         "16",
		"wal_level":                    "logical",
		"wal_init_zero":                "off", // less to write, and to remove
		"wal_recycle":                  "off",
		"wal_keep_size":                "64MB",
		"min_wal_size":                 "8MB",
		"hot_standby":                  "on",
		"hot_standby_feedback":         "on",
		"wal_receiver_status_interval": "1s",
		"wal_retrieve_retry_interval":  "100ms",
		"unix_socket_directories":      "",
		"log_line_prefix":              "%m [%p] %a ",
		"lc_messages":                  "C",
		"timezone":                     "UTC",
	}
}

// configure writes the settings and the authentication rules of s.
func (s *Server) configure() error {
	params := defaults()
	params["listen_addresses"] = s.bind
	params["port"] = fmt.Sprint(s.port)
	params["cluster_name"] = s.name
	if s.auth == "md5" {
		params["password_encryption"] = "md5"
	}
	if s.upstream != nil {
		params["primary_conninfo"] = s.upstream.conninfo(s.name)
	}
	if s.tls.Cert != nil {
		params["ssl"] = "on"
		for name, content := range map[string][]byte{"server.crt": s.tls.Cert, "server.key": s.tls.Key} {
			if err := s.write(name, string(content)); err != nil {
				return err
			}
		}
	}
	maps.Copy(params, s.params)
	var b strings.Builder
	escape := strings.NewReplacer(`\`, `\\`, "'", "''")
	for _, name := range slices.Sorted(maps.Keys(params)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, escape.Replace(params[name]))
	}
	if err := s.write("postgresql.conf", b.String()); err != nil {
		return err
	}
	rules := []string{"host replication all all " + s.auth, "host all " + superuser + " all " + s.auth}
	if rules = append(rules, s.hba...); len(s.hba) == 0 {
		rules = append(rules, "host all all all "+s.auth)
	}
	return s.write("pg_hba.conf", strings.Join(rules, "\n")+"\n")
}

// write writes one file of the data folder.
func (s *Server) write(name, content string) error {
	path := filepath.Join(s.data(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return s.farm.own(path)
}

// conninfo is libpq's connection string for replication from s. The application name makes the replica known by it. While it logs in, a
// WAL receiver has no time limit but TCP's own: without keepalives it waits for hours for a server whose end is gone.
func (s *Server) conninfo(application string) string {
	quote := func(v string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
	}
	return fmt.Sprintf("host=%s port=%d user=%s password=%s application_name=%s sslmode=disable gssencmode=disable keepalives_idle=5 keepalives_interval=2 keepalives_count=3 tcp_user_timeout=10000",
		s.bind, s.port, superuser, quote(s.password), quote(application))
}
