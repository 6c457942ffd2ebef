package node

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Bounds of the tokens in a configuration.
const (
	maxTokens   = 16
	minTokenLen = 16
	maxTokenLen = 512
)

// Token is one bearer token of the admin API. Like a Secret, it prints as a mask.
type Token struct {
	Name string   // whom the audit log names; "token" if the configuration gives none
	sum  [32]byte // of the token: sums are compared, so that neither length nor content shows in the time it takes
}

// LogValue is a mask in a log.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.Name + " (set)") }

// parseTokens reads tokens, one a line, each with a name before it or without.
func parseTokens(text Secret) (list []Token, err error) {
	for i, line := range strings.Split(text.Reveal(), "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		t := Token{Name: "token"}
		token := fields[len(fields)-1]
		switch {
		case len(fields) > 2:
			return nil, fmt.Errorf("line %d of the tokens has %d words: write a token, or a name and a token", i+1, len(fields))
		case len(fields) == 2:
			t.Name = fields[0]
		}
		if len(token) < minTokenLen || len(token) > maxTokenLen || len(t.Name) > 64 {
			return nil, fmt.Errorf("line %d of the tokens: a token has %d to %d characters, its name 64 at most", i+1, minTokenLen, maxTokenLen)
		}
		if len(list) == maxTokens {
			return nil, fmt.Errorf("there are more than %d tokens", maxTokens)
		}
		t.sum = sha256.Sum256([]byte(token))
		list = append(list, t)
	}
	if len(list) == 0 {
		return nil, errors.New("there is no token")
	}
	return list, nil
}

// find returns the token that was shown; nil: none of these. All are compared, whichever fits.
func findToken(list []Token, shown string) *Token {
	sum := sha256.Sum256([]byte(shown))
	var found *Token
	for i := range list {
		if subtle.ConstantTimeCompare(sum[:], list[i].sum[:]) == 1 {
			found = &list[i]
		}
	}
	return found
}

// gatekeeper is what the configuration in force says of callers.
type gatekeeper struct {
	tokens []Token
	mtls   bool // certificates are asked for
	open   bool // the HTTP port may be reached by other names than loopback's: --insecure
}

// caller is who asks, and how that is known.
type caller struct {
	who    string // for the audit log and the history: a token's name, "cert:" and a common name, or "loopback"
	token  bool   // by a bearer token: no web page could have sent it
	proved bool   // by a token or a certificate
	node   bool   // another node passes the call on
}

// gatekeeper is what the configuration in force says.
func (n *Node) gatekeeper() gatekeeper {
	s := n.setup.Load()
	return gatekeeper{tokens: s.secrets.API, mtls: s.cfg.API.ClientCAFile != "", open: s.cfg.Insecure}
}

type callerKey struct{}

// author is who asks, as the history keeps it.
func author(ctx context.Context) string {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c.who
}

// passedOn reports whether another node has passed the call on.
func passedOn(ctx context.Context) bool {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c.node
}

func withCaller(ctx context.Context, c caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// admit says who asks, or why there is no answer for him.
func (g gatekeeper) admit(r *http.Request) (caller, error) {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return caller{who: "cert:" + r.TLS.VerifiedChains[0][0].Subject.CommonName, proved: true}, nil
	}
	protected := strings.HasPrefix(r.URL.Path, "/api/")
	if shown := r.Header.Get("Authorization"); shown != "" && len(g.tokens) > 0 {
		kind, token, _ := strings.Cut(shown, " ")
		if t := findToken(g.tokens, strings.TrimSpace(token)); strings.EqualFold(kind, "Bearer") && t != nil {
			return caller{who: t.Name, token: true, proved: true}, nil
		}
		return caller{}, g.unauthorized("the token is wrong")
	}
	local := fromLoopback(r.RemoteAddr)
	guarded := len(g.tokens) > 0 || g.mtls
	switch {
	case guarded && (protected || !local):
		return caller{}, g.unauthorized("this call needs " + g.needs())
	case !local && protected:
		return caller{}, &apiError{Status: http.StatusForbidden, ErrorView: ErrorView{
			Error: "the admin API has neither a token nor client certificates, and so answers on loopback alone",
			Hint:  "Give [api] a token_file, or cert_file, key_file and client_ca_file; or call it on the node's own machine.",
		}}
	}
	return caller{who: "loopback"}, nil
}

// needs is what lets a caller in.
func (g gatekeeper) needs() string {
	switch {
	case !g.mtls:
		return "a token"
	case len(g.tokens) == 0:
		return "a client certificate"
	}
	return "a token, or a client certificate"
}

func (g gatekeeper) unauthorized(message string) *apiError {
	var ways []string
	if len(g.tokens) > 0 {
		ways = append(ways, "Send the header Authorization: Bearer TOKEN; on the command line --token-file FILE, or RANGEFINDER_TOKEN.")
	}
	if g.mtls {
		ways = append(ways, "Show a certificate that an authority of client_ca_file has signed; on the command line --cert FILE --cert-key FILE.")
	}
	return &apiError{Status: http.StatusUnauthorized, ErrorView: ErrorView{Error: message, Hint: strings.Join(ways, " ")}}
}

func fromLoopback(remote string) bool {
	a, err := netip.ParseAddrPort(remote)
	return err == nil && a.Addr().Unmap().IsLoopback()
}

// check keeps away whoever may not ask, and web pages: a page that a browser shows could otherwise make it call 127.0.0.1 (a cross-site
// POST), or read from it under a name that suddenly points there (DNS rebinding).
func (g gatekeeper) check(r *http.Request) (caller, error) {
	c, err := g.admit(r)
	if err != nil {
		return c, err
	}
	if !g.open && !c.proved && !loopbackHost(r.Host) {
		return c, &apiError{Status: http.StatusForbidden, ErrorView: ErrorView{
			Error: fmt.Sprintf("the Host header %.100q is not an IP address or localhost", r.Host),
			Hint:  "Ask by address, for example http://127.0.0.1:8080.",
		}}
	}
	if reads(r) || c.token {
		return c, nil
	}
	// A page's form or simple fetch cannot send this type without asking first, and nobody here answers that question.
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err == nil && kind == "application/json" || r.URL.Path == routingMapPath && !fromBrowser(r) {
		return c, nil
	}
	return c, &apiError{Status: http.StatusUnsupportedMediaType, ErrorView: ErrorView{
		Error: "a call that changes something must be Content-Type: application/json",
		Hint:  "curl -H 'Content-Type: application/json' -d '{...}'",
	}}
}

// reads reports whether a call changes nothing.
func reads(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// fromBrowser reports whether a web page may be behind a POST: browsers say then where it comes from.
func fromBrowser(r *http.Request) bool {
	for _, name := range []string{"Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode"} {
		if r.Header.Get(name) != "" {
			return true
		}
	}
	return false
}

// loopbackHost accepts what no foreign DNS name can be: an IP address, or localhost.
func loopbackHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	name = strings.Trim(name, "[]")
	if strings.EqualFold(name, "localhost") {
		return true
	}
	_, err = netip.ParseAddr(name)
	return err == nil
}
