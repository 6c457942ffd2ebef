package node

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
)

// ReloadAnswer is what a reload did, key by key. Lists of tables are named by their elements: "users[app].password_file".
type ReloadAnswer struct {
	Changed []ConfigChange `json:"changed"`       // in force now
	Restart []ConfigChange `json:"needs_restart"` // as before, until the node is started again
}

// ConfigChange is one key that has another value. Secrets are not shown.
type ConfigChange struct {
	Key string `json:"key"`
	Was string `json:"was"`
	Now string `json:"now"`
}

var (
	errNoReload       = errors.New("there is nothing to reload: this node was started without a file")
	errReloadTooEarly = &Failure{Message: "the node is starting: the configuration cannot be reloaded yet", Hint: "Ask again when /readyz says that it is ready."}
	errReloadTakeover = &Failure{Message: "another process is taking over: the configuration cannot be reloaded now", Hint: "It reads the file itself."}
	errReloadTooLate  = &Failure{Message: "the node is stopping: nothing is reloaded any more"}
)

// hand gives every part of the node what it takes of a new setup. It is the one place where a reload takes effect: a section
// of the configuration that can change at run time has live:"yes" in config.go, what can be wrong with it is found by
// newSetup, and its part takes the new immutable value in a line here. Nothing in it may fail.
func (n *Node) hand(old, next *setup) {
	n.setup.Store(next) // secrets, TLS, admin, drain_timeout, watchdog_timeout: looked up here when they are needed
	n.level.Set(levelOf(next.cfg.Log))
	n.pools.SetLimits(next.cfg.poolLimits())
	n.table.Local().SetPolicy(next.cfg.readPolicy())
	n.setPolicy(next.policy)
	n.server.Reload(n.serverLive(next))
	if !reflect.DeepEqual(old.cfg.HBA, next.cfg.HBA) {
		n.warnPolicy(next)
	}
	if err := n.prober().Reload(next.probes()); err != nil {
		n.log.Error("the probes go on as before", "error", err) // stopping
	}
	for _, b := range old.cfg.Backends {
		if !slices.ContainsFunc(next.cfg.Backends, func(c Backend) bool { return c.Name == b.Name && c.Address == b.Address }) {
			n.pools.Forget(b.Name)
		}
	}
	if old.cfg.BackendTLS != next.cfg.BackendTLS {
		n.pools.Renew()
		n.prober().Renew()
	}
}

// Reload reads the configuration again. If anything in it is wrong, nothing changes, and a *ConfigError names every mistake.
// by says who asked, for the log.
func (n *Node) Reload(by string) (ReloadAnswer, error) {
	if n.handing.Load() { // for minutes, perhaps
		return ReloadAnswer{}, errReloadTakeover
	}
	n.reloading.Lock()
	defer n.reloading.Unlock()
	answer, err := n.reload()
	if err != nil {
		n.log.Error("not reloaded: nothing has changed", "by", by, "error", err)
		return answer, err
	}
	attrs := []any{"by", by}
	for _, c := range answer.Changed {
		attrs = append(attrs, slog.String(c.Key, c.Was+" -> "+c.Now))
	}
	n.log.Info("reloaded", attrs...)
	for _, c := range answer.Restart {
		n.log.Warn("this key needs a restart, it stays as it was", "key", c.Key, "is", c.Was, "file", c.Now)
	}
	return answer, nil
}

func (n *Node) reload() (answer ReloadAnswer, err error) {
	switch {
	case n.options.Load == nil:
		return answer, errNoReload
	case phase(n.phase.Load()) == phaseDraining, phase(n.phase.Load()) == phaseHanded:
		return answer, errReloadTooLate
	case !n.whole.Load():
		return answer, errReloadTooEarly
	}
	wanted, err := n.options.Load()
	if err != nil {
		return answer, err
	}
	old := n.setup.Load()
	next, err := newSetup(wanted, n.options, old)
	if err != nil {
		return answer, err
	}
	next.cfg = overlay(old.cfg, wanted)
	if problems := next.cfg.check(next.cfg.from.at); len(problems) > 0 { // with the keys that stay as they were
		return answer, &ConfigError{File: next.cfg.from.file, Problems: problems}
	}
	answer.Changed = diff(&old.cfg, &next.cfg)
	answer.Changed = append(answer.Changed, diffSecrets(old, next)...)
	answer.Restart = diff(&next.cfg, &wanted)
	if !slices.Equal(old.secrets.ClusterKey, next.secrets.ClusterKey) || !slices.EqualFunc(old.secrets.OtherKeys, next.secrets.OtherKeys, slices.Equal) {
		answer.Restart = append(answer.Restart, ConfigChange{"cluster_key", maskedKey(old.secrets.ClusterKey), "another key"})
		next.secrets.ClusterKey, next.secrets.OtherKeys = old.secrets.ClusterKey, old.secrets.OtherKeys
	}
	n.hand(old, next)
	return answer, nil
}

