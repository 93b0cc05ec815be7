package recoverybench

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/load"
)

// TestCheck: whatever a client may notice beyond a pause fails the benchmark.
func TestCheck(t *testing.T) {
	good := func() *outcome {
		return &outcome{state: &status.Status{}, crashes: []bench.Crash{{}}, result: load.Result{Acknowledged: 5, Stored: 5}}
	}
	assert.NoError(t, good().check())
	for name, spoil := range map[string]func(*outcome){
		"error":     func(o *outcome) { o.result.ClientErrors = 1 },
		"wrong":     func(o *outcome) { o.result.WrongReplies = 1 },
		"lost":      func(o *outcome) { o.result.Lost = 1 },
		"doubled":   func(o *outcome) { o.result.Doubled = 1 },
		"stored":    func(o *outcome) { o.result.Stored = 4 },
		"differing": func(o *outcome) { o.crashes[0].Differing = 1 },
		"reset":     func(o *outcome) { o.crashes[0].Reset = 1 },
		"failed":    func(o *outcome) { o.state.RecoveryFailed = 1 },
	} {
		o := good()
		spoil(o)
		assert.ErrorIs(t, o.check(), ErrNotHidden, name)
	}
}
