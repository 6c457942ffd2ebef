package node

import (
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// clock is a time that tests set.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.ns.Store(time.Now().UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

// writePair writes a certificate and its key as [tls] names them. Like ssh-keygen or certbot it replaces the files.
func writePair(t *testing.T, dir string, p pgtest.KeyPair) TLS {
	t.Helper()
	cfg := TLS{CertFile: filepath.Join(dir, "node.crt"), KeyFile: filepath.Join(dir, "node.key"), MinVersion: "1.2"}
	replaceFile(t, cfg.CertFile, p.Cert)
	replaceFile(t, cfg.KeyFile, p.Key)
	return cfg
}

func replaceFile(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

func TestCertificatesAreReadAgain(t *testing.T) {
	ca := pgtest.NewAuthority(t)
	first, second := ca.Issue(t, time.Time{}, "localhost"), ca.Issue(t, time.Time{}, "localhost")
	cfg := writePair(t, t.TempDir(), first)
	log, clock := new(logBuffer), newClock()
	c, err := newClientTLS(cfg, slog.New(slog.NewTextHandler(log, nil)), clock.now)
	if err != nil {
		t.Fatal(err)
	}
	shown := func(when string, want pgtest.KeyPair) {
		t.Helper()
		if got := c.Get().asking.Certificates[0].Leaf; !got.Equal(want.TLS(t).Leaf) {
			t.Errorf("%s: the certificate is %s", when, got.Subject)
		}
	}
	shown("at first", first)
	held := c.Get().asking

	replaceFile(t, cfg.CertFile, second.Cert)
	shown("within a second", first)
	clock.advance(watchEvery)
	shown("with the old key", first)
	clock.advance(watchEvery)
	shown("with the old key, still", first)
	if n := strings.Count(log.String(), "no good"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log)
	}
	replaceFile(t, cfg.KeyFile, second.Key)
	shown("too early", first)
	clock.advance(watchEvery)
	shown("with the new key", second)
	if held.Certificates[0].Leaf.Equal(second.TLS(t).Leaf) {
		t.Error("a configuration in use has changed")
	}

	for name, spoil := range map[string]func(){
		"not PEM": func() { replaceFile(t, cfg.CertFile, []byte("hello")) },
		"gone":    func() { os.Remove(cfg.CertFile) },
	} {
		spoil()
		clock.advance(watchEvery)
		shown(name, second)
	}
	writePair(t, filepath.Dir(cfg.CertFile), first)
	clock.advance(watchEvery)
	shown("mended", first)
	if text := log.String(); strings.Contains(text, "PRIVATE") {
		t.Errorf("the log shows a key:\n%s", text)
	}
}

func TestManyHandshakesReadOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	replaceFile(t, file, []byte("1"))
	var loads atomic.Int32
	clock := newClock()
	w, err := watch("a file", []string{file}, slog.New(slog.DiscardHandler), clock.now, func() (int32, error) { return loads.Add(1), nil })
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		replaceFile(t, file, []byte("2"))
		clock.advance(watchEvery)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() { w.Get() })
		}
		wg.Wait()
	}
	if got := w.Get(); got != 4 || loads.Load() != 4 {
		t.Errorf("loaded %d times, have %d; want 4", loads.Load(), got)
	}
}

func TestCertificatesAtTheStart(t *testing.T) {
	ca := pgtest.NewAuthority(t)
	pair, other := ca.Issue(t, time.Time{}, "localhost"), ca.Issue(t, time.Time{}, "localhost")
	for name, c := range map[string]struct {
		edit func(*TLS)
		want string
	}{
		"another key":       {func(c *TLS) { replaceFile(t, c.KeyFile, other.Key) }, "private key does not match"},
		"no certificate":    {func(c *TLS) { c.CertFile += ".gone" }, "no such file"},
		"no authority":      {func(c *TLS) { c.ClientCAFile = c.KeyFile }, "holds no certificate"},
		"authority missing": {func(c *TLS) { c.ClientCAFile = "/nonexistent" }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := writePair(t, t.TempDir(), pair)
			c.edit(&cfg)
			_, err := newClientTLS(cfg, slog.New(slog.DiscardHandler), time.Now)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	t.Run("expired and readable by all", func(t *testing.T) {
		cfg := writePair(t, t.TempDir(), ca.Issue(t, time.Now().Add(-time.Minute), "localhost"))
		if err := os.Chmod(cfg.KeyFile, 0o644); err != nil {
			t.Fatal(err)
		}
		log := new(logBuffer)
		c, err := newClientTLS(cfg, slog.New(slog.NewTextHandler(log, nil)), time.Now)
		if err != nil || c.Get().insisting.MinVersion != tls.VersionTLS12 {
			t.Fatal(err)
		}
		for _, want := range []string{"not valid now", "chmod 600"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log does not say %q:\n%s", want, log)
			}
		}
	})
	if c, err := newClientTLS(TLS{}, slog.Default(), time.Now); err != nil || c.serverConfig(nil) != nil {
		t.Errorf("without a certificate: %v, %v", c, err)
	}
}
