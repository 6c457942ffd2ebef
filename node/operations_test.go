package node

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/program"
)

// procedure is a section of docs/operations.md with its commands.
type procedure struct {
	title  string
	blocks []string
}

// procedures reads the commands of a document: what stands in blocks of the kind sh.
func procedures(t *testing.T, file string) (list []procedure) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.HasPrefix(line, "## "):
			list = append(list, procedure{title: strings.TrimSpace(line[3:])})
		case strings.HasPrefix(line, "```"):
			if inside = strings.TrimSpace(line) == "```sh"; inside {
				last := &list[len(list)-1]
				last.blocks = append(last.blocks, "")
			}
		case inside:
			last := &list[len(list)-1]
			last.blocks[len(last.blocks)-1] += line
		}
	}
	return list
}

// TestTheProceduresOfTheDocument runs every command of docs/operations.md, in its order, with the binary that users have, on three nodes.
func TestTheProceduresOfTheDocument(t *testing.T) {
	c := startMovable(t)
	n := c.follower(t)
	dir := t.TempDir()
	binary, err := program.Build(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(binary) != "rangefinder" {
		if err := os.Symlink(binary, filepath.Join(dir, "rangefinder")); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "fra.toml")
	if err := os.WriteFile(config, []byte("region = \"fra\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rows := func() (count int) {
		if err := n.connect(t).QueryRow(t.Context(), "SELECT count(*) FROM accounts").Scan(&count); err != nil {
			t.Fatal(err)
		}
		return count
	}
	list := procedures(t, "../docs/operations.md")
	if len(list) < 8 {
		t.Fatalf("%d procedures", len(list))
	}
	ran := 0
	for _, p := range list {
		if len(p.blocks) == 0 {
			continue // it is told in words alone, or has a test of its own
		}
		for _, block := range p.blocks {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			cmd := exec.CommandContext(ctx, "sh", "-e", "-c", block)
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "RANGEFINDER_ADMIN="+n.url(), "CONFIG="+config)
			out, err := cmd.CombinedOutput()
			cancel()
			t.Logf("%s:\n%s%s", p.title, block, out)
			if err != nil {
				t.Fatalf("%s: %v", p.title, err)
			}
			ran++
		}
		if p.title == "Make a keyspace" { // for what comes after it
			n.sees(t, "app.orders")
			for _, k := range []int{10, 1100, 1600, 1700, 2500} {
				if _, err := n.connect(t).Exec(t.Context(), fmt.Sprintf("INSERT INTO accounts (id, balance) VALUES (%d, 1)", k)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if got := rows(); got != 5 {
		t.Errorf("%d accounts, want 5", got)
	}
	if all, _ := c.countOn(t, n.sees(t, "app.accounts"), "accounts", "id", 1); all != 0 {
		t.Errorf("shard_2 was emptied and has %d accounts", all)
	}
	if ran < 10 {
		t.Errorf("%d blocks of commands", ran)
	}
}
