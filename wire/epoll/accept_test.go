package epoll

import (
	"net"
	"testing"
)

// TestAccept: connections are in the set from the first, know both their ends, and wait for what is to come.
func TestAccept(t *testing.T) {
	set := Open(false)
	if set == nil {
		t.Skip("there are no sets here")
	}
	defer set.Close()
	for _, listen := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::]:0"} {
		ln, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		file, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := file.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		port := ln.Addr().(*net.TCPAddr).Port
		for range 20 {
			far, err := net.DialTCP("tcp4", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
			if err != nil {
				t.Fatal(err)
			}
			near, err := set.Accept(raw, ln.Addr())
			if err != nil {
				t.Fatal(err)
			}
			if got, want := near.RemoteAddr().String(), far.LocalAddr().String(); got != want {
				t.Errorf("%s: from %s, want %s", listen, got, want)
			}
			if got, want := near.LocalAddr().String(), far.RemoteAddr().String(); got != want {
				t.Errorf("%s: at %s, want %s", listen, got, want)
			}
			if set.Adopt(near) != near {
				t.Error("a socket of the set is taken into it as another one")
			}
			echo := make(chan error, 1)
			go func() {
				var b [8]byte
				n, err := near.Read(b[:])
				if err == nil {
					_, err = near.Write(b[:n])
				}
				echo <- err
			}()
			var b [8]byte
			if _, err := far.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if n, err := far.Read(b[:]); err != nil || string(b[:n]) != "hello" {
				t.Fatalf("%q, %v", b[:n], err)
			}
			if err := <-echo; err != nil {
				t.Error(err)
			}
			near.Close()
			far.Close()
		}
		waits := make(chan error, 1)
		go func() {
			_, err := set.Accept(raw, ln.Addr())
			waits <- err
		}()
		file.Close()
		ln.Close()
		if err := <-waits; err == nil {
			t.Error("a listener that is closed goes on")
		}
	}
}
