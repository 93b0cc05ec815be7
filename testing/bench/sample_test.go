package bench

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestQuantiles(t *testing.T) {
	s := Sample{}
	for i := 100; i > 0; i-- {
		s = append(s, float64(i))
	}
	assert.Equal(t, 1.0, s.Quantile(0.001))
	assert.Equal(t, 50.0, s.Quantile(0.5))
	assert.Equal(t, 99.0, s.Quantile(0.99))
	assert.Equal(t, 100.0, s.Max())
	assert.Equal(t, 50.5, s.Median())
	assert.Equal(t, 5050.0, s.Sum())
	assert.Equal(t, 100.0, s[0], "the sample itself stays in its order")
	assert.Equal(t, 7.0, Sample{7}.Median())
	assert.Equal(t, 7.0, Sample{7}.Quantile(0.99))
	assert.True(t, math.IsNaN(Sample{}.Median()))
	assert.True(t, math.IsNaN(Sample{}.Quantile(0.5)))
}

// TestOver: a round in which the machine was slow for both does not count.
func TestOver(t *testing.T) {
	ours, base := Sample{50, 5, 40}, Sample{100, 10, 100}
	assert.Equal(t, Sample{0.5, 0.5, 0.4}, ours.Over(base))
	assert.Equal(t, 0.5, ours.Over(base).Median())
	assert.Len(t, ours.Over(base[:1]), 1)
}
