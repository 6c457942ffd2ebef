//go:build !linux

package wire

import "net"

// setKeepAlive: whether a connection inherits what its listener has differs between systems.
func setKeepAlive(*Listener, net.KeepAliveConfig) bool { return false }
