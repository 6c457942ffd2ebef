package sqlkey

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// path is a parsed search_path.
type path struct {
	schemas []string // "$user" resolved; pg_catalog only if it is listed
	// builtinsFirst: an unqualified name of pg_catalog means pg_catalog's. It does unless the path lists pg_catalog
	// behind another schema.
	builtinsFirst bool
	// asWritten: nothing is computed of constants, for some of them stand for others (see compileLong).
	asWritten bool
	foreign   uint64 // see Env.Foreign
	domains   map[string]domain
	immutable map[string]bool // see database

	tree *pgquery.ParseResult // what is planned; nil: nothing is computed of parameters
	uses uses                 // of them, once they were asked for
}

// isForeign tells whether a parameter is one of Env.Foreign.
func (p *path) isForeign(param int) bool { return param <= 64 && p.foreign&(1<<(param-1)) != 0 }

// defaultPath is PostgreSQL's own default of search_path.
const defaultPath = `"$user", public`

// parsePath reads a search_path as SplitIdentifierString does. ok is false for what the server would not have taken.
func parsePath(raw, user string) (p path, ok bool) {
	if raw == "" {
		raw = defaultPath
	}
	p.builtinsFirst = true
	s := trimSpace(raw)
	if s == "" { // set to one blank: searched are pg_temp and pg_catalog alone
		return p, true
	}
	for {
		var name string
		if s != "" && s[0] == '"' {
			name, s, ok = quotedName(s)
			if !ok {
				return p, false
			}
		} else {
			i := strings.IndexAny(s, ", \t\n\r\f\v")
			if i < 0 {
				i = len(s)
			}
			if i == 0 {
				return p, false
			}
			name, s = LowerASCII(s[:i]), s[i:]
		}
		p.add(name, user)
		if s = trimSpace(s); s == "" {
			return p, true
		}
		if s[0] != ',' {
			return p, false
		}
		s = trimSpace(s[1:])
	}
}

func (p *path) add(name, user string) {
	switch name {
	case "":
		return // "" is how an empty path is written
	case "$user":
		name = user
	case "pg_catalog":
		p.builtinsFirst = len(p.schemas) == 0
	}
	if len(name) > 63 {
		name = name[:63]
	}
	p.schemas = append(p.schemas, name)
}

// quotedName reads a double-quoted identifier at the start of s.
func quotedName(s string) (name, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '"' {
			b.WriteByte('"')
			i++
			continue
		}
		return b.String(), s[i+1:], true
	}
	return "", "", false
}

func trimSpace(s string) string { return strings.Trim(s, " \t\n\r\f\v") }

// LowerASCII folds names as PostgreSQL does: letters beyond ASCII, whatever their encoding, stay as they are.
func LowerASCII(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if 'A' <= b[j] && b[j] <= 'Z' {
					b[j] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// quoteName quotes an identifier where PostgreSQL would: for messages and settings.
func quoteName(s string) string {
	plain := s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	if plain && (s[0] < '0' || s[0] > '9') {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

func qualified(schema, name string) string {
	if schema == "" {
		return quoteName(name)
	}
	return quoteName(schema) + "." + quoteName(name)
}