func maskedKey(key []byte) string {
	if key == nil {
		return NewSecret("").String()
	}
	return NewSecret("x").String()
}

// isLive reports whether a reload changes the key, or all keys of the table.
func isLive(f reflect.StructField) bool { return f.Tag.Get("live") == "yes" }

// overlay is the old configuration with those keys of the new one that a reload changes.
func overlay(old, wanted Config) Config {
	next := wanted
	keep(reflect.ValueOf(&next).Elem(), reflect.ValueOf(old))
	return next
}

// keep sets in next what stays as in old.
func keep(next, old reflect.Value) {
	for _, key := range keysOf(next.Type()) {
		f, _ := fieldByKey(next.Type(), key)
		to, from := next.FieldByIndex(f.Index), old.FieldByIndex(f.Index)
		switch {
		case isLive(f):
		case to.Kind() == reflect.Struct && !isText(to.Type()):
			keep(to, from)
		default:
			to.Set(from)
		}
	}
}

// diff lists the keys of two configurations that differ, in the order of the file.
func diff(a, b *Config) []ConfigChange {
	return appendDiff([]ConfigChange{}, "", reflect.ValueOf(*a), reflect.ValueOf(*b))
}

func appendDiff(list []ConfigChange, path string, a, b reflect.Value) []ConfigChange {
	t := a.Type()
	switch {
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return appendListDiff(list, path, a, b)
	case t.Kind() == reflect.Struct && !isText(t):
		for _, key := range keysOf(t) {
			f, _ := fieldByKey(t, key)
			list = appendDiff(list, join(path, key), a.FieldByIndex(f.Index), b.FieldByIndex(f.Index))
		}
		return list
	}
	if was, now := settingText(a), settingText(b); was != now {
		list = append(list, ConfigChange{path, was, now})
	}
	return list
}

// appendListDiff compares lists of tables by the elements' names; of those that have none, by their places.
func appendListDiff(list []ConfigChange, path string, a, b reflect.Value) []ConfigChange {
	was, now := elements(a), elements(b)
	for _, name := range slices.Concat(was.names, now.names) {
		key := path + "[" + name + "]"
		old, had := was.values[name]
		v, has := now.values[name]
		switch {
		case had && has:
			delete(now.values, name) // not twice
			delete(was.values, name)
			list = appendDiff(list, key, old, v)
		case had:
			list = append(list, ConfigChange{key, summary(old), "removed"})
		case has:
			list = append(list, ConfigChange{key, "", summary(v)})
		}
	}
	return list
}

type namedElements struct {
	names  []string
	values map[string]reflect.Value
}

func elements(v reflect.Value) namedElements {
	e := namedElements{values: make(map[string]reflect.Value, v.Len())}
	f, named := fieldByKey(v.Type().Elem(), "name")
	for i := range v.Len() {
		name := fmt.Sprint(i)
		if named {
			name = v.Index(i).FieldByIndex(f.Index).String()
		}
		e.names, e.values[name] = append(e.names, name), v.Index(i)
	}
	return e
}

// summary is an element in one line, without what is empty.
func summary(v reflect.Value) string {
	var parts []string
	for _, key := range keysOf(v.Type()) {
		f, _ := fieldByKey(v.Type(), key)
		if x := v.FieldByIndex(f.Index); !x.IsZero() && key != "name" {
			parts = append(parts, key+" = "+settingText(x))
		}
	}
	if len(parts) == 0 {
		return "added"
	}
	return strings.Join(parts, ", ")
}

// diffSecrets names the secrets that were changed where they are kept.
func diffSecrets(old, next *setup) (list []ConfigChange) {
	add := func(key string, was, now Secret) {
		if was != now && was.Set() && now.Set() {
			list = append(list, ConfigChange{key, "(set)", "(another)"})
		}
	}
	for _, u := range next.cfg.Users {
		add("users["+u.Name+"].password", old.secrets.Users[u.Name], next.secrets.Users[u.Name])
	}
	for _, u := range next.cfg.Users {
		add("users["+u.Name+"].verifier", old.secrets.Verifiers[u.Name], next.secrets.Verifiers[u.Name])
	}
	add("auth.password", old.secrets.Auth, next.secrets.Auth)
	add("probe.password", old.secrets.Probe, next.secrets.Probe)
	add("admin.password", old.secrets.Admin, next.secrets.Admin)
	if len(old.secrets.API) > 0 && len(next.secrets.API) > 0 && !slices.Equal(old.secrets.API, next.secrets.API) {
		list = append(list, ConfigChange{"api.token", "(set)", "(another)"})
	}
	return list
}
