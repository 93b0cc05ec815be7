package tcprepair

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/redirect"
)

const legPort = 20001

// pair is a leg and an application's socket in a redirected namespace.
type pair struct {
	t           testing.TB
	ns, family  int
	local, peer netip.AddrPort
	listener    int
	app, leg    int
	base        Seqs
	in, out     []byte // what was written to either end
	got         []byte // what the first leg read
	arrived     bool   // the last Restore said SentArrived
}

func newPair(t testing.TB, local string, family int) *pair {
	t.Helper()
	p := &pair{t: t, family: family, local: netip.MustParseAddrPort(local)}
	client := nstest.Client4
	if p.local.Addr().Is6() {
		client = nstest.Client6
	}
	p.peer = netip.AddrPortFrom(client, legPort)
	p.ns, _ = nstest.Pair(t)
	l, err := redirect.Listen(p.ns, 0)
	must(t, "listen", err)
	t.Cleanup(func() { l.Close() })
	r, err := redirect.Install(redirect.Options{
		NetNS: p.ns, Suffix: "test", Listener: l, Intercept: []netip.AddrPort{p.local},
	})
	must(t, "install", err)
	t.Cleanup(func() { r.Remove() })
	p.listen()
	p.leg, err = Dial(p.ns, Spec{Client: p.peer, App: p.local, Mark: redirect.MarkSteer})
	must(t, "dial", err)
	p.app, _, err = unix.Accept4(p.listener, unix.SOCK_CLOEXEC)
	must(t, "accept", err)
	p.base, err = BaseSeqs(p.leg, 0)
	must(t, "base", err)
	return p
}

