package criu_test

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

const schedRR = 2

func policy(t testing.TB, pid int) uint32 {
	t.Helper()
	a, err := unix.SchedGetAttr(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	return a.Policy
}

// TestUrgent: CRIU goes first while tasks are frozen, and nobody else does, then
// or after a restore.
func TestUrgent(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	c := b.redis()
	var child *os.Process
	asked := map[string]uint32{}
	for _, urgent := range []bool{false, true} {
		b.dump(func(o *criu.DumpOptions) {
			o.Urgent = urgent
			o.OnPreDump = func() error { asked["before"] = policy(t, child.Pid); return nil }
			o.OnPostDump = func() error { asked["frozen"] = policy(t, child.Pid); return nil }
			o.Start = func(cmd *exec.Cmd) (func() (int, error), error) {
				if err := cmd.Start(); err != nil {
					return nil, err
				}
				child = cmd.Process
				return func() (int, error) {
					st, err := cmd.Process.Wait()
					return st.ExitCode(), err
				}, nil
			}
		})
		if asked["before"] != 0 || (asked["frozen"] == schedRR) != urgent {
			t.Errorf("urgent %v: scheduling policies of CRIU are %v", urgent, asked)
		}
		if p := policy(t, b.Pid); p != 0 {
			t.Errorf("the container's policy is %d", p)
		}
	}
	c.Reset()
	b.Crash()
	b.restore()
	if p := policy(t, b.Pid); p != 0 {
		t.Errorf("the container's policy after a restore is %d", p)
	}
}
