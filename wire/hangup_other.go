//go:build !linux

package wire

func peerClosed(fd int) bool { return streamEnded(fd) }
