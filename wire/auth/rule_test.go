package auth

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"rangefinder/wire/pg"
)

func parse(t testing.TB, connection, databases, users, address, method string) Rule {
	t.Helper()
	r, err := ParseRule(connection, strings.Fields(databases), strings.Fields(users), address, method)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRuleMatches(t *testing.T) {
	for _, c := range []struct {
		rule  [4]string // connection, databases, users, address
		peer  [3]string // user, database, address
		tls   bool
		match bool
	}{
		{[4]string{}, [3]string{"app", "shop", "10.1.2.3"}, false, true},
		{[4]string{"any", "all", "all", "all"}, [3]string{"app", "shop", "fd00::1"}, true, true},
		{[4]string{"any", "all", "all", "all"}, [3]string{"app", "shop", ""}, true, true},
		{[4]string{"hostssl"}, [3]string{"app", "shop", "10.1.2.3"}, true, true},
		{[4]string{"hostssl"}, [3]string{"app", "shop", "10.1.2.3"}, false, false},
		{[4]string{"hostnossl"}, [3]string{"app", "shop", "10.1.2.3"}, true, false},
		{[4]string{"hostnossl"}, [3]string{"app", "shop", "10.1.2.3"}, false, true},
		{[4]string{"", "shop x", "", ""}, [3]string{"app", "shop", "10.1.2.3"}, false, true},
		{[4]string{"", "shops", "", ""}, [3]string{"app", "shop", "10.1.2.3"}, false, false},
		{[4]string{"", "shop all", "", ""}, [3]string{"app", "rangefinder", "10.1.2.3"}, false, true},
		{[4]string{"", "", "App", ""}, [3]string{"app", "shop", "10.1.2.3"}, false, false},
		{[4]string{"", "", "b app", ""}, [3]string{"app", "shop", "10.1.2.3"}, false, true},
		{[4]string{"", "", "", "10.0.0.0/8"}, [3]string{"app", "shop", "10.255.0.1"}, false, true},
		{[4]string{"", "", "", "10.9.9.9/8"}, [3]string{"app", "shop", "10.255.0.1"}, false, true},
		{[4]string{"", "", "", "10.0.0.0/8"}, [3]string{"app", "shop", "11.0.0.1"}, false, false},
		{[4]string{"", "", "", "10.0.0.0/8"}, [3]string{"app", "shop", ""}, false, false},
		{[4]string{"", "", "", "0.0.0.0/0"}, [3]string{"app", "shop", "fd00::1"}, false, false},
		{[4]string{"", "", "", "::/0"}, [3]string{"app", "shop", "10.0.0.1"}, false, false},
		{[4]string{"", "", "", "::ffff:10.0.0.0/104"}, [3]string{"app", "shop", "10.0.0.1"}, false, true},
		{[4]string{"", "", "", "10.0.0.1"}, [3]string{"app", "shop", "10.0.0.1"}, false, true},
		{[4]string{"", "", "", "10.0.0.1"}, [3]string{"app", "shop", "10.0.0.2"}, false, false},
		{[4]string{"", "", "", "fd00::/8"}, [3]string{"app", "shop", "fdab::2"}, false, true},
	} {
		r := parse(t, c.rule[0], c.rule[1], c.rule[2], c.rule[3], MethodReject)
		p := &pg.Peer{User: c.peer[0], Database: c.peer[1]}
		if c.peer[2] != "" {
			p.Addr = netip.MustParseAddr(c.peer[2])
		}
		if c.tls {
			p.TLS = new(tls.ConnectionState)
		}
		if r.matches(p) != c.match {
			t.Errorf("rule %q and %q, TLS %v: match is %v", c.rule, c.peer, c.tls, !c.match)
		}
	}
}

func TestFirstRuleCounts(t *testing.T) {
	p := &Policy{Rules: []Rule{
		parse(t, "", "", "mallory", "", MethodReject),
		parse(t, "", "", "", "10.0.0.0/8", pg.MethodTrust),
		parse(t, "hostssl", "", "", "", pg.MethodSCRAM),
		parse(t, "hostssl", "", "", "", pg.MethodTrust),
	}}
	for _, c := range []struct{ user, addr, want string }{
		{"app", "10.0.0.1", pg.MethodTrust},
		{"mallory", "10.0.0.1", `an [[hba]] rule rejects connection for host "10.0.0.1", user "mallory", database "d", no encryption`},
		{"app", "11.0.0.1", `no [[hba]] rule for host "11.0.0.1", user "app", database "d", no encryption`},
		{"app", "TLS", pg.MethodSCRAM},
	} {
		peer := &pg.Peer{User: c.user, Database: "d"}
		if c.addr == "TLS" {
			peer.TLS = new(tls.ConnectionState)
		} else {
			peer.Addr = netip.MustParseAddr(c.addr)
		}
		method, refusal := p.Rule(peer)
		if refusal != nil {
			method = refusal.Message
			if refusal.Code != "28000" {
				t.Errorf("SQLSTATE %s", refusal.Code)
			}
		}
		if method != c.want {
			t.Errorf("%s from %s: %s, want %s", c.user, c.addr, method, c.want)
		}
	}
	if method, refusal := new(Policy).Rule(&pg.Peer{User: "app"}); method != pg.MethodSCRAM || refusal != nil {
		t.Errorf("without rules: %s, %v", method, refusal)
	}
}

func TestOpenRules(t *testing.T) {
	for address, open := range map[string]bool{
		"": true, "all": true, "10.0.0.0/8": true, "127.0.0.0/8": false, "127.0.0.1": false, "127.0.0.0/7": true, "::1": false, "::/127": true, "0.0.0.0/0": true, "::ffff:127.0.0.1": false,
	} {
		if r := parse(t, "", "", "", address, pg.MethodTrust); r.Open() != open {
			t.Errorf("%q: open is %v", address, r.Open())
		}
	}
	if r := parse(t, "", "", "", "", pg.MethodSCRAM); r.Open() {
		t.Error("SCRAM is open")
	}
}

// FuzzRule: what is read of a rule is a rule that never lets passwords out in clear text, or an error that names the field.
func FuzzRule(f *testing.F) {
	f.Add("hostssl", "shop", "app", "10.0.0.0/8", "cert")
	f.Add("", "", "", "::ffff:10.0.0.0/95", "password")
	f.Add("any", "all", "", "fe80::1%eth0", "trust")
	f.Fuzz(func(t *testing.T, connection, databases, users, address, method string) {
		r, err := ParseRule(connection, strings.Fields(databases), strings.Fields(users), address, method)
		var bad *RuleError
		if err != nil {
			if !errors.As(err, &bad) || !errors.Is(err, ErrRule) || bad.Field == "" || bad.Hint == "" {
				t.Fatalf("error %v", err)
			}
			return
		}
		far := &pg.Peer{User: "app", Database: "shop", Addr: netip.MustParseAddr("192.0.2.1")}
		if r.matches(far) && (r.Method == pg.MethodPassword || r.Method == pg.MethodCert) {
			t.Fatalf("%+v asks a stranger in clear text", r)
		}
	})
}
