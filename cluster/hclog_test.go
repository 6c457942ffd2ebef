package cluster

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestRaftLogger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := newRaftLogger(slog.New(slog.NewTextHandler(&out, nil)))
		next := func() string { defer out.Reset(); return out.String() }

		log.Info("entering leader state", "term", 3, "servers", hclog.Fmt("%d of %d", 2, 3))
		if got := next(); !strings.Contains(got, `level=INFO msg="raft: entering leader state" term=3 servers="2 of 3"`) {
			t.Error(got)
		}
		log.Debug("quiet")
		log.Trace("quieter")
		if got := next(); got != "" {
			t.Error(got)
		}
		log.With("peer", "b").Named("net").Warn("slow")
		if got := next(); !strings.Contains(got, `level=WARN msg="raft.net: slow" peer=b`) {
			t.Error(got)
		}

		// A complaint about one peer is told once in a while, and one about another peer is another.
		complain := func(peer string) { log.Error("failed to heartbeat to", "peer", peer, "error", "refused") }
		for range 100 {
			complain("b")
		}
		complain("c")
		if got := next(); strings.Count(got, "peer=b") != 1 || strings.Count(got, "peer=c") != 1 {
			t.Error(got)
		}
		<-time.After(complainEvery)
		complain("b")
		if got := next(); strings.Count(got, "peer=b") != 1 {
			t.Error(got)
		}
		for i := range 10_000 {
			complain(fmt.Sprint(i))
		}
		if n := len(log.said.last); n > 256 {
			t.Errorf("%d complaints remembered", n)
		}
		next()
		log.said.silent.Store(true)
		complain("d")
		if got := next(); got != "" {
			t.Error(got)
		}
	})
}
