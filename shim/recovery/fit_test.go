package recovery

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/oci"
)

func specOf(mounts ...specs.Mount) *specs.Spec {
	return &specs.Spec{
		Mounts: mounts, Linux: &specs.Linux{},
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_KILL"}}},
	}
}

func TestSameMounts(t *testing.T) {
	proc := specs.Mount{Destination: "/proc", Type: "proc"}
	run := specs.Mount{Destination: "/run", Type: "tmpfs"}
	data := specs.Mount{Destination: "/data/", Type: "bind", Source: "/a", Options: []string{"rbind", "ro"}}
	elsewhere, writable := data, data
	elsewhere.Source, elsewhere.Destination = "/b", "/data"
	writable.Options = []string{"rbind"}
	readOnly := specOf(proc, run, data)
	readOnly.Root = &specs.Root{Readonly: true}
	for _, c := range []struct {
		what string
		live *specs.Spec
		says string
	}{
		{"the same", specOf(proc, run, data), ""},
		{"from elsewhere", specOf(proc, run, elsewhere), ""},
		{"writable", specOf(proc, run, writable), `"/data (bind)"`},
		{"one less", specOf(proc, run), `only in the image ["/data (bind, read-only)"]`},
		{"one more", specOf(proc, run, data, specs.Mount{Destination: "/x", Type: "tmpfs"}), `only here ["/x (tmpfs)"]`},
		{"another order", specOf(run, proc, data), "order"},
		{"read-only root", readOnly, "/ (read-only)"},
	} {
		err := sameMounts(specOf(proc, run, data), c.live)
		if c.says == "" {
			require.NoError(t, err, c.what)
			continue
		}
		require.ErrorIs(t, err, oci.ErrIncompatible, c.what)
		require.ErrorContains(t, err, c.says, c.what)
	}
	_, err := specOfImage([]byte("{"))
	require.ErrorIs(t, err, oci.ErrCorrupt)
}

// TestDifference: a second mount at the same place is not the first.
func TestDifference(t *testing.T) {
	a, b := difference([]string{"x", "y", "y"}, []string{"y", "z", "x"})
	require.Equal(t, []string{"y"}, a)
	require.Equal(t, []string{"z"}, b)
}
