package imagebench

import (
	"math/rand/v2"

	"github.com/crsc-io/crsc/testing/bench"
)

// resamples are drawn for an interval; more make it no narrower.
const resamples = 2000

// interval95 is where a figure of n rounds lies with 95 percent confidence, by the
// bootstrap: rounds are drawn with replacement, as often as there are. figure is
// given the numbers of those drawn. Whole rounds are drawn, since what happens in
// one is not independent.
func interval95(n int, figure func(rounds []int) float64) (low, high float64) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var all bench.Sample
	drawn := make([]int, n)
	for range resamples {
		for i := range drawn {
			drawn[i] = rnd.IntN(n)
		}
		all = append(all, figure(drawn))
	}
	return all.Quantile(0.025), all.Quantile(0.975)
}

// pairs are two samples of each round, with images and without.
type pairs struct{ with, without []bench.Sample }

// added is by how much a quantile of all values of some rounds differs.
func (p *pairs) added(q float64) func(rounds []int) float64 {
	return func(rounds []int) float64 {
		var with, without bench.Sample
		for _, i := range rounds {
			with, without = append(with, p.with[i]...), append(without, p.without[i]...)
		}
		return with.Quantile(q) - without.Quantile(q)
	}
}
