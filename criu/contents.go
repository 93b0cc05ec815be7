package criu

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
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
	// Mounts describe the mount table, sorted; see Pins.MountTable.
	Mounts []string
	// Bound are the addresses that sockets are bound to, connections excepted.
	Bound []netip.AddrPort
	// Connected are the containers' own ends of TCP connections.
	Connected []netip.AddrPort
	// Needs are capabilities without which a program can't have opened what
	// CRIU would open for it, with what that is.
	Needs map[string]string
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
	c.Namespaces = slices.Sorted(slices.Values(m.Namespaces))
	mounts := func(dir fs.FS) error { return c.readMounts(dir, masked) }
	for _, step := range []func(fs.FS) error{checkShape, c.readTasks, mounts, c.readNeeds, c.readSockets} {
		if err := step(images); err != nil {
			return nil, err
		}
	}
	return c, nil
}

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
			if e.GetIsk().GetOpts().GetSoMark() != 0 {
				c.Needs["CAP_NET_ADMIN"] = "a socket with a mark"
			}
		}
		return nil
	})
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
