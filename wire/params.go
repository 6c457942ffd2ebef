package wire

import (
	"iter"

	"rangefinder/wire/sqlkey"
)

// params is what a client knows of its session's parameters (ParameterStatus). Sessions of one user in one database begin with
// the same ones, and share them: only what changed is a session's own.
type params struct {
	common  map[string]string // not changed any more
	changed []param
	// What plans depend on, so that no statement has to look for it.
	encoding    string
	backslashes bool // standard_conforming_strings is off
}

type param struct{ name, value string }

// newParams takes what all have in common, which must not be changed afterwards.
func newParams(common map[string]string) params {
	p := params{common: common}
	for _, name := range [...]string{"client_encoding", "standard_conforming_strings"} {
		if v, ok := common[name]; ok {
			p.note(name, v)
		}
	}
	return p
}

func (p *params) note(name, value string) {
	switch name {
	case "client_encoding":
		p.encoding = value
	case "standard_conforming_strings":
		on, ok := sqlkey.ParseBool(value)
		p.backslashes = ok && !on
	}
}

// get returns "" for what the client has not been told of.
func (p *params) get(name string) string {
	for i := range p.changed {
		if p.changed[i].name == name {
			return p.changed[i].value
		}
	}
	return p.common[name]
}

func (p *params) set(name, value string) {
	p.note(name, value)
	for i := range p.changed {
		if p.changed[i].name == name {
			p.changed[i].value = value
			return
		}
	}
	p.changed = append(p.changed, param{name, value})
}

// all yields each parameter once, in no order. set may be called meanwhile for those that are yielded.
func (p *params) all() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		own := p.changed
		for i := range own {
			if !yield(own[i].name, own[i].value) {
				return
			}
		}
	common:
		for name, value := range p.common {
			for i := range own {
				if own[i].name == name {
					continue common
				}
			}
			if !yield(name, value) {
				return
			}
		}
	}
}
