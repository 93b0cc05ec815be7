package recovery

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/crsc-io/crsc/netproxy/replay"
	"github.com/stretchr/testify/require"
)

// onNode are stores of containers that share what a node has for checkpoints.
func onNode(t *testing.T, limit int64, ids ...string) (stateDir string, stores []*store) {
	t.Helper()
	stateDir = t.TempDir()
	for _, id := range ids {
		dir := filepath.Join(stateDir, "default", id)
		require.NoError(t, os.MkdirAll(dir, 0o700))
		s, err := openStore(filepath.Join(dir, "checkpoints"), false)
		require.NoError(t, err)
		s.memory, err = openMemory(filepath.Join(dir, memoryName), 64*mebi, nodeMemory{stateDir, limit})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, removeMemory(s.memory.dir)) })
		stores = append(stores, s)
	}
	return stateDir, stores
}

// TestNodeMemoryIsShared: what one container's checkpoints take, another's can't.
func TestNodeMemoryIsShared(t *testing.T) {
	_, s := onNode(t, 10*mebi, "a", "b")
	first := s[0].add(t, 1, 6*mebi)
	first.unreserve()
	require.NotNil(t, first.inMemory.Load())

	c, err := s[1].stage(1)
	require.NoError(t, err)
	err = s[1].intoMemory(c, 6*mebi)
	require.ErrorIs(t, err, errNoMemory)
	require.ErrorContains(t, err, "6 MiB are needed, and of the 10 MiB of checkpoint_memory_max_size this container has 0 and the others of the node 6")
	require.DirExists(t, c.imagesOnDisk(), "it is written to disk")

	// The other's own older checkpoints make room, as far as that helps.
	small := s[1].add(t, 2, 3*mebi)
	small.unreserve()
	require.NotNil(t, small.inMemory.Load())
	require.ErrorIs(t, s[1].makeRoom(t.Context(), 5*mebi), errNoMemory)
	require.NotNil(t, small.inMemory.Load(), "it would not be enough")
	require.NoError(t, s[1].makeRoom(t.Context(), 3*mebi))
	require.Nil(t, small.inMemory.Load())
	requireWhole(t, small, 3*mebi)

	require.NoError(t, s[0].drop())
	require.NoError(t, s[1].intoMemory(c, 6*mebi))
}

// TestNodeMemoryIsReserved: room is taken when a dump begins, not when it is
// written, and given back when it is complete or has failed.
func TestNodeMemoryIsReserved(t *testing.T) {
	_, s := onNode(t, 10*mebi, "a", "b")
	staged := func(s *store, seq uint64) *checkpoint {
		c, err := s.stage(seq)
		require.NoError(t, err)
		return c
	}
	a, b := staged(s[0], 1), staged(s[1], 1)
	require.NoError(t, s[0].intoMemory(a, 6*mebi))
	require.ErrorIs(t, s[1].intoMemory(b, 6*mebi), errNoMemory)
	require.NoError(t, os.WriteFile(filepath.Join(a.images(), "pages-1.img"), make([]byte, 5*mebi), 0o600))
	require.ErrorIs(t, s[1].intoMemory(b, 5*mebi), errNoMemory, "what is written counts once, what is reserved still does")
	require.NoError(t, s[1].intoMemory(b, 4*mebi))
	require.NoError(t, s[1].restage(b))
	a.unreserve()
	require.NoError(t, s[1].intoMemory(b, 5*mebi), "it was smaller than reserved")
	b.unreserve()
	a.cut.Table = &replay.Table{}
	require.NoError(t, s[0].commit(a))
}

// TestNodeMemoryOfKilledShim: a reservation ends with the shim that made it, what
// it had written stays where it is, and counts.
func TestNodeMemoryOfKilledShim(t *testing.T) {
	if dir := os.Getenv("CRSC_TEST_RESERVE"); dir != "" {
		n := nodeMemory{filepath.Dir(filepath.Dir(filepath.Dir(dir))), 10 * mebi}
		if _, err := n.reserve(dir, 7*mebi); err != nil {
			t.Fatal(err)
		}
		fmt.Println("reserved")
		_, err := io.Copy(io.Discard, os.Stdin) // until who started it is gone
		t.Fatal(err)
	}
	_, s := onNode(t, 10*mebi, "killed", "other")
	killed := s[0].memory.dir
	require.NoError(t, os.WriteFile(filepath.Join(killed, "pages-1.img"), make([]byte, 2*mebi), 0o600))
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestNodeMemoryOfKilledShim$")
	cmd.Env = append(os.Environ(), "CRSC_TEST_RESERVE="+killed)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	_, err = cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "reserved\n", line)

	m := s[1].memory
	_, err = m.room(2 * mebi)
	require.ErrorIs(t, err, errNoMemory)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	_, err = m.room(8 * mebi)
	require.NoError(t, err)
	_, err = m.room(9 * mebi)
	require.ErrorIs(t, err, errNoMemory, "what a killed shim left takes memory")
	require.NoError(t, removeMemory(killed))
	_, err = m.room(10 * mebi)
	require.NoError(t, err)
}

// TestNodeMemoryCannotBeCounted: then a checkpoint goes to disk, and does not fail.
func TestNodeMemoryCannotBeCounted(t *testing.T) {
	stateDir, s := onNode(t, 10*mebi, "a")
	require.NoError(t, os.Symlink("/dev/null", filepath.Join(stateDir, nodeMemoryLock)))
	c, err := s[0].stage(1)
	require.NoError(t, err)
	require.ErrorIs(t, s[0].intoMemory(c, mebi), errNoMemory)
	require.DirExists(t, c.images())
}
