package paritybench

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/bench"
)

func TestRollup(t *testing.T) {
	const text = "5581-ffff ---p 0 00:00 0 [rollup]\nRss:    16580 kB\nPss:    10430 kB\nPss_Anon: 1 kB\n"
	kb, err := rollup(text, "Pss:")
	require.NoError(t, err)
	assert.Equal(t, 10430, kb)
	_, err = rollup(text, "Swap:")
	assert.Error(t, err)
}

func TestReportComparesNeighbours(t *testing.T) {
	o := &outcome{run: pair{stock: bench.Sample{10, 100}, ours: bench.Sample{11, 110}}}
	var out bench.Results
	o.report(&out)
	assert.InDelta(t, 1.1, out.Get("run_ratio"), 1e-9)
}
