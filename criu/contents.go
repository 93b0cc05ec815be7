package criu

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/creds"
	criu_core "github.com/checkpoint-restore/go-criu/v7/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/mnt"
	sk_inet "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-inet"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	magicCore = 0x55053847
	magicMnts = 0x55563928
)

// Contents are what a checkpoint would bring into a container and has to be
// compared with what that container is allowed to have, before images from
// elsewhere are restored.
type Contents struct {
	// Capabilities that some task has in any of its sets, by number.
	Capabilities uint64
	// Root: some task is the user 0.
	Root bool
	// NoNewPrivs and Seccomp say that every process has them.
	NoNewPrivs, Seccomp bool
	// Profiles are the names of the tasks' LSM profiles, without duplicates.
	Profiles []string
	// Mounts are the mount points, sorted.
	Mounts []string
	// Bound are the addresses that sockets are bound to, connections excepted.
	Bound []netip.AddrPort
	// Connected are the containers' own ends of TCP connections.
	Connected []netip.AddrPort
}

// ReadContents looks into the images of a checkpoint.
//
// Errors: ErrCorrupt.
func ReadContents(images string) (*Contents, error) {
	dir := os.DirFS(images)
	c := &Contents{NoNewPrivs: true, Seccomp: true}
	for _, step := range []func(fs.FS) error{c.readTasks, c.readMounts, c.readSockets} {
		if err := step(dir); err != nil {
			return nil, fmt.Errorf("checkpoint %s: %w", images, err)
		}
	}
	return c, nil
}

func (c *Contents) readTasks(images fs.FS) error {
	cores, err := fs.Glob(images, "core-*.img")
	if err != nil {
		return err
	}
	for _, name := range cores {
		e, err := readSingle[criu_core.CoreEntry](images, name, magicCore)
		if err != nil {
			return err
		}
		if e.GetThreadCore().GetCreds() != nil { // a zombie has none
			c.addTask(e)
		}
	}
	return nil
}

func (c *Contents) addTask(e *criu_core.CoreEntry) {
	cr := e.GetThreadCore().GetCreds()
	for _, set := range [][]uint32{cr.GetCapInh(), cr.GetCapPrm(), cr.GetCapEff(), cr.GetCapBnd()} {
		for i, word := range set[:min(len(set), 2)] {
			c.Capabilities |= uint64(word) << (32 * i)
		}
	}
	c.Root = c.Root || cr.GetUid() == 0 || cr.GetEuid() == 0 || cr.GetSuid() == 0 || cr.GetFsuid() == 0
	c.NoNewPrivs = c.NoNewPrivs && noNewPrivs(cr)
	if e.GetTc() != nil { // the other threads get the filters of their leader
		mode := e.GetThreadCore().GetSeccompMode()
		if e.GetThreadCore().SeccompMode == nil {
			mode = e.GetTc().GetOldSeccompMode()
		}
		c.Seccomp = c.Seccomp && mode == criu_core.SeccompMode_filter
	}
	if p := cr.GetLsmProfile(); !slices.Contains(c.Profiles, p) {
		c.Profiles = append(c.Profiles, p)
	}
}

// noNewPrivs reads field 18, which the protobuf of go-criu v7 does not know.
func noNewPrivs(cr *creds.CredsEntry) bool {
	for b := cr.ProtoReflect().GetUnknown(); len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		if num == 18 && typ == protowire.VarintType {
			v, m := protowire.ConsumeVarint(b[n:])
			return m > 0 && v != 0
		}
		m := protowire.ConsumeFieldValue(num, typ, b[n:])
		if m < 0 {
			return false
		}
		b = b[n+m:]
	}
	return false
}

func (c *Contents) readMounts(images fs.FS) error {
	files, err := fs.Glob(images, "mountpoints-*.img")
	if err != nil {
		return err
	}
	for _, name := range files {
		err := readEntries(images, name, magicMnts, func(m *mnt.MntEntry) error {
			c.Mounts = append(c.Mounts, cleanTarget(m.GetMountpoint()))
			return nil
		})
		if err != nil {
			return err
		}
	}
	slices.Sort(c.Mounts)
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

func cleanTarget(s string) string { return filepath.Clean("/" + strings.TrimPrefix(s, ".")) }

// MountPoints returns where a process has mounts, sorted, in the form of
// Contents.Mounts.
func MountPoints(pid int) ([]string, error) {
	list, err := readMounts(pid)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range list {
		out = append(out, cleanTarget(m.target))
	}
	slices.Sort(out)
	return out, nil
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
