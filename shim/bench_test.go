package shim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/shim/internal/shimtest"
)

// BenchmarkRun compares what an unprotected container costs under our shim and
// under containerd's: the time of a whole run, and the shim's memory.
func BenchmarkRun(b *testing.B) {
	binary := filepath.Join(b.TempDir(), shimBinary)
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", binary, "../cmd/containerd-shim-crsc-v1")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(b, err, string(out))
	d := shimtest.Start(b, binary)
	n := 0
	for _, runtime := range []string{stock, ours} {
		b.Run(runtime, func(b *testing.B) {
			d := d.For(b)
			id := fmt.Sprintf("idle-%d", n)
			n++
			d.Ctr(runArgs(runtime, id, []string{"-d"}, "sleep", "1000")...)
			memory := pss(b, d.ShimPid(id))
			d.Ctr("task", "delete", "-f", id)
			d.Ctr("container", "delete", id)
			for b.Loop() {
				d.Ctr(runArgs(runtime, fmt.Sprintf("run-%d", n), []string{"--rm"}, "true")...)
				n++
			}
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/run")
			b.ReportMetric(float64(memory), "PSS-kB")
		})
	}
}

// pss returns a process's proportional set size in kB.
func pss(tb testing.TB, pid int) (kB int) {
	tb.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	require.NoError(tb, err)
	for line := range strings.Lines(string(data)) {
		if _, err := fmt.Sscanf(line, "Pss: %d kB", &kB); err == nil {
			return kB
		}
	}
	return 0
}
