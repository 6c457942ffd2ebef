package wire

import (
	"net"
	"syscall"
	"time"
)

// setKeepAlive sets TCP's keepalive on a listening socket for what it accepts. It returns false if that has to be told itself.
func setKeepAlive(ln *Listener, cfg net.KeepAliveConfig) bool {
	raw, err := ln.SyscallConn()
	if err != nil {
		return false
	}
	set := true
	err = raw.Control(func(fd uintptr) {
		option := func(level, name, value int) {
			set = set && syscall.SetsockoptInt(int(fd), level, name, value) == nil
		}
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
