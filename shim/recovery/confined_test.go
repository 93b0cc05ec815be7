package recovery

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/oci"
)

// Capabilities by number, capability.h.
const (
	chown, setuid, admin = 1 << 0, 1 << 7, 1 << 21
)

func all(id uint32) [4]uint32 { return [4]uint32{id, id, id, id} }

// ordinary is a user without capabilities of its own, as Kubernetes' restricted
// policy wants it.
func ordinary() (*specs.Spec, criu.Rights) {
	s := specOf()
	s.Process.User = specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{8, 9}}
	s.Process.NoNewPrivileges, s.Process.ApparmorProfile = true, "p"
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"}}
	return s, criu.Rights{UIDs: all(7), GIDs: all(8), Groups: []uint32{8, 9}, Bounding: chown | setuid, NoNewPrivs: true, Profile: "p"}
}

func TestConfined(t *testing.T) {
	spec, good := ordinary()
	confine := func(r criu.Rights) error { return confined(&criu.Contents{Rights: []criu.Rights{good, r}}, spec) }
	require.NoError(t, confine(good))
	for says, spoil := range map[string]func(r *criu.Rights){
		`bounding capabilities ["CAP_SYS_ADMIN"], which`: func(r *criu.Rights) { r.Bounding |= admin },
		`permitted capabilities ["CAP_CHOWN"]`:           func(r *criu.Rights) { r.Permitted = chown },
		`effective capabilities ["CAP_CHOWN"]`:           func(r *criu.Rights) { r.Effective = chown },
		`ambient capabilities ["CAP_CHOWN"]`:             func(r *criu.Rights) { r.Ambient = chown },
		`inheritable capabilities ["CAP_CHOWN"]`:         func(r *criu.Rights) { r.Inheritable = chown },
		"63":                                             func(r *criu.Rights) { r.Bounding = 1 << 63 },
		"run as user 0, and this container's as":         func(r *criu.Rights) { r.UIDs[2] = 0 },
		"run as user 5":                                  func(r *criu.Rights) { r.UIDs[3] = 5 },
		"in the group 0":                                 func(r *criu.Rights) { r.GIDs[1] = 0 },
		"in the group 10":                                func(r *criu.Rights) { r.Groups = []uint32{9, 10} },
		"gain":                                           func(r *criu.Rights) { r.NoNewPrivs = false },
		"secure bits 0x1":                                func(r *criu.Rights) { r.SecureBits = 1 },
		`profile "unconfined"`:                           func(r *criu.Rights) { r.Profile = "unconfined" },
	} {
		bad := good
		spoil(&bad)
		err := confine(bad)
		require.ErrorIs(t, err, oci.ErrIncompatible, says)
		require.ErrorContains(t, err, says)
	}
	spec.Linux = nil
	require.Error(t, confine(good))
}

// TestConfinedRoot: what the container may do on its own, the image may have done.
func TestConfinedRoot(t *testing.T) {
	spec := specOf()
	names := []string{"CAP_CHOWN", "CAP_SETUID"}
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: names, Permitted: names, Effective: names}
	root := criu.Rights{Bounding: chown | setuid, Permitted: chown | setuid, Effective: chown | setuid, Profile: "x"}
	confine := func(r criu.Rights) error { return confined(&criu.Contents{Rights: []criu.Rights{r}}, spec) }
	require.NoError(t, confine(root))
	user := limitsOf(spec.Process).user()
	require.Equal(t, uint64(chown|setuid), user.Capabilities)
	other := root
	other.UIDs, other.Permitted, other.Effective = all(999), 0, 0
	require.NoError(t, confine(other), "it has set its user")
	other.Groups = []uint32{999}
	require.ErrorContains(t, confine(other), "group 999", "it can't set its groups")
	names = append(names, "CAP_SETGID")
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: names, Permitted: names}
	require.NoError(t, confine(other))

	// A user without capabilities could get them of a file.
	spec.Process.User.UID = 999
	other.Permitted, other.GIDs, other.Groups = chown, all(0), nil
	require.NoError(t, confine(other))
	other.UIDs[0] = 1
	require.ErrorContains(t, confine(other), "user 1")
	spec.Process.Capabilities.Ambient = []string{"CAP_SETUID"}
	require.NoError(t, confine(other))

	bare := specOf()
	bare.Process.Capabilities = nil
	root.Permitted = 1 << 40
	require.NoError(t, confined(&criu.Contents{Rights: []criu.Rights{root}}, bare), "runc leaves all capabilities")
	bare.Process.Capabilities = &specs.LinuxCapabilities{}
	require.Error(t, confined(&criu.Contents{Rights: []criu.Rights{root}}, bare))
}

// TestConfinedFiles: CRIU opens for a program what that may not open.
func TestConfinedFiles(t *testing.T) {
	spec := specOf()
	c := &criu.Contents{Needs: map[string]string{"CAP_NET_RAW": "a packet socket"}}
	require.ErrorContains(t, confined(c, spec), "a packet socket, for which this container lacks CAP_NET_RAW")
	spec.Process.Capabilities.Bounding = append(spec.Process.Capabilities.Bounding, "CAP_NET_RAW")
	require.NoError(t, confined(c, spec))
	spec.Process.NoNewPrivileges = true
	require.ErrorContains(t, confined(c, spec), "lacks CAP_NET_RAW")
	spec.Process.Capabilities = nil
	require.NoError(t, confined(c, spec))
}

// TestConfinedMarks: the proxy's mark comes with every connection.
func TestConfinedMarks(t *testing.T) {
	spec := specOf()
	require.NoError(t, confined(&criu.Contents{Marks: []uint32{redirect.MarkSteer}}, spec))
	c := &criu.Contents{Marks: []uint32{1, redirect.MarkSteer}}
	require.ErrorContains(t, confined(c, spec), "the mark 0x1, for which this container lacks CAP_NET_ADMIN")
	spec.Process.Capabilities.Bounding = append(spec.Process.Capabilities.Bounding, "CAP_NET_ADMIN")
	require.NoError(t, confined(c, spec))
}
