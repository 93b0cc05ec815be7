package redirect_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
)

const acceptMark = "/proc/sys/net/ipv4/tcp_fwmark_accept"

func inherits(t testing.TB, ns int) (value string) {
	t.Helper()
	nstest.In(t, ns, func() error {
		b, err := os.ReadFile(acceptMark)
		value = strings.TrimSpace(string(b))
		return err
	})
	return value
}

func setInherits(t testing.TB, ns int, value string) {
	t.Helper()
	nstest.In(t, ns, func() error { return os.WriteFile(acceptMark, []byte(value), 0) })
}

// marks counts the connections from a local address by their marks.
func (g *rig) marks(local string) map[uint32]int {
	g.t.Helper()
	d, err := sockdiag.Open(g.app)
	if err != nil {
		g.t.Fatal(err)
	}
	defer d.Close()
	out := map[uint32]int{}
	err = d.Dump(sockdiag.Of(sockdiag.Established), 0, func(s *sockdiag.Socket) error {
		if s.Local == netip.MustParseAddrPort(local) {
			out[s.Mark]++
		}
		return nil
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

// TestApplicationInheritsMark: the application's end of a leg has the mark that
// brings its packets back, and our end towards the client has not.
func TestApplicationInheritsMark(t *testing.T) {
	for _, to := range []string{"10.77.0.2:80", "[fd77::2]:80"} {
		g := newRig(t, nil)
		g.listen("[::]:80")
		c, err := g.dialFrom(g.client, to)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := ask(c, "x"); err != nil || !strings.HasSuffix(s, " x") {
			t.Fatalf("%q, %v", s, err)
		}
		if m := g.marks(to); len(m) != 2 || m[redirect.MarkSteer] != 1 || m[redirect.MarkOwn] != 1 {
			t.Errorf("%s: sockets by mark: %v", to, m)
		}
	}
}

// TestNobodyInheritsOthersMarks: where others route by marks, nothing is switched.
func TestNobodyInheritsOthersMarks(t *testing.T) {
	g := newRig(t, nil)
	g.listen("0.0.0.0:80")
	mesh := g.routeByMark()
	g.expect(g.client, "10.77.0.2:80", "10.77.0.1", true)
	if m := g.marks("10.77.0.2:80"); m[redirect.MarkSteer] > 0 {
		t.Errorf("sockets by mark: %v", m)
	}
	if err := nstest.Handle(t, g.app).RuleDel(mesh); err != nil {
		t.Fatal(err)
	}
	g.await(func() bool { return inherits(t, g.app) == "5" })
	g.expect(g.client, "10.77.0.2:80", "10.77.0.1", true)
}

// routeByMark adds a rule like a mesh's, and waits until marks are not inherited.
func (g *rig) routeByMark() *netlink.Rule {
	g.t.Helper()
	mesh := netlink.NewRule()
	mesh.Family, mesh.Priority, mesh.Mark, mesh.Table = unix.AF_INET, 100, 0x539, 133
	if err := nstest.Handle(g.t, g.app).RuleAdd(mesh); err != nil {
		g.t.Fatal(err)
	}
	g.await(func() bool { return inherits(g.t, g.app) == "0" })
	return mesh
}

// TestInheritanceOfTheirChoice: who has switched it on keeps it.
func TestInheritanceOfTheirChoice(t *testing.T) {
	app, client := nstest.Pair(t)
	setInherits(t, app, "1")
	g := newRigIn(t, app, client, "test", nil)
	g.listen("0.0.0.0:80")
	g.expect(client, "10.77.0.2:80", "10.77.0.1", true)
	if err := g.r.Remove(); err != nil {
		t.Fatal(err)
	}
	if v := inherits(t, app); v != "1" {
		t.Errorf("tcp_fwmark_accept is %s after the end", v)
	}
}
