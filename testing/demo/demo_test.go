package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/load"
)

// assertGone checks that an instance left nothing that has its name.
func assertGone(t *testing.T, instance string) {
	t.Helper()
	e, err := env.Locate(instance)
	require.NoError(t, err)
	for _, pattern := range []string{e.Dir + "*", "/run/netns/" + e.Name + "-*", "/sys/fs/cgroup/*/" + e.Namespace, "/run/containerd/*/" + e.Namespace} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		assert.Empty(t, found)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	assert.NotContains(t, string(mounts), e.Dir)
}

func TestPlainRun(t *testing.T) {
	var progress bytes.Buffer
	report, err := Run(context.Background(), Options{
		Instance: "plaindemo", Runtime: env.RuntimeRunc, Connections: 20, Duration: time.Second, Progress: &progress,
	})
	require.NoError(t, err)
	assert.Positive(t, report.Acknowledged)
	assert.Equal(t, report.Acknowledged, report.Stored)
	assert.Contains(t, progress.String(), "0 client errors")
	assertGone(t, "plaindemo")

	file := filepath.Join(t.TempDir(), "out", "demo.json")
	require.NoError(t, report.WriteJSON(file, false))
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(data, &fields))
	var names []string
	for name := range fields {
		names = append(names, name)
	}
	assert.ElementsMatch(t, []string{"kills", "client_errors", "acknowledged", "stored", "lost", "doubled",
		"differing_replies", "stall_ms", "recoveries"}, names)
}

// TestUnprotectedCrashFails: the same run without protection must be found out.
func TestUnprotectedCrashFails(t *testing.T) {
	report, err := Run(context.Background(), Options{
		Instance: "crashdemo", Runtime: env.RuntimeRunc, Connections: 5, Kills: 2, Duration: 2 * time.Second,
	})
	require.ErrorIs(t, err, ErrFailed)
	require.NotNil(t, report)
	assert.Positive(t, report.ClientErrors)
	assert.NotEmpty(t, report.Faults)
	var table bytes.Buffer
	require.NoError(t, report.WriteTable(&table))
	assert.Contains(t, table.String(), "never")
	assert.Contains(t, table.String(), "FAULT: clients saw")
	assertGone(t, "crashdemo")
}

func TestInterruptedRunLeavesNothing(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "crsc-demo")
	out, err := exec.Command("go", "build", "-o", binary, "./cmd/crsc-demo").CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		for _, after := range []time.Duration{50 * time.Millisecond, 2 * time.Second} {
			cmd := exec.Command(binary, "-instance", "intrdemo", "-runtime", env.RuntimeRunc, "-kills", "0", "-duration", "1m")
			require.NoError(t, cmd.Start())
			time.Sleep(after)
			require.NoError(t, cmd.Process.Signal(sig))
			assert.Error(t, cmd.Wait(), "an interrupted run is no success")
			assertGone(t, "intrdemo")
		}
	}
}

func TestJudge(t *testing.T) {
	good := func() *Report {
		r := &Report{Load: load.Result{}}
		r.Kills, r.Acknowledged, r.Stored, r.Recoveries = 2, 10, 10, make([]RecoveryFigure, 2)
		return r
	}
	r := good()
	r.judge(2)
	assert.Empty(t, r.Faults)
	for name, spoil := range map[string]func(*Report){
		"errors":    func(r *Report) { r.ClientErrors = 1 },
		"lost":      func(r *Report) { r.Lost = 1 },
		"doubled":   func(r *Report) { r.Doubled = 1 },
		"differing": func(r *Report) { r.DifferingReplies = 1 },
		"stored":    func(r *Report) { r.Stored = 11 },
		"kills":     func(r *Report) { r.Kills = 1; r.Recoveries = r.Recoveries[:1] },
		"recovered": func(r *Report) { r.Recoveries = r.Recoveries[:1] },
		"idle":      func(r *Report) { r.Acknowledged, r.Stored = 0, 0 },
		"growth":    func(r *Report) { r.Growth = []Growth{{What: "x", TooMuch: true}} },
	} {
		r := good()
		spoil(r)
		r.judge(2)
		assert.Len(t, r.Faults, 1, name)
	}
}

func TestGrowth(t *testing.T) {
	series := func(step int64) *watch {
		w := &watch{samples: make([][]int64, len(measures()))}
		for i := range w.samples {
			for n := range int64(40) {
				w.samples[i] = append(w.samples[i], 1<<30+n*step)
			}
		}
		return w
	}
	for _, g := range series(0).growth() {
		assert.False(t, g.TooMuch, g.What)
	}
	for _, g := range series(100 << 20).growth() {
		assert.True(t, g.TooMuch, g.What)
	}
	assert.Empty(t, (*watch)(nil).growth())
	assert.NoError(t, (*watch)(nil).sample("/nonexistent"))
}

func TestStatusFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "status.json")
	_, err := readStatus(file)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(file, []byte(`{"id":"redis","namespace":"n","protected":true,"phase":"running","pid":7,
		"checkpoints":{"count":4,"failed":1,"last":{"sequence":4,"time":"2025-01-02T03:04:05.5Z","frozen_ms":8.5,"total_ms":40}},
		"recoveries":[{"time":"2025-01-02T03:04:06Z","cause":"signal 9","detect_ms":0.5,"restore_ms":30,"replay_ms":7,"total_ms":41,
		"records":10,"bytes":99,"swallowed_bytes":5,"differing":2,"checkpoint":4}]}`), 0o600))
	s, err := readStatus(file)
	require.NoError(t, err)
	assert.True(t, s.Protected)
	assert.Equal(t, 4, s.Checkpoints.Count)
	last := s.lastRecovery()
	require.NotNil(t, last)
	assert.Equal(t, recovery{Time: time.Date(2025, 1, 2, 3, 4, 6, 0, time.UTC), Cause: "signal 9", DetectMS: 0.5, RestoreMS: 30, ReplayMS: 7, TotalMS: 41, Differing: 2}, *last)
	require.NoError(t, os.WriteFile(file, []byte("{"), 0o600))
	_, err = readStatus(file)
	require.ErrorContains(t, err, file)
}
