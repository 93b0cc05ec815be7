package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/testing/env"
)

// netnsOf names the network namespace of a process.
func netnsOf(t testing.TB, pid int) string {
	t.Helper()
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	require.NoError(t, err)
	return name
}

// giveNetwork joins the container's own network namespace to the clients, with
// an address outside of those that the environment gives.
func (c *container) giveNetwork() {
	t := c.t
	t.Helper()
	near, far := netip.MustParseAddr("198.19.77.1"), netip.MustParseAddr("198.19.77.2")
	inside, err := netns.GetFromPid(c.initPid())
	require.NoError(t, err)
	defer inside.Close()
	require.NoError(t, env.InNetns(c.e.Client().Path, func() error {
		link := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "e2elate"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(inside)),
		}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		return raise(link.Name, near)
	}))
	t.Cleanup(func() {
		require.NoError(t, env.InNetns(c.e.Client().Path, func() error {
			link, err := netlink.LinkByName("e2elate")
			if err != nil {
				return err
			}
			return netlink.LinkDel(link)
		}))
	})
	require.NoError(t, env.InNetns(fmt.Sprintf("/proc/%d/ns/net", c.initPid()), func() error { return raise("eth0", far) }))
	c.pod.IP4 = far
}

func raise(name string, addr netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	ip := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(link, ip); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// redirection lists what steers packets in a network namespace: nft tables,
// and the policy rules and routing tables that every namespace does not have.
func redirection(t testing.TB, path string) []string {
	t.Helper()
	var out []string
	require.NoError(t, env.InNetns(path, func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := conn.ListTables()
		if err != nil {
			return err
		}
		for _, table := range tables {
			out = append(out, "table "+table.Name)
		}
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			rules, err := netlink.RuleList(family)
			if err != nil {
				return err
			}
			for _, r := range rules {
				if r.Table != unix.RT_TABLE_LOCAL && r.Table != unix.RT_TABLE_MAIN && r.Table != unix.RT_TABLE_DEFAULT {
					out = append(out, "rule "+r.String())
				}
			}
			routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			for _, r := range routes {
				if r.Table != unix.RT_TABLE_LOCAL && r.Table != unix.RT_TABLE_MAIN {
					out = append(out, "route "+r.String())
				}
			}
		}
		return nil
	}))
	return out
}

// traces lists everything on the host that names a container, but for what
// the daemon knows of it.
func (c *container) traces() []string {
	t := c.t
	t.Helper()
	out := redirection(t, c.pod.Path)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, c.id) {
			out = append(out, "mount "+line)
		}
	}
	for _, glob := range []string{
		c.stateDir(), "/run/containerd/runc/" + c.e.Namespace + "/" + c.id,
		c.e.Dir + "/state/io.containerd.runtime.v2.task/" + c.e.Namespace + "/" + c.id,
		"/sys/fs/cgroup/*/" + c.e.Namespace + "/" + c.id, "/sys/fs/cgroup/" + c.e.Namespace + "/" + c.id,
	} {
		out = append(out, globbed(t, glob)...)
	}
	return append(out, c.processes()...)
}

// processes lists those that name the container, or live in its cgroup or in
// its pod's network namespace. The test's own is none of them: its first thread may
// stay in a namespace in which it was used.
func (c *container) processes() []string {
	var out []string
	var pod syscall.Stat_t
	require.NoError(c.t, syscall.Stat(c.pod.Path, &pod))
	for _, dir := range globbed(c.t, "/proc/[0-9]*") {
		line, _ := os.ReadFile(dir + "/cmdline") // it may have ended
		group, _ := os.ReadFile(dir + "/cgroup")
		var ns syscall.Stat_t
		in := syscall.Stat(dir+"/ns/net", &ns) == nil && ns.Ino == pod.Ino
		if dir == fmt.Sprintf("/proc/%d", os.Getpid()) {
			continue
		}
		if in || strings.Contains(string(line)+string(group), c.id) {
			out = append(out, dir+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return out
}
