package lifecycle

import (
	"testing"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"
)

func TestPhaseTransitions(t *testing.T) {
	all := []Phase{PhaseCreated, PhaseRunning, PhasePaused, PhaseRecovering, PhaseStopped, PhaseDeleted}
	legal := map[Phase]string{
		PhaseCreated:    "running stopped deleted",
		PhaseRunning:    "paused recovering stopped",
		PhasePaused:     "running stopped",
		PhaseRecovering: "running stopped",
		PhaseStopped:    "deleted",
		PhaseDeleted:    "",
	}
	for _, from := range all {
		got := ""
		for _, to := range all {
			p := from
			err := p.to(to)
			if err == nil {
				require.Equal(t, to, p)
				if got != "" {
					got += " "
				}
				got += to.String()
				continue
			}
			require.ErrorIs(t, err, ErrTransition)
			require.True(t, errdefs.IsFailedPrecondition(err))
			require.ErrorContains(t, err, from.String()+" process cannot become "+to.String())
			require.Equal(t, from, p, "unchanged")
		}
		require.Equal(t, legal[from], got, "after %s", from)
	}
}
