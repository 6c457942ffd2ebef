//go:build !linux

package wire

import "net"

// setInherited: whether a connection inherits what its listener has differs between systems.
func setInherited(*Listener, net.KeepAliveConfig) bool { return false }
