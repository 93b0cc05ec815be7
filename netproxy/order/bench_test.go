package order_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
)

// benchmarkRead is the application's cost of a read of one byte, including what
// the program adds to it, and that of others: it is run for every read on the host.
func benchmarkRead(b *testing.B, watch bool, others int) {
	for range others {
		open(b, order.Options{NetNS: nstest.New(b)})
	}
	ns := nstest.New(b)
	var s order.Source
	if watch {
		s = open(b, order.Options{NetNS: ns})
	}
	a := newApp(b, ns, "127.0.0.1:0", "127.0.0.1")
	c := a.connect()
	buf := make([]byte, 1)
	var reading, polling time.Duration
	const batch = 10000
	events := 0
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += batch {
		c.send(b, batch)
		start := time.Now()
		for range batch {
			unix.Read(c.fd, buf)
		}
		mid := time.Now()
		if s != nil {
			if err := s.Poll(func(order.Event) { events++ }); err != nil {
				b.Fatal(err)
			}
		}
		reading += mid.Sub(start)
		polling += time.Since(mid)
	}
	reads := (b.N + batch - 1) / batch * batch
	b.ReportMetric(float64(reading.Nanoseconds())/float64(reads), "ns/read")
	if watch {
		b.ReportMetric(float64(polling.Nanoseconds())/float64(events), "ns/event-polled")
	}
}

func BenchmarkReadUnwatched(b *testing.B) { benchmarkRead(b, false, 0) }
func BenchmarkReadWatched(b *testing.B)   { benchmarkRead(b, true, 0) }
func BenchmarkReadBeside50(b *testing.B)  { benchmarkRead(b, false, 50) }

func BenchmarkSerialConsumed(b *testing.B) {
	ns := nstest.New(b)
	s := open(b, order.Options{NetNS: ns, Kind: order.Serial})
	a := newApp(b, ns, "127.0.0.1:0", "127.0.0.1")
	c := a.connect()
	tr := order.Track{App: a.addr, Leg: c.remote, Origin: c.base}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Consumed(tr); err != nil {
			b.Fatal(err)
		}
	}
}
