package order_test

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
)

// TestDatagramEvents: one for each that was taken, however it is received; none for
// a look, for nothing or for an error.
func TestDatagramEvents(t *testing.T) {
	ns := nstest.New(t)
	src, _, err := order.Open(order.Options{Kind: order.Tracepoint, NetNS: ns, LowPort: lowPort, HighPort: highPort, Datagrams: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	var s net.PacketConn
	var c net.Conn
	nstest.In(t, ns, func() (err error) {
		if s, err = net.ListenPacket("udp", "127.0.0.1:5000"); err != nil {
			return err
		}
		c, err = net.Dial("udp", "127.0.0.1:5000")
		return err
	})
	for _, x := range []interface{ Close() error }{s, c} {
		t.Cleanup(func() { x.Close() })
	}
	rc, err := s.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	events := 0
	expect := func(what string, n int) {
		t.Helper()
		events = 0
		err := src.Poll(func(ev order.Event) {
			if ev.Datagram && ev.AppPort == 5000 {
				events++
			}
		})
		if err != nil || events != n {
			t.Fatalf("%s: %d events, want %d; %v", what, events, n, err)
		}
	}
	recv := func(flags int, want error) {
		t.Helper()
		var got error
		if err := rc.Read(func(fd uintptr) bool {
			_, _, got = unix.Recvfrom(int(fd), make([]byte, 100), flags|unix.MSG_DONTWAIT)
			return true
		}); err != nil || got != want {
			t.Fatalf("receive: %v, %v, want %v", err, got, want)
		}
	}
	for _, payload := range []string{"x", "", "more"} {
		if _, err := c.Write([]byte(payload)); err != nil {
			t.Fatal(err)
		}
		recv(unix.MSG_PEEK, nil)
		expect("a look", 0)
		recv(0, nil)
		expect("a datagram", 1)
		recv(0, unix.EAGAIN)
		expect("nothing", 0)
	}
	if _, err := c.Write([]byte("read")); err != nil {
		t.Fatal(err)
	}
	s.SetReadDeadline(time.Now().Add(time.Minute))
	if _, _, err := s.ReadFrom(make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	expect("a part of a datagram", 1)
}
