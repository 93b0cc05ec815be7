package netproxy

import (
	"sync"
	"testing"
	"time"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
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
