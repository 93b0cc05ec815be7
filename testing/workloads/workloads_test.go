package workloads

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/longrun"
)

// TestShortRun is make workloads in short.
func TestShortRun(t *testing.T) {
	o := Options{Instance: "wlshort", Kills: 5, Names: []string{"ledger"}, Gap: 400 * time.Millisecond, Interval: 300 * time.Millisecond}
	report, err := Run(t.Context(), o)
	require.NoError(t, err, "%+v", report)
	require.Equal(t, 5, report.Checks)
	o.Kills, o.Names = 2, []string{"memcached", "sqlite", "postgresql"}
	report, err = Run(t.Context(), o)
	require.NoError(t, err, "%+v", report)
	require.Equal(t, 6, report.Checks)
	file := filepath.Join(t.TempDir(), "out", "workloads.json")
	require.NoError(t, longrun.WriteJSON(file, report))
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(data, &fields))
	for _, name := range []string{"kills", "checks", "disagreements", "requests", "client_errors", "failed", "workloads"} {
		require.Contains(t, fields, name)
	}
}

func TestResults(t *testing.T) {
	good := Result{Kills: 2, Checks: 2, Requests: 5}
	require.True(t, good.ok())
	for what, change := range map[string]func(*Result){
		"no kill":       func(r *Result) { *r = Result{Requests: 5} },
		"no check":      func(r *Result) { r.Checks = 1 },
		"disagreement":  func(r *Result) { r.Disagreements = 1 },
		"client error":  func(r *Result) { r.ClientErrors = 1 },
		"nothing asked": func(r *Result) { r.Requests = 0 },
		"failure":       func(r *Result) { r.Failure = "x" },
	} {
		bad := good
		change(&bad)
		require.False(t, bad.ok(), what)
		report := Report{}
		report.add(&bad)
		require.Equal(t, 1, report.Failed, what)
	}
}

func TestOptions(t *testing.T) {
	_, err := Run(t.Context(), Options{Kills: 0})
	require.Error(t, err)
	_, err = Run(t.Context(), Options{Kills: 1, Names: []string{"nobody"}})
	require.ErrorContains(t, err, "ledger")
}
