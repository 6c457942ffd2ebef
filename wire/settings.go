package wire

import (
	"slices"
	"strings"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// settings are the parameters that a session has set and that a server connection must have in force before it runs one of
// the session's statements. They are immutable: a change makes a new value, so a transaction can keep the one it began with.
type settings struct {
	list  []setting
	print string // the statements that bring a fresh connection here; also what tells two settings apart
	path  string // the search_path, if it is among them
	paths bool   // it is
	// parsing is those among them that decide what a statement means when it is prepared: two sessions that differ in them
	// cannot share a prepared statement.
	parsing string
	level   string    // default_transaction_isolation, in lower case, if it is among them
	alone   bool      // synchronous_commit is among them, and does not wait for replicas
	hasty   bool      // the transaction alone has it so
	local   []setting // of the transaction alone, as far as they decide what names mean
	hints   *hints    // what hints are set; nil: none
	made    []string  // names of what the session has made on its own connection that may be its own; see sqlkey.Plan.Made. Immutable
}

// separator stands between statements that are sent as one string: on a line of its own, because a client's text may end in a
// comment.
const separator = "\n;"

type setting struct {
	name  string // lower case
	value string // as far as it is known: what search_path is set to, and all startup parameters
	sql   string
}

func (s settings) with(x setting) settings {
	list := make([]setting, 0, len(s.list)+1)
	for _, old := range s.list {
		if old.name != x.name {
			list = append(list, old)
		}
	}
	next := s.anew(append(list, x)) // last: a later SET may depend on an earlier one (role, session authorization)
	next.local = s.localWithout(x.name)
	return next
}

func (s settings) without(name string) settings {
	list := make([]setting, 0, len(s.list))
	for _, x := range s.list {
		if x.name != name {
			list = append(list, x)
		}
	}
	next := s.anew(list)
	next.local = s.localWithout(name)
	return next
}

// localWithout returns the transaction's own settings but for one, which has been set for longer than the transaction.
func (s settings) localWithout(name string) []setting {
	return slices.DeleteFunc(slices.Clone(s.local), func(l setting) bool { return l.name == name })
}

// anew returns the settings with another list. Those of the transaction stay.
func (s settings) anew(list []setting) settings {
	next := fromList(list)
	next.local, next.hasty, next.hints, next.made = s.local, s.hasty, s.hints, s.made
	return next
}

// since returns the statements that bring a connection which has o in force to s.
func (s settings) since(o settings) (list []string) {
	same := 0
	for same < min(len(s.list), len(o.list)) && s.list[same] == o.list[same] {
		same++
	}
	for _, x := range o.list[same:] {
		if _, ok := s.get(x.name); !ok {
			list = append(list, "RESET "+quoteIdent(x.name))
		}
	}
	for _, x := range s.list[same:] { // also those that have not changed: they may depend on one that has
		list = append(list, x.sql)
	}
	return list
}

func (s settings) get(name string) (setting, bool) {
	for _, x := range s.list {
		if x.name == name {
			return x, true
		}
	}
	return setting{}, false
}

// The bounds on what one session may have set, for it is replayed wherever the session goes.
const (
	maxSettings     = 1000
	maxSettingBytes = 1 << 20
)

// full reports whether what a text sets would be too much.
func (s settings) full(parameters, bytes int) bool {
	return len(s.list)+parameters > maxSettings || len(s.print)+bytes > maxSettingBytes
}

func fromList(list []setting) settings {
	s := settings{list: list}
	var b, parsing strings.Builder
	for _, x := range list {
		if decidesMeaning(x.name) {
			parsing.WriteString(x.sql)
			parsing.WriteString(separator)
		}
		b.WriteString(x.sql)
		b.WriteString(separator)
		switch x.name {
		case "search_path":
			s.path, s.paths = x.value, true
		case defaultIsolation:
			s.level = sqlkey.LowerASCII(x.value)
		case "synchronous_commit":
			s.alone = x.waitsForNobody()
		}
	}
	s.print, s.parsing = b.String(), parsing.String()
	return s
}

// waitsForNobody reports whether it has commits wait for no replica, wherever they wait for one.
func (x setting) waitsForNobody() bool {
	on, isBool := sqlkey.ParseBool(x.value)
	return x.name == "synchronous_commit" && (isBool && !on || sqlkey.LowerASCII(x.value) == "local")
}

// decidesMeaning reports whether a setting may change how PostgreSQL reads a statement's text: what its names refer to, and
// what the constants in it are.
func decidesMeaning(name string) bool {
	switch name {
	case "search_path", "role", "session_authorization", "datestyle", "intervalstyle", "timezone", "timezone_abbreviations",
		"client_encoding", "standard_conforming_strings", "backslash_quote", "transform_null_equals", "array_nulls", "xmloption",
		"lc_monetary", "lc_numeric", "lc_time", "default_text_search_config":
		return true
	}
	return false
}

// resetSettings brings a server connection back to what its role and database start with.
const resetSettings = "SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; "

// cleanSession does the same, and takes away what else code that nobody could look into may have left behind, or taken away: of what is prepared
// nothing is sure to be there.
const cleanSession = "DEALLOCATE ALL; SELECT pg_catalog.pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; DISCARD TEMP; DISCARD SEQUENCES; " + resetSettings

// startupSettings turns the parameters of a startup packet into settings, leaving out those that a fresh server connection
// has anyway: these are implied. The node's own parameters are own's. Errors are *pg.Error.
func startupSettings(params []pg.Param, fresh map[string]string, own *own, env *env) (s settings, implied []setting, refused error) {
	add := func(name, value string) {
		name = strings.ToLower(name)
		if isHint(name) {
			s = s.withHint(name, value, false)
			return
		}
		if sqlkey.IsOwn(name) {
			if e := own.begin(name, value, env); e != nil {
				refused = e
			}
			return
		}
		if name == "client_encoding" && sqlkey.IsUTF8(value) {
			value = "UTF8"
		}
		x := setting{name, value, configCall(name, value)}
		implied = slices.DeleteFunc(implied, func(old setting) bool { return old.name == name })
		if fresh[canonicalParam(name)] == value && value != "" {
			s, implied = s.without(name), append(implied, x)
			return
		}
		s = s.with(x)
	}
	for _, p := range params {
		switch p.Key {
		case "user", "database":
		case "replication":
			if p.Value != "" && p.Value != "false" && p.Value != "off" && p.Value != "no" && p.Value != "0" {
				return s, nil, pg.NewError(pg.CodeFeatureNotSupported, "replication connections do not go through the router").
					WithHint("Connect to the backend itself.")
			}
		case "options":
			opts, err := parseOptions(p.Value)
			if err != nil {
				return s, nil, err
			}
			for _, o := range opts {
				add(o.name, o.value)
			}
		default:
			if !strings.HasPrefix(p.Key, "_pq_.") {
				add(p.Key, p.Value)
			}
		}
	}
	return s, implied, refused
}

// strays reports whether a server connection, on which s is in force, has other values of implied parameters than the session began with: by default
// it may have had them then, but defaults change.
func (s settings) strays(implied []setting, params map[string]string) bool {
	return slices.ContainsFunc(implied, func(x setting) bool {
		if params[canonicalParam(x.name)] == x.value {
			return false
		}
		_, set := s.get(x.name)
		return !set
	})
}

// above returns the settings as they are if others have been set before them.
func (s settings) above(first []setting) settings {
	list := slices.DeleteFunc(slices.Clone(first), func(x setting) bool {
		_, set := s.get(x.name)
		return set
	})
	return s.anew(append(list, s.list...))
}

// insist has the session set what it has begun with itself, as it is no default any more.
func (c *core) insist() {
	for _, s := range [...]*settings{&c.base, &c.settings, &c.unsynced, &c.tx.saved} {
		*s = s.above(c.implied)
	}
	for i := range c.tx.marks {
		m := &c.tx.marks[i]
		m.settings = m.settings.above(c.implied)
	}
	c.implied = nil
}

// parseOptions reads the `-c name=value` and `--name=value` words of the startup parameter "options", with PostgreSQL's
// backslash escapes.
func parseOptions(s string) ([]setting, error) {
	var words []string
	var w strings.Builder
	in, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			w.WriteRune(r)
			escaped = false
		case r == '\\':
			in, escaped = true, true
		case r == ' ' || r == '\t' || r == '\n' || r == '\r':
			if in {
				words = append(words, w.String())
				w.Reset()
			}
			in = false
		default:
			in = true
			w.WriteRune(r)
		}
	}
	if in {
		words = append(words, w.String())
	}
	var out []setting
	for i := 0; i < len(words); i++ {
		word := words[i]
		switch {
		case word == "-c" && i+1 < len(words):
			i++
			word = words[i]
		case strings.HasPrefix(word, "-c"):
			word = word[2:]
		case strings.HasPrefix(word, "--"):
			word = word[2:]
		default:
			return nil, pg.NewError(pg.CodeInvalidParameterValue, "the startup parameter \"options\" holds "+quoteLiteral(word)+", which the router does not understand").
				WithHint("Only -c name=value and --name=value are understood.")
		}
		name, value, ok := strings.Cut(word, "=")
		if !ok || name == "" {
			return nil, pg.NewError(pg.CodeInvalidParameterValue, "the startup parameter \"options\" holds "+quoteLiteral(word)+", which lacks a value")
		}
		out = append(out, setting{name: strings.ReplaceAll(name, "-", "_"), value: value})
	}
	return out, nil
}

