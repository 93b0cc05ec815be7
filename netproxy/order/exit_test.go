package order_test

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/tcprepair"
)

// TestCrashBeforeFIN kills processes that hold a connection: when the leg sees
// the end, the crash must be counted already.
func TestCrashBeforeFIN(t *testing.T) {
	ns := nstest.New(t)
	s := open(t, order.Options{NetNS: ns})
	for i := range 30 {
		cmd, addr := startHolder(t, ns)
		leg, err := tcprepair.Dial(ns, tcprepair.Spec{
			Client: netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", lowPort+i)), App: addr, Mark: redirect.MarkOwn,
		})
		if err != nil {
			t.Fatal(err)
		}
		unix.Poll([]unix.PollFd{{Fd: int32(leg), Events: unix.POLLOUT}}, 1000)
		cmd.Process.Signal(unix.SIGKILL)
		unix.Poll([]unix.PollFd{{Fd: int32(leg), Events: unix.POLLRDHUP}}, 2000)
		if got := s.Crashes(); got != uint64(i)+1 {
			t.Fatalf("kill %d: %d crashes when the leg saw the end", i, got)
		}
		unix.Close(leg)
		cmd.Wait()
	}
}

// startHolder starts this test binary as a server process that does nothing.
func startHolder(t *testing.T, ns int) (*exec.Cmd, netip.AddrPort) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHolderProcess$")
	cmd.Env = append(os.Environ(), "CRSC_TEST_HOLDER=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	nstest.In(t, ns, cmd.Start) // the child inherits the thread's namespace
	t.Cleanup(func() { cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, netip.MustParseAddrPort(strings.TrimSpace(line))
}

func TestHolderProcess(t *testing.T) {
	if os.Getenv("CRSC_TEST_HOLDER") == "" {
		t.Skip("helper of TestCrashBeforeFIN")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
	}
}
