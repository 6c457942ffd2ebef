package node

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Somebody who asks two nodes of a cluster sees one salt for each name, whether a user has it or not; another cluster has others.
func TestAllNodesShowOneSalt(t *testing.T) {
	key := strings.Repeat("5c", 32)
	node := func(name, key string) *testNode {
		cfg := testConfig(t, "fra")
		cfg.Name, cfg.ClusterKeyEnv = name, "CLUSTER_KEY"
		cfg.Users = []User{{Name: "app", SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}}}
		cfg.Backends, cfg.Databases = []Backend{{Name: "db-1", Shard: "shard_1", Address: "127.0.0.1:1"}}, []Listing{{Name: "app", Shard: "shard_1"}}
		cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
		return newNode(t, cfg, map[string]string{"APP_PASSWORD": appPassword, "PROBE_PASSWORD": probePassword, "CLUSTER_KEY": key}).open(t)
	}
	a, b, other := node("fra-1", key), node("fra-2", key), node("fra-3", strings.Repeat("3a", 32))
	for _, user := range []string{"app", "eve"} {
		salt := saltOf(t, a, user)
		if again := saltOf(t, b, user); again != salt {
			t.Errorf("%s: salt %s of one node, %s of another", user, salt, again)
		}
		if again := saltOf(t, other, user); again == salt || len(again) != len(salt) {
			t.Errorf("%s: salt %s here, %s in another cluster", user, salt, again)
		}
	}
	if saltOf(t, a, "app") == saltOf(t, a, "eve") {
		t.Error("two users have one salt")
	}
}

// saltOf begins to log in, and returns the salt that is asked for, in base64.
func saltOf(t *testing.T, n *testNode, user string) string {
	t.Helper()
	conn, err := net.Dial("tcp", n.pgLn.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	f := pgproto3.NewFrontend(conn, conn)
	f.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": user, "database": "app"}})
	first := []byte("n,,n=,r=nonce")
	f.Send(&pgproto3.SASLInitialResponse{AuthMechanism: "SCRAM-SHA-256", Data: first})
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := f.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *pgproto3.AuthenticationSASLContinue:
			fields := bytes.Split(m.Data, []byte(","))
			return string(fields[1])
		case *pgproto3.ErrorResponse:
			t.Fatalf("%s is refused before the exchange: %s", user, m.Message)
		}
	}
}
