package criu_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

// TestTCPSockets compares the parsed image with what the kernel says of the
// peers of the connections.
func TestTCPSockets(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	peers := map[netip.AddrPort]*criutest.Redis{}
	for _, addr := range []string{"127.0.0.1:6379", "[::1]:6379", "127.0.0.2:6379"} {
		c := criutest.DialRedis(t, b.pins.NetNS(), addr)
		c.Do("SET", "key", strings.Repeat("x", 1000))
		peers[c.LocalAddr().(*net.TCPAddr).AddrPort()] = c
	}
	b.dump()
	sockets, err := criu.TCPSockets(b.images)
	if err != nil {
		t.Fatal(err)
	}
	listeners := 0
	for _, s := range sockets {
		if s.State == 10 {
			listeners++
			if s.Local.Port() != 6379 || s.Remote.IsValid() {
				t.Errorf("listener %+v", s)
			}
			continue
		}
		c := peers[s.Remote]
		if c == nil {
			t.Errorf("connection %+v is of nobody", s)
			continue
		}
		delete(peers, s.Remote)
		if got, want := s.Local, c.RemoteAddr().(*net.TCPAddr).AddrPort(); got != want {
			t.Errorf("local address %v, the peer is connected to %v", got, want)
		}
		family := unix.AF_INET
		if s.Local.Addr().Is6() {
			family = unix.AF_INET6
		}
		sent, received := sequences(t, c)
		// What the peer has received may not be acknowledged yet (OutqLen), but
		// must all have been sent.
		if s.State != 1 || s.Family != family || s.InqLen != 0 || s.UnsqLen != 0 || s.InqSeq != sent || s.OutqSeq != received || !s.HasWindow || s.MSSClamp == 0 {
			t.Errorf("connection %+v, its peer has sent up to %d and received up to %d", s, sent, received)
		}
	}
	if len(peers) != 0 || listeners != 2 {
		t.Errorf("%d connections and %d of 2 listeners are missing", len(peers), 2-listeners)
	}
	if err := criu.Validate(b.images); err != nil {
		t.Error(err)
	}
	if list, err := criu.Obstacles(b.images); err != nil || len(list) != 0 {
		t.Errorf("obstacles: %v %v", list, err)
	}
	corruptEach(t, b.images)
}

// sequences returns the next sequence numbers that the kernel would send and
// expects to receive on a connection.
func sequences(t testing.TB, c *criutest.Redis) (send, receive uint32) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON)
		read := func(queue int) uint32 {
			err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue))
			n, nerr := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
			err = errors.Join(err, nerr)
			return uint32(n)
		}
		send, receive = read(2), read(1)
		err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF))
	}), err)
	if err != nil {
		t.Fatal(err)
	}
	return send, receive
}

// corruptEach damages each part of a good checkpoint in turn.
func corruptEach(t *testing.T, images string) {
	t.Helper()
	for _, name := range []string{"inventory.img", "files.img", "pstree.img", "core-1.img", "pagemap-1.img", "pages-1.img", "crsc.json", "descriptors.json"} {
		path := filepath.Join(images, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := criu.Validate(images); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("without %s: %v", name, err)
		}
		if name != "core-1.img" && name != "descriptors.json" {
			if err := os.WriteFile(path, good[:len(good)-3], 0o600); err != nil {
				t.Fatal(err)
			}
			if err := criu.Validate(images); !errors.Is(err, criu.ErrCorrupt) {
				t.Errorf("with a torn %s: %v", name, err)
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := criu.Validate(images); err != nil {
		t.Error(err)
	}
}

// TestObstacles runs a container with sockets that a checkpoint cannot carry.
func TestObstacles(t *testing.T) {
	netns := criutest.NetNS(t)
	// The shell inherits a descriptor for each obstacle from `runc create`,
	// as an application would open them.
	var files []*os.File
	criutest.InNetNS(t, netns, func() error {
		for _, s := range [][3]int{{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, {unix.AF_INET, unix.SOCK_STREAM, 0}, {unix.AF_VSOCK, unix.SOCK_STREAM, 0}} {
			fd, err := unix.Socket(s[0], s[1]|unix.SOCK_CLOEXEC, s[2])
			if err != nil {
				return fmt.Errorf("socket %v: %w", s, err)
			}
			files = append(files, os.NewFile(uintptr(fd), "obstacle"))
		}
		return nil
	})
	cmd := criutest.Sleeper(t, files)
	list, err := criu.InspectProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || !list[0].Fatal || !strings.Contains(list[0].Reason, "MPTCP") || !strings.Contains(list[1].Reason, "address family 40") {
		t.Errorf("obstacles: %+v", list)
	}
}
