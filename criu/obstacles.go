package criu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	sk_inet "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-inet"
	"golang.org/x/sys/unix"
)

// Obstacle is something in a container that a checkpoint cannot carry over a
// crash.
type Obstacle struct {
	// Reason says what it is, for the operator: "io_uring (descriptor 7 of
	// process 12): CRIU cannot dump it".
	Reason string
	// Fatal: a dump fails as long as it is there. Otherwise the container is
	// restored, without this.
	Fatal bool
}

// Obstacles returns what a checkpoint's images tell of inputs and outputs that
// go past the journal. None of them is Fatal: the dump has succeeded. A
// malformed image is ErrCorrupt.
func Obstacles(images string) ([]Obstacle, error) { return obstacles(os.DirFS(images)) }

func obstacles(images fs.FS) ([]Obstacle, error) {
	var out []Obstacle
	err := eachFile(images, func(e *fdinfo.FileEntry) error {
		reason := ""
		switch e.GetType() {
		case fdinfo.FdTypes_UNIXSK:
			reason = unixReason(e)
		case fdinfo.FdTypes_INETSK:
			reason = inetReason(e.GetIsk())
		case fdinfo.FdTypes_PACKETSK:
			reason = "packet socket: what it received is not journaled"
		case fdinfo.FdTypes_TUNF:
			reason = "TUN device: its traffic is not journaled"
		case fdinfo.FdTypes_EXT:
			reason = "descriptor of a file outside of the container"
		}
		o := Obstacle{Reason: reason}
		if reason != "" && !slices.Contains(out, o) && len(out) < maxObstacles {
			out = append(out, o)
		}
		return nil
	})
	return out, err
}

// maxObstacles bounds a list that is for people to read.
const maxObstacles = 1000

// unixExternal marks a unix socket with its other end outside of the container
// (USK_EXTERN of criu/include/sockets.h).
const unixExternal = 1 << 0

func unixReason(e *fdinfo.FileEntry) string {
	s := e.GetUsk()
	if s.GetUflags()&unixExternal == 0 {
		return ""
	}
	return fmt.Sprintf("unix socket %q of a process outside of the container", strings.ReplaceAll(strings.TrimRight(string(s.GetName()), "\x00"), "\x00", "@"))
}

func inetReason(s *sk_inet.InetSkEntry) string {
	switch s.GetProto() {
	case unix.IPPROTO_TCP:
		return ""
	case unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE:
		at, err := addrPort(s, s.GetSrcAddr(), s.GetSrcPort())
		if err != nil || at.Addr().IsLoopback() {
			return ""
		}
		return fmt.Sprintf("UDP socket %v: its datagrams are not journaled", at)
	}
	return fmt.Sprintf("socket of IP protocol %d: its traffic is not journaled", s.GetProto())
}

// Inspect looks at the living processes of a cgroup directory for what would
// make a dump fail. It costs a few system calls for each open descriptor, with
// no task stopped; processes and descriptors that vanish meanwhile are no error.
func Inspect(cgroup string) ([]Obstacle, error) {
	pids, err := cgroupPids(cgroup)
	if err != nil {
		return nil, err
	}
	var out []Obstacle
	for _, pid := range pids {
		found, err := InspectProcess(pid)
		if err != nil && !gone(err) {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// gone reports whether an error means that the process has ended meanwhile.
func gone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EBADF)
}

// InspectProcess is Inspect for a single process.
func InspectProcess(pid int) ([]Obstacle, error) {
	var out []Obstacle
	add := func(fd int, what string) {
		if what != "" && len(out) < maxObstacles {
			out = append(out, Obstacle{Fatal: true, Reason: fmt.Sprintf("%s (descriptor %d of process %d): CRIU cannot dump it", what, fd, pid)})
		}
	}
	err := eachDescriptor(pid, func(fd int, link string, dup func() (int, error)) error {
		if !strings.HasPrefix(link, "socket:[") {
			add(fd, anonymous(link))
			return nil
		}
		own, err := dup()
		if err != nil {
			return nil // closed meanwhile
		}
		defer unix.Close(own)
		add(fd, socketKind(own))
		return nil
	})
	return out, err
}

// eachDescriptor calls fn for each open descriptor of a process: with its link
// in /proc, and a function that duplicates it into this process.
func eachDescriptor(pid int, fn func(fd int, link string, dup func() (int, error)) error) error {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	var errs []error
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		link, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		errs = append(errs, fn(fd, link, func() (int, error) { return unix.PidfdGetfd(pidfd, fd, 0) }))
	}
	return errors.Join(errs...)
}

// dumpable are the kinds of anonymous file that CRIU dumps (the callers of its
// is_anon_link_type). All others, like io_uring, userfaultfd, perf events and
// BPF programs, make a dump fail.
var dumpable = []string{"bpf-map", "[eventfd]", "[eventpoll]", "inotify", "[fanotify]", "[pidfd]", "[signalfd]", "[timerfd]"}

// anonymous names the undumpable anonymous file that a link of /proc/PID/fd
// leads to, or is empty.
func anonymous(link string) string {
	kind, ok := strings.CutPrefix(link, "anon_inode:")
	if !ok || slices.Contains(dumpable, kind) {
		return ""
	}
	return strings.Trim(kind, "[]")
}

// socketKind names the sort of a socket that CRIU cannot dump, or is empty.
func socketKind(fd int) string {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return ""
	}
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return ""
	}
	switch domain {
	case unix.AF_UNIX, unix.AF_PACKET, unix.AF_NETLINK:
		return ""
	case unix.AF_INET, unix.AF_INET6:
		switch proto {
		case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6, unix.IPPROTO_RAW:
			return ""
		case unix.IPPROTO_MPTCP:
			return "MPTCP socket; a Go server opens TCP ones with GODEBUG=multipathtcp=0"
		}
		return fmt.Sprintf("socket of IP protocol %d", proto)
	}
	return fmt.Sprintf("socket of address family %d", domain)
}
