package node

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"rangefinder/internal/pgtest"
)

const goodToken = "a-token-of-more-than-16-characters"

func tokens(t *testing.T, text string) []Token {
	t.Helper()
	list, err := parseTokens(NewSecret(text))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestTokensOfAFile(t *testing.T) {
	list := tokens(t, "alice "+goodToken+"\n\n"+strings.Repeat("x", 40)+"\n")
	if len(list) != 2 || list[0].Name != "alice" || list[1].Name != "token" {
		t.Fatalf("%v", list)
	}
	if f := findToken(list, goodToken); f == nil || f.Name != "alice" {
		t.Errorf("found %v", f)
	}
	for _, wrong := range []string{"", "alice", goodToken + "x", goodToken[1:]} {
		if f := findToken(list, wrong); f != nil {
			t.Errorf("%q is taken for %v", wrong, f)
		}
	}
	for text, want := range map[string]string{
		"short": "16 to 512 characters", "a b " + goodToken: "has 3 words", "\n \n": "no token", strings.Repeat("x", 513): "16 to 512 characters",
		strings.Repeat(goodToken+"\n", 17): "more than 16 tokens",
	} {
		if _, err := parseTokens(NewSecret(text)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), goodToken) {
			t.Errorf("%.30q: %v, want %q", text, err, want)
		}
	}
}

// TestWhoMayCall goes through every way to ask, with and without a token in the configuration.
func TestWhoMayCall(t *testing.T) {
	bearer := func(s string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+s) }
	}
	remote := func(r *http.Request) { r.RemoteAddr = "203.0.113.9:5000" }
	with := gatekeeper{tokens: tokens(t, "alice "+goodToken)}
	for _, c := range []struct {
		name   string
		gate   gatekeeper
		path   string
		change []func(*http.Request)
		status int
		code   string
	}{
		{"nothing asked for, from here", gatekeeper{}, "/api/v1/keyspaces", nil, 200, ""},
		{"nothing asked for, from elsewhere", gatekeeper{}, "/api/v1/keyspaces", []func(*http.Request){remote}, 403, "forbidden"},
		{"nothing asked for, from elsewhere, insecure", gatekeeper{open: true}, "/api/v1/keyspaces", []func(*http.Request){remote}, 403, "forbidden"},
		{"the page, from elsewhere, insecure", gatekeeper{open: true}, "/debug/cluster", []func(*http.Request){remote}, 200, ""},
		{"a token for nobody does no harm", gatekeeper{}, "/api/v1/keyspaces", []func(*http.Request){bearer("whatever")}, 200, ""},
		{"no token", with, "/api/v1/keyspaces", nil, 401, "unauthorized"},
		{"no token, the page from here", with, "/debug/cluster", nil, 200, ""},
		{"no token, the page from elsewhere", with, "/debug/cluster", []func(*http.Request){remote}, 401, "unauthorized"},
		{"no token, metrics from elsewhere", with, "/metrics", []func(*http.Request){remote}, 401, "unauthorized"},
		{"no token, health from elsewhere", with, "/healthz", []func(*http.Request){remote}, 200, ""},
		{"a wrong token", with, "/api/v1/keyspaces", []func(*http.Request){bearer(goodToken[:20])}, 401, "unauthorized"},
		{"a wrong token, for the page from here", with, "/debug/cluster", []func(*http.Request){bearer("nope")}, 401, "unauthorized"},
		{"another scheme", with, "/api/v1/keyspaces", []func(*http.Request){func(r *http.Request) { r.Header.Set("Authorization", "Basic "+goodToken) }}, 401, "unauthorized"},
		{"the token", with, "/api/v1/keyspaces", []func(*http.Request){bearer(goodToken)}, 200, ""},
		{"the token from elsewhere, by name", with, "/api/v1/keyspaces", []func(*http.Request){bearer(goodToken), remote, func(r *http.Request) { r.Host = "db.example" }}, 200, ""},
	} {
		a := newTestAPI(&fakeOffice{view: exampleView()})
		a.gate = func() gatekeeper { return c.gate }
		w := ask(t, a.handler(), "GET", c.path, "", c.change...)
		var e ErrorView
		if c.code != "" && (json.Unmarshal(w.Body.Bytes(), &e) != nil || e.Code != c.code || e.Hint == "") {
			t.Errorf("%s: %s", c.name, w.Body)
		}
		if w.Code != c.status {
			t.Errorf("%s: %d %s, want %d", c.name, w.Code, w.Body, c.status)
		}
		if w.Code == 401 && !strings.Contains(w.Header().Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%s: WWW-Authenticate %q", c.name, w.Header().Get("WWW-Authenticate"))
		}
	}
}

