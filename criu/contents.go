package criu

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/fsnotify"
	sk_inet "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-inet"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	magicCore = 0x55053847
	magicMnts = 0x55563928
	magicIDs  = 0x54432030
)

// Contents are what a checkpoint would bring into a container and has to be
// compared with what that container is allowed to have, before images from
// elsewhere are restored.
type Contents struct {
	// Rights of the tasks, without duplicates.
	Rights []Rights
	// Namespaces are those that the images do not have: the tasks go into the
	// container's. Sorted.
	Namespaces []specs.LinuxNamespaceType
	// IDMaps say which users of the host the files of the checkpoint belong to; nil
	// without a user namespace.
	IDMaps *IDMaps
	// Mounts describe the mount table, sorted; see Pins.MountTable.
	Mounts []string
	// Bound are the addresses that sockets are bound to, connections excepted.
	Bound []netip.AddrPort
	// Connected are the containers' own ends of TCP connections.
	Connected []netip.AddrPort
	// Opened are the files that are opened by path, sorted; see Pins.MayOpen.
	Opened []Opened
	// Needs are capabilities without which a program can't have opened what
	// CRIU would open for it, with what that is.
	Needs map[string]string
	// Marks are the sockets' SO_MARKs other than 0, sorted. Whoever sets one has
	// CAP_NET_ADMIN.
	Marks []uint32

	procs []string // where procfs is mounted
}

// ReadContents looks into the images of a checkpoint that was made by Dump, or
// is said to be: what Dump never writes is corrupt. masked are the paths that the
// spec of the container hides.
//
// Errors: ErrCorrupt.
func ReadContents(images string, masked []string) (*Contents, error) {
	c, err := readContents(os.DirFS(images), masked)
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", images, err)
	}
	return c, nil
}

func readContents(images fs.FS, masked []string) (*Contents, error) {
	c := &Contents{Needs: map[string]string{}}
	m, err := readMeta(images)
	if err != nil {
		return nil, err
	}
	c.Namespaces, c.IDMaps = slices.Sorted(slices.Values(m.Namespaces)), m.IDMaps
	mounts := func(dir fs.FS) error { return c.readMounts(dir, masked) }
	for _, step := range []func(fs.FS) error{checkShape, c.readTasks, mounts, c.readNeeds, c.readSpecial, c.readOpened, c.readSockets} {
		if err := step(images); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// maxPriority is the highest SO_PRIORITY that takes no capability, socket(7).
const maxPriority = 6

// openNetlink are the protocols whose groups anybody may join: those of the
// kernel with NL_CFG_F_NONROOT_RECV.
var openNetlink = []uint32{unix.NETLINK_ROUTE, unix.NETLINK_KOBJECT_UEVENT, unix.NETLINK_GENERIC, unix.NETLINK_SELINUX, unix.NETLINK_SOCK_DIAG}

// readNeeds looks for files that only some programs can open.
func (c *Contents) readNeeds(images fs.FS) error {
	return eachFile(images, func(e *fdinfo.FileEntry) error {
		switch e.GetType() {
		case fdinfo.FdTypes_PACKETSK:
			c.Needs["CAP_NET_RAW"] = "a packet socket"
		case fdinfo.FdTypes_TUNF:
			c.Needs["CAP_NET_ADMIN"] = "a TUN device"
		case fdinfo.FdTypes_FANOTIFY:
			c.Needs["CAP_SYS_ADMIN"] = "an fanotify group"
		case fdinfo.FdTypes_BPFMAP:
			c.Needs["CAP_BPF"] = "a BPF map"
		case fdinfo.FdTypes_INETSK:
			if e.GetIsk().GetType() == unix.SOCK_RAW {
				c.Needs["CAP_NET_RAW"] = "a raw socket"
			}
			if e.GetIsk().GetOpts().GetSoPriority() > maxPriority {
				c.Needs["CAP_NET_ADMIN"] = "a socket with a high priority"
			}
			return c.addMark(e.GetIsk().GetOpts().GetSoMark())
		case fdinfo.FdTypes_NETLINKSK:
			if len(e.GetNlsk().GetGroups()) > 0 && !slices.Contains(openNetlink, e.GetNlsk().GetProtocol()) {
				c.Needs["CAP_NET_ADMIN"] = "a netlink socket in a group"
			}
		case fdinfo.FdTypes_INOTIFY:
			if slices.ContainsFunc(e.GetIfy().GetWd(), func(wd *fsnotify.InotifyWdEntry) bool { return wd.GetFHandle().GetPath() == "" }) {
				c.Needs["CAP_DAC_READ_SEARCH"] = "an inotify watch by file handle"
			}
		}
		return nil
	})
}

// maxMarks is more than any program can have use for.
const maxMarks = 256

func (c *Contents) addMark(mark uint32) error {
	at, known := slices.BinarySearch(c.Marks, mark)
	if mark == 0 || known {
		return nil
	}
	if len(c.Marks) == maxMarks {
		return fmt.Errorf("%w: sockets with more than %d marks", ErrCorrupt, maxMarks)
	}
	c.Marks = slices.Insert(c.Marks, at, mark)
	return nil
}

func (c *Contents) readSockets(images fs.FS) error {
	return eachInet(images, func(e *sk_inet.InetSkEntry) error {
		tcp := e.GetProto() == unix.IPPROTO_TCP && e.GetType() == unix.SOCK_STREAM
		if e.GetSrcPort() == 0 {
			return nil
		}
		list := &c.Bound
		if tcp && e.GetState() != tcpListen && e.GetState() != tcpClose {
			list = &c.Connected
		}
		if len(*list) == maxSockets {
			return fmt.Errorf("%w: more than %d sockets", ErrCorrupt, maxSockets)
		}
		a, err := addrPort(e, e.GetSrcAddr(), e.GetSrcPort())
		*list = append(*list, a)
		return err
	})
}

// Addresses returns those of the container's network namespace.
func (p *Pins) Addresses() (out []netip.Addr, err error) {
	err = onThread(func() error {
		if path := p.NetNS(); path != "" {
			if err := enter([]string{path}); err != nil {
				return err
			}
		}
		list, err := net.InterfaceAddrs()
		if err != nil {
			return fmt.Errorf("addresses of the container: %w", err)
		}
		for _, a := range list {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				out = append(out, p.Addr().Unmap())
			}
		}
		return nil
	})
	return out, err
}

// FirstPort returns the lowest port that takes no CAP_NET_BIND_SERVICE in the
// container's network namespace.
func (p *Pins) FirstPort() (port uint16, err error) {
	err = onThread(func() error {
		if path := p.NetNS(); path != "" {
			if err := enter([]string{path}); err != nil {
				return err
			}
		}
		const file = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 32)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		port = uint16(min(n, 0xffff))
		return nil
	})
	return port, err
}
