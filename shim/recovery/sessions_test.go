package recovery

import (
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSessions(t *testing.T) {
	var s sessions
	stays, ends := exec.Command("sleep", "1000"), exec.Command("true")
	for _, cmd := range []*exec.Cmd{stays, ends} {
		require.NoError(t, cmd.Start())
		require.NoError(t, s.add(cmd.Process.Pid))
	}
	t.Cleanup(func() {
		_ = stays.Process.Kill()
		_ = stays.Wait()
		s.close()
	})
	require.NoError(t, ends.Wait())
	require.Eventually(t, func() bool {
		running, ended := s.look()
		return running == 1 && ended == 1
	}, time.Minute, time.Millisecond)
	running, ended := s.look()
	require.Equal(t, []int{1, 0}, []int{running, ended}, "each end once")
	require.NoError(t, s.add(ends.Process.Pid), "one that has ended already")
	s.close()
	require.NoError(t, s.add(stays.Process.Pid))
	running, _ = s.look()
	require.Zero(t, running)
}
