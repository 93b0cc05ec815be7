package imagebench

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/crsc-io/crsc/testing/bench"
)

// TestInterval: a difference that is there is found, one that is not is not.
func TestInterval(t *testing.T) {
	const n = 60
	for _, shift := range []float64{0, 3} {
		rnd := rand.New(rand.NewPCG(3, 4))
		p := pairs{}
		for range n {
			var with, without bench.Sample
			for range 50 {
				with, without = append(with, rnd.ExpFloat64()+shift), append(without, rnd.ExpFloat64())
			}
			p.with, p.without = append(p.with, with), append(p.without, without)
		}
		low, high := interval95(n, p.added(0.5))
		assert.LessOrEqual(t, low, shift)
		assert.GreaterOrEqual(t, high, shift)
		assert.Less(t, high-low, 0.5)
		if shift > 0 {
			assert.Positive(t, low)
		}
	}
}
