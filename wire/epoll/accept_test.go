package epoll

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
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
		for i := range 20 {
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
			near.SetReadDeadline(time.Now().Add(time.Minute))
			if i%2 == 1 {
				near.Leave()
				if set.Adopt(near) != nil {
					t.Error("a socket that has left the set is of it")
				}
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
			near.SetReadDeadline(time.Now())
			if n, err := near.Read(b[:]); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("after the deadline: %d, %v", n, err)
			}
			near.SetReadDeadline(time.Time{})
			far.Close()
			if n, err := near.Read(b[:]); n != 0 || err != io.EOF {
				t.Errorf("after the end: %d, %v", n, err)
			}
			if err := near.Close(); err != nil {
				t.Error(err)
			}
			if _, err := near.Read(b[:]); !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
		waits := make(chan error, 1)
		go func() {
			_, err := set.Accept(raw, ln.Addr())
			waits <- err
		}()
		file.Close()
		ln.Close()
		if err := <-waits; !errors.Is(err, net.ErrClosed) {
			t.Errorf("of a listener that is closed: %v", err)
		}
	}
}
