package node

// tls checks the two tables about encryption.
func (c *checker) tls(cfg *Config) {
	t := cfg.TLS
	c.oneOf("tls.min_version", t.MinVersion, "1.2", "1.3")
	switch {
	case t.CertFile == "" && t.KeyFile != "":
		c.fail("tls.cert_file", "tls.key_file is given without tls.cert_file", "give both, or neither for no TLS")
	case t.CertFile != "" && t.KeyFile == "":
		c.fail("tls.key_file", "tls.cert_file is given without tls.key_file", "give both, or neither for no TLS")
	case t.CertFile == "" && t.Require:
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
}
