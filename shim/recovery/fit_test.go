package recovery

import (
	"encoding/json"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/criu"
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
		image, err := json.Marshal(specOf(proc, run, data))
		require.NoError(t, err)
		err = sameMounts(image, c.live)
		if c.says == "" {
			require.NoError(t, err, c.what)
			continue
		}
		require.ErrorIs(t, err, oci.ErrIncompatible, c.what)
		require.ErrorContains(t, err, c.says, c.what)
	}
	require.ErrorIs(t, sameMounts([]byte("{"), specOf()), oci.ErrCorrupt)
}

func TestConfined(t *testing.T) {
	const chown, kill, admin = 1 << 0, 1 << 5, 1 << 21
	strict := specOf()
	strict.Process.User.UID, strict.Process.NoNewPrivileges = 7, true
	strict.Linux.Seccomp = &specs.LinuxSeccomp{}
	strict.Process.ApparmorProfile = "p"
	good := criu.Contents{Capabilities: chown, NoNewPrivs: true, Seccomp: true, Profiles: []string{"p"}}
	require.NoError(t, confined(&good, strict))
	for says, spoil := range map[string]func(c *criu.Contents){
		"CAP_SYS_ADMIN": func(c *criu.Contents) { c.Capabilities = kill | admin },
		"63":            func(c *criu.Contents) { c.Capabilities = 1 << 63 },
		"root":          func(c *criu.Contents) { c.Root = true },
		"gain":          func(c *criu.Contents) { c.NoNewPrivs = false },
		"seccomp":       func(c *criu.Contents) { c.Seccomp = false },
		"profile":       func(c *criu.Contents) { c.Profiles = []string{"p", "unconfined"} },
	} {
		bad := good
		spoil(&bad)
		err := confined(&bad, strict)
		require.ErrorIs(t, err, oci.ErrIncompatible, says)
		require.ErrorContains(t, err, says)
	}
	// What the container is free to do, the image may be free to do.
	require.NoError(t, confined(&criu.Contents{Capabilities: chown | kill, Root: true, Profiles: []string{"x"}}, specOf()))
	bare := specOf()
	bare.Process.Capabilities = nil
	require.NoError(t, confined(&criu.Contents{Capabilities: admin}, bare), "runc leaves all capabilities")
	bare.Process.Capabilities = &specs.LinuxCapabilities{}
	require.Error(t, confined(&good, bare))
	require.Error(t, confined(&good, &specs.Spec{}))
}
