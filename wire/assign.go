package wire

import (
	"crypto/sha256"
	"slices"
	"strings"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// assigned is one call of set_config as it was made.
type assigned struct {
	name, value string
	null, local bool
}

// assign finds what a statement's calls of set_config set. ok is false if that cannot be told.
func (c *core) assign(plan *sqlkey.Plan, args sqlkey.Args) (list []assigned, ok bool) {
	size := 0
	for _, a := range plan.Sets {
		x := assigned{a.Name, a.Value, a.Null, a.Local}
		if a.NameParam > 0 {
			name, null, ok := argument(args, a.NameParam)
			if !ok || null {
				return nil, false
			}
			x.name = sqlkey.LowerASCII(name)
		}
		if a.ValueParam > 0 {
			var ok bool
			if x.value, x.null, ok = argument(args, a.ValueParam); !ok {
				return nil, false
			}
		}
		if a.LocalParam > 0 {
			text, null, ok := argument(args, a.LocalParam)
			if !ok || null {
				return nil, false
			}
			if x.local, ok = sqlkey.ParseBool(text); !ok {
				return nil, false
			}
		}
		if size += len(x.name) + len(x.value) + 64; c.settings.full(len(list)+1, size) {
			return nil, false
		}
		list = append(list, x)
	}
	return list, true
}

// argument returns an argument of set_config as text. Text and names are the same in binary; a boolean is one byte there.
func argument(args sqlkey.Args, n int) (text string, null, ok bool) {
	if args == nil {
		return "", false, false
	}
	val, format, _, null, ok := args.Arg(n)
	switch {
	case !ok || null:
		return "", null, ok
	case format == 1 && len(val) == 1 && val[0] <= 1:
		return string('0' + val[0]), false, true
	}
	return string(val), false, true
}

// change makes s the session's settings, after its server connection has been told the same.
func (c *core) change(s settings, told bool) {
	told = told && c.srv.Applied == c.settings.print
	c.settings = s
	c.worn = c.worn || s.level == serializable && c.srv.Params["in_hot_standby"] == "on" // whoever gets it next could not even change that
	c.srv.Applied = stale
	if told {
		c.srv.Applied = s.print
	}
}

// setDone follows a SET, or one call of set_config: sql does it again.
func (c *core) setDone(name, value, sql string) {
	s := c.settings
	if name == "session_authorization" {
		s = s.without("role") // which begins anew
	}
	c.change(s.with(setting{name, value, sql}), true)
	c.setForAll(name)
	c.again(sql)
}

// resetDone follows a RESET, or a SET to the default.
func (c *core) resetDone(name, sql string) {
	c.setForAll(name)
	s := c.settings.without(name)
	_, another := s.get("session_authorization")
	switch {
	case name == "session_authorization":
		s = s.without("role")
	case name == "role" && another && c.freshRole != "": // which SET SESSION AUTHORIZATION has left
		s = s.with(setting{name, c.freshRole, sql})
	}
	c.again(sql)
	if x, ok := c.base.get(name); ok { // what the session has begun with is no default of the connection's
		c.change(s.with(x), false)
		c.fix(name)
		c.again(x.sql)
		return
	}
	c.change(s, true)
}

// again has a statement carried out again where the client's block is opened: if it is open nowhere yet, or if it needs another shard.
func (c *core) again(sql string) {
	if c.tx.open || c.tx.inServer && c.repeats() {
		c.tx.deferred = append(c.tx.deferred, sql)
	}
}

// resetAllDone follows RESET ALL.
func (c *core) resetAllDone() {
	list := slices.Clone(c.base.list)
	for _, x := range c.settings.kept() {
		list = append(slices.DeleteFunc(list, func(b setting) bool { return b.name == x.name }), x)
	}
	s := fromList(list)
	s.local, s.hints, s.made = c.settings.local, c.base.hints, c.settings.made
	c.change(s, len(c.base.list) == 0)
	for name := range c.tx.told {
		c.setForAll(name)
	}
	c.fixAll()
}

// setsDone follows set_config.
func (c *core) setsDone(list []assigned) {
	for _, x := range list {
		sql := configCall(x.name, x.value)
		switch {
		case x.local:
			c.localDone(x, sql)
		case x.null:
			c.resetDone(x.name, "RESET "+quoteIdent(x.name))
		default:
			c.setDone(x.name, x.value, sql)
		}
	}
}

// localDone follows set_config for the transaction.
func (c *core) localDone(x assigned, sql string) {
	if !c.tx.open && !c.onServer() && !c.serverOpen {
		return // its transaction is over
	}
	sql = sql[:len(sql)-len("false)")] + "true)"
	if x.null {
		sql = "SET LOCAL " + quoteIdent(x.name) + " TO DEFAULT"
	}
	c.setLocal(sql)
	c.settings = c.settings.withLocal(c.localOf(x.name, x.value, x.null))
	c.again(sql)
}

// localOf is what holds for the transaction after a SET LOCAL: byDefault, of the session's default.
func (c *core) localOf(name, value string, byDefault bool) setting {
	if !byDefault {
		return setting{name: name, value: value}
	}
	x, ok := c.base.get(name)
	if !ok {
		switch x = (setting{name: name}); name {
		case "search_path":
			x.value = c.freshPath
		case "role":
			x.value = c.freshRole
		}
	}
	return x
}

// setLocal notes what holds for the transaction alone.
func (c *core) setLocal(sql string) {
	if c.tx.locals += sql + separator; len(c.tx.locals) > maxLocals {
		sum := sha256.Sum256([]byte(c.tx.locals))
		c.tx.locals = string(sum[:]) // it only tells one state from another
	}
}

// maxLocals bounds what is kept for that, in bytes.
const maxLocals = 16 << 10

// fix has the server connection told, before the next request, that a parameter which was RESET has begun with a value of its own in
// this session. A connection that is given back before that needs no such thing.
func (c *core) fix(name string) {
	c.hushed = true
	c.fixes = append(c.fixes, name)
}

func (c *core) fixAll() {
	for _, x := range c.base.list {
		c.fix(x.name)
	}
}

// assignment sets a parameter that the session has begun with, and is no query where that can be: after a query a transaction can
// take no other isolation level any more.
func (x setting) assignment() string {
	switch x.name {
	case "search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries": // SET would take "a, b" for one name
		return x.sql
	}
	parts := strings.Split(x.name, ".")
	for i := range parts {
		parts[i] = `"` + strings.ReplaceAll(parts[i], `"`, `""`) + `"`
	}
	return "SET " + strings.Join(parts, ".") + " TO " + quoteLiteral(x.value)
}

// fixing sends that. It returns false if there is nothing to send.
func (c *core) fixing() bool {
	if len(c.fixes) == 0 || c.srv == nil || c.waiting() || c.serverOpen || c.copyIn || c.broken {
		return false
	}
	sql := ""
	for _, x := range c.base.list {
		if now, ok := c.settings.get(x.name); ok && now == x && slices.Contains(c.fixes, x.name) { // it was not set again meanwhile
			sql += x.assignment() + separator
		}
	}
	c.fixes = nil
	if sql == "" || c.status == 'E' || c.status == 'I' && c.pinned == "" {
		return false
	}
	c.changes = 0
	c.toServer = pg.AppendQuery(c.toServer, sql)
	c.push(expectation{kind: 'Q', quiet: true, quietZ: true, ours: true})
	c.srv.Unnamed = 0
	return true
}

// reportable are the parameters that servers report and sessions may set.
func reportable(name string) bool {
	switch name {
	case "application_name", "client_encoding", "datestyle", "default_transaction_read_only", "intervalstyle", "scram_iterations", "search_path",
		"standard_conforming_strings", "timezone":
		return true
	}
	return false
}

// reported notes a parameter that the server says has changed.
func (c *core) reported(name string) {
	if lower := sqlkey.LowerASCII(name); reportable(lower) && len(c.reports) < 100 {
		c.reports = append(c.reports, name)
	}
}

// takeOver makes what functions have set the session's own, as far as the server has told of it: when a transaction has committed
// and no statement of it has set that parameter.
func (c *core) takeOver(committed bool) {
	if _, ok := c.settings.get("datestyle"); ok && committed && slices.Contains(c.explains, "datestyle") {
		// SET DateStyle = 'ISO' leaves the order of day and month as it was: what came of it is what must be set again.
		value := c.srv.Params["DateStyle"]
		c.change(c.settings.with(setting{"datestyle", value, configCall("datestyle", value)}), true)
	}
	if committed && !c.explained {
		for _, name := range c.reports {
			value, lower := c.srv.Params[name], sqlkey.LowerASCII(name)
			if slices.Contains(c.explains, lower) || c.settings.full(1, len(value)) {
				continue
			}
			c.change(c.settings.with(setting{lower, value, configCall(lower, value)}), true)
		}
	}
	c.reports, c.explains, c.explained = c.reports[:0], c.explains[:0], false
}

// explain notes that a statement of the session has set a parameter; "" stands for all.
func (c *core) explain(name string) {
	if name == "" || len(c.explains) > 100 {
		c.explained = true
		return
	}
	c.explains = append(c.explains, name)
}
