package node

import (
	"reflect"
	"strings"
	"testing"
)

// TestReloadAuth: rules, the query for users and verifiers come and go with the file; who is in stays in.
func TestReloadAuth(t *testing.T) {
	f := startFile(t)
	f.write(t, "auth.password", authPassword)
	f.write(t, "ann.verifier", annVerifier)
	if err := f.primary.Exec(t.Context(), "CREATE ROLE ann LOGIN"); err != nil {
		t.Fatal(err)
	}
	login := func(user, password, want string) {
		t.Helper()
		conn, err := f.login(t, user, password, "app")
		if err == nil {
			_, err = conn.Exec(t.Context(), "SELECT 1")
		}
		if err == nil && want != "" || err != nil && sqlstate(err) != want {
			t.Errorf("%s: %v, want SQLSTATE %q", user, err, want)
		}
	}
	login("late", "late-secret", "28P01")
	f.change(t, "[pool]", "[auth]\nuser = \"postgres\"\npassword_file = \"auth.password\"\n\n[pool]",
		"[[backends]]", "[[users]]\nname = \"ann\"\nverifier_file = \"ann.verifier\"\n\n[[backends]]")
	a := f.reload(t)
	want := []string{"auth.user:  -> postgres", "auth.password_file:  -> " + strings.Replace(f.file, "node.toml", "auth.password", 1), "users[ann]:  -> verifier_file = " + strings.Replace(f.file, "node.toml", "ann.verifier", 1)}
	if got := changes(a.Changed); !reflect.DeepEqual(got, want) || len(a.Restart) != 0 {
		t.Errorf("changed %q, restart %q", got, a.Restart)
	}
	login("late", "late-secret", "")
	login("late", "wrong", "28P01")
	login("ann", "pencil", "")
	old, err := f.login(t, "late", "late-secret", "app")
	if err != nil {
		t.Fatal(err)
	}

	f.change(t, "[[databases]]", "[[hba]]\nusers = [\"late\"]\nmethod = \"reject\"\n\n[[hba]]\nusers = [\"free\"]\nmethod = \"trust\"\n\n[[hba]]\nmethod = \"scram-sha-256\"\n\n[[databases]]")
	f.reload(t)
	login("late", "late-secret", "28000")
	login("app", appPassword, "")
	login("ann", "pencil", "28P01")
	if !strings.Contains(f.log.String(), "hba[1] trusts whoever connects") {
		t.Error("the log does not warn of a rule that came by a reload")
	}
	if _, err := old.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("a session that was there: %v", err)
	}

	f.change(t)
	f.reload(t)
	login("late", "late-secret", "28P01")
	login("app", appPassword, "")
	for _, secret := range []string{authPassword, "SCRAM-SHA-256$", "late-secret"} {
		if strings.Contains(f.log.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}