// TestCallersWithoutAContentType holds who may send what a web page could send too.
func TestCallersWithoutAContentType(t *testing.T) {
	form := func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") } // as curl -d does
	from := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for _, c := range []struct {
		path   string
		change []func(*http.Request)
		want   bool // it gets past the check
	}{
		{"/api/v1/drains", []func(*http.Request){form}, false},
		{"/api/v1/drains", []func(*http.Request){form, from("Authorization", "Bearer "+goodToken)}, true},
		{"/api/v1/routing-map", []func(*http.Request){form}, true},
		{"/api/v1/routing-map", []func(*http.Request){form, from("Origin", "https://evil.example")}, false},
		{"/api/v1/routing-map", []func(*http.Request){form, from("Origin", "null")}, false},
		{"/api/v1/routing-map", []func(*http.Request){form, from("Sec-Fetch-Site", "cross-site")}, false},
		{"/api/v1/routing-map", []func(*http.Request){form, from("Referer", "http://evil.example/")}, false},
	} {
		g := gatekeeper{}
		r := httptest.NewRequest("POST", "http://127.0.0.1:8080"+c.path, nil)
		r.RemoteAddr = "127.0.0.1:4"
		for _, change := range c.change {
			change(r)
		}
		if r.Header.Get("Authorization") != "" {
			g.tokens = tokens(t, goodToken)
		}
		if _, err := g.check(r); (err == nil) != c.want {
			t.Errorf("%s %v: %v", c.path, r.Header, err)
		}
	}
}

// TestALargeBodyIsRefusedBeforeItIsRead sends 100 MB, with and without saying so beforehand.
func TestALargeBodyIsRefusedBeforeItIsRead(t *testing.T) {
	office := &fakeOffice{}
	s := httptest.NewServer(newTestAPI(office).handler())
	defer s.Close()
	const huge = 100 << 20
	for name, length := range map[string]int64{"with its length": huge, "in chunks": -1} {
		sent := &counted{r: io.LimitReader(endless{}, huge)}
		req, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/api/v1/keyspaces", sent)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = length
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var e ErrorView
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || resp.StatusCode != 413 || e.Code != "too_large" {
			t.Errorf("%s: %d %+v %v", name, resp.StatusCode, e, err)
		}
		resp.Body.Close()
		if n := sent.n.Load(); n > 32<<20 {
			t.Errorf("%s: %d bytes were taken", name, n)
		}
	}
	if len(office.created) > 0 {
		t.Error("it reached the node")
	}
	r := httptest.NewRequest("POST", "http://127.0.0.1/api/v1/keyspaces", iotest.ErrReader(io.ErrUnexpectedEOF))
	r.ContentLength, r.RemoteAddr = huge, "127.0.0.1:4"
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	newTestAPI(office).handler().ServeHTTP(w, r)
	if w.Code != 413 || w.Header().Get("Connection") != "close" {
		t.Errorf("a body that must not be read: %d %s", w.Code, w.Body)
	}
}

