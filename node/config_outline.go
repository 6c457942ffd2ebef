package node

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// position is where a key stands in the file, both from 1. The zero position is nowhere: a default or a flag.
type position struct{ line, column int }

// outline is what a TOML document says, before it is decoded: where each key stands ("users[0].name"), and which of them
// the configuration does not know or could not hold. The decoder stops at its first error and names Go types; a person
// wants all of them, in the file's own words.
type outline struct {
	parser   *unstable.Parser
	at       map[string]position
	problems []Problem
	counts   map[string]int // elements seen of each [[list]]
}

// readOutline walks the document over the shape of a Config.
func readOutline(doc []byte) *outline {
	o := &outline{parser: &unstable.Parser{}, at: map[string]position{}, counts: map[string]int{}}
	o.parser.Reset(doc)
	shape := reflect.TypeFor[Config]()
	table, path, known := shape, "", true
	for o.parser.NextExpression() {
		node := o.parser.Expression()
		switch node.Kind {
		case unstable.Table, unstable.ArrayTable:
			table, path, known = o.enter(shape, node)
		case unstable.KeyValue:
			if known { // the keys of an unknown table are not reported one by one
				o.keyValue(table, path, node)
			}
		}
	}
	return o
}

// enter follows a [table] or [[list]] header from the root.
func (o *outline) enter(root reflect.Type, node *unstable.Node) (table reflect.Type, path string, known bool) {
	table = root
	for it := node.Key(); it.Next(); {
		key, pos := string(it.Node().Data), o.pos(it.Node().Raw)
		field, ok := fieldByKey(table, key)
		if !ok {
			o.unknown(table, join(path, key), key, pos)
			return nil, "", false
		}
		path = join(path, key)
		table = field.Type
		isList := table.Kind() == reflect.Slice && table.Elem().Kind() == reflect.Struct
		switch {
		case isList && node.Kind == unstable.ArrayTable && it.IsLast():
			n := o.counts[path]
			o.counts[path]++
			table, path = table.Elem(), path+"["+strconv.Itoa(n)+"]"
		case isList:
			o.add(path, pos, fmt.Sprintf("%s is a list", path), fmt.Sprintf("write [[%s]], with two brackets, once for each", path))
			return nil, "", false
		case table.Kind() != reflect.Struct || isText(table):
			o.add(path, pos, fmt.Sprintf("%s is not a table", path), "it must be "+describe(table)+": "+key+" = ...")
			return nil, "", false
		case node.Kind == unstable.ArrayTable && it.IsLast():
			o.add(path, pos, fmt.Sprintf("%s is one table, not a list", path), fmt.Sprintf("write [%s], with one bracket", path))
			return nil, "", false
		}
		o.at[path] = pos
	}
	return table, path, true
}

// keyValue checks one key = value (dotted keys and inline tables too) against the type that will hold it.
func (o *outline) keyValue(table reflect.Type, path string, node *unstable.Node) {
	holder := table
	for it := node.Key(); it.Next(); {
		key, pos := string(it.Node().Data), o.pos(it.Node().Raw)
		if holder.Kind() != reflect.Struct || isText(holder) {
			o.add(path, pos, fmt.Sprintf("%s has no key %q", path, key), "it must be "+describe(holder))
			return
		}
		field, ok := fieldByKey(holder, key)
		if !ok {
			o.unknown(holder, join(path, key), key, pos)
			return
		}
		path, holder = join(path, key), held(field.Type)
		if _, twice := o.at[path]; twice && it.IsLast() {
			o.add(path, pos, fmt.Sprintf("%s is set twice", path), "keep one of them")
			return
		}
		o.at[path] = pos
	}
	o.value(holder, path, node.Value())
}

func (o *outline) value(want reflect.Type, path string, v *unstable.Node) {
	mismatch := func() {
		pos := o.at[path]
		if v.Raw.Length > 0 {
			pos = o.pos(v.Raw)
		}
		o.add(path, pos, fmt.Sprintf("%s must be %s, not %s", path, describe(want), kindName(v.Kind)), "")
	}
	switch {
	case isText(want) || want.Kind() == reflect.String:
		if v.Kind != unstable.String {
			mismatch()
			return
		}
		if isText(want) {
			if err := reflect.New(want).Interface().(interface{ UnmarshalText([]byte) error }).UnmarshalText(v.Data); err != nil {
				o.add(path, o.pos(v.Raw), fmt.Sprintf("%s: %v", path, err), "")
			}
		}
	case want.Kind() == reflect.Int:
		if v.Kind != unstable.Integer {
			mismatch()
		}
	case want.Kind() == reflect.Bool:
		if v.Kind != unstable.Bool {
			mismatch()
		}
	case want.Kind() == reflect.Slice:
		if v.Kind != unstable.Array {
			mismatch()
			return
		}
		n := 0
		for it := v.Children(); it.Next(); n++ {
			if it.Node().Kind == unstable.Comment {
				n--
				continue
			}
			element := path + "[" + strconv.Itoa(n) + "]"
			o.at[element] = o.at[path]
			o.value(want.Elem(), element, it.Node())
		}
	case want.Kind() == reflect.Struct:
		if v.Kind != unstable.InlineTable {
			mismatch()
			return
		}
		for it := v.Children(); it.Next(); {
			if it.Node().Kind == unstable.KeyValue {
				o.keyValue(want, path, it.Node())
			}
		}
	}
}

