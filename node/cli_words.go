package node

import (
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
)

// valueMark begins a word that is no flag although it begins with '-', as in `range split app.accounts 5 -5`: the parser takes all such words
// for flags. No word of a command line can hold this byte.
const valueMark = "\x00"

// plainWords orders a command line so that the parser takes every word for what it is: what stands alone first, values below zero and what
// follows "--" marked, then the flags, each with its value.
func plainWords(model *kong.Application, args []string) []string {
	takes, known := map[string]string{}, map[string]bool{} // of each way to write a flag that takes a value, its name; and all flags
	for _, leaf := range model.Leaves(false) {
		for _, flags := range leaf.AllFlags(false) {
			for _, f := range flags {
				known["--"+f.Name], known["-"+string(f.Short)] = true, true
				if f.IsBool() || f.IsCounter() {
					continue
				}
				takes["--"+f.Name], takes["-"+string(f.Short)] = "--"+f.Name, "--"+f.Name
			}
		}
	}
	var alone, flags []string
	for i := 0; i < len(args); i++ {
		word := args[i]
		name, value := takes[word]
		switch {
		case word == "--":
			for _, rest := range args[i+1:] {
				if strings.HasPrefix(rest, "-") {
					rest = valueMark + rest
				}
				alone = append(alone, rest)
			}
			i = len(args)
		case value && i+1 < len(args) && negative(args[i+1]):
			i++
			flags = append(flags, name+"="+args[i])
		case value && i+1 < len(args):
			i++
			flags = append(flags, word, args[i])
		case negative(word):
			alone = append(alone, valueMark+word)
		case len(word) > 1 && word[0] == '-':
			if name, _, _ := strings.Cut(word, "="); strings.HasPrefix(word, "--") && !known[name] {
				return args // the parser says what is wrong with it
			}
			flags = append(flags, word)
		default:
			alone = append(alone, word)
		}
	}
	return append(alone, flags...)
}

// negative reports whether a word is a value below zero, or a range that begins with one.
func negative(word string) bool {
	return len(word) > 1 && word[0] == '-' && strings.ContainsRune("0123456789.", rune(word[1]))
}

// unmarked is a text without marks, also where they were quoted.
func unmarked(s string) string {
	return strings.NewReplacer(valueMark, "", `\x00`, "").Replace(s)
}

// unmark takes the marks out of the fields of a command.
func unmark(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			unmark(v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			unmark(v.Index(i))
		}
	case reflect.String:
		if v.CanSet() {
			v.SetString(strings.TrimPrefix(v.String(), valueMark))
		}
	}
}
