package wire

import (
	"net"
	"syscall"
	"time"
)

// setInherited sets on a listening socket what the connections inherit that it accepts: TCP's keepalive, and that nothing waits for more to
// be sent. It returns false if they have to be told themselves.
func setInherited(ln *Listener, cfg net.KeepAliveConfig) bool {
	raw, err := ln.SyscallConn()
	if err != nil {
		return false
	}
	set := true
	err = raw.Control(func(fd uintptr) {
		option := func(level, name, value int) {
			set = set && syscall.SetsockoptInt(int(fd), level, name, value) == nil
		}
		option(syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
		if !cfg.Enable {
			option(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 0)
			return
		}
		option(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1)
		for name, d := range map[int]time.Duration{syscall.TCP_KEEPIDLE: cfg.Idle, syscall.TCP_KEEPINTVL: cfg.Interval} {
			if d > 0 {
				option(syscall.IPPROTO_TCP, name, int((d+time.Second-1)/time.Second))
			}
		}
	})
	return err == nil && set
}
