package node

// tls checks the two tables about encryption.
func (c *checker) tls(cfg *Config) {
	t := cfg.TLS
	c.oneOf("tls.min_version", t.MinVersion, "1.2", "1.3")
	if c.pair("tls", t.CertFile, t.KeyFile); t.CertFile == "" && t.KeyFile == "" && t.Require {
		c.fail("tls.require", "tls.require needs a certificate", "give tls.cert_file and tls.key_file")
	}
	if t.ClientCAFile != "" && !t.Require && len(cfg.HBA) == 0 {
		c.fail("tls.client_ca_file", "tls.client_ca_file is of no use while clients may do without TLS", "add require = true")
	}
	b := cfg.BackendTLS
	c.oneOf("backend_tls.mode", b.Mode, "disable", "require", "verify-ca", "verify-full")
	if b.CAFile != "" && (b.Mode == "disable" || b.Mode == "require") {
		c.fail("backend_tls.ca_file", "backend_tls.ca_file is given, and mode "+b.Mode+" looks at no certificate", `set mode = "verify-full", or "verify-ca"`)
	}
	if cfg.Moves.CAFile != "" && (b.Mode == "disable" || b.Mode == "require") {
		c.fail("moves.ca_file", "moves.ca_file is given, and backend_tls.mode "+b.Mode+" looks at no certificate", `set backend_tls.mode = "verify-full", or "verify-ca"`)
	}
}

// pair checks that a certificate and its key are given together.
func (c *checker) pair(section, cert, key string) {
	switch {
	case cert == "" && key != "":
		c.fail(section+".cert_file", section+".key_file is given without "+section+".cert_file", "give both, or neither for no TLS")
	case cert != "" && key == "":
		c.fail(section+".key_file", section+".cert_file is given without "+section+".key_file", "give both, or neither for no TLS")
	}
}

// api checks who may use the admin API.
func (c *checker) api(cfg *Config) {
	a := cfg.API
	c.pair("api", a.CertFile, a.KeyFile)
	if a.TokenEnv != "" && a.TokenFile != "" {
		c.fail("api.token_env", "api.token_file and api.token_env are both given", "keep one of them")
	}
	if a.ClientCAFile != "" && a.CertFile == "" {
		c.fail("api.client_ca_file", "api.client_ca_file needs TLS: without it nobody can show a certificate", "give api.cert_file and api.key_file")
	}
}
