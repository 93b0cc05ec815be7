package lifecycle

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/containerd/v2/pkg/protobuf/types"
	"github.com/containerd/typeurl/v2"
	"github.com/stretchr/testify/require"
)

func anyOf(t *testing.T, v any) typeurl.Any {
	t.Helper()
	a, err := typeurl.MarshalAnyToProto(v)
	require.NoError(t, err)
	return a
}

// TestParseOptions has every sender known: ctr, CRI, nerdctl, and strangers.
func TestParseOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "options.toml")
	require.NoError(t, os.WriteFile(file, []byte("Root = \"/r\"\nNoPivotRoot = true\n"), 0o600))
	for name, c := range map[string]struct {
		in   typeurl.Any
		want *options.Options
	}{
		"none":          {nil, &options.Options{}},
		"empty any":     {&types.Any{}, &options.Options{}},
		"runc":          {anyOf(t, &options.Options{BinaryName: "x", SystemdCgroup: true}), &options.Options{BinaryName: "x", SystemdCgroup: true}},
		"generic":       {anyOf(t, &runtimeoptions.Options{}), &options.Options{}},
		"generic, body": {anyOf(t, &runtimeoptions.Options{ConfigBody: []byte("BinaryName = \"b\"\nSystemdCgroup = true\nTypeUrl = \"ignored\"\n")}), &options.Options{BinaryName: "b", SystemdCgroup: true}},
		"generic, path": {anyOf(t, &runtimeoptions.Options{ConfigPath: file, ConfigBody: []byte("ignored")}), &options.Options{Root: "/r", NoPivotRoot: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseOptions(c.in)
			require.NoError(t, err)
			require.Equal(t, c.want.String(), got.String())
		})
	}
	for name, c := range map[string]struct {
		in   typeurl.Any
		want string
	}{
		"another type":   {anyOf(t, &events.TaskStart{}), "containerd.events.TaskStart"},
		"unknown type":   {&types.Any{TypeUrl: "no.such.Type", Value: []byte{1}}, "no.such.Type"},
		"damaged":        {&types.Any{TypeUrl: "containerd.runc.v1.Options", Value: []byte{0xff}}, "containerd.runc.v1.Options"},
		"malformed body": {anyOf(t, &runtimeoptions.Options{ConfigBody: []byte("\nRoot = [")}), "config body, line 2"},
		"wrong type":     {anyOf(t, &runtimeoptions.Options{ConfigBody: []byte("SystemdCgroup = \"yes\"")}), "config body"},
		"missing file":   {anyOf(t, &runtimeoptions.Options{ConfigPath: file + "x"}), file + "x"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseOptions(c.in)
			require.ErrorIs(t, err, ErrOptions)
			require.ErrorContains(t, err, c.want)
		})
	}
}