// canonicalParam returns the name under which a server reports a parameter.
func canonicalParam(lower string) string {
	switch lower {
	case "datestyle":
		return "DateStyle"
	case "timezone":
		return "TimeZone"
	case "intervalstyle":
		return "IntervalStyle"
	}
	return lower
}

// quoteLiteral quotes a string for PostgreSQL whatever standard_conforming_strings says.
func quoteLiteral(s string) string {
	q := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return " E" + strings.ReplaceAll(q, `\`, `\\`)
	}
	return q
}

// withLocal returns the settings with one that holds for the transaction alone. It matters for what names mean; on the server it
// is in force by itself.
func (s settings) withLocal(x setting) settings {
	s.hasty = s.hasty || x.waitsForNobody()
	if !movesNames(x.name) {
		return s
	}
	s.local = append(s.localWithout(x.name), x)
	return s
}

// settled returns the settings at the end of a transaction.
func (s settings) settled() settings {
	s.local, s.hasty, s.hints = nil, false, s.hints.settled()
	return s
}

// inForce returns the setting that the session finds, be it the transaction's.
func (s settings) inForce(name string) (setting, bool) {
	for _, x := range s.local {
		if x.name == name {
			return x, true
		}
	}
	return s.get(name)
}

func movesNames(name string) bool {
	return name == "search_path" || name == "role" || name == "session_authorization"
}

// sameNames reports whether names mean the same under both.
func (s settings) sameNames(o settings) bool {
	for _, name := range [...]string{"search_path", "role", "session_authorization"} {
		a, _ := s.get(name)
		if b, _ := o.get(name); a != b {
			return false
		}
	}
	return true
}

// kept returns those of the settings that RESET ALL leaves alone.
func (s settings) kept() (list []setting) {
	for _, x := range s.list {
		if x.name == "role" || x.name == "session_authorization" {
			list = append(list, x)
		}
	}
	return list
}

// configCall is the statement that sets a parameter by its value. Not SET: it would take "a, b" for one name in a list such as
// search_path's.
func configCall(name, value string) string {
	return "SELECT pg_catalog.set_config(" + quoteLiteral(name) + ", " + quoteLiteral(value) + ", false)"
}

// stale marks a server connection whose settings are not known: they are set anew before it is used.
const stale = "?"
