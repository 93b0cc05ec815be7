package freezebench

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/bench"
)

// TestGapCoversFreeze: two clocks, CRIU's and a client's, must agree.
func TestGapCoversFreeze(t *testing.T) {
	rig, err := bench.Open(context.Background(), "bfreezetest", &bytes.Buffer{})
	t.Cleanup(func() { require.NoError(t, rig.Close()) })
	require.NoError(t, err)
	s := scenario{name: "probed", count: 3, probe: true, heapMB: 20}
	o, err := s.run(context.Background(), rig, &runcSource{interval: 300 * time.Millisecond})
	require.NoError(t, err)
	require.Len(t, o.checkpoints, 3)
	require.Len(t, o.gaps, 3)
	for i, c := range o.checkpoints {
		assert.Positive(t, c.frozen)
		assert.Less(t, c.frozen, c.total)
		// The thaw is not quite the last thing that CRIU counts.
		assert.GreaterOrEqual(t, o.gaps[i]+o.wait, 0.8*c.frozen)
	}
	assert.Len(t, o.quiet, 2)

	out := &bench.Results{}
	o.report(out)
	o.reportBeside(out, rival{name: "runc"}, o)
	assert.Equal(t, 1.0, out.Get("redis_probed_frozen_vs_runc"))
	assert.Equal(t, 3.0, float64(len(o.of(frozen))))
}

func TestFrozenByPodman(t *testing.T) {
	ms, err := frozenByPodman([]byte(`{"podman_checkpoint_duration": 9, "container_statistics": [{"criu_statistics": {"freezing_time": 3475, "frozen_time": 161820}}]}`))
	require.NoError(t, err)
	assert.InDelta(t, 165.295, ms, 1e-9)
	_, err = frozenByPodman([]byte(`{"container_statistics": null}`))
	require.ErrorContains(t, err, "incomplete")
}
