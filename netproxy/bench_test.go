package netproxy

import (
	"bytes"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
)

// BenchmarkReplay measures how fast a recorded load of 20 unpipelined Redis
// clients is fed again, in requests per second.
func BenchmarkReplay(b *testing.B) {
	for name, kind := range kinds {
		b.Run(name, func(b *testing.B) {
			r := newRig(b, kind)
			r.start()
			var wg sync.WaitGroup
			const clients, each = 20, 500
			for range clients {
				c := r.mustDial(nstest.App4)
				wg.Go(func() {
					for range each {
						if _, err := c.incr("shared"); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			var took time.Duration
			steps := 0
			for b.Loop() {
				r.kill()
				res := r.recover()
				took += res.Took
				steps += res.Steps
			}
			b.ReportMetric(float64(steps)/took.Seconds(), "steps/s")
		})
	}
}

// BenchmarkProxy drives Redis through the proxy with redis-benchmark, in
// requests per second.
func BenchmarkProxy(b *testing.B) {
	for name, args := range map[string][]string{
		"incr-50":     {"-t", "incr", "-c", "50", "-n", "100000"},
		"set-50-p16":  {"-t", "set", "-c", "50", "-P", "16", "-n", "400000"},
		"incr-direct": {"-t", "incr", "-c", "50", "-n", "100000", "-p", "6380"},
	} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b, order.Tracepoint, 6380)
			r.start()
			r.mustDial(nstest.App4)
			for b.Loop() {
				cmd := exec.Command("redis-benchmark", append([]string{"-h", nstest.App4.String(), "--csv"}, args...)...)
				var out bytes.Buffer
				cmd.Stdout = &out
				if err := netns.Do(r.client, cmd.Run); err != nil {
					b.Fatal(err)
				}
				lines := strings.Split(strings.TrimSpace(out.String()), "\n")
				b.Log(lines[len(lines)-1])
			}
		})
	}
}
