package redirect_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/nfqueue"
	"github.com/crsc-io/crsc/netproxy/redirect"
)

// outRig redirects outgoing connections and leaves the decisions to the test.
type outRig struct {
	*rig
	queue *nfqueue.Conn
	out   *redirect.Listener
}

func newOutRig(t *testing.T) *outRig {
	t.Helper()
	o := &outRig{}
	o.rig = newRig(t, func(opts *redirect.Options) {
		var err error
		if o.queue, err = nfqueue.Open(opts.NetNS); err != nil {
			t.Fatal(err)
		}
		if o.out, err = redirect.Listen(opts.NetNS, 0); err != nil {
			t.Fatal(err)
		}
		opts.Outgoing = &redirect.Outgoing{Listener: o.out, Queue: o.queue.Queue(), ExcludePorts: []uint16{81}}
	})
	t.Cleanup(func() {
		o.queue.Close()
		o.out.Close()
	})
	return o
}

// decide gives the next n packets of the queue a verdict.
func (o *outRig) decide(n int, v nfqueue.Verdict, mark uint32) {
	o.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); n > 0; {
		if time.Now().After(deadline) {
			o.t.Fatal("no packet in the queue")
		}
		fds := []unix.PollFd{{Fd: int32(o.queue.FD()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 100); err != nil && err != unix.EINTR {
			o.t.Fatal(err)
		}
		err := o.queue.Receive(func(p *nfqueue.Packet) {
			n--
			if err := o.queue.Verdict(p.ID, v, mark); err != nil {
				o.t.Error(err)
			}
		})
		if err != nil {
			o.t.Fatal(err)
		}
	}
}

func (o *outRig) dial(to netip.AddrPort) chan error {
	done := make(chan error, 1)
	go func() {
		done <- netns.Do(o.app, func() error {
			c, err := net.DialTimeout("tcp", to.String(), time.Minute)
			if err == nil {
				o.t.Cleanup(func() { c.Close() })
			}
			return err
		})
	}()
	return done
}

// accept takes a connection from a listener of ours.
func (o *outRig) accept(fd int) (sock int, peer, local netip.AddrPort) {
	o.t.Helper()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, int(time.Minute.Milliseconds())); n != 1 {
		o.t.Fatalf("nothing to accept: %v", err)
	}
	sock, sa, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { unix.Close(sock) })
	name, err := unix.Getsockname(sock)
	if err != nil {
		o.t.Fatal(err)
	}
	return sock, addrPort(sa), addrPort(name)
}

// TestOutgoingGranted: the listener answers in the server's place.
func TestOutgoingGranted(t *testing.T) {
	o := newOutRig(t)
	for _, c := range []struct {
		server netip.AddrPort
		from   netip.Addr
		fd     int
	}{
		{netip.AddrPortFrom(nstest.Client4, 80), nstest.App4, o.out.FD4},
		{netip.AddrPortFrom(nstest.Client6, 80), nstest.App6, o.out.FD6},
		{netip.MustParseAddrPort("192.0.2.7:443"), nstest.App4, o.out.FD4}, // nobody is there
	} {
		done := o.dial(c.server)
		o.decide(1, nfqueue.Repeat, redirect.MarkGrant)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		_, peer, local := o.accept(c.fd)
		if peer.Addr() != c.from || local != c.server {
			t.Errorf("accepted %v -> %v, want %v -> %v", peer, local, c.from, c.server)
		}
	}
}

// TestOutgoingUntouched: without a grant a connection passes; so it does for
// excluded ports and while nobody decides.
func TestOutgoingUntouched(t *testing.T) {
	o := newOutRig(t)
	server := netip.AddrPortFrom(nstest.Client4, 80)
	for _, port := range []string{":80", ":81"} {
		o.listenIn(o.client, port)
	}
	done := o.dial(server)
	o.decide(1, nfqueue.Accept, 0)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	o.expect(o.app, netip.AddrPortFrom(nstest.Client4, 81).String(), nstest.App4.String(), false)
	o.queue.Close()
	o.expect(o.app, server.String(), nstest.App4.String(), false)
	o.expect(o.app, netip.AddrPortFrom(nstest.Client6, 80).String(), nstest.App6.String(), false)
}

// TestOutgoingFlowsSurviveAFlush: somebody else's flush does not reach granted
// connections.
func TestOutgoingFlowsSurviveAFlush(t *testing.T) {
	o := newOutRig(t)
	server := netip.MustParseAddrPort("192.0.2.7:443")
	done := o.dial(server)
	o.decide(1, nfqueue.Repeat, redirect.MarkGrant)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	sock, peer, _ := o.accept(o.out.FD4)
	flow := redirect.Flow{Server: server, Port: peer.Port()}
	o.r.Granted(flow)
	nft, err := nftables.New(nftables.WithNetNSFd(o.app))
	if err != nil {
		t.Fatal(err)
	}
	nft.FlushRuleset()
	if err := nft.Flush(); err != nil {
		t.Fatal(err)
	}
	if repaired, err := o.r.Check(); err != nil || repaired {
		t.Fatal(repaired, err)
	}
	if _, err := unix.Write(sock, []byte("x")); err != nil {
		t.Fatal(err)
	}
	// The application's acknowledgement finds its way.
	deadline := time.Now().Add(time.Minute)
	for {
		n, err := unix.IoctlGetInt(sock, unix.SIOCOUTQ)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the redirected connection is dead")
		}
		time.Sleep(10 * time.Millisecond)
	}
	for range 2 { // the second time there is nothing to forget
		if err := o.r.ForgetFlows([]redirect.Flow{flow}); err != nil {
			t.Fatal(err)
		}
	}
}
