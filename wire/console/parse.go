package console

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"rangefinder/wire/pg"
)

// Command is one command.
type Command struct {
	Verb     string // "SHOW", "PAUSE", …
	View     string // of SHOW: what, in capitals
	Database string // of commands on databases: which; "" is all
	Wait     bool   // SHUTDOWN WAIT_FOR_CLIENTS
	Order           // of what is about ranges and moves
}

// tag is what ends the command's answer: its verb. Of MERGE RANGE only the first word, since libpq takes what is behind MERGE for a count.
func (c Command) tag() string {
	if c.Verb == VerbMerge {
		return "MERGE"
	}
	return c.Verb
}

// maxCommands bounds the commands of one Query: the answers are made in memory.
const maxCommands = 16

// Parse reads the commands of a text, separated by semicolons. Letters count alike, and comments are skipped; a text without a
// command has none.
func Parse(text string) ([]Command, *pg.Error) {
	statements, err := split(text)
	if err != nil {
		return nil, err
	}
	if len(statements) > maxCommands {
		return nil, pg.Errorf(pg.CodeProgramLimitExceeded, "more than %d commands at once", maxCommands).WithHint("Send them one by one.")
	}
	commands := make([]Command, 0, len(statements))
	for _, s := range statements {
		c, err := command(text, s)
		if err != nil {
			return nil, err
		}
		commands = append(commands, c)
	}
	return commands, nil
}

// command reads one command, whose words were cut from text.
func command(text string, words []token) (Command, *pg.Error) {
	if c, known, e := ledgerCommand(text, words); known {
		return c, e
	}
	verb := words[0].keyword()
	switch verb {
	case "SHOW":
		what := "HELP"
		if len(words) > 1 {
			what = words[1].keyword()
		}
		if len(words) > 2 || view(what) == nil {
			return Command{}, unknown(words)
		}
		return Command{Verb: verb, View: what}, nil
	case "RELOAD":
		if len(words) == 1 {
			return Command{Verb: verb}, nil
		}
	case "SHUTDOWN":
		switch {
		case len(words) == 1:
			return Command{Verb: verb}, nil
		case len(words) == 2 && words[1].keyword() == "WAIT_FOR_CLIENTS":
			return Command{Verb: verb, Wait: true}, nil
		}
	case "RESET":
		if len(words) == 2 && words[1].keyword() == "STATEMENTS" {
			return Command{Verb: verb}, nil
		}
	case "DISABLE", "ENABLE", "KILL":
		if len(words) == 2 && words[1].name {
			return Command{Verb: verb, Database: words[1].text}, nil
		}
		return Command{}, pg.Errorf(pg.CodeSyntaxError, "%s wants the name of one database", verb).WithHint("Write it as " + verb + " database; SHOW DATABASES lists them.")
	case "PAUSE", "RESUME", "RECONNECT":
		switch {
		case len(words) == 1:
			return Command{Verb: verb}, nil
		case len(words) == 2 && words[1].name:
			return Command{Verb: verb, Database: words[1].text}, nil
		}
	}
	return Command{}, unknown(words)
}

// unknown is the error for what is no command.
func unknown(words []token) *pg.Error {
	shown := make([]string, 0, 4)
	for i, w := range words {
		if i == 3 {
			shown = append(shown, "…")
			break
		}
		shown = append(shown, w.text)
	}
	return pg.Errorf(pg.CodeSyntaxError, "the console has no command %q", clip(strings.Join(shown, " "))).WithHint(available())
}

// available names every command.
func available() string {
	list := make([]string, 0, 12)
	for _, v := range views() {
		list = append(list, "SHOW "+v.name)
	}
	for _, v := range verbs() {
		list = append(list, v.name)
	}
	return "Commands are " + strings.Join(list, ", ") + "; a name may stand in double quotes."
}

// clip makes what a stranger has sent fit to be shown.
func clip(s string) string {
	const most = 60
	if len(s) > most {
		s = s[:most]
		for !utf8.RuneStart(s[len(s)-1]) && len(s) > most-utf8.UTFMax {
			s = s[:len(s)-1]
		}
		s += "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// token is a word, a quoted name, a text in quotes, or a sign.
type token struct {
	text    string
	name    bool // a word or a quoted name
	quoted  bool // in double quotes
	literal bool // in single quotes
	begin   int  // bytes of the whole text from where it begins
	end     int  // and from where it ends
}

func (t token) isEnd() bool { return !t.name && !t.literal && t.text == "" }

func (t token) isSemicolon() bool { return !t.name && !t.literal && t.text == ";" }

// keyword is the token in capitals, "" if it cannot be a keyword.
func (t token) keyword() string {
	if !t.name || t.quoted {
		return ""
	}
	return strings.ToUpper(t.text)
}

// split cuts a text into statements, and these into tokens.
func split(text string) ([][]token, *pg.Error) {
	var list [][]token
	var words []token
	for {
		t, rest, err := next(text)
		if err != nil {
			return nil, err
		}
		if (t.isSemicolon() || t.isEnd()) && len(words) > 0 {
			list, words = append(list, words), nil
		}
		if t.isEnd() {
			return list, nil
		}
		if !t.isSemicolon() {
			words = append(words, t)
		}
		text = rest
	}
}

// next cuts the first token off. At the end of the text it is one without text.
func next(s string) (t token, rest string, err *pg.Error) {
	s, err = blanks(s)
	if err != nil {
		return token{}, "", err
	}
	n := 0
	for n < len(s) && wordByte(s[n]) {
		n++
	}
	switch {
	case s == "":
		return token{}, "", nil
	case s[0] == '"':
		t.name, t.quoted = true, true
		t.text, rest, err = quoted(s, "quoted identifier")
		if err == nil && t.text == "" {
			err = pg.NewError(pg.CodeSyntaxError, "zero-length delimited identifier")
		}
	case s[0] == '\'':
		t.literal = true
		t.text, rest, err = quoted(s, "quoted string")
	case n > 0:
		t.text, t.name, rest = s[:n], true, s[n:]
	default:
		t.text, rest = s[:1], s[1:]
	}
	t.begin, t.end = len(s), len(rest)
	return t, rest, err
}

// blanks cuts white space and comments off.
func blanks(s string) (string, *pg.Error) {
	for {
		s = strings.TrimLeft(s, " \t\r\n\f\v")
		var ok bool
		switch {
		case strings.HasPrefix(s, "--"):
			_, s, _ = strings.Cut(s, "\n")
		case strings.HasPrefix(s, "/*"):
			comment := s
			if _, s, ok = strings.Cut(s[2:], "*/"); !ok {
				return "", unterminated("/* comment", comment)
			}
		default:
			return s, nil
		}
	}
}

// quoted cuts off what stands in quotes, which are doubled inside.
func quoted(s, what string) (inside, rest string, err *pg.Error) {
	var b strings.Builder
	quote := s[:1]
	for rest = s[1:]; ; {
		part, after, ok := strings.Cut(rest, quote)
		if !ok {
			return "", "", unterminated(what, s)
		}
		b.WriteString(part)
		if !strings.HasPrefix(after, quote) {
			return b.String(), after, nil
		}
		b.WriteString(quote)
		rest = after[1:]
	}
}

func unterminated(what, s string) *pg.Error {
	return pg.NewError(pg.CodeSyntaxError, fmt.Sprintf("unterminated %s at or near %q", what, clip(s)))
}

func wordByte(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '_' || b == '$' || b == '.' || b >= 0x80
}
