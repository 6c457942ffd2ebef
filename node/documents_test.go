package node

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"rangefinder/wire/console"
)

// mentioned are the commands that a document names in its text, between backticks, and those of its blocks, which may be run or not.
func mentioned(text string) (list []string) {
	var prose strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = !inside
		case inside, strings.HasPrefix(strings.TrimLeft(line, " "), "rangefinder "):
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "rangefinder ") {
				list = append(list, line)
			}
		default:
			prose.WriteString(line)
		}
	}
	for _, found := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(prose.String(), -1) {
		list = append(list, strings.Join(strings.Fields(found[1]), " "))
	}
	return list
}

// typedWords are a command's words as a shell takes them; what comes behind a pipe, a comment or the like is no part of it.
func typedWords(command string) (words []string) {
	for _, w := range regexp.MustCompile(`'[^']*'|"[^"]*"|[^\s'"]+`).FindAllString(command, -1) {
		if slices.Contains([]string{"|", "||", "&&", ">", ">>", "#"}, w) {
			break
		}
		words = append(words, strings.Trim(w, `'"`))
	}
	return words
}

// sound says what is wrong with something that a document names between backticks: a command of this program has to be one by its own parser, a flag has to be one of
// some command, and what begins with two words in capitals has to be one of the console's, or of PostgreSQL's.
func sound(parser *kong.Kong, text string) error {
	switch first, rest, _ := strings.Cut(text, " "); {
	case first == "rangefinder":
		_, err := parser.Parse(plainWords(parser.Model, typedWords(rest)))
		return err
	case strings.HasPrefix(first, "--"):
		name, _, _ := strings.Cut(first, "=")
		for _, leaf := range parser.Model.Leaves(false) {
			for _, flags := range leaf.AllFlags(false) {
				if slices.ContainsFunc(flags, func(f *kong.Flag) bool { return "--"+f.Name == name }) {
					return nil
				}
			}
		}
		return fmt.Errorf("no command has the flag %s", name)
	case slices.Contains([]string{"SELECT", "ROLLBACK"}, first): // for a server
		return nil
	case regexp.MustCompile(`^[A-Z]+ `).MatchString(text):
		commands, err := console.Parse(text)
		if err != nil {
			return err
		}
		if len(commands) != 1 {
			return fmt.Errorf("it is %d commands", len(commands))
		}
	}
	return nil
}

// TestCommandsOfTheDocuments: whatever the procedures name in passing can be typed as it stands.
func TestCommandsOfTheDocuments(t *testing.T) {
	parser, err := newParser(&env{ctx: t.Context(), stdout: io.Discard, stderr: io.Discard, getenv: func(string) (string, bool) { return "", false }})
	if err != nil {
		t.Fatal(err)
	}
	for file, least := range map[string]int{"../docs/operations.md": 60, "../docs/recovery.md": 6} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		list := mentioned(string(text))
		if len(list) < least {
			t.Errorf("%s: %d commands", file, len(list))
		}
		for _, one := range list {
			if err := sound(parser, one); err != nil {
				t.Errorf("%s: `%s`: %v", file, one, err)
			}
		}
	}
	for _, wrong := range []string{"rangefinder moves status", "rangefinder move status --wach", "rangefinder range split app.orders", "--without-shards NAME", "SHOW RANGE", "MOVE app.orders 1-2 shard_3", "MAP RANGE"} {
		if sound(parser, wrong) == nil {
			t.Errorf("nothing is wrong with `%s`", wrong)
		}
	}
}
