package cgroup2

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/demo"
	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/isolate"
)

func TestMain(m *testing.M) {
	flag.Parse()
	inside, status, err := isolate.Enter(isolate.Options{Name: "cgroup2", Unified: true})
	if inside {
		status = m.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cgroup2:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}

// TestCrashes: metrics, pause, exec and recoveries under load need nothing of
// version 1.
func TestCrashes(t *testing.T) {
	require.Equal(t, cgroups.Unified, cgroups.Mode())
	for _, runtime := range []string{env.RuntimeRunc, env.RuntimeCRSC} {
		kills := 0
		if runtime == env.RuntimeCRSC {
			kills = 2
		}
		report, err := demo.Run(context.Background(), demo.Options{
			Instance: "cgroup2", Runtime: runtime, Kills: kills, Connections: 8, Rate: 400,
			Duration: 2 * time.Second, Interval: time.Second, Check: check,
			// ctr's default needs the cpu controller.
			Flags: []string{"--cpu-shares", "0"},
		})
		require.NoError(t, err, "%s: %+v", runtime, report)
		assert.Len(t, report.Recoveries, kills)
	}
}

func check(ctx context.Context, e *env.Env, id string) error {
	metrics, err := e.Ctr(ctx, "task", "metrics", id)
	if err != nil {
		return err
	}
	// ctr prints the fields of the message; these are version 2's.
	if !strings.Contains(metrics, "cpu.usage_usec") {
		return fmt.Errorf("metrics of cgroup v2 are missing: %s", metrics)
	}
	ps, err := e.Ctr(ctx, "task", "ps", id)
	if err != nil || len(strings.Split(strings.TrimSpace(ps), "\n")) < 2 {
		return fmt.Errorf("task ps: %q %w", ps, err)
	}
	for _, args := range [][]string{{"task", "pause", id}, {"task", "resume", id},
		{"task", "exec", "--exec-id", fmt.Sprint("x", time.Now().UnixNano()), id, "redis-cli", "ping"}} {
		if _, err := e.Ctr(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}