func TestRequestIDs(t *testing.T) {
	office := &fakeOffice{}
	a := newTestAPI(office)
	id := func(s string) func(*http.Request) { return func(r *http.Request) { r.Header.Set(requestIDHeader, s) } }
	w := ask(t, a.handler(), "POST", "/api/v1/keyspaces", `{"name": "k", "method": "hash"}`, id("mine-7"))
	if w.Code != 201 || office.created[0].RequestID != "mine-7" || w.Header().Get(requestIDHeader) != "mine-7" {
		t.Errorf("%d, header %q: %+v", w.Code, w.Header().Get(requestIDHeader), office.created)
	}
	w = ask(t, a.handler(), "POST", "/api/v1/keyspaces", `{"name": "k", "method": "hash", "request_id": "in the body"}`)
	if w.Code != 201 || office.created[1].RequestID != "in the body" {
		t.Errorf("%d: %+v", w.Code, office.created)
	}
	for _, bad := range []string{"two words", strings.Repeat("x", 129), "tab\there", "\u00fc"} {
		if w := ask(t, a.handler(), "POST", "/api/v1/keyspaces", `{"name": "k", "method": "hash"}`, id(bad)); w.Code != 400 || w.Header().Get(requestIDHeader) == bad {
			t.Errorf("%q: %d", bad, w.Code)
		}
	}
	if len(office.created) != 2 {
		t.Errorf("a refused call reached the node")
	}
}

func TestTheAuditLogTellsWhoDidWhat(t *testing.T) {
	log := new(logBuffer)
	a := newTestAPI(&fakeOffice{view: exampleView()})
	a.audit = newAuditLog(newTextLogger(log))
	dir := t.TempDir()
	if err := a.audit.open(dir); err != nil {
		t.Fatal(err)
	}
	a.gate = func() gatekeeper { return gatekeeper{tokens: tokens(t, "alice "+goodToken)} }
	bearer := func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+goodToken)
		r.Header.Set(requestIDHeader, "id-1")
	}
	ask(t, a.handler(), "POST", "/api/v1/keyspaces", `{"name":  "k", "method": "hash"}`, bearer)
	ask(t, a.handler(), "GET", "/api/v1/keyspaces", "", bearer)
	ask(t, a.handler(), "POST", "/api/v1/keyspaces", `nonsense`, bearer)
	ask(t, a.handler(), "POST", "/api/v1/drains", `{}`, func(r *http.Request) { r.Header.Set("Authorization", "Bearer wrong") })
	check := func(list []AuditView) {
		t.Helper()
		if len(list) != 3 {
			t.Fatalf("%d records: %+v", len(list), list)
		}
		refused, failed, done := list[0], list[1], list[2]
		if done.Who != "alice" || done.Call != "POST /api/v1/keyspaces" || string(audited(done.Body)) != `{"name":"k","method":"hash"}` || done.Status != 201 || done.Code != "" || done.RequestID != "id-1" || done.Remote == "" || done.Time.IsZero() {
			t.Errorf("done: %+v", done)
		}
		if failed.Status != 400 || failed.Code != "bad_request" || failed.Message == "" || string(failed.Body) != `"nonsense"` {
			t.Errorf("failed: %+v", failed)
		}
		if refused.Status != 401 || refused.Who != "" || refused.Code != "unauthorized" || refused.Body != nil {
			t.Errorf("refused: %+v", refused)
		}
	}
	var got AuditAnswer
	w := ask(t, a.handler(), "GET", "/api/v1/audit", "", bearer)
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	check(got.Records)
	if text := log.String(); strings.Count(text, "msg=audit") != 3 || !strings.Contains(text, "who=alice") || strings.Contains(text, goodToken) {
		t.Errorf("the log: %s", text)
	}
	for range 50 { // somebody who guesses fills neither disk nor memory
		ask(t, a.handler(), "POST", "/api/v1/drains", `{}`)
	}
	if n := len(a.audit.last(auditKept)); n > 3+3*auditRefused {
		t.Errorf("%d records of refused calls", n)
	}
	if err := a.audit.close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, auditFile+".1"), []byte("{half a line"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := newAuditLog(newTextLogger(log))
	if err := again.open(dir); err != nil {
		t.Fatal(err)
	}
	defer again.close()
	list := again.last(auditKept)
	check(list[len(list)-3:])
	for range 5 {
		if w := ask(t, a.handler(), "GET", "/api/v1/audit?limit=0", "", bearer); w.Code != 400 {
			t.Errorf("limit 0 = %d", w.Code)
		}
	}
}

