package wire

import (
	"encoding/binary"
	"syscall"
)

const tcpEstablished = 1

// peerClosed asks TCP itself, which knows of an end that lies behind bytes nobody has read: a TLS client says goodbye first.
func peerClosed(fd int) bool {
	v, err := syscall.GetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_INFO)
	if err != nil { // not TCP
		return streamEnded(fd)
	}
	var info [4]byte // the beginning of struct tcp_info, whose first byte is the state
	binary.NativeEndian.PutUint32(info[:], uint32(v))
	return info[0] != tcpEstablished
}
