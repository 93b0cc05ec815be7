package redirect_test

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/redirect"
)

// markedPair returns the ends of a connection over lo whose packets carry mark.
func markedPair(b *testing.B, ns int, mark uint32) (ends [2]int) {
	nstest.In(b, ns, func() error {
		l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(l)
		if err := unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return err
		}
		if err := unix.Listen(l, 1); err != nil {
			return err
		}
		at, err := unix.Getsockname(l)
		if err != nil {
			return err
		}
		if ends[0], err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.Connect(ends[0], at); err != nil {
			return err
		}
		ends[1], _, err = unix.Accept4(l, unix.SOCK_CLOEXEC)
		return err
	})
	for _, fd := range ends {
		b.Cleanup(func() { unix.Close(fd) })
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
			b.Fatal(err)
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			b.Fatal(err)
		}
	}
	return ends
}

// exchange sends n small messages in turn and returns what one takes.
func exchange(b *testing.B, ends [2]int, n int) time.Duration {
	var buf [64]byte
	start := time.Now()
	for i := range n {
		if _, err := unix.Write(ends[i&1], buf[:40]); err != nil {
			b.Fatal(err)
		}
		if _, err := unix.Read(ends[i&1^1], buf[:]); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start) / time.Duration(n)
}

// benchmarkRules tells what the rules cost a message of a standing connection over lo,
// which passes the output chain and the prerouting chain: in turn with and without, at
// the tenth percentile, since others on the machine only ever add to it.
func benchmarkRules(b *testing.B, mark uint32) {
	runtime.LockOSThread() // for good: the thread stays on one processor
	var one unix.CPUSet
	one.Set(0)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		b.Fatal(err)
	}
	pairs := [2][2]int{markedPair(b, nstest.New(b), mark)}
	g := newRig(b, nil)
	pairs[1] = markedPair(b, g.app, mark)
	var took [2][]time.Duration
	for b.Loop() {
		for i, ends := range pairs {
			took[i] = append(took[i], exchange(b, ends, 200))
		}
	}
	var low [2]time.Duration
	for i, all := range took {
		slices.Sort(all)
		low[i] = all[len(all)/10]
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(low[0]), "ns/message-without")
	b.ReportMetric(float64(low[1]-low[0]), "ns/rules")
}

func BenchmarkRulesLeg(b *testing.B) { benchmarkRules(b, redirect.MarkSteer) }
func BenchmarkRulesOwn(b *testing.B) { benchmarkRules(b, redirect.MarkOwn) }
