package order

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
)

func openIn(t *testing.T, ns int) *tracepoint {
	t.Helper()
	s, _, err := Open(Options{Kind: Tracepoint, NetNS: ns, LowPort: 20000, HighPort: 24000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*tracepoint)
}

// openSharing opens a source that shares: others may have been joining for long.
func openSharing(t *testing.T, ns int) *tracepoint {
	t.Helper()
	for range 5 {
		s := openIn(t, ns)
		if s.program(t) != aloneName {
			return s
		}
		s.Close()
	}
	t.Fatal("has a program of its own, five times")
	return nil
}

// program is the name of the one that writes to the ring.
func (t *tracepoint) program(tb testing.TB) string {
	tb.Helper()
	at, err := t.shared.link.Info()
	if err != nil {
		tb.Fatal(err)
	}
	p, err := ebpf.NewProgramFromID(at.Program)
	if err != nil {
		tb.Fatal(err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		tb.Fatal(err)
	}
	return info.Name
}

func (t *tracepoint) attachedAs(tb testing.TB) uint32 {
	tb.Helper()
	at, err := t.shared.link.Info()
	if err != nil {
		tb.Fatal(err)
	}
	return uint32(at.ID)
}

// sees takes a byte in the namespace and expects the source to tell, or not.
func (t *tracepoint) sees(tb testing.TB, ns int, want bool) {
	tb.Helper()
	var port uint16
	nstest.In(tb, ns, func() (err error) {
		port, err = oneByte(20000, 24000)
		return err
	})
	seen := false
	if err := t.Poll(func(e Event) { seen = seen || e.LegPort == port }); err != nil {
		tb.Fatal(err)
	}
	if seen != want {
		tb.Fatalf("told of a byte that was taken: %v, want %v", seen, want)
	}
}

func (t *tracepoint) watched(tb testing.TB, ns int) (w watch, there bool) {
	tb.Helper()
	inum, err := netns.Inum(ns)
	if err != nil {
		tb.Fatal(err)
	}
	err = t.shared.each(func(at uint32, is watch) {
		if at == inum {
			w, there = is, true
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	return w, there
}

// TestOneProgramForAll: sources of different namespaces share a program, and each is
// told of its own.
func TestOneProgramForAll(t *testing.T) {
	ns := []int{nstest.New(t), nstest.New(t)}
	a, b := openSharing(t, ns[0]), openSharing(t, ns[1])
	if x, y := a.attachedAs(t), b.attachedAs(t); x != y {
		t.Errorf("links %d and %d, want one", x, y)
	}
	a.sees(t, ns[0], true)
	a.sees(t, ns[1], false)
	b.sees(t, ns[1], true)
	a.Close()
	if _, there := b.watched(t, ns[0]); there {
		t.Error("a namespace is watched whose source was closed")
	}
	b.sees(t, ns[1], true)
	openSharing(t, ns[0]).sees(t, ns[0], true)
}

// TestTwoInANamespace: in a pod with two containers both are told.
func TestTwoInANamespace(t *testing.T) {
	ns := nstest.New(t)
	a, b := openSharing(t, ns), openIn(t, ns)
	if p := b.program(t); p != aloneName {
		t.Errorf("the second runs %s", p)
	}
	a.sees(t, ns, true)
	b.sees(t, ns, true)
	b.Close()
	a.sees(t, ns, true)
	c := openIn(t, ns)
	a.Close()
	c.sees(t, ns, true)
	openSharing(t, ns).sees(t, ns, true)
}

// TestKilledOwnerOfAWatch: what a killed process has left is taken over.
func TestKilledOwnerOfAWatch(t *testing.T) {
	beside := openSharing(t, nstest.New(t)) // the program outlives the killed
	ns := nstest.New(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestOwnerProcess$")
	cmd.Env = append(os.Environ(), "CRSC_TEST_OWNER=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	nstest.In(t, ns, cmd.Start) // the child inherits the thread's namespace
	defer cmd.Wait()
	defer cmd.Process.Kill()
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("child said %q: %v", said, err)
	}
	theirs, there := beside.watched(t, ns)
	if !there {
		t.Fatalf("the child, which runs %q, watches nothing", said)
	}
	cmd.Process.Signal(unix.SIGKILL)
	cmd.Wait()
	if left, _ := beside.watched(t, ns); left != theirs {
		t.Fatalf("the killed left %+v, want %+v", left, theirs)
	}
	s := openSharing(t, ns)
	if ours, _ := beside.watched(t, ns); ours.Owner == theirs.Owner {
		t.Errorf("watched as %+v, which is the killed's", ours)
	}
	s.sees(t, ns, true)
}

// TestOwnerProcess is the process that TestKilledOwnerOfAWatch kills.
func TestOwnerProcess(t *testing.T) {
	if os.Getenv("CRSC_TEST_OWNER") == "" {
		return
	}
	fmt.Println(openSharing(t, netns.Current).program(t))
	select {}
}

// TestLockIsRoots: what every process of the host can open keeps nobody from sharing,
// and what is not root's alone is no lock.
func TestLockIsRoots(t *testing.T) {
	f, err := os.Open("/sys/kernel/btf/vmlinux")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	openSharing(t, nstest.New(t))

	dir := t.TempDir()
	file, open, link := dir+"/lock", dir+"/open", dir+"/link"
	id, unlock, err := lockShared(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := lockShared(file); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("locked twice: %v", err)
	}
	unlock()
	again, unlock, err := lockShared(file)
	if err != nil || again != id {
		t.Errorf("the same file is %q, then %q: %v", id, again, err)
	}
	unlock()
	if err := errors.Join(os.WriteFile(open, nil, 0o644), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{open, link, dir} {
		if _, unlock, err := lockShared(bad); err == nil {
			unlock()
			t.Errorf("%s was taken for a lock", bad)
		}
	}
}
