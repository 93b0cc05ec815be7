package vfs

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFaultsReplaceOperations(t *testing.T) {
	mem := NewMem()
	var seen []Op
	var fail error
	f := NewFault(mem, func(op Op) error {
		seen = append(seen, op)
		return fail
	})
	require.NoError(t, f.MkdirAll("/d"))
	file, err := f.Create("/d/f")
	require.NoError(t, err)

	fail = syscall.ENOSPC
	ops := map[OpKind]func() error{
		OpCreate:      func() error { _, err := f.Create("/d/g"); return err },
		OpOpen:        func() error { _, err := f.Open("/d/f"); return err },
		OpOpenWrite:   func() error { _, err := f.OpenWrite("/d/f"); return err },
		OpRemove:      func() error { return f.Remove("/d/f") },
		OpRename:      func() error { return f.Rename("/d/f", "/d/g") },
		OpMkdirAll:    func() error { return f.MkdirAll("/e") },
		OpList:        func() error { _, err := f.List("/d"); return err },
		OpSyncDir:     func() error { return f.SyncDir("/d") },
		OpLock:        func() error { _, err := f.Lock("/d"); return err },
		OpRead:        func() error { _, err := file.ReadAt(make([]byte, 1), 0); return err },
		OpWrite:       func() error { _, err := file.WriteAt([]byte("x"), 0); return err },
		OpSync:        func() error { return file.Sync() },
		OpPreallocate: func() error { return file.Preallocate(10) },
		OpTruncate:    func() error { return file.Truncate(10) },
	}
	for kind, op := range ops {
		require.ErrorIs(t, op(), syscall.ENOSPC, kind)
		last := seen[len(seen)-1]
		require.Equal(t, kind, last.Kind)
		require.Equal(t, int64(len(seen)), last.N)
	}
	require.Equal(t, int64(len(seen)), f.Ops())
	requireNames(t, mem, "/d", "f")
	requireContent(t, mem, "/d/f", "")

	fail = &ShortWrite{Keep: 2, Err: syscall.EIO}
	n, err := file.WriteAt([]byte("abc"), 0)
	require.Equal(t, 2, n)
	require.ErrorIs(t, err, syscall.EIO)
	requireContent(t, mem, "/d/f", "ab")
}

func TestFailNthCountsChangesOnly(t *testing.T) {
	f := NewFault(NewMem(), FailNth(3, syscall.EIO))
	require.NoError(t, f.MkdirAll("/d"))
	_, err := f.List("/d")
	require.NoError(t, err)
	require.NoError(t, f.SyncDir("/d"))
	require.ErrorIs(t, f.SyncDir("/d"), syscall.EIO)
	require.NoError(t, f.SyncDir("/d"))
}
