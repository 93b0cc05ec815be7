package redirect_test

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
)

// owner claims the listeners on some ports. Its verdict can be withheld.
type owner struct {
	ns       int
	ports    []uint16
	asked    atomic.Int64
	withheld atomic.Bool
	self     atomic.Bool // sockets that do not listen are the application's
}

func (o *owner) owns(inodes []uint32) redirect.Ownership {
	o.asked.Add(1)
	if o.withheld.Load() {
		return redirect.Unknown
	}
	all, err := redirect.Listeners(o.ns, nil)
	if err != nil {
		return redirect.Unknown
	}
	for _, s := range all {
		for _, port := range o.ports {
			if s.Inode == inodes[0] && s.Local.Port() == port {
				return redirect.Ours
			}
		}
	}
	listens := slices.ContainsFunc(all, func(s sockdiag.Socket) bool { return s.Inode == inodes[0] })
	if !listens && o.self.Load() {
		return redirect.Ours
	}
	return redirect.Theirs
}

// TestLoopback: what others in the pod send over lo is redirected if wanted, to
// whatever address, and held while the application is dead.
func TestLoopback(t *testing.T) {
	app, client := nstest.Pair(t)
	o := &owner{ns: app, ports: []uint16{80, 83}}
	g := newRigIn(t, app, client, "a", func(opts *redirect.Options) {
		opts.Owns, opts.Loopback, opts.ExcludePorts = o.owns, true, []uint16{83}
	})
	l := g.listen("[::]:80")
	g.listen("[::]:81")
	g.listen("127.0.0.1:83")
	for range 2 {
		for _, at := range []string{"127.0.0.1", "[::1]", "10.77.0.2", "[fd77::2]"} {
			from := strings.Trim(at, "[]")
			g.expect(app, at+":80", from, true)
			g.expect(app, at+":81", from, false)
		}
		g.expect(client, "10.77.0.2:80", "10.77.0.1", true)
		g.expect(client, "[fd77::2]:80", "fd77::1", true)
		g.expect(client, "10.77.0.2:81", "10.77.0.1", false)
		g.expect(app, "127.0.0.1:83", "127.0.0.1", false)
	}
	o.self.Store(true)
	g.expect(app, "127.0.0.1:80", "127.0.0.1", false)
	g.expect(app, "[fd77::2]:80", "fd77::2", false)
	o.self.Store(false)
	// During a recovery CRIU connects to itself.
	o.withheld.Store(true)
	g.listen("127.0.0.1:85")
	g.expect(app, "127.0.0.1:85", "127.0.0.1", false)
	o.withheld.Store(false)
	l.Close()
	g.hold.Store(true)
	if _, err := g.dialFrom(app, "127.0.0.1:80"); err != nil {
		t.Errorf("connect over lo to the dead application: %v", err)
	}
	g.expectRefused(app, "127.0.0.1:84")
}

// TestPod has two redirections and a listener of nobody's in one namespace.
func TestPod(t *testing.T) {
	app, client := nstest.Pair(t)
	oa, ob := &owner{ns: app, ports: []uint16{80}}, &owner{ns: app, ports: []uint16{81}}
	a := newRigIn(t, app, client, "a", func(o *redirect.Options) { o.Owns = oa.owns })
	b := newRigIn(t, app, client, "b", func(o *redirect.Options) { o.Owns = ob.owns })
	la := a.listen("[::]:80")
	b.listen("[::]:81")
	a.listen("[::]:82")
	for range 3 {
		for _, at := range []struct{ to, from string }{{"10.77.0.2", "10.77.0.1"}, {"[fd77::2]", "fd77::1"}} {
			a.expect(client, at.to+":80", at.from, true)
			b.expect(client, at.to+":81", at.from, true)
			na, nb := a.accepted.Load(), b.accepted.Load()
			a.expect(client, at.to+":82", at.from, false)
			if a.accepted.Load() != na || b.accepted.Load() != nb {
				t.Error("a connection to nobody's port was intercepted")
			}
		}
	}
	if a.accepted.Load() != 6 || b.accepted.Load() != 6 {
		t.Errorf("accepted %d and %d, want 6 each", a.accepted.Load(), b.accepted.Load())
	}
	if n := oa.asked.Load() + ob.asked.Load(); n > 2*6 {
		t.Errorf("the owners were asked %d times", n)
	}

	// One dies and holds its clients; the other goes on and ends.
	a.hold.Store(true)
	la.Close()
	if _, err := a.dialFrom(client, "10.77.0.2:80"); err != nil {
		t.Errorf("connect to the dead application: %v", err)
	}
	b.expect(client, "10.77.0.2:81", "10.77.0.1", true)
	if err := a.r.Remove(); err != nil {
		t.Fatal(err)
	}
	b.expect(client, "10.77.0.2:81", "10.77.0.1", true)
	b.expect(client, "10.77.0.2:82", "10.77.0.1", false)
}

