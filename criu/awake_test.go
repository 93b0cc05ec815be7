package criu_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

// TestDumpKeepsProcessorsAwake: unless told otherwise, and only meanwhile.
func TestDumpKeepsProcessorsAwake(t *testing.T) {
	const file = "/dev/cpu_dma_latency"
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("%v: the kernel needs CONFIG_PM_QOS and CONFIG_CPU_IDLE for this test", err)
	}
	b := start(t, criutest.NetNS(t), criutest.RedisArgs)
	for _, tc := range []struct{ urgent, sleep, awake bool }{{true, false, true}, {true, true, false}, {false, false, false}} {
		awake := false
		b.dump(func(o *criu.DumpOptions) {
			o.Urgent, o.LetSleep = tc.urgent, tc.sleep
			o.OnFrozen = func() error {
				awake = isOpen(t, file)
				return nil
			}
		})
		if awake != tc.awake {
			t.Errorf("%+v: processors were kept awake: %v", tc, awake)
		}
		if isOpen(t, file) {
			t.Errorf("%+v: they are still", tc)
		}
	}
}

// isOpen reports whether this process holds a file open.
func isOpen(t *testing.T, path string) bool {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		// Some are closed meanwhile.
		if target, err := os.Readlink(fd); err == nil && target == path {
			return true
		}
	}
	return false
}
