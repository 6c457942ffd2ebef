package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// adminFlags say which node to ask, and who asks.
type adminFlags struct {
	Admin     string `env:"RANGEFINDER_ADMIN" default:"http://127.0.0.1:8080" placeholder:"URL" help:"HTTP port of any node (default: ${default})."`
	TokenFile string `env:"RANGEFINDER_TOKEN_FILE" placeholder:"FILE" help:"File with the bearer token, where the node asks for one; or the token itself in RANGEFINDER_TOKEN."`
	CA        string `name:"ca" env:"RANGEFINDER_CA" placeholder:"FILE" help:"PEM file of the authorities that an https:// node is trusted by; default: the operating system's."`
	Cert      string `env:"RANGEFINDER_CERT" placeholder:"FILE" help:"PEM file of a client certificate, instead of a token."`
	CertKey   string `env:"RANGEFINDER_CERT_KEY" placeholder:"FILE" help:"PEM file of its private key."`
	JSON      bool   `name:"json" help:"Print JSON."`
}

// adminTimeout bounds a call; making a keyspace counts rows on every shard first.
const adminTimeout = 2 * time.Minute

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 256 << 20

// call asks the node for path and decodes the answer into out. body nil: GET; else POST as JSON. With --json the answer is printed, and
// out stays as it is.
func (a adminFlags) call(e *env, path string, body, out any) error {
	text, err := a.ask(e, path, body)
	if err != nil {
		return err
	}
	if a.JSON {
		_, err := e.stdout.Write(append(bytes.TrimRight(text, "\n"), '\n'))
		return err
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s answered something that is no Rangefinder's: %w", a.base(), err)
	}
	return nil
}

// quiet are the same flags without --json, for answers that are no output.
func (a adminFlags) quiet() adminFlags {
	a.JSON = false
	return a
}

// base is the node's address as a URL.
func (a adminFlags) base() string {
	base := strings.TrimRight(a.Admin, "/")
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	return base
}

// ask is call without a look at the answer.
func (a adminFlags) ask(e *env, path string, body any) ([]byte, error) {
	base := a.base()
	ctx, cancel := context.WithTimeout(e.ctx, adminTimeout)
	defer cancel()
	method, reader := http.MethodGet, io.Reader(nil)
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		method, reader = http.MethodPost, bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, reader)
	if err != nil {
		return nil, &usageError{message: fmt.Sprintf("--admin %q is not an address", a.Admin), hint: "For example http://127.0.0.1:8080"}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	client, err := a.client(e, req)
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return nil, &Failure{
			Message: fmt.Sprintf("no node answers at %s: %v", base, err),
			Hint:    "Is a node running here? Name another one's HTTP port by --admin or RANGEFINDER_ADMIN.",
			Err:     err,
		}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", base, err)
	}
	if resp.StatusCode/100 != 2 {
		failed := &apiError{Status: resp.StatusCode}
		if json.Unmarshal(text, &failed.ErrorView) != nil || failed.ErrorView.Error == "" {
			failed.ErrorView = ErrorView{Error: fmt.Sprintf("%s answered %s", base, resp.Status), Detail: strings.TrimSpace(string(text[:min(len(text), 500)]))}
		}
		return nil, failed
	}
	return text, nil
}

// client is what sends a request: with the token and the certificate that the flags name.
func (a adminFlags) client(e *env, req *http.Request) (*http.Client, error) {
	token, _ := e.getenv("RANGEFINDER_TOKEN")
	if a.TokenFile != "" {
		secret, _, err := readSecretFile(a.TokenFile)
		if err != nil {
			return nil, &usageError{message: "--token-file: " + err.Error(), hint: "The file holds the token, and nothing else."}
		}
		token = secret.Reveal()
	}
	if fields := strings.Fields(token); len(fields) > 0 { // a name before it, as the node's file has it, is not part of it
		req.Header.Set("Authorization", "Bearer "+fields[len(fields)-1])
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.CA != "" {
		roots, err := loadRoots(a.CA)
		if err != nil {
			return nil, &usageError{message: "--ca: " + err.Error(), hint: ""}
		}
		cfg.RootCAs = roots
	}
	if a.Cert != "" || a.CertKey != "" {
		cert, err := tls.LoadX509KeyPair(a.Cert, a.CertKey)
		if err != nil {
			return nil, &usageError{message: "--cert and --cert-key: " + err.Error(), hint: "Both are files in PEM form."}
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, Proxy: http.ProxyFromEnvironment}}, nil
}
