package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"rangefinder/wire/pg"
)

// Connection is the kind of connection that a Rule is about.
type Connection uint8

// The kinds of connections.
const (
	AnyConnection Connection = iota
	Encrypted                // "hostssl"
	ClearText                // "hostnossl"
)

// All is the word for every database, user or address.
const All = "all"

// MethodReject is the method of a rule that lets nobody in. The other methods are pg's.
const MethodReject = "reject"

// Rule is one line of who may come in how. The first that matches counts, also if the login then fails.
type Rule struct {
	Connection Connection
	Databases  []string     // nil: all of them, and the console
	Users      []string     // nil: all
	Address    netip.Prefix // the zero Prefix: all
	Method     string
}

// ErrRule is what ParseRule's errors wrap. Each of them says what would be right.
var ErrRule = errors.New("not a rule")

// RuleError says what is wrong with one field of a rule.
type RuleError struct {
	Field string // connection, databases, users, address or method
	Text  string // what is wrong
	Hint  string // what would be right
}

// Error tells both.
func (e *RuleError) Error() string { return e.Text + "; " + e.Hint }

// Unwrap is ErrRule.
func (e *RuleError) Unwrap() error { return ErrRule }

// ParseRule reads a rule as the configuration writes it. Empty fields other than the method mean all. Errors are *RuleError.
func ParseRule(connection string, databases, users []string, address, method string) (Rule, error) {
	r := Rule{Databases: names(databases), Users: names(users), Method: method}
	switch connection {
	case "", "any":
	case "hostssl":
		r.Connection = Encrypted
	case "hostnossl":
		r.Connection = ClearText
	default:
		return r, &RuleError{"connection", fmt.Sprintf("%q is unknown", connection), "use one of any, hostssl, hostnossl"}
	}
	if address != "" && address != All {
		p, err := parseAddress(address)
		if err != nil {
			return r, &RuleError{"address", fmt.Sprintf("%q is not a network", address), `write one as 10.0.0.0/8 or fd00::/8, one address as it is, or "all"`}
		}
		r.Address = p
	}
	known := []string{pg.MethodTrust, pg.MethodPassword, pg.MethodMD5, pg.MethodSCRAM, pg.MethodCert, MethodReject}
	switch {
	case !slices.Contains(known, method):
		return r, &RuleError{"method", fmt.Sprintf("%q is unknown", method), "use one of " + strings.Join(known, ", ")}
	case method == pg.MethodCert && r.Connection != Encrypted:
		return r, &RuleError{"method", "cert needs encrypted connections", `add connection = "hostssl"`}
	case method == pg.MethodPassword && r.Connection != Encrypted && !r.loopback():
		return r, &RuleError{"method", "password would send passwords over a network in clear text", `use scram-sha-256, or add connection = "hostssl"`}
	}
	return r, nil
}

// names is nil if the list is for everybody.
func names(list []string) []string {
	if len(list) == 0 || slices.Contains(list, All) {
		return nil
	}
	return slices.Clone(list)
}

func parseAddress(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, err
	}
	if a := p.Addr(); a.Is4In6() { // addresses are compared as IPv4
		if p.Bits() < 96 {
			return p, errors.New("it covers more than the IPv4 addresses within IPv6")
		}
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// loopback tells whether the rule matches this machine's own connections alone.
func (r *Rule) loopback() bool {
	a := r.Address
	return a.IsValid() && a.Addr().IsLoopback() && (a.Addr().Is6() && a.Bits() == 128 || a.Addr().Is4() && a.Bits() >= 8)
}

// Open tells whether the rule lets people in from beyond this machine without asking for anything.
func (r *Rule) Open() bool { return r.Method == pg.MethodTrust && !r.loopback() }

func (r *Rule) matches(p *pg.Peer) bool {
	return (r.Connection == AnyConnection || (r.Connection == Encrypted) == (p.TLS != nil)) &&
		(r.Databases == nil || slices.Contains(r.Databases, p.Database)) &&
		(r.Users == nil || slices.Contains(r.Users, p.User)) &&
		(!r.Address.IsValid() || r.Address.Contains(p.Addr))
}

// Rule is the method by which p must prove who it is, or what it is told instead. Without rules it is SCRAM-SHA-256 for everybody.
func (p *Policy) Rule(peer *pg.Peer) (method string, refusal *pg.Error) {
	if len(p.Rules) == 0 {
		return pg.MethodSCRAM, nil
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		switch {
		case !r.matches(peer):
		case r.Method == MethodReject:
			return "", pg.NewError(pg.CodeInvalidAuthorization, "an [[hba]] rule rejects connection for "+describe(peer))
		default:
			return r.Method, nil
		}
	}
	return "", pg.NewError(pg.CodeInvalidAuthorization, "no [[hba]] rule for "+describe(peer)).
		WithHint("The rules are under [[hba]] in the node's configuration; the first that matches counts.")
}

// describe says who wants in, in PostgreSQL's words.
func describe(p *pg.Peer) string {
	host, encryption := "???", "no encryption"
	if p.Addr.IsValid() {
		host = p.Addr.String()
	}
	if p.TLS != nil {
		encryption = "SSL encryption"
	}
	return fmt.Sprintf("host \"%s\", user \"%s\", database \"%s\", %s", host, p.User, p.Database, encryption)
}
