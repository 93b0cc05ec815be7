package bench

import (
	"math"
	"slices"
)

// Sample is a list of measured values, in any order.
type Sample []float64

// Quantile returns the smallest value that at least the part q of the values
// does not exceed (the nearest rank), 0 < q <= 1; NaN if there are none.
func (s Sample) Quantile(q float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Median is the mean of the two middle values when their number is even; NaN if
// there are none.
func (s Sample) Median() float64 {
	n := len(s)
	if n == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Max returns NaN if there are no values.
func (s Sample) Max() float64 { return s.Quantile(1) }

// Sum adds the values up.
func (s Sample) Sum() (sum float64) {
	for _, v := range s {
		sum += v
	}
	return sum
}

// Over divides value by value. The medians of two samples that were taken in
// turn differ by what happened meanwhile; the median of their ratios does not.
func (s Sample) Over(base Sample) Sample {
	out := make(Sample, min(len(s), len(base)))
	for i := range out {
		out[i] = s[i] / base[i]
	}
	return out
}