func TestTheAuditFileIsBounded(t *testing.T) {
	dir := t.TempDir()
	l := newAuditLog(newTextLogger(io.Discard))
	if err := l.open(dir); err != nil {
		t.Fatal(err)
	}
	defer l.close()
	body := audited(bytes.Repeat([]byte("x"), 10*auditBody))
	if len(body) > auditBody+2 {
		t.Fatalf("a record keeps %d bytes of a body", len(body))
	}
	const records = 10000
	for i := range records {
		l.add(AuditView{Time: time.Unix(int64(i), 0), Call: "POST /x", Body: body, Status: 200})
	}
	total := int64(0)
	for _, name := range []string{auditFile, auditFile + ".1"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if total += info.Size(); info.Size() > auditBytes || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has %d bytes, mode %v", name, info.Size(), info.Mode())
		}
	}
	if total < auditBytes {
		t.Errorf("%d bytes are left of %d records", total, records)
	}
	if list := l.last(auditKept + 1); len(list) > auditKept || !list[0].Time.Equal(time.Unix(records-1, 0)) {
		t.Errorf("%d records in memory, the last of %v", len(list), list[0].Time)
	}
}

// TestTheHTTPPortOverTLS has a node ask for certificates or a token, and the command line show both.
func TestTheHTTPPortOverTLS(t *testing.T) {
	dir, ca, other := t.TempDir(), pgtest.NewAuthority(t), pgtest.NewAuthority(t)
	file := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	server, alice, stranger := ca.Issue(t, time.Time{}, "127.0.0.1"), ca.IssueTo(t, "alice"), other.IssueTo(t, "alice")
	cfg := testConfig(t, "iad")
	cfg.API = API{
		CertFile: file("cert", server.Cert), KeyFile: file("key", server.Key), ClientCAFile: file("ca", ca.PEM),
		TokenFile: file("token", []byte("ci "+goodToken+"\n")),
	}
	n := newNode(t, cfg, nil).open(t)
	url := "https://" + n.httpLn.Addr().String()
	call := func(cert *pgtest.KeyPair, token string) (int, error) {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca.PEM)
		c := &tls.Config{RootCAs: roots}
		if cert != nil {
			c.Certificates = []tls.Certificate{cert.TLS(t)}
		}
		req, err := http.NewRequestWithContext(t.Context(), "GET", url+"/api/v1/keyspaces", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := (&http.Transport{TLSClientConfig: c, DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		return resp.StatusCode, nil
	}
	if status, err := call(nil, ""); status != 401 {
		t.Errorf("without anything: %d %v", status, err)
	}
	if status, err := call(nil, goodToken); status != 200 {
		t.Errorf("with the token: %d %v", status, err)
	}
	if status, err := call(&alice, ""); status != 200 {
		t.Errorf("with a certificate: %d %v", status, err)
	}
	if status, err := call(&stranger, ""); status != 401 && err == nil { // a client may keep it for itself, since it does not fit
		t.Errorf("with a stranger's certificate: %d", status)
	}
	tokenFile, caFile := file("cli-token", []byte(goodToken)), file("cli-ca", ca.PEM)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--ca", caFile, "--token-file", tokenFile}, 0, "KEYSPACE"},
		{[]string{"--ca", caFile, "--cert", file("a.pem", alice.Cert), "--cert-key", file("a.key", alice.Key)}, 0, "KEYSPACE"},
		{[]string{"--ca", caFile}, 1, "--token-file"},
		{[]string{"--token-file", tokenFile}, 1, "certificate"},
	} {
		code, out, errs := runCLI(append([]string{"keyspace", "list", "--admin", url}, c.args...)...)
		if code != c.code || !strings.Contains(out+errs, c.want) || strings.Contains(out+errs, goodToken) {
			t.Errorf("%v: exit %d\n%s%s", c.args, code, out, errs)
		}
	}
	// The certificate's name is in the audit log.
	if code, _, errs := runCLI("reload", "--admin", url, "--ca", caFile, "--cert", file("b.pem", alice.Cert), "--cert-key", file("b.key", alice.Key)); code == 0 {
		t.Errorf("this node has no file to reload: %s", errs)
	}
	if list := n.audit.last(10); list[0].Who != "cert:alice" || list[0].Call != "POST /api/v1/reload" {
		t.Errorf("%+v", list[0])
	}
}

// TestOnlyCertificatesOfTheAuthorityAreLetIn: where certificates are all that lets callers in, one of a stranger's authority and one that has ended are refused in the
// handshake, by name, and who shows none gets an answer that says what is missing, and a record.
func TestOnlyCertificatesOfTheAuthorityAreLetIn(t *testing.T) {
	dir, ca, other := t.TempDir(), pgtest.NewAuthority(t), pgtest.NewAuthority(t)
	root := filepath.Join(dir, "root.crt")
	replaceFile(t, root, ca.PEM)
	pair := writePair(t, dir, ca.Issue(t, time.Time{}, "127.0.0.1"))
	cfg := testConfig(t, "iad")
	cfg.API = API{CertFile: pair.CertFile, KeyFile: pair.KeyFile, ClientCAFile: root}
	n := newNode(t, cfg, nil).open(t)
	shows := func(cert pgtest.KeyPair, version uint16) *tls.Config { // whatever the server asks for
		shown := cert.TLS(t)
		return &tls.Config{RootCAs: ca.Pool(), MaxVersion: version, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &shown, nil }}
	}
	for name, c := range map[string]struct {
		cert pgtest.KeyPair
		want string
	}{
		"another authority": {other.IssueTo(t, "alice"), "unknown certificate authority"},
		"ended":             {ca.Issue(t, time.Now().Add(-time.Minute), "alice.test"), "expired certificate"},
		"not yet valid":     {ca.Issue(t, time.Now().Add(4*time.Hour), "alice.test"), "expired certificate"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", n.httpLn.Addr().String(), shows(c.cert, version))
			if err == nil { // of TLS 1.3 a client hears of it when it reads
				if err = conn.SetDeadline(time.Now().Add(20 * time.Second)); err == nil {
					_, err = conn.Read(make([]byte, 1))
				}
				conn.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s, TLS %x: %v", name, version, err)
			}
		}
	}
	call := func(c *tls.Config) (status int, body string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+n.httpLn.Addr().String()+"/api/v1/reload", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := (&http.Transport{TLSClientConfig: c, DisableKeepAlives: true}).RoundTrip(req)
		return answerOf(t, resp, err)
	}
	if status, body := call(&tls.Config{RootCAs: ca.Pool()}); status != http.StatusUnauthorized || !strings.Contains(body, "needs a client certificate") || !strings.Contains(body, "--cert FILE") || strings.Contains(body, "Bearer") {
		t.Errorf("without a certificate: %d %s", status, body)
	}
	if last := n.audit.last(1)[0]; last.Who != "" || last.Status != http.StatusUnauthorized || last.Call != "POST /api/v1/reload" {
		t.Errorf("%+v", last)
	}
	if status, body := call(shows(ca.IssueTo(t, "alice"), tls.VersionTLS13)); status == http.StatusUnauthorized {
		t.Errorf("with a good certificate: %d %s", status, body)
	}
	if last := n.audit.last(1)[0]; last.Who != "cert:alice" {
		t.Errorf("%+v", last)
	}
}

// endless is a body without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// counted counts what was read of it.
type counted struct {
	r io.Reader
	n atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func newTextLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
