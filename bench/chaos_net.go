package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// netPrefix begins the names of all namespaces of chaos; behind it stand the process's id and which one it is.
const netPrefix = "rangefinder-chaos-"

// chaosNet is a network of regions: a namespace for each, and one in the middle with a bridge between them, where faults are made.
// Nothing of it is in the machine's own network, so it goes away with its namespaces.
type chaosNet struct {
	// constant
	hub     string
	regions []*region

	// guarded by mu
	mu    sync.Mutex
	rules map[int]string // of the firewall at the bridge, by handles that drop gave
	next  int
}

// region is one namespace. It is a pgtest.Network.
type region struct {
	number int    // from 1
	name   string // as nodes are told it
	ns     string
	port   string // at the bridge
}

// host is an address in the region, host:port.
func (r *region) host(n, port int) string {
	return net.JoinHostPort(r.ip(n), strconv.Itoa(port))
}

// ip is one of its addresses: 1 is the servers', those from 11 on are nodes'.
func (r *region) ip(n int) string { return fmt.Sprintf("10.77.%d.%d", r.number, n) }

// errChaosNet is why there can be no chaos here.
var errChaosNet = errors.New("chaos cannot make networks")

// newChaosNet makes the namespaces, and removes those of processes that died. hosts are the addresses that each region has.
func newChaosNet(ctx context.Context, names []string, hosts []int) (n *chaosNet, err error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: network namespaces want root (sudo make chaos)", errChaosNet)
	}
	for program, from := range map[string]string{"ip": "iproute2", "nft": "nftables"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: %s is missing (apt-get install %s)", errChaosNet, program, from)
		}
	}
	if err := sweepChaosNets(ctx); err != nil {
		return nil, err
	}
	prefix := netPrefix + strconv.Itoa(os.Getpid()) + "-"
	n = &chaosNet{hub: prefix + "hub", rules: map[int]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	steps := [][]string{
		{"netns", "add", n.hub},
		{"-n", n.hub, "link", "add", "bridge", "type", "bridge"},
		{"-n", n.hub, "link", "set", "bridge", "up"},
	}
	for i, name := range names {
		r := &region{number: i + 1, name: name, ns: prefix + name, port: "to-" + name}
		n.regions = append(n.regions, r)
		steps = append(steps, [][]string{
			{"netns", "add", r.ns},
			{"-n", n.hub, "link", "add", r.port, "type", "veth", "peer", "name", "out", "netns", r.ns},
			{"-n", n.hub, "link", "set", r.port, "master", "bridge", "up"},
			{"-n", r.ns, "link", "set", "lo", "up"},
			{"-n", r.ns, "link", "set", "out", "up"},
		}...)
		for _, h := range hosts {
			steps = append(steps, []string{"-n", r.ns, "addr", "add", r.ip(h) + "/16", "dev", "out"})
		}
	}
	for _, args := range steps {
		if err := command(ctx, "", "ip", args...); err != nil {
			return n, fmt.Errorf("%w: %w", errChaosNet, err)
		}
	}
	if err := n.apply(ctx); err != nil {
		return n, fmt.Errorf("%w: %w", errChaosNet, err)
	}
	return n, nil
}

// close removes the namespaces. It does not heed any context: they would stay.
func (n *chaosNet) close() error {
	all, err := chaosNets()
	for _, ns := range all {
		if ns.pid == os.Getpid() {
			err = errors.Join(err, command(context.Background(), "", "ip", "netns", "del", ns.name))
		}
	}
	return err
}

// madeNet is a namespace that a process has made.
type madeNet struct {
	name string
	pid  int
}

func chaosNets() ([]madeNet, error) {
	var found []madeNet
	entries, err := os.ReadDir("/run/netns")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if ns, ok := parseNet(e.Name()); ok {
			found = append(found, ns)
		}
	}
	return found, err
}

// parseNet takes a namespace's name apart; ok: it is one of ours.
func parseNet(name string) (ns madeNet, ok bool) {
	rest, ours := strings.CutPrefix(name, netPrefix)
	id, _, more := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(id)
	return madeNet{name, pid}, ours && more && err == nil && pid > 0
}

