package sockdiag_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
)

func connect(t testing.TB, ns int, listen, dial string) (client, server net.Conn, l net.Listener) {
	t.Helper()
	nstest.In(t, ns, func() (err error) {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		if l, err = lc.Listen(t.Context(), "tcp", listen); err != nil {
			return err
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		client, err = net.Dial("tcp", net.JoinHostPort(dial, port))
		return err
	})
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close(); l.Close() })
	return client, server, l
}

func tuple(c net.Conn) sockdiag.Tuple {
	un := func(a net.Addr) netip.AddrPort {
		ap := a.(*net.TCPAddr).AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return sockdiag.Tuple{Local: un(c.LocalAddr()), Remote: un(c.RemoteAddr())}
}

func open(t testing.TB, ns int) *sockdiag.Conn {
	t.Helper()
	c, err := sockdiag.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestLookupQueues(t *testing.T) {
	ns := nstest.New(t)
	for _, tc := range []struct {
		name, listen, dial string
		ipv6               bool
	}{
		{"v4", "127.0.0.1:0", "127.0.0.1", false},
		{"v6", "[::1]:0", "::1", true},
		{"mapped", "[::]:0", "127.0.0.1", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client, server, _ := connect(t, ns, tc.listen, tc.dial)
			d := open(t, ns)
			if _, err := client.Write(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(server, make([]byte, 300)); err != nil {
				t.Fatal(err)
			}
			var s sockdiag.Socket
			if err := d.Lookup(tuple(server), &s); err != nil {
				t.Fatal(err)
			}
			if s.RecvQueue != 700 || s.BytesReceived != 1000 || s.State != sockdiag.Established {
				t.Errorf("queue %d, received %d, state %d", s.RecvQueue, s.BytesReceived, s.State)
			}
			if s.IPv6 != tc.ipv6 || s.Inode == 0 {
				t.Errorf("ipv6 %v, inode %d", s.IPv6, s.Inode)
			}
			// The port has a listener, which must not be taken for the connection.
			other := tuple(server)
			other.Remote = netip.AddrPortFrom(other.Remote.Addr(), 1)
			if err := d.Lookup(other, &s); !errors.Is(err, sockdiag.ErrNotFound) {
				t.Errorf("lookup of an absent tuple: %v", err)
			}
			if err := d.DestroyTuple(other); !errors.Is(err, sockdiag.ErrNotFound) {
				t.Errorf("destroy of an absent tuple: %v", err)
			}
		})
	}
}

func TestDestroyAndDump(t *testing.T) {
	ns := nstest.New(t)
	client, server, l := connect(t, ns, "127.0.0.1:0", "127.0.0.1")
	d := open(t, ns)
	if err := d.DestroyTuple(tuple(server)); err != nil {
		t.Fatal(err)
	}
	client.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the peer of a destroyed socket read %v, want a reset", err)
	}
	n := 0
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	if err := d.Dump(sockdiag.Of(sockdiag.Listen), port, func(s *sockdiag.Socket) error {
		n++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n != 1 {
		t.Errorf("%d listeners on the port, want 1", n)
	}
	stop := errors.New("stop")
	if err := d.Dump(sockdiag.AllStates, 0, func(*sockdiag.Socket) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("dump returned %v", err)
	}
	if err := d.Dump(sockdiag.AllStates, 0, func(*sockdiag.Socket) error { return nil }); err != nil {
		t.Errorf("dump after an aborted one: %v", err)
	}
}

func TestTimeWaitGoes(t *testing.T) {
	ns := nstest.New(t)
	client, server, _ := connect(t, ns, "127.0.0.1:0", "127.0.0.1")
	tp := tuple(client)
	d := open(t, ns)
	client.(*net.TCPConn).CloseWrite()
	io.Copy(io.Discard, server)
	server.Close()
	io.Copy(io.Discard, client)
	var s sockdiag.Socket
	if err := d.Lookup(tp, &s); err != nil || s.State != sockdiag.TimeWait {
		t.Fatalf("state %d, %v: want TIME_WAIT", s.State, err)
	}
	if err := d.Destroy(&s); err != nil {
		t.Fatal(err)
	}
	if err := d.Lookup(tp, &s); !errors.Is(err, sockdiag.ErrNotFound) {
		t.Fatalf("still there: %v", err)
	}
}

func BenchmarkLookup(b *testing.B) {
	ns := nstest.New(b)
	_, server, _ := connect(b, ns, "127.0.0.1:0", "127.0.0.1")
	d := open(b, ns)
	tp := tuple(server)
	var s sockdiag.Socket
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Lookup(tp, &s); err != nil {
			b.Fatal(err)
		}
	}
}
