package criu_test

import (
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
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

// hurried counts the threads of this process that run before ordinary ones.
func hurried(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range list {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if a, err := unix.SchedGetAttr(tid, 0); err == nil && a.Policy == schedRR {
			n++
		} else if err != nil && err != unix.ESRCH {
			t.Fatal(err)
		}
	}
	return n
}

// TestUrgent: CRIU goes first while tasks are frozen, and not after that; nobody else
// does, then or after a restore.
func TestUrgent(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	c := b.redis()
	var child *os.Process
	asked := map[string]uint32{}
	var end atomic.Uint32 // at its end
	for _, urgent := range []bool{false, true} {
		end.Store(schedRR)
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
					// Until it is reaped it has the policy that it had.
					if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
						return -1, err
					}
					if a, err := unix.SchedGetAttr(cmd.Process.Pid, 0); err == nil {
						end.Store(a.Policy)
					}
					st, err := cmd.Process.Wait()
					return st.ExitCode(), err
				}, nil
			}
		})
		if asked["before"] != 0 || end.Load() != 0 || (asked["frozen"] == schedRR) != urgent {
			t.Errorf("urgent %v: scheduling policies of CRIU are %v, and %d at its end", urgent, asked, end.Load())
		}
		if p := policy(t, b.Pid); p != 0 {
			t.Errorf("the container's policy is %d", p)
		}
		if n := hurried(t); n != 0 {
			t.Errorf("urgent %v: %d of our own threads go first after the dump", urgent, n)
		}
	}
	c.Reset()
	b.Crash()
	b.restore()
	if p := policy(t, b.Pid); p != 0 {
		t.Errorf("the container's policy after a restore is %d", p)
	}
}
