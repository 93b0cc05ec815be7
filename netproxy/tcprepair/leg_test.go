package tcprepair

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
)

func TestMirrorRefuses(t *testing.T) {
	for _, state := range []uint8{0, 2, 3, 6, 7, 10, 12} {
		if _, err := MirrorOf(&Peer{State: state}); !errors.Is(err, ErrState) {
			t.Errorf("state %d: %v", state, err)
		}
	}
	for _, p := range []Peer{{State: 1, OutqLen: 1, UnsqLen: 2}, {State: 5, OutqLen: 1}} {
		if _, err := MirrorOf(&p); !errors.Is(err, ErrPeer) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestBaseSeqsWithTraffic(t *testing.T) {
	p := newPair(t, "[fd77::2]:80", unix.AF_INET6)
	p.request(12345)
	p.reply(777)
	read(t, p.leg, 777)
	got, err := BaseSeqs(p.leg, 12345)
	if err != nil || got != p.base {
		t.Errorf("%+v, %v; want %+v", got, err, p.base)
	}
	if v, err := unix.GetsockoptInt(p.leg, unix.SOL_SOCKET, unix.SO_REUSEADDR); err != nil || v != 1 {
		t.Errorf("SO_REUSEADDR is %d, %v", v, err)
	}
}

// TestPortRestsNoTime: a leg that closed first leaves a TIME_WAIT, which does
// not keep its port from being used again at once.
func TestPortRestsNoTime(t *testing.T) {
	for _, a := range addressing {
		t.Run(a.name, func(t *testing.T) {
			p := newPair(t, a.local, a.family)
			d, err := sockdiag.Open(p.ns)
			must(t, "diag", err)
			defer d.Close()
			for range 5 {
				must(t, "shutdown", unix.Shutdown(p.leg, unix.SHUT_WR))
				read(t, p.app, -1)
				unix.Close(p.app)
				read(t, p.leg, -1)
				unix.Close(p.leg)
				var s sockdiag.Socket
				must(t, "lookup", d.Lookup(sockdiag.Tuple{Local: p.peer, Remote: p.local}, &s))
				if s.State != sockdiag.TimeWait {
					t.Fatalf("state %d, want TIME_WAIT", s.State)
				}
				p.leg, err = Dial(p.ns, Spec{Client: p.peer, App: p.local, Mark: redirect.MarkSteer})
				must(t, "dial again", err)
				p.app, _, err = unix.Accept4(p.listener, unix.SOCK_CLOEXEC)
				must(t, "accept", err)
				write(t, p.leg, []byte("hello"))
				read(t, p.app, 5)
			}
			unix.Close(p.leg)
			unix.Close(p.app)
		})
	}
}

// TestAckNow: a delayed acknowledgement stands in the application's send queue
// until AckNow.
func TestAckNow(t *testing.T) {
	p := newPair(t, "10.77.0.2:80", unix.AF_INET)
	defer unix.Close(p.app)
	defer unix.Close(p.leg)
	for range 50 { // out of the quick-acknowledgement phase
		p.request(10)
		read(t, p.app, 10)
		p.reply(10)
		read(t, p.leg, 10)
	}
	if n := ioctlInt(t, p.app, unix.SIOCOUTQ); n == 0 {
		t.Fatal("the kernel did not delay the acknowledgement")
	}
	must(t, "ack", AckNow(p.leg))
	if n := ioctlInt(t, p.app, unix.SIOCOUTQ); n != 0 {
		t.Errorf("%d bytes unacknowledged after AckNow", n)
	}
}
