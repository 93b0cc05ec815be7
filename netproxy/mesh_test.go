package netproxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
)

const (
	meshPort = 15006
	meshUser = 1337 // whom the mesh's rules exempt, as Istio does
)

// meshRules are Istio's in short: what comes from outside goes to the mesh's proxy,
// and so does what anybody but it sends out.
var meshRules = []string{
	"-t nat -N MESH_IN", "-t nat -N MESH_OUT",
	"-t nat -A PREROUTING -p tcp -j MESH_IN",
	fmt.Sprintf("-t nat -A MESH_IN -p tcp -j REDIRECT --to-ports %d", meshPort),
	"-t nat -A OUTPUT -p tcp -j MESH_OUT",
	fmt.Sprintf("-t nat -A MESH_OUT -m owner --uid-owner %d -j RETURN", meshUser),
	"-t nat -A MESH_OUT -o lo -j RETURN",
	"-t nat -A MESH_OUT -p tcp -j REDIRECT --to-ports 15001",
}

func iptables(t testing.TB, ns int, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, netns.Do(ns, cmd.Run), "%s %v: %s", name, args, &out)
	return out.String()
}

// rulesOf are the rules that iptables-save shows, without its comments.
func rulesOf(t testing.TB, ns int) string {
	lines := strings.Split(iptables(t, ns, "iptables-save", "-t", "nat"), "\n")
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool {
		return strings.HasPrefix(l, "#") || strings.HasPrefix(l, ":") // counters
	}), "\n")
}

// mesh is a proxy of somebody else's in the pod.
func (r *rig) mesh(to netip.AddrPort) {
	r.listenIn(r.app, meshPort, func(c *net.TCPConn) {
		defer c.Close()
		up, err := r.dialAs(meshUser, to)
		if err != nil {
			return // the client sees it
		}
		defer up.Close()
		go func() {
			_, _ = io.Copy(up, c)
			_ = up.CloseWrite()
		}()
		_, _ = io.Copy(c, up)
	})
}

// dialAs connects from the application's namespace, over lo, with a socket of
// that user's.
func (r *rig) dialAs(uid int, to netip.AddrPort) (*net.TCPConn, error) {
	fd := -1
	err := netns.Do(r.app, func() (err error) {
		// The file system's user alone is the thread's own.
		if err := unix.Setfsuid(uid); err != nil {
			return err
		}
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if back := unix.Setfsuid(0); err == nil {
			err = back
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 6}}); err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	f := os.NewFile(uintptr(fd), "mesh")
	defer f.Close()
	if err != nil {
		return nil, err
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// ownsPort says that the listener on a port is the application's.
func ownsPort(ns *int, port uint16) func([]uint32) redirect.Ownership {
	return func(inodes []uint32) redirect.Ownership {
		all, err := redirect.Listeners(*ns, nil)
		if err != nil {
			return redirect.Unknown
		}
		if slices.ContainsFunc(all, func(s sockdiag.Socket) bool { return s.Inode == inodes[0] && s.Local.Port() == port }) {
			return redirect.Ours
		}
		return redirect.Theirs
	}
}

// TestBehindAMesh: a service mesh takes every connection first, by iptables, and
// hands it on over lo. The application behind it is recovered, the mesh's
// connections live on, and its rules are as they were.
func TestBehindAMesh(t *testing.T) {
	var compare func()
	t.Cleanup(func() {
		if compare != nil {
			compare() // without our rules
		}
	})
	var ns int
	r := newRigWith(t, order.Auto, journal.Options{}, func(o *Options) {
		ns = o.NetNS
		o.Loopback, o.Owns = true, ownsPort(&ns, 6379)
	})
	for _, rule := range meshRules {
		iptables(t, r.app, "iptables", strings.Fields(rule)...)
	}
	before := rulesOf(t, r.app)
	require.Contains(t, before, "MESH_OUT")
	kept, err := unix.FcntlInt(uintptr(r.app), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(t, err)
	compare = func() {
		defer unix.Close(kept)
		require.Equal(t, before, rulesOf(t, kept))
	}
	r.mesh(netip.AddrPortFrom(nstest.App4, 6379))
	r.start()
	// The mesh accepts before Redis listens.
	c := r.dialUntil(nstest.App4, func(c *redisConn) error { _, err := c.incr("n"); return err })
	for n := int64(2); n <= 5; n++ {
		got, err := c.incr("n")
		require.NoError(t, err)
		require.Equal(t, n, got)
		r.kill()
		require.Zero(t, r.recover().Differing)
	}
	require.NotZero(t, r.proxy.Stats().Accepted, "the mesh's connections come through us")
	require.Equal(t, before, rulesOf(t, r.app))
}
