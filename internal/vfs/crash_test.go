package vfs

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCrashKeepsWhatWasSynced(t *testing.T) {
	m := NewMem()
	require.NoError(t, m.MkdirAll("/d"))
	f, err := m.Create("/d/synced")
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("one"), 0)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, m.SyncDir("/d"))
	_, err = f.WriteAt([]byte("two"), 3)
	require.NoError(t, err)
	_, err = m.Create("/d/new")
	require.NoError(t, err)

	requireNames(t, m.CrashClone(SyncedOnly, nil), "/d", "synced")
	requireContent(t, m.CrashClone(SyncedOnly, nil), "/d/synced", "one")
	requireNames(t, m.CrashClone(AllWritten, nil), "/d", "new", "synced")
	requireContent(t, m.CrashClone(AllWritten, nil), "/d/synced", "onetwo")
	requireContent(t, m, "/d/synced", "onetwo")

	// A clone is independent of the original.
	c := m.CrashClone(AllWritten, nil)
	require.NoError(t, c.Remove("/d/synced"))
	_, err = f.WriteAt([]byte("six"), 0)
	require.NoError(t, err)
	requireContent(t, m, "/d/synced", "sixtwo")
}

func TestCrashUndoesUnsyncedRenames(t *testing.T) {
	m := NewMem()
	require.NoError(t, m.MkdirAll("/d"))
	_, err := m.Create("/d/a")
	require.NoError(t, err)
	require.NoError(t, m.SyncDir("/d"))
	require.NoError(t, m.Rename("/d/a", "/d/b"))
	require.NoError(t, m.Rename("/d/b", "/d/c"))
	requireNames(t, m.CrashClone(SyncedOnly, nil), "/d", "a")
	seen := map[string]bool{}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 100 {
		names, err := m.CrashClone(SomeUnsynced, rng).List("/d")
		require.NoError(t, err)
		require.Len(t, names, 1, "a rename is atomic")
		seen[names[0]] = true
	}
	require.Len(t, seen, 3, "each prefix of the changes occurs")
}

// TestCrashMixesBlocks: unsynced blocks survive independently, each as of some
// moment since the last sync, and sizes as well.
func TestCrashMixesBlocks(t *testing.T) {
	m := NewMem()
	require.NoError(t, m.MkdirAll("/d"))
	f, err := m.Create("/d/f")
	require.NoError(t, err)
	require.NoError(t, m.SyncDir("/d"))
	const blocks = 4
	write := func(c byte) {
		_, err := f.WriteAt(bytes.Repeat([]byte{c}, blocks*crashBlock), 0)
		require.NoError(t, err)
	}
	write('0')
	require.NoError(t, f.Sync())
	write('1')
	write('2')
	require.NoError(t, f.Truncate(2*crashBlock))

	seen, sizes := map[string]bool{}, map[int64]bool{}
	rng := rand.New(rand.NewPCG(2, 2))
	for range 500 {
		c, err := m.CrashClone(SomeUnsynced, rng).Open("/d/f")
		require.NoError(t, err)
		size, err := c.Size()
		require.NoError(t, err)
		sizes[size] = true
		b := make([]byte, 2*crashBlock)
		_, err = c.ReadAt(b, 0)
		require.NoError(t, err)
		for i := range 2 {
			block := b[i*crashBlock : (i+1)*crashBlock]
			require.Equal(t, bytes.Repeat(block[:1], crashBlock), block, "a block is atomic")
		}
		seen[string([]byte{b[0], b[crashBlock]})] = true
	}
	require.Len(t, seen, 9, "all combinations occur")
	require.Equal(t, map[int64]bool{2 * crashBlock: true, 4 * crashBlock: true}, sizes)
}
