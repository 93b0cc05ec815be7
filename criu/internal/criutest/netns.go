package criutest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// NetNS makes a network namespace with a loopback device and returns the path
// it is bound to.
func NetNS(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inThread(t, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		return exec.Command(Tool(t, "ip"), "link", "set", "lo", "up").Run()
	})
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", path, err)
		}
	})
	return path
}

// LoopbackUp sets the loopback device of a network namespace up.
func LoopbackUp(t testing.TB, netns string) {
	t.Helper()
	InNetNS(t, netns, func() error { return exec.Command(Tool(t, "ip"), "link", "set", "lo", "up").Run() })
}

// Dial connects from inside the network namespace at path.
func Dial(t testing.TB, netns, addr string) *net.TCPConn {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var conn *net.TCPConn
	InNetNS(t, netns, func() error {
		conn, err = net.DialTCP("tcp", nil, a)
		return err
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}

// InNetNS calls fn on a thread in the network namespace at path.
func InNetNS(t testing.TB, path string, fn func() error) {
	t.Helper()
	inThread(t, func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return fn()
	})
}

// inThread calls fn on a thread that is thrown away afterwards, and that is not
// the main one, which cannot be.
func inThread(t testing.TB, fn func() error) {
	t.Helper()
	errc := make(chan error, 1)
	go runOffMain(errc, fn)
	if err := <-errc; err != nil {
		t.Fatal(err)
	}
}

func runOffMain(errc chan<- error, fn func() error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		inner := make(chan error, 1)
		go runOffMain(inner, fn)
		errc <- <-inner
		runtime.UnlockOSThread()
		return
	}
	errc <- fn() // never unlocked: the thread ends here
}
