package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/testing/env"
)

// faultyCRIU stands between the shim and CRIU, for all containers that are run
// while it is in force. Files beside it switch its faults on.
type faultyCRIU struct {
	t   testing.TB
	dir string
}

// The faults. The probe that the shim makes of an unknown binary has none.
const (
	faultFail = "fail" // ends at once with an error
	faultSlow = "slow" // waits for two seconds before it begins
	faultHold = "hold" // waits until the fault is cleared
)

// newFaultyCRIU changes the node's file until the test ends. The test must not
// run in parallel with others.
func newFaultyCRIU(t testing.TB) *faultyCRIU {
	t.Helper()
	e := env.RequireInstance(t, instance)
	f := &faultyCRIU{t: t, dir: t.TempDir()}
	script := filepath.Join(f.dir, "criu")
	real := filepath.Join(e.ToolsDir, "criu")
	require.NoError(t, os.WriteFile(script, fmt.Appendf(nil, `#!/bin/sh
if [ "$1" = swrk ]; then
	if [ -e %[1]s/fail ]; then exit 1; fi
	if [ -e %[1]s/slow ]; then sleep 2; fi
	while [ -e %[1]s/hold ]; do sleep 0.02; done
fi
exec %[2]s "$@"
`, f.dir, real), 0o755))
	config := filepath.Join(e.Dir, "config.toml")
	before, err := os.ReadFile(config)
	require.NoError(t, err)
	after := strings.Replace(string(before), fmt.Sprintf("%q", real), fmt.Sprintf("%q", script), 1)
	require.NotEqual(t, string(before), after)
	require.NoError(t, os.WriteFile(config, []byte(after), 0o600))
	t.Cleanup(func() { require.NoError(t, os.WriteFile(config, before, 0o600)) })
	return f
}

func (f *faultyCRIU) set(fault string) {
	f.t.Helper()
	require.NoError(f.t, os.WriteFile(filepath.Join(f.dir, fault), nil, 0o600))
}

func (f *faultyCRIU) clear(fault string) {
	f.t.Helper()
	require.NoError(f.t, os.Remove(filepath.Join(f.dir, fault)))
}

// criuChildren are the CRIU processes of the container's shim.
func (c *container) criuChildren(shim int) []int {
	var out []int
	for _, pid := range childrenOf(shim) {
		if comm(pid) == "criu" {
			out = append(out, pid)
		}
	}
	return out
}

// settling is how long after a checkpoint the CRIU that waits for the next
// restore has been started.
const settling = 80 * time.Millisecond

// duringDump waits until a dump is under way and a bit longer, and calls
// do with the pid of its CRIU. Like the shim's CRIU it runs before ordinary
// processes: otherwise the dump is over by then on a busy machine.
func (c *container) duringDump(shim int, longer time.Duration, do func(pid int)) {
	c.t.Helper()
	time.Sleep(settling)
	known := map[int]bool{}
	for _, pid := range c.criuChildren(shim) {
		known[pid] = true
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	require.NoError(c.t, unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}, 0))
	defer func() {
		require.NoError(c.t, unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}, 0))
	}()
	for deadline := time.Now().Add(patience); ; time.Sleep(500 * time.Microsecond) {
		for _, pid := range c.criuChildren(shim) {
			if !known[pid] {
				time.Sleep(longer)
				do(pid)
				return
			}
		}
		require.True(c.t, time.Now().Before(deadline), "no dump begins")
	}
}
