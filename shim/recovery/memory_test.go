package recovery

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/replay"
)

const mebi = 1 << 20

// aStore keeps its checkpoints in a tmpfs of that many bytes.
func aStore(t *testing.T, limit int64) *store {
	t.Helper()
	dir := t.TempDir()
	s, err := openStore(filepath.Join(dir, "checkpoints"), false)
	require.NoError(t, err)
	s.memory, err = openMemory(filepath.Join(dir, "memory"), limit, nodeMemory{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, removeMemory(s.memory.dir)) })
	return s
}

// add commits a checkpoint with images of a size, in memory if they fit.
func (s *store) add(t *testing.T, seq uint64, size int) *checkpoint {
	t.Helper()
	c, err := s.stage(seq)
	require.NoError(t, err)
	if err := s.intoMemory(c, int64(size)); err != nil {
		require.ErrorIs(t, err, errNoMemory)
	}
	c.cut.Table = &replay.Table{}
	content := bytes.Repeat([]byte{byte(seq)}, size)
	require.NoError(t, os.WriteFile(filepath.Join(c.images(), "pages-1.img"), content, 0o600))
	require.NoError(t, s.commit(c))
	return c
}

func requireWhole(t *testing.T, c *checkpoint, size int) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.images(), "pages-1.img"))
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte{byte(c.seq)}, size), b)
}

// TestMemoryIsFilledOldestLast: the newest checkpoint is in memory as long as
// possible, and what is moved is whole.
func TestMemoryIsFilledOldestLast(t *testing.T) {
	const size = 3 * mebi
	s := aStore(t, 8*mebi)
	for seq := uint64(1); seq <= 4; seq++ {
		c := s.add(t, seq, size)
		require.NotNil(t, c.inMemory.Load(), "checkpoint %d", seq)
		require.NoDirExists(t, c.imagesOnDisk())
		_, err := s.prune(keepCheckpoints)
		require.NoError(t, err)
		require.NoError(t, s.makeRoom(t.Context(), size))
		require.NotNil(t, c.inMemory.Load())
		for _, c := range s.list {
			requireWhole(t, c, size)
		}
		if old := s.list[0]; old != c {
			require.Nil(t, old.inMemory.Load(), "the older one is on disk")
		}
	}
	require.NoError(t, s.drop())
	left, err := os.ReadDir(s.memory.dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestLargerThanMemory: what can't fit goes to disk, and nothing is moved for it.
func TestLargerThanMemory(t *testing.T) {
	s := aStore(t, 4*mebi)
	small := s.add(t, 1, mebi)
	require.NoError(t, func() error { _, err := s.memory.room(mebi); return err }())
	_, err := s.memory.room(5 * mebi)
	require.ErrorIs(t, err, errNoMemory)
	require.ErrorContains(t, err, "5 MiB are needed, and of the 4 MiB of crsc.io/checkpoint-memory")
	require.ErrorIs(t, s.makeRoom(t.Context(), 5*mebi), errNoMemory)
	require.NotNil(t, small.inMemory.Load())
	large := s.add(t, 2, 5*mebi)
	require.Nil(t, large.inMemory.Load())
	requireWhole(t, large, 5*mebi)
	requireWhole(t, small, mebi)
}

// TestMoveIsInterrupted: by a crash, which wants the checkpoint at once.
func TestMoveIsInterrupted(t *testing.T) {
	s := aStore(t, 32*mebi)
	c := s.add(t, 1, 9*mebi)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.toDisk(ctx, c), context.Canceled)
	requireWhole(t, c, 9*mebi)
	require.NotNil(t, c.inMemory.Load())
	require.NoDirExists(t, c.imagesOnDisk()+".tmp")
	require.NoError(t, s.toDisk(t.Context(), c))
	requireWhole(t, c, 9*mebi)
	require.NoError(t, s.toDisk(t.Context(), c), "once more is no harm")
}

// TestRestage: another attempt begins with nothing, on disk.
func TestRestage(t *testing.T) {
	s := aStore(t, 8*mebi)
	c, err := s.stage(1)
	require.NoError(t, err)
	require.NoError(t, s.intoMemory(c, mebi))
	before := c.images()
	require.NoError(t, os.WriteFile(filepath.Join(before, "core-1.img"), nil, 0o600))
	require.NoError(t, s.restage(c))
	require.NoDirExists(t, before)
	require.Equal(t, c.imagesOnDisk(), c.images())
	require.DirExists(t, c.images())
	require.NoError(t, s.intoMemory(c, mebi))
	require.NoError(t, s.discard(c))
	require.NoDirExists(t, c.images())
}

// TestMemoryOfKilledShim: whatever was left mounted goes away.
func TestMemoryOfKilledShim(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "memory")
	for range 2 {
		m, err := openMemory(dir, mebi, nodeMemory{})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(m.dir, "left"), nil, 0o600))
		var st unix.Stat_t
		require.NoError(t, unix.Stat(m.dir, &st))
		require.EqualValues(t, 0o700, st.Mode&0o7777)
	}
	require.NoError(t, unix.Mount("more", dir, "tmpfs", 0, ""))
	require.NoError(t, removeMemory(dir))
	require.NoError(t, removeMemory(dir))
	b, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	require.NotContains(t, string(b), dir)
	require.NoDirExists(t, dir)
}

func TestResident(t *testing.T) {
	for name, tc := range map[string]struct{ stat, inactive string }{
		"version 1": {"cache 1\nrss 2\ntotal_cache 999\ntotal_rss 100\ntotal_shmem 20\ntotal_swap 3\n", "total_inactive_file"},
		"version 2": {"anon 100\nfile 999\nshmem 23\n", "inactive_file"},
	} {
		m := memoryFiles{stat: filepath.Join(t.TempDir(), "memory.stat"), inactive: tc.inactive}
		require.NoError(t, os.WriteFile(m.stat, []byte(tc.stat), 0o600))
		require.EqualValues(t, 123, m.resident(), name)
	}
	require.Zero(t, (&memoryFiles{}).resident())
	ours, err := memoryFilesOf(os.Getpid())
	require.NoError(t, err)
	if strings.Contains(ours.stat, "memory.stat") {
		require.Greater(t, ours.resident(), int64(mebi))
	}
}
