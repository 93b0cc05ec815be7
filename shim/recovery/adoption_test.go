package recovery

import (
	"net/netip"
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/replay"
	"github.com/crsc-io/crsc/oci"
	"github.com/crsc-io/crsc/status"
)

func TestASuccessorWithAnAddressOfItsOwnFits(t *testing.T) {
	with := func(uid, ip, other string) *inheritance {
		return left(t, func(l *inheritance, s *specs.Spec) {
			l.Pod, l.Addresses = status.Pod{UID: uid}, []netip.Addr{netip.MustParseAddr(ip)}
			s.Process.Args = []string{"app", "--bind=" + ip + ":80", "--peer=" + other}
			s.Process.Env = append(s.Process.Env, "POD_IP="+ip, "ME="+uid)
		})
	}
	was := with("uid-1", "10.0.0.5", "10.0.0.9")
	require.NoError(t, was.fits(with("uid-2", "10.0.0.77", "10.0.0.9")))
	require.ErrorContains(t, was.fits(with("uid-2", "10.0.0.77", "10.0.0.8")), "another command")
	// An address within another one is not the pod's.
	longer := with("uid-1", "10.0.0.5", "10.0.0.51")
	require.ErrorContains(t, longer.fits(with("uid-2", "10.0.0.7", "10.0.0.71")), "another command")
}

func TestReplaceWord(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.5":                "X",
		"[10.0.0.5]:80,10.0.0.5/": "[X]:80,X/",
		"10.0.0.51 110.0.0.5":     "10.0.0.51 110.0.0.5",
		"10.0.0.5.nip.io":         "10.0.0.5.nip.io",
		"":                        "",
	} {
		require.Equal(t, want, replaceWord(in, "10.0.0.5", "X"))
	}
}

// TestConnectionsThatTheNodeNoLongerInterceptsAreReset: nobody could end them.
func TestConnectionsThatTheNodeNoLongerInterceptsAreReset(t *testing.T) {
	a, b := netip.MustParseAddrPort("10.0.0.5:80"), netip.MustParseAddrPort("10.0.0.9:4000")
	cut := func() *checkpoint {
		socket := criu.TCPSocket{Local: a, Remote: b, State: 1}
		return &checkpoint{cut: Cut{
			Table: &replay.Table{Conns: []replay.ConnState{
				{ID: 1, Direction: journal.In, Dest: a, Client: b, LegPort: b.Port()},
				{ID: 2, Direction: journal.Out, Dest: b, Client: a},
			}},
			Sockets: map[uint32]criu.TCPSocket{1: socket, 2: socket},
		}}
	}
	cp := cut()
	plan, peers, err := farewells(cp, 7, true, true)
	require.NoError(t, err)
	require.Len(t, plan.Conns, 2)
	require.Len(t, peers, 2)
	require.Len(t, plan.Steps, 2)
	require.EqualValues(t, 7, plan.Conns[1].Opened)
	require.Empty(t, cp.cut.Foreign)

	cp = cut()
	plan, _, err = farewells(cp, 7, true, false)
	require.NoError(t, err)
	require.Len(t, plan.Conns, 1)
	require.Len(t, cp.cut.Foreign, 1)
}

func TestACutOfAnotherVersionIsRefused(t *testing.T) {
	cp := &checkpoint{dir: t.TempDir()}
	require.Error(t, cp.loadCut())
	require.NoError(t, os.WriteFile(cp.cutFile(), []byte(`{"version": 1, "table": {"nextId": 3}}`), 0o600))
	require.NoError(t, cp.loadCut())
	require.EqualValues(t, 3, cp.cut.Table.NextID)
	require.NoError(t, os.WriteFile(cp.cutFile(), []byte(`{"version": 2, "table": {}}`), 0o600))
	require.ErrorIs(t, cp.loadCut(), oci.ErrIncompatible)
	require.NoError(t, os.WriteFile(cp.cutFile(), []byte(`{"version": 1, "ta`), 0o600))
	require.ErrorIs(t, cp.loadCut(), criu.ErrCorrupt)
}
