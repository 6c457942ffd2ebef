package wire

import (
	"maps"
	"slices"
	"strings"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// hiddenParams are reported by servers and mean nothing to a client that may be on another server with its next statement.
func hiddenParam(name string) bool { return name == "in_hot_standby" }

func (c *core) parameterStatus(body []byte, h *expectation) error {
	name, value, err := pg.DecodeParameterStatus(body)
	if err != nil {
		return err
	}
	c.srv.Params[name] = value
	if h == nil || !h.settings {
		c.reported(name)
	}
	if hiddenParam(name) || h != nil && h.settings || c.params.get(name) == value || c.hasLocally(name) {
		return nil
	}
	if x, ok := c.base.get(sqlkey.LowerASCII(name)); ok && c.hushed {
		value = x.value // what the session has begun with is its default
	}
	if c.coordinator != nil || h != nil && h.quietZ { // told by a branch, or for a part of a segment, in the middle of the answer
		if c.tellLate(name, value); !c.carried {
			c.firm = len(c.late)
		}
		return nil
	}
	c.tell(name, value)
	return nil
}

// tell has the client know a parameter's value. A block that no server has opened, and that is rolled back, takes it back: see untell.
func (c *core) tell(name, value string) {
	was := c.params.get(name)
	if was == value {
		return
	}
	if c.tx.open {
		c.tx.note(name, was, value, false)
	}
	for i := range c.late {
		if c.late[i].name == name {
			c.late[i].value = value
		}
	}
	c.params.set(name, value)
	c.out = pg.AppendParameterStatus(c.out, name, value)
}

// tellLate has the client know a parameter's value that no server reports, with the next ReadyForQuery. As far as its statements are concerned it knows
// it at once.
func (c *core) tellLate(name, value string) {
	was := c.params.get(name)
	if was == value {
		return
	}
	if !slices.ContainsFunc(c.late[c.firm:], func(p param) bool { return p.name == name }) {
		c.late = append(c.late, param{name, was})
	}
	c.params.set(name, value)
}

// recall takes back what tellLate has left, but for what is committed.
func (c *core) recall() {
	for _, p := range c.late[c.firm:] {
		c.params.set(p.name, p.value)
	}
	c.late = c.late[:c.firm]
}

// lately sends what tellLate has left. What a block had set which the request in hand has opened on a server counts as the server has it by now: it
// reports nothing of what it has set and set back since.
func (c *core) lately() {
	for name, p := range c.opened {
		if c.srv != nil {
			c.tellLate(name, c.srv.Params[name])
		} else {
			c.tellLate(name, p.before)
		}
	}
	c.opened = nil
	if c.tx.open && c.tx.failed { // it has lost what it had set, or had since its last savepoint
		var marked map[string]blockParam
		if n := len(c.tx.marks); n > 0 {
			marked = c.tx.marks[n-1].told
		}
		c.untellSince(marked)
	}
	for _, p := range c.late {
		if now := c.params.get(p.name); now != p.value {
			c.out = pg.AppendParameterStatus(c.out, p.name, now)
		}
	}
	c.late, c.firm = c.late[:0], 0
}

// blockParam is a parameter that a block has set which no server has.
type blockParam struct {
	before  string // the block
	session string // what it is once the block commits: SET LOCAL leaves that alone
	now     string
}

// note follows what the block has set a parameter to: for itself alone if local is set.
func (t *transaction) note(name, was, value string, local bool) {
	p, ok := t.told[name]
	if !ok {
		p = blockParam{was, was, was}
	}
	if p.now = value; !local {
		p.session = value
	}
	if t.told == nil {
		t.told = make(map[string]blockParam)
	}
	t.told[name] = p
}

// setLocally has the client know what SET LOCAL makes of a parameter in a block that no server has: the server that opens the block will say so only
// behind the first answer there, too late for a client that writes and reads by it. What cannot be told without a server it learns then.
func (c *core) setLocally(x setting) {
	name, value, ok := c.reportOf(x)
	if was := c.params.get(name); ok && (was != "" || name == "application_name") { // else the server is too old to report it
		c.tx.note(name, was, value, true)
		c.tellLate(name, value)
	}
}

// hasLocally reports whether a block that no server has sets a parameter for itself alone.
func (c *core) hasLocally(name string) bool {
	p, ok := c.tx.told[name]
	return c.tx.open && ok && p.now != p.session
}

// setForAll follows a SET or RESET of what the block has set for itself alone: it holds there as well. The server reports it if it is new to it.
func (c *core) setForAll(name string) {
	if name = canonicalParam(name); c.hasLocally(name) {
		p := c.tx.told[name]
		c.tx.note(name, p.now, p.session, false)
		c.tellLate(name, p.session)
	}
}

// reportOf foresees what a server reports of a parameter that is set to a value it takes, and under which name. x without a value is the default.
func (c *core) reportOf(x setting) (name, value string, ok bool) {
	name = canonicalParam(x.name)
	now := c.params.get(name)
	if x.value == "" {
		return name, c.params.common[name], x.name != "application_name"
	}
	switch lower := sqlkey.LowerASCII(x.value); x.name {
	case "client_encoding":
		value, ok = sqlkey.EncodingName(x.value)
	case "standard_conforming_strings", "default_transaction_read_only":
		var on bool
		if on, ok = sqlkey.ParseBool(x.value); on {
			value = "on"
		} else {
			value = "off"
		}
	case "intervalstyle":
		value, ok = lower, slices.Contains([]string{"postgres", "postgres_verbose", "sql_standard", "iso_8601"}, lower)
	case "datestyle":
		value, ok = dateStyle(lower, now)
	case "timezone":
		value, ok = x.value, c.env.zone != nil && c.env.zone(x.value)
	case "application_name":
		value, ok = x.value, x.harmless()
	}
	return name, value, ok
}

// dateStyle is what becomes of DateStyle, as servers show it, where it is set to words in lower case; check_datestyle of PostgreSQL's variable.c.
func dateStyle(words, now string) (value string, ok bool) {
	style, order, ok := strings.Cut(now, ", ")
	if !ok {
		return "", false
	}
	var styled, ordered bool
	set := func(to *string, done *bool, value string) {
		ok = ok && (!*done || *to == value) // else they contradict each other
		*to, *done = value, true
	}
	for word := range strings.SplitSeq(words, ",") {
		switch word = strings.TrimSpace(word); {
		case word == "iso":
			set(&style, &styled, "ISO")
		case word == "sql":
			set(&style, &styled, "SQL")
		case strings.HasPrefix(word, "postgres"):
			set(&style, &styled, "Postgres")
		case word == "german":
			if set(&style, &styled, "German"); !ordered {
				order = "DMY"
			}
		case word == "ymd":
			set(&order, &ordered, "YMD")
		case word == "dmy", strings.HasPrefix(word, "euro"):
			set(&order, &ordered, "DMY")
		case word == "mdy", word == "us", strings.HasPrefix(word, "noneuro"):
			set(&order, &ordered, "MDY")
		default:
			return "", false
		}
	}
	return style + ", " + order, ok
}

// untell tells the client of the parameters that a block has set which was open nowhere and has ended.
func (c *core) untell(committed bool) {
	for name, p := range c.tx.told {
		if committed {
			c.tellLate(name, p.session)
		} else {
			c.tellLate(name, p.before)
		}
	}
}

// untellSince does so for a block that goes back to a savepoint, where they were marked.
func (c *core) untellSince(marked map[string]blockParam) {
	for name, p := range c.tx.told {
		value := p.before
		if m, ok := marked[name]; ok {
			value = m.now
		}
		c.tellLate(name, value)
	}
	c.tx.told = maps.Clone(marked)
}

// alignParams tells the client of parameters that differ on this server connection from what the client was told last, but for those that its block
// has set: they are so there once it is open.
func (c *core) alignParams() {
	for name, was := range c.params.all() {
		if now, ok := c.srv.Params[name]; ok && now != was && !hiddenParam(name) && name != "server_version" {
			if _, ok := c.tx.told[name]; !ok || !c.tx.open {
				c.tell(name, now)
			}
		}
	}
}
