package node

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"rangefinder/wire"
	"rangefinder/wire/console"
	"rangefinder/wire/pg"
)

// consoleConfig is what the console knows of the node as a whole.
func (n *Node) consoleConfig(cfg *Config) wire.ConsoleConfig {
	c := wire.ConsoleConfig{Users: cfg.Console.Users, Version: Version(), Settings: func() []console.Setting { return n.settings(cfg) }, TwoPhase: n.showTwoPhase,
		Look: n.consoleLook, Order: n.consoleOrder}
	for _, u := range cfg.Users {
		c.Known = append(c.Known, u.Name)
	}
	c.Shutdown = n.shutdown
	c.Reload = func(by string) ([]console.Change, *pg.Error) {
		answer, err := n.Reload("console user " + by)
		if err != nil {
			return nil, reloadError(err)
		}
		var list []console.Change
		for _, x := range answer.Changed {
			list = append(list, console.Change{Key: x.Key, Was: x.Was, Now: x.Now})
		}
		for _, x := range answer.Restart {
			list = append(list, console.Change{Key: x.Key, Was: x.Was, Now: x.Now, Restart: true})
		}
		return list, nil
	}
	return c
}

// shutdown is the console's SHUTDOWN.
func (n *Node) shutdown(wait bool) {
	if wait && n.phase.CompareAndSwap(int32(phaseServing), int32(phaseLast)) {
		n.log.Info("no client is accepted any more: waiting for the last one to leave", "sessions", n.server.Stats().Sessions)
		_ = n.pgLn.Close()
		n.wg.Go(func() {
			if n.server.Wait(n.ctx) == nil {
				n.log.Info("the last session has ended")
			}
			n.retire()
		})
	}
	if !wait {
		n.retire()
	}
}

// reloadError is why a RELOAD has changed nothing.
func reloadError(err error) *pg.Error {
	v := reloadRefused(err).ErrorView
	return pg.NewError(pg.CodeConfigFileError, v.Error).WithDetail(v.Detail).WithHint(v.Hint)
}

// settings is the configuration, and what the node has made of it.
func (n *Node) settings(cfg *Config) []console.Setting {
	list := settingsOf(cfg)
	share := ""
	if cfg.Pool.Budget > 0 {
		share = strconv.Itoa(n.pools.Share())
	}
	at := 1 + slices.IndexFunc(list, func(s console.Setting) bool { return s.Key == "pool.budget" })
	return slices.Insert(list, at, console.Setting{Key: "pool.share", Value: share})
}

// settingsOf lists every key of a configuration as the file would write it, with its default. Secrets are not in it: the
// configuration only says where they are.
func settingsOf(cfg *Config) []console.Setting {
	defaults := Defaults()
	return appendSettings(nil, "", false, reflect.ValueOf(*cfg), reflect.ValueOf(defaults))
}

// appendSettings appends what stands below path. def may be the zero Value: in lists nothing has a default.
func appendSettings(list []console.Setting, path string, live bool, v, def reflect.Value) []console.Setting {
	if isText(v.Type()) || v.Kind() != reflect.Struct && (v.Kind() != reflect.Slice || v.Type().Elem().Kind() != reflect.Struct) {
		s := console.Setting{Key: path, Value: settingText(v), Changeable: live}
		if def.IsValid() {
			s.Default = settingText(def)
		}
		return append(list, s)
	}
	if v.Kind() == reflect.Slice {
		for i := range v.Len() {
			list = appendSettings(list, path+"["+strconv.Itoa(i)+"]", live, v.Index(i), reflect.Value{})
		}
		return list
	}
	for _, key := range keysOf(v.Type()) {
		field, _ := fieldByKey(v.Type(), key)
		below := reflect.Value{}
		if def.IsValid() {
			below = def.FieldByIndex(field.Index)
		}
		list = appendSettings(list, join(path, key), live || isLive(field), v.FieldByIndex(field.Index), below)
	}
	return list
}

func settingText(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return ""
		}
		v = v.Elem()
	}
	switch x := v.Interface().(type) {
	case encoding.TextMarshaler:
		if b, err := x.MarshalText(); err == nil {
			return string(b)
		}
	case []string:
		return strings.Join(x, ", ")
	}
	return fmt.Sprint(v.Interface())
}