// TestUnknownOwnerDelays: a connection whose listener nobody can place yet comes
// through when the owner is known, and is intercepted.
func TestUnknownOwnerDelays(t *testing.T) {
	app, client := nstest.Pair(t)
	o := &owner{ns: app, ports: []uint16{80}}
	o.withheld.Store(true)
	g := newRigIn(t, app, client, "a", func(opts *redirect.Options) {
		opts.Owns = func(inodes []uint32) redirect.Ownership {
			defer o.withheld.Store(false)
			return o.owns(inodes)
		}
	})
	g.listen("0.0.0.0:80")
	g.expect(client, "10.77.0.2:80", "10.77.0.1", true)
	if o.asked.Load() != 2 {
		t.Errorf("asked %d times, want twice", o.asked.Load())
	}
}

// nft runs nft with a script in the namespace.
func nft(t *testing.T, ns int, script string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := netns.Do(ns, cmd.Run); err != nil {
		t.Fatalf("nft: %v: %s", err, out.String())
	}
}

// TestOthersRedirect: connections that a service mesh's rules redirect go where
// they say, ours or not.
func TestOthersRedirect(t *testing.T) {
	app, client := nstest.Pair(t)
	o := &owner{ns: app, ports: []uint16{80, 81}}
	g := newRigIn(t, app, client, "a", func(opts *redirect.Options) { opts.Owns = o.owns })
	g.listen("0.0.0.0:80")
	g.listen("0.0.0.0:81")
	g.listen("0.0.0.0:15006") // the mesh's proxy
	nft(t, app, `table inet mesh {
		chain prerouting {
			type nat hook prerouting priority dstnat
			tcp dport 80 redirect to :15006
			tcp dport 8081 redirect to :81
		}
		chain output {
			type nat hook output priority -100
			oif lo return
			tcp dport 9999 redirect to :15006
		}
	}`)
	before := g.accepted.Load()
	g.expect(client, "10.77.0.2:80", "10.77.0.1", false)
	if g.accepted.Load() != before {
		t.Error("a connection that the mesh takes was intercepted")
	}
	g.expect(client, "10.77.0.2:81", "10.77.0.1", true)
	g.expect(client, "10.77.0.2:8081", "10.77.0.1", true)
	g.expect(app, "10.77.0.1:9999", "10.77.0.2", false)
	nft(t, app, "flush ruleset")
	g.expect(client, "10.77.0.2:80", "10.77.0.1", true)
	g.expect(client, "10.77.0.2:81", "10.77.0.1", true)
}

const killedEnv = "CRSC_TEST_REDIRECT_NS"

// TestKilledOwner: after a SIGKILL of the process that redirects, the
// application is reachable at once, and the next one finds a clean place.
func TestKilledOwner(t *testing.T) {
	if ns := os.Getenv(killedEnv); ns != "" {
		installAndWait(t, ns)
		return
	}
	app, client := nstest.Pair(t)
	before := state(t, app)
	g := &rig{t: t, app: app, client: client}
	g.listen("0.0.0.0:80")
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledOwner$")
	cmd.Env = append(os.Environ(), killedEnv+"="+fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), app))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "installed\n" {
		t.Fatalf("the process that redirects said %q, %v", line, err)
	}
	if state(t, app) == before {
		t.Fatal("nothing was installed")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	g.expect(client, "10.77.0.2:80", "10.77.0.1", false)
	if err := redirect.Uninstall(app, "killed"); err != nil {
		t.Fatal(err)
	}
	if s := state(t, app); s != before {
		t.Errorf("after uninstall: %s\nbefore: %s", s, before)
	}
}

// installAndWait is the process that gets killed.
func installAndWait(t *testing.T, path string) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	ns := int(f.Fd())
	l, err := redirect.Listen(ns, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = redirect.Install(redirect.Options{
		NetNS: ns, Suffix: "killed", Listener: l,
		Intercept: []netip.AddrPort{netip.MustParseAddrPort(net.JoinHostPort("10.77.0.2", strconv.Itoa(80)))},
	})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("installed")
	select {}
}