func (p *pair) listen() {
	nstest.In(p.t, p.ns, func() (err error) {
		p.listener, err = unix.Socket(p.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	p.t.Cleanup(func() { unix.Close(p.listener) })
	any := netip.IPv6Unspecified()
	if p.family == unix.AF_INET {
		any = netip.IPv4Unspecified()
	}
	must(p.t, "reuse", unix.SetsockoptInt(p.listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	must(p.t, "bind", unix.Bind(p.listener, familySockaddr(p.family, netip.AddrPortFrom(any, p.local.Port()))))
	must(p.t, "listen", unix.Listen(p.listener, 10))
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// request writes n bytes to the leg.
func (p *pair) request(n int) {
	p.t.Helper()
	b := random(n)
	p.in = append(p.in, b...)
	write(p.t, p.leg, b)
}

// reply writes n bytes to the application's socket, as far as they fit.
func (p *pair) reply(n int) {
	p.t.Helper()
	b := random(n)
	m, err := unix.SendmsgN(p.app, b, nil, nil, unix.MSG_DONTWAIT)
	must(p.t, "reply", err)
	p.out = append(p.out, b[:m]...)
}

func write(t testing.TB, fd int, b []byte) {
	t.Helper()
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EAGAIN {
			wait(t, fd, unix.POLLOUT)
			continue
		}
		must(t, "write", err)
		b = b[n:]
	}
}

func wait(t testing.TB, fd int, events int16) {
	t.Helper()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, 30_000)
	if n != 1 && err != unix.EINTR {
		t.Fatalf("nothing happens on the socket: %v", err)
	}
}

func awaitState(t testing.TB, fd int, state uint8) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
		must(t, "state", err)
		if info.State == state {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the socket's state is %d, want %d", info.State, state)
		}
	}
}

// read reads n bytes, or to the end of the stream if n is negative.
func read(t testing.TB, fd, n int) []byte {
	t.Helper()
	var out []byte
	buf := make([]byte, 1<<16)
	for n < 0 || len(out) < n {
		b := buf
		if n >= 0 {
			b = b[:min(len(b), n-len(out))]
		}
		m, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			wait(t, fd, unix.POLLIN)
			continue
		}
		must(t, "read", err)
		if m == 0 {
			if n >= 0 {
				t.Fatalf("stream ended after %d bytes, want %d", len(out), n)
			}
			break
		}
		out = append(out, b[:m]...)
	}
	return out
}

// crash dumps the application's socket, then drains and drops the leg.
func (p *pair) crash() *image {
	p.t.Helper()
	time.Sleep(5 * time.Millisecond) // let in-flight packets land
	im := dump(p.t, p.app, p.family, p.local, p.peer)
	buf := make([]byte, 1<<20)
	for {
		n, err := unix.Read(p.leg, buf)
		if n <= 0 || err != nil {
			break
		}
		p.got = append(p.got, buf[:n]...)
	}
	must(p.t, "repair on", setInt(p.leg, unix.TCP_REPAIR, repairOn))
	must(p.t, "close leg", unix.Close(p.leg))
	return im
}

// recover restores the leg, then the application, as the product does.
func (p *pair) recover(im *image) {
	p.t.Helper()
	o := Options{Mark: redirect.MarkSteer, SteerMark: redirect.MarkSteer}
	m, err := MirrorOf(&im.Peer)
	must(p.t, "mirror", err)
	o.SentArrived = len(p.got) >= int(m.Sent-p.base.Out)
	p.arrived = o.SentArrived
	leg, err := Restore(p.ns, &im.Peer, o)
	must(p.t, "restore", err)
	p.t.Cleanup(func() { unix.Close(leg) })
	time.Sleep(30 * time.Millisecond)
	p.leg = leg
	p.app = im.revive(p.t, p.ns)
	must(p.t, "activate", Activate(leg, &im.Peer))
	// The journal's part: input from the cut on comes again.
	if at := m.Snd - p.base.In; int(at) > len(p.in) {
		p.t.Fatalf("the application has %d input bytes of %d", at, len(p.in))
	} else if !m.InputEnded {
		write(p.t, leg, p.in[at:])
	}
	if o.SentArrived {
		m.Rcv = m.Sent
	}
	at := m.Rcv - p.base.Out
	if int(at) > len(p.got) {
		p.t.Fatalf("output from %d on was acknowledged, but only %d bytes were read", at, len(p.got))
	}
	p.got = p.got[:at]
	seqs, err := BaseSeqs(leg, 0)
	must(p.t, "base", err)
	if !m.InputEnded && !m.OutputEnded && seqs.Out != m.Rcv {
		p.t.Errorf("output base %d, want %d", seqs.Out, m.Rcv)
	}
}

// timeouts counts the retransmission timers that have run out in the namespace
// (TcpExt of proc_pid_net(5)).
func (p *pair) timeouts() (n int) {
	p.t.Helper()
	must(p.t, "netstat", netns.Do(p.ns, func() error {
		data, err := os.ReadFile("/proc/thread-self/net/netstat")
		if err != nil {
			return err
		}
		names, rest, _ := strings.Cut(string(data), "\n")
		values, _, _ := strings.Cut(rest, "\n")
		i := slices.Index(strings.Fields(names), "TCPTimeouts")
		if i < 0 {
			return fmt.Errorf("no TCPTimeouts in %q", names)
		}
		n, err = strconv.Atoi(strings.Fields(values)[i])
		return err
	}))
	return n
}

// check reads all outstanding data, then exchanges some more.
func (p *pair) check(consumed int, inputOpen, outputOpen bool) {
	p.t.Helper()
	if got := read(p.t, p.app, len(p.in)-consumed); !bytes.Equal(got, p.in[consumed:]) {
		p.t.Fatal("input differs")
	}
	p.got = append(p.got, read(p.t, p.leg, len(p.out)-len(p.got))...)
	if !bytes.Equal(p.got, p.out) {
		p.t.Fatal("output differs")
	}
	more := random(200000)
	if inputOpen {
		write(p.t, p.leg, more[:100])
		if !bytes.Equal(read(p.t, p.app, 100), more[:100]) {
			p.t.Fatal("input after the restore differs")
		}
	}
	if outputOpen {
		done := make(chan struct{})
		go func() { defer close(done); send(p.t, p.app, more) }()
		if !bytes.Equal(read(p.t, p.leg, len(more)), more) {
			p.t.Error("output after the restore differs")
		}
		<-done
	}
	// Orderly end, seen by both sides.
	if inputOpen {
		must(p.t, "end input", unix.Shutdown(p.leg, unix.SHUT_WR))
	}
	if outputOpen {
		must(p.t, "end output", unix.Shutdown(p.app, unix.SHUT_WR))
	}
	if b := read(p.t, p.app, -1); len(b) > 0 {
		p.t.Errorf("%d stray input bytes", len(b))
	}
	if b := read(p.t, p.leg, -1); len(b) > 0 {
		p.t.Errorf("%d stray output bytes", len(b))
	}
}

var addressing = []struct {
	name, local string
	family      int
}{
	{"v4", "10.77.0.2:80", unix.AF_INET},
	{"v6", "[fd77::2]:80", unix.AF_INET6},
	{"mapped", "10.77.0.2:80", unix.AF_INET6},
}

func TestRestore(t *testing.T) {
	for _, a := range addressing {
		for _, tc := range []struct {
			name                  string
			state                 uint8
			before                func(p *pair) (consumed int)
			inputOpen, outputOpen bool
		}{
			{"idle", stateEstablished, func(p *pair) int { return 0 }, true, true},
			{"traffic", stateEstablished, func(p *pair) int {
				for range 50 {
					p.request(1000)
					read(p.t, p.app, 1000)
					p.reply(3000)
					p.got = append(p.got, read(p.t, p.leg, 3000)...)
				}
				return 50000
			}, true, true},
			{"unread input", stateEstablished, func(p *pair) int {
				p.request(60000)
				read(p.t, p.app, 17)
				return 17
			}, true, true},
			{"unacknowledged output", stateEstablished, func(p *pair) int {
				for range 50 { // until the leg delays its acknowledgements
					p.request(10)
					read(p.t, p.app, 10)
					p.reply(10)
					p.got = append(p.got, read(p.t, p.leg, 10)...)
				}
				return 500
			}, true, true},
			{"unread output", stateEstablished, func(p *pair) int { p.reply(50000); return 0 }, true, true},
			{"big unsent output", stateEstablished, func(p *pair) int {
				must(p.t, "sndbuf", unix.SetsockoptInt(p.app, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20))
				p.reply(4 << 20)
				p.request(100)
				return 0
			}, true, true},
			{"CLOSE_WAIT", stateCloseWait, func(p *pair) int {
				p.request(5000)
				p.reply(2000)
				must(p.t, "shutdown", unix.Shutdown(p.leg, unix.SHUT_WR))
				return 0
			}, false, true},
			{"FIN_WAIT2", stateFinWait2, func(p *pair) int {
				p.request(3000)
				p.reply(7000)
				must(p.t, "shutdown", unix.Shutdown(p.app, unix.SHUT_WR))
				awaitState(p.t, p.app, stateFinWait2) // the delayed ACK of the FIN
				return 0
			}, true, false},
			{"FIN_WAIT1", stateFinWait1, func(p *pair) int {
				must(p.t, "sndbuf", unix.SetsockoptInt(p.app, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20))
				p.reply(4 << 20)
				must(p.t, "shutdown", unix.Shutdown(p.app, unix.SHUT_WR))
				return 0
			}, true, false},
			{"LAST_ACK", stateLastAck, func(p *pair) int {
				must(p.t, "sndbuf", unix.SetsockoptInt(p.app, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20))
				p.request(500)
				must(p.t, "shutdown", unix.Shutdown(p.leg, unix.SHUT_WR))
				awaitState(p.t, p.app, stateCloseWait)
				p.reply(4 << 20)
				must(p.t, "shutdown", unix.Shutdown(p.app, unix.SHUT_WR))
				return 0
			}, false, false},
			{"CLOSING", stateClosing, func(p *pair) int {
				must(p.t, "sndbuf", unix.SetsockoptInt(p.app, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20))
				p.request(500)
				p.reply(4 << 20)
				must(p.t, "shutdown", unix.Shutdown(p.app, unix.SHUT_WR))
				must(p.t, "shutdown", unix.Shutdown(p.leg, unix.SHUT_WR))
				return 0
			}, false, false},
		} {
			t.Run(a.name+"/"+tc.name, func(t *testing.T) {
				p := newPair(t, a.local, a.family)
				consumed := tc.before(p)
				im := p.crash()
				if im.State != tc.state {
					t.Fatalf("dumped in state %d, want %d", im.State, tc.state)
				}
				p.recover(im)
				before := p.timeouts()
				p.check(consumed, tc.inputOpen, tc.outputOpen)
				t.Logf("inq %d outq %d unsent %d", im.InqLen, im.OutqLen, im.UnsqLen)
				if waited := p.timeouts() - before; p.arrived && waited > 0 {
					t.Errorf("waited for a retransmission timer %d times", waited)
				}
			})
		}
	}
}

// TestRestoreAgain crashes one connection many times at one image, as repeated
// recoveries from one checkpoint do.
func TestRestoreAgain(t *testing.T) {
	p := newPair(t, "10.77.0.2:80", unix.AF_INET)
	p.request(1000)
	p.reply(1000)
	im := p.crash()
	in, got := len(p.in), len(p.got)
	for range 20 {
		p.in, p.got = p.in[:in], p.got[:got]
		p.recover(im)
		p.got = append(p.got, read(t, p.leg, len(p.out)-len(p.got))...)
		if !bytes.Equal(p.got, p.out) || !bytes.Equal(read(t, p.app, len(p.in)), p.in) {
			t.Fatal("streams differ")
		}
		must(t, "linger", unix.SetsockoptLinger(p.leg, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
		unix.Close(p.leg)
		unix.Close(p.app)
	}
}
