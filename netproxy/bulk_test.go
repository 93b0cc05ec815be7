package netproxy

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
)

// Ports of the sink: through the proxy, and past it.
const (
	bulkOurs, bulkDirect  = 7, 8
	bulkCopied, bulkMoved = 9, 10 // relays to bulkDirect: with a copy, with splice(2)
)

// BenchmarkBulkIn sends 1 MiB at a time to a sink: directly, through the least
// that a relay can be, and through the proxy with its journal. The sender, what is
// between, and the sink are in this process: cpu-us/MB is the work of all of them,
// which does not depend on what else the machine does as MB/s do.
func BenchmarkBulkIn(b *testing.B) {
	r := newRig(b, order.Tracepoint, bulkDirect, bulkCopied, bulkMoved)
	r.sink(bulkOurs)
	r.sink(bulkDirect)
	r.relay(bulkCopied, func(to io.Writer, from io.Reader) error {
		buf := make([]byte, 64<<10)
		// The wrappers hide splice from io.CopyBuffer.
		_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, buf)
		return err
	})
	r.relay(bulkMoved, func(to io.Writer, from io.Reader) error {
		_, err := io.Copy(to, from) // between sockets: splice
		return err
	})
	for _, w := range []struct {
		name string
		port uint16
	}{{"direct", bulkDirect}, {"copying", bulkCopied}, {"splicing", bulkMoved}, {"proxy", bulkOurs}} {
		b.Run(w.name, func(b *testing.B) {
			c, err := r.dial(nstest.App4, w.port)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			data := make([]byte, 1<<20)
			b.SetBytes(int64(len(data)))
			sent, used := 0, cpuTime()
			for b.Loop() {
				if _, err := c.Write(data); err != nil {
					b.Fatal(err)
				}
				if sent++; sent%32 == 0 { // as checkpoints do
					if err := r.journal.TrimBefore(r.journal.Committed()); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64((cpuTime()-used).Microseconds())/(float64(sent)*float64(len(data))/1e6), "cpu-us/MB")
		})
	}
}

// sink takes everything.
func (r *rig) sink(port int) {
	r.listen(port, func(c *net.TCPConn) {
		defer c.Close()
		buf := make([]byte, 256<<10)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	})
}

// relay passes connections on to the sink past the proxy.
func (r *rig) relay(port int, move func(to io.Writer, from io.Reader) error) {
	r.listen(port, func(c *net.TCPConn) {
		defer c.Close()
		var up net.Conn
		err := netns.Do(r.app, func() (err error) {
			up, err = net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: bulkDirect})
			return err
		})
		if err != nil {
			r.t.Errorf("relay: %v", err)
			return
		}
		defer up.Close()
		if err := move(up, c); err != nil && !errors.Is(err, unix.ECONNRESET) {
			r.t.Errorf("relay: %v", err)
		}
	})
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err) // it has no way to fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
