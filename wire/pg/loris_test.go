package pg

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// Who sends a byte now and then, for ever, is not waited for any longer than who sends nothing, wherever in a login that is.
func TestAcceptSlowLoris(t *testing.T) {
	const timeout, between = 10 * time.Second, 400 * time.Millisecond
	server, client := certificate(t)
	today := time.Now() // in the bubbles below it is long before the certificate's time
	client.Time = func() time.Time { return today }
	clientHello := []byte{22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3}
	for name, c := range map[string]struct {
		method string
		whole  []byte // sent at once
		heard  int    // frames to be read then
		rest   []byte // sent byte by byte, and then zeros
		secure bool   // all that over TLS
		last   string // code of the last words; "": there are none
	}{
		"startup packet":           {rest: []byte{0, 0, MaxStartup >> 8, MaxStartup & 0xff, 0, 3, 0, 0, 'u'}},
		"startup packet over TLS":  {secure: true, rest: []byte{0, 0, MaxStartup >> 8, MaxStartup & 0xff, 0, 3, 0, 0, 'u'}, last: CodeQueryCanceled},
		"ClientHello":              {whole: AppendSSLRequest(nil), rest: clientHello},
		"ClientHello at once":      {rest: clientHello},
		"password":                 {method: MethodPassword, whole: appStartup, heard: 1, rest: []byte{'p', 0, 0, 0x1f, 0xf0}, last: CodeQueryCanceled},
		"MD5":                      {method: MethodMD5, whole: appStartup, heard: 1, rest: []byte{'p', 0, 0, 0x1f, 0xf0}, last: CodeQueryCanceled},
		"SASL's first message":     {whole: appStartup, heard: 1, rest: []byte{'p', 0, 0, 0x1f, 0xf0}, last: CodeQueryCanceled},
		"SASL's last message":      {whole: append(append([]byte(nil), appStartup...), sasl("SCRAM-SHA-256", "n,,n=,r=abc")...), heard: 2, rest: []byte{'p', 0, 0, 0x1f, 0xf0}, last: CodeQueryCanceled},
		"SASL's last one over TLS": {secure: true, whole: append(append([]byte(nil), appStartup...), sasl("SCRAM-SHA-256", "n,,n=,r=abc")...), heard: 2, rest: []byte{'p', 0, 0, 0x1f, 0xf0}, last: CodeQueryCanceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer theirs.Close()
				began := time.Now()
				done := make(chan accepted, 1)
				go func() {
					a, err := Accept(ours, &AcceptConfig{Lookup: users, Timeout: timeout, TLS: always(server), Rule: by(c.method)})
					done <- accepted{a, err}
				}()
				conn := theirs
				if c.secure {
					send(t, conn, AppendSSLRequest(nil))
					if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
						t.Fatal(err)
					}
					conn = tls.Client(conn, client)
				}
				if len(c.whole) > 0 {
					go conn.Write(c.whole)
				}
				for range c.heard {
					receive(t, conn)
				}
				told := make(chan []byte, 1)
				go func() {
					b, _ := io.ReadAll(conn)
					told <- b
				}()
				tick := time.NewTicker(between)
				defer tick.Stop()
				for i, err := 0, error(nil); err == nil; i++ {
					one := []byte{0}
					if i < len(c.rest) {
						one[0] = c.rest[i]
					}
					<-tick.C
					_, err = conn.Write(one)
				}
				if err := (<-done).err; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("refused with %v", err)
				}
				if took := time.Since(began); took < timeout || took > timeout+refusalTimeout+between {
					t.Errorf("it took %v", took)
				}
				code, words := "", <-told
				if len(words) > 1 {
					if e, err := DecodeError(body(words)); err == nil {
						code = e.Code
					}
				}
				if code != c.last {
					t.Errorf("last words %q, want %s in them", words, c.last)
				}
			})
		})
	}
}