func (o *outline) add(key string, pos position, message, hint string) {
	o.problems = append(o.problems, Problem{Key: key, Line: pos.line, Column: pos.column, Message: message, Hint: hint})
}

func (o *outline) unknown(table reflect.Type, path, key string, pos position) {
	hint := ""
	if key == "password" || key == "cluster_key" {
		hint = "secrets are never written in this file: use " + key + "_env or " + key + "_file"
	} else if near := nearest(key, keysOf(table)); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	} else {
		hint = "the keys here are " + strings.Join(keysOf(table), ", ")
	}
	o.add(path, pos, fmt.Sprintf("unknown key %q", path), hint)
}

func (o *outline) pos(r unstable.Range) position {
	start := o.parser.Shape(r).Start
	return position{start.Line, start.Column}
}

// decode reads the document into cfg (which holds the defaults). All unknown keys and wrong types come back at once.
func decode(doc []byte, cfg *Config) (*outline, []Problem) {
	o := readOutline(doc)
	var syntax *unstable.ParserError
	if err := o.parser.Error(); err != nil && !errors.As(err, &syntax) {
		return o, []Problem{{Message: err.Error()}}
	}
	if syntax == nil && len(o.problems) > 0 {
		return o, o.problems
	}
	// The decoder also finds what the outline does not look for: syntax, tables defined twice, numbers out of range.
	err := toml.NewDecoder(strings.NewReader(string(doc))).DisallowUnknownFields().Decode(cfg)
	var at *toml.DecodeError
	var strict *toml.StrictMissingError
	switch {
	case err == nil:
		return o, nil
	case errors.As(err, &strict) && len(strict.Errors) > 0:
		at = &strict.Errors[0]
	case !errors.As(err, &at):
		return o, []Problem{{Message: err.Error()}}
	}
	line, column := at.Position()
	p := Problem{Key: strings.Join(at.Key(), "."), Line: line, Column: column, Message: strings.TrimPrefix(at.Error(), "toml: ")}
	return o, append(o.problems, p)
}

// fieldByKey finds the field that holds a key, also one of an embedded struct.
func fieldByKey(t reflect.Type, key string) (reflect.StructField, bool) {
	for _, f := range reflect.VisibleFields(t) {
		if f.Tag.Get("toml") == key && key != "" {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// keysOf lists a table's keys in the order of the struct.
func keysOf(t reflect.Type) []string {
	var keys []string
	for _, f := range reflect.VisibleFields(t) {
		if key := f.Tag.Get("toml"); key != "" && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// held is the type that a key's value has; a pointer marks a key that may be left out without a default.
func held(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// isText reports whether values of t are written as strings with a unit.
func isText(t reflect.Type) bool {
	return t == reflect.TypeFor[Duration]() || t == reflect.TypeFor[Size]()
}

// describe names a type as a person would.
func describe(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Duration]():
		return `a duration in quotes, such as "10s"`
	case t == reflect.TypeFor[Size]():
		return `a size in quotes, such as "16MiB"`
	case t.Kind() == reflect.String:
		return "a string in quotes"
	case t.Kind() == reflect.Int:
		return "a whole number"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
		return `a list of strings, such as ["a", "b"]`
	case t.Kind() == reflect.Slice:
		return "a list of tables"
	}
	return "a table"
}

func kindName(k unstable.Kind) string {
	switch k {
	case unstable.String:
		return "a string"
	case unstable.Integer:
		return "a whole number"
	case unstable.Float:
		return "a decimal number"
	case unstable.Bool:
		return "true or false"
	case unstable.Array:
		return "a list"
	case unstable.InlineTable:
		return "a table"
	}
	return "a date or time"
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// nearest returns the candidate that a typing mistake most likely meant, or "".
func nearest(word string, candidates []string) string {
	best, bestDistance := "", len(word)/3+2
	for _, c := range candidates {
		if d := editDistance(word, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// editDistance is Levenshtein's, over bytes: keys are ASCII.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
