package wire

import (
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
	if hiddenParam(name) || h != nil && h.settings || c.params.get(name) == value {
		return nil
	}
	if x, ok := c.base.get(sqlkey.LowerASCII(name)); ok && c.hushed {
		value = x.value // what the session has begun with is its default
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
	if _, ok := c.tx.told[name]; c.tx.open && !ok {
		if c.tx.told == nil {
			c.tx.told = make(map[string]string)
		}
		c.tx.told[name] = was
	}
	c.params.set(name, value)
	c.out = pg.AppendParameterStatus(c.out, name, value)
}

// alignParams tells the client of parameters that differ on this server connection from what the client was told last.
func (c *core) alignParams() {
	for name, was := range c.params.all() {
		if now, ok := c.srv.Params[name]; ok && now != was && !hiddenParam(name) && name != "server_version" {
			c.tell(name, now)
		}
	}
}