// sweepChaosNets removes what processes left behind that were killed.
func sweepChaosNets(ctx context.Context) error {
	all, err := chaosNets()
	for _, ns := range all {
		if _, gone := os.Stat("/proc/" + strconv.Itoa(ns.pid)); errors.Is(gone, os.ErrNotExist) {
			failed := command(ctx, "", "ip", "netns", "del", ns.name)
			if _, there := os.Stat("/run/netns/" + ns.name); there == nil { // else somebody else has swept
				err = errors.Join(err, failed)
			}
		}
	}
	return err
}

// command runs a program with something on its standard input. The error has what it printed.
func command(ctx context.Context, stdin, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// ruleset is the firewall's whole configuration. It is swapped as one, so no packet meets half of it.
func (n *chaosNet) ruleset() string {
	var b strings.Builder
	b.WriteString("add table bridge chaos\nadd chain bridge chaos forward { type filter hook forward priority 0; policy accept; }\nflush chain bridge chaos forward\n")
	n.mu.Lock()
	defer n.mu.Unlock()
	var order []int
	for id := range n.rules {
		order = append(order, id)
	}
	slices.Sort(order)
	for _, id := range order {
		for rule := range strings.Lines(n.rules[id]) {
			fmt.Fprintf(&b, "add rule bridge chaos forward %s\n", strings.TrimSpace(rule))
		}
	}
	return b.String()
}

func (n *chaosNet) apply(ctx context.Context) error {
	return command(ctx, n.ruleset(), "ip", "netns", "exec", n.hub, "nft", "-f", "-")
}

// drop puts rules in force until the function that it returns is called.
func (n *chaosNet) drop(ctx context.Context, rules ...string) (heal func() error, err error) {
	n.mu.Lock()
	n.next++
	id := n.next
	n.rules[id] = strings.Join(rules, "\n")
	n.mu.Unlock()
	return func() error {
		n.mu.Lock()
		delete(n.rules, id)
		n.mu.Unlock()
		return n.apply(context.Background())
	}, n.apply(ctx)
}

// The rules that drop takes.

// ruleCut stops all that goes into a region and comes out of it.
func ruleCut(r *region) []string {
	return []string{fmt.Sprintf("iifname %q drop", r.port), fmt.Sprintf("oifname %q drop", r.port)}
}

// ruleOneWay stops what goes from one region to another; back it goes.
func ruleOneWay(from, to *region) []string {
	return []string{fmt.Sprintf("iifname %q oifname %q drop", from.port, to.port)}
}

// ruleLoss loses so many of a hundred packets that go into a region or come out of it.
func ruleLoss(r *region, percent int) []string {
	luck := fmt.Sprintf("numgen random mod 100 < %d drop", percent)
	return []string{fmt.Sprintf("iifname %q %s", r.port, luck), fmt.Sprintf("oifname %q %s", r.port, luck)}
}

// unplug takes the region's cable out until the function that it returns is called.
func (n *chaosNet) unplug(ctx context.Context, r *region) (heal func() error, err error) {
	set := func(ctx context.Context, state string) error {
		return command(ctx, "", "ip", "-n", n.hub, "link", "set", r.port, state)
	}
	return func() error { return set(context.Background(), "up") }, set(ctx, "down")
}

// Enter implements pgtest.Network.
func (r *region) Enter() error {
	f, err := os.Open("/run/netns/" + r.ns)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", r.ns, err)
	}
	return nil
}

// Dial implements pgtest.Network. A socket stays where it was made, so only its making needs a thread of the region's.
func (r *region) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	type dialed struct {
		conn net.Conn
		err  error
	}
	done := make(chan dialed)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, which is in the region now, ends with this goroutine
		var d dialed
		if d.err = r.Enter(); d.err == nil {
			d.conn, d.err = new(net.Dialer).DialContext(ctx, network, addr) // an address in numbers: no other goroutine dials it
		}
		done <- d
	}()
	d := <-done
	return d.conn, d.err
}
