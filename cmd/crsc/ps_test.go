package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
)

func stateWith(t *testing.T, list ...*status.Status) string {
	t.Helper()
	root := t.TempDir()
	for _, s := range list {
		dir := filepath.Join(root, s.Namespace, s.ID)
		require.NoError(t, os.MkdirAll(dir, 0o700))
		require.NoError(t, s.Write(dir))
	}
	return root
}

func TestPSAndMetricsTellProtectionAndReason(t *testing.T) {
	root := stateWith(t,
		&status.Status{Namespace: "k8s.io", ID: "db", Protected: true, Phase: "running", Connections: 7, RecoveryCount: 2,
			JournalFault:      "journal: no space left on device",
			Traffic:           &status.Traffic{Accepted: 12, Opened: 3, InBytes: 500, OutBytes: 900, HeldBytes: 64, HeldMaxBytes: 128, JournalBytes: 4096, JournalMaxBytes: 8192},
			RecoveryTarget:    &status.RecoveryTarget{TargetMS: 500, EstimateMS: 210, Recoveries: 5, Within: 4},
			Unproxied:         &status.Unproxied{Count: 3, Connections: []string{"10.0.0.2:40000 10.0.0.9:5432"}},
			Pressure:          &status.Pressure{MemoryPercent: new(81.5), StalledPercent: 3, StalledSource: "cgroup"},
			Images:            &status.Images{Count: 3, Last: &status.Image{Sequence: 8, Bytes: 3 << 20}},
			UnreplayableSince: new(time.Now()), Unreplayable: "exec",
			Checkpoints: status.Checkpoints{Count: 9, Last: &status.Checkpoint{Sequence: 9, Time: time.Now(), FrozenMS: 7.25}}},
		&status.Status{Namespace: "k8s.io", ID: "web", Phase: "created", Reason: "unprotected: the container has a terminal"})
	var out, errs bytes.Buffer
	require.Equal(t, exitOK, run([]string{"ps", "--state-dir", root}, &out, &errs), errs.String())
	require.Regexp(t, `210 of 500 ms, kept 4/5\s+exec, .* ago\s+82% stalled 3%\s+#8, 3072 KiB`, out.String())
	require.Regexp(t, `\s7\s+10\.0\.0\.2:40000 to 10\.0\.0\.9:5432 and 2 more\s+210 of`, out.String())
	require.Regexp(t, `db\s+running\s+protected; clients wait: journal: no space left on device\s+#9, .* ago\s+7\.2 ms\s+2\s+7`, out.String())
	require.Contains(t, out.String(), "unprotected: the container has a terminal")

	out.Reset()
	require.Equal(t, exitOK, run([]string{"metrics", "--state-dir", root}, &out, &errs), errs.String())
	require.Contains(t, out.String(), `crsc_protected{id="db",namespace="k8s.io",reason=""} 1`)
	require.Contains(t, out.String(), `crsc_protected{id="web",namespace="k8s.io",reason="unprotected: the container has a terminal"} 0`)
	for metric, value := range map[string]string{
		"connections_accepted_total": "12", "connections_opened_total": "3", "input_bytes_total": "500", "output_bytes_total": "900",
		"proxy_memory_bytes": "64", "proxy_memory_max_bytes": "128", "journal_bytes": "4096", "journal_max_bytes": "8192", "journal_fault": "1",
	} {
		require.Contains(t, out.String(), "crsc_"+metric+`{id="db",namespace="k8s.io"} `+value+"\n")
	}
	require.NotContains(t, out.String(), `crsc_journal_bytes{id="web"`)
	require.Contains(t, out.String(), `crsc_unproxied_connections{id="db",namespace="k8s.io"} 3`)
	require.Contains(t, out.String(), `crsc_unproxied_connections{id="web",namespace="k8s.io"} 0`)
	require.Contains(t, out.String(), `crsc_recovery_estimate_seconds{id="db",namespace="k8s.io"} 0.21`)
	require.Contains(t, out.String(), `crsc_recovery_target_kept_total{id="db",namespace="k8s.io"} 4`)
	require.Contains(t, out.String(), `crsc_memory_ratio{id="db",namespace="k8s.io"} 0.815`)
	require.Contains(t, out.String(), `crsc_images_total{id="db",namespace="k8s.io"} 3`)
	require.Contains(t, out.String(), `crsc_unreplayable_since_timestamp_seconds{`)
	require.Contains(t, out.String(), `crsc_recoveries_total{id="db",namespace="k8s.io"} 2`)
}

// TestDamagedStatus: the host crashed while one status was written. The others are
// told, and so is which one is damaged.
func TestDamagedStatus(t *testing.T) {
	root := stateWith(t, &status.Status{Namespace: "default", ID: "whole", Protected: true, Phase: "running"})
	for _, text := range []string{"", "{"} {
		dir := filepath.Join(root, "default", "cut")
		require.NoError(t, os.MkdirAll(dir, 0o700))
		file := filepath.Join(dir, status.FileName)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		for _, args := range [][]string{{"ps"}, {"ps", "--json"}, {"metrics"}} {
			var out, errs bytes.Buffer
			require.Equal(t, exitFailure, run(append(args, "--state-dir", root), &out, &errs), args)
			require.Contains(t, errs.String(), file+" is damaged", args)
			require.Contains(t, out.String(), "whole", args)
		}
		var out, errs bytes.Buffer
		require.Equal(t, exitFailure, run([]string{"checkpoint", "whole", "--state-dir", root}, &out, &errs))
		require.Contains(t, errs.String(), "its shim is gone", "it was found")
	}
}

// TestNothingToTell: that there is no container is said, and not what may not be
// read is taken for it.
func TestNothingToTell(t *testing.T) {
	var out, errs bytes.Buffer
	require.Equal(t, exitOK, run([]string{"ps", "--state-dir", t.TempDir()}, &out, &errs))
	require.Contains(t, errs.String(), "no container")
	require.Empty(t, out.String())

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, args := range [][]string{{"ps"}, {"ps", "--json"}, {"metrics"}, {"checkpoints", "x"}} {
		errs.Reset()
		require.Equal(t, exitFailure, run(append(args, "--state-dir", file), &out, &errs), args)
		require.Contains(t, errs.String(), file)
		require.Empty(t, out.String())
	}
}
