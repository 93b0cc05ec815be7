package recovery

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Lstat(path, &st))
	return st.Ino
}

// TestSpareMemory: the next checkpoint is written into the memory of the one that
// was removed, and into none that somebody else still reads.
func TestSpareMemory(t *testing.T) {
	const size = 3 * mebi
	s := aStore(t, 16*mebi)
	pages := func(c *checkpoint) string { return filepath.Join(c.images(), "pages-1.img") }
	inodes := map[uint64]uint64{}
	var published string
	for seq := uint64(1); seq <= 6; seq++ {
		c := s.add(t, seq, size)
		inodes[seq] = inode(t, pages(c))
		require.NoError(t, os.WriteFile(filepath.Join(c.images(), "core-1.img"), nil, 0o600))
		if seq == 3 {
			published = filepath.Join(s.memory.dir, "link")
			require.NoError(t, os.Link(pages(c), published))
		}
		_, err := s.prune(keepCheckpoints)
		require.NoError(t, err)
		require.NoError(t, s.makeRoom(t.Context(), size))
		for _, c := range s.list {
			requireWhole(t, c, size)
		}
	}
	require.Equal(t, inodes[1], inodes[4], "the memory of 1 went to 4")
	require.Equal(t, inodes[2], inodes[5])
	require.NotEqual(t, inodes[3], inodes[6], "3 has another name")
	b, err := os.ReadFile(published)
	require.NoError(t, err)
	require.Equal(t, byte(3), b[0])
	list, err := os.ReadDir(filepath.Join(s.memory.dir, "spare"))
	require.NoError(t, err)
	require.Len(t, list, 1, "nothing but memory is kept")
	require.NoError(t, s.memory.spare.drop())
	require.Zero(t, s.memory.spare.size())
	require.NoDirExists(t, filepath.Join(s.memory.dir, "spare"))
}

// TestSpareMemoryOfTheMoved: what is moved to disk leaves its memory to the next one.
func TestSpareMemoryOfTheMoved(t *testing.T) {
	const size = 3 * mebi
	s := aStore(t, 8*mebi)
	inodes := map[uint64]uint64{}
	for seq := uint64(1); seq <= 4; seq++ {
		c := s.add(t, seq, size)
		require.NotNil(t, c.inMemory.Load(), "checkpoint %d", seq)
		inodes[seq] = inode(t, filepath.Join(c.images(), "pages-1.img"))
		_, err := s.prune(keepCheckpoints)
		require.NoError(t, err)
		require.NoError(t, s.makeRoom(t.Context(), size))
		require.NotNil(t, c.inMemory.Load(), "the newest stays")
		for _, c := range s.list {
			requireWhole(t, c, size)
		}
	}
	require.Equal(t, inodes[1], inodes[3])
	require.Equal(t, inodes[2], inodes[4])
}

// TestSpareMemoryOfTheArmed: who has the images open that are moved lets go of them
// before their memory is written to again.
func TestSpareMemoryOfTheArmed(t *testing.T) {
	const size = 3 * mebi
	s := aStore(t, 8*mebi)
	open := filepath.Join(s.memory.dir, "open")
	s.onMoved = func(*checkpoint) { require.NoError(t, os.Remove(open)) }
	var inodes []uint64
	for seq := uint64(1); seq <= 4; seq++ {
		c := s.add(t, seq, size)
		pages := filepath.Join(c.images(), "pages-1.img")
		inodes = append(inodes, inode(t, pages))
		_, err := s.prune(keepCheckpoints)
		require.NoError(t, err)
		require.NoError(t, s.makeRoom(t.Context(), size))
		require.NoError(t, os.Link(pages, open)) // it is armed now
	}
	require.Equal(t, inodes[:2], inodes[2:])
}

// TestSparePatience: memory waits for the next checkpoint as long as that takes.
func TestSparePatience(t *testing.T) {
	var s spare
	now := time.Now()
	for _, step := range []struct{ after, want time.Duration }{
		{0, spareFor}, {2 * time.Second, spareFor}, {20 * time.Second, 40 * time.Second},
		{100 * time.Millisecond, 40 * time.Second}, // of the same checkpoint
		{30 * time.Second, time.Minute}, {time.Hour, spareFor}, {20 * time.Second, 40 * time.Second},
	} {
		now = now.Add(step.after)
		require.Equal(t, step.want, s.patienceLocked(now), "after %v", step.after)
	}
}

// TestSpareMemoryIsGivenBack: when the next checkpoint has no room with it either.
func TestSpareMemoryIsGivenBack(t *testing.T) {
	s := aStore(t, 16*mebi)
	for seq := uint64(1); seq <= 3; seq++ {
		s.add(t, seq, 3*mebi)
	}
	_, err := s.prune(keepCheckpoints)
	require.NoError(t, err)
	require.EqualValues(t, 3*mebi, s.memory.spare.size())
	require.NoError(t, s.makeRoom(t.Context(), 10*mebi), "with the spare there is as much")
	require.EqualValues(t, 3*mebi, s.memory.spare.size())
	require.NoError(t, s.makeRoom(t.Context(), 11*mebi))
	require.Nil(t, s.list[0].inMemory.Load(), "the next one has no room beside both")
	require.EqualValues(t, 3*mebi, s.memory.spare.size(), "what was moved, in place of the other")
	require.ErrorIs(t, s.makeRoom(t.Context(), 20*mebi), errNoMemory)
	require.Zero(t, s.memory.spare.size(), "it is of no use")
}

func TestSpareMemoryIsTheNodesToo(t *testing.T) {
	s, err := openStore(filepath.Join(t.TempDir(), "checkpoints"), false)
	require.NoError(t, err)
	state := t.TempDir()
	dir := filepath.Join(state, "namespace", "id")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	s.memory, err = openMemory(filepath.Join(dir, memoryName), 16*mebi, nodeMemory{stateDir: state, limit: 8 * mebi})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, removeMemory(filepath.Join(dir, memoryName))) })
	for seq := uint64(1); seq <= 2; seq++ {
		s.add(t, seq, 3*mebi).unreserve()
	}
	_, err = s.prune(1)
	require.NoError(t, err)
	require.NoError(t, s.makeRoom(t.Context(), 2*mebi))
	require.EqualValues(t, 3*mebi, s.memory.spare.size())
	require.NoError(t, s.makeRoom(t.Context(), 3*mebi))
	require.Zero(t, s.memory.spare.size(), "there would be no room for another container")
	require.NotNil(t, s.list[0].inMemory.Load(), "but for this one there is")
}
