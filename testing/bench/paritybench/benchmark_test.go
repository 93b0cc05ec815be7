package paritybench

import (
	"math"
	"os"
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
	o := &outcome{run: pair{Stock: bench.Sample{10, 100}, Ours: bench.Sample{11, 110}}}
	var out bench.Results
	o.report(&out)
	assert.InDelta(t, 1.1, out.Get("run_ratio"), 1e-9)
}

func TestPodsAreReportedOnlyIfMeasured(t *testing.T) {
	o := &outcome{}
	var without, with bench.Results
	o.report(&without)
	assert.True(t, math.IsNaN(without.Get("pod_start_ratio")))
	o.pods.Start = pair{Stock: bench.Sample{200, 100}, Ours: bench.Sample{210, 105}}
	o.report(&with)
	assert.InDelta(t, 1.05, with.Get("pod_start_ratio"), 1e-9)
}

func TestPodOptionsReachTheProgram(t *testing.T) {
	want := podOptions{pods: 7, execs: 8, shims: 9, stock: "/a b"}
	got, err := parsePodOptions(want.args())
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

func TestParent(t *testing.T) {
	ppid, err := parent(os.Getpid())
	require.NoError(t, err)
	assert.Equal(t, os.Getppid(), ppid)
}
