package journal

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/internal/vfs"
)

// TestRenewAfterFaultAtEveryOperation: whatever fails, and in whichever
// operation of Renew another fault comes, in the end the journal holds just what
// was appended after it, at positions that go on.
func TestRenewAfterFaultAtEveryOperation(t *testing.T) {
	for _, class := range classes {
		n := int64(1)
		for ; ; n++ {
			mem := vfs.NewMem()
			broken, nth := false, int64(0)
			o := memOptions(vfs.NewFault(mem, func(op vfs.Op) error {
				if broken && op.Kind == vfs.OpWrite {
					return syscall.EIO
				}
				if nth > 0 && op.Mutates() {
					if nth--; nth == 0 {
						return syscall.ENOSPC
					}
				}
				return nil
			}))
			o.Durability, o.MemoryBytes = class, 2000
			j := mustOpen(t, o)
			fill(t, j, 0, 3)
			broken = true
			numbered(j, 1, 3000)
			require.ErrorIs(t, j.Commit(), syscall.EIO)
			broken = false
			end := j.End()
			nth = n
			err := j.Renew()
			failed := err != nil
			if failed {
				require.ErrorIs(t, err, syscall.ENOSPC)
				require.Error(t, j.Commit(), "it is not to be used yet")
				require.NoError(t, j.Renew(), "class %v, operation %d", class, n)
			}
			nth = 0
			require.Equal(t, end, j.End())
			require.Equal(t, end, j.Start())
			for i := range 20 {
				numbered(j, i, 300)
				require.NoError(t, j.Commit())
			}
			require.NoError(t, checkNumbered(readJournal(t, j), 0))
			require.NoError(t, j.Close())
			s, err := Verify(mem, testDir, nil)
			require.NoError(t, err)
			require.EqualValues(t, 20, s.Records)
			if !failed {
				break // Renew has fewer operations
			}
		}
		require.Greater(t, n, int64(4))
	}
}

// TestRenewMakesTheDirectoryAgain: somebody removed it.
func TestRenewMakesTheDirectoryAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "j")
	o := Options{Dir: dir, SegmentBytes: minSegmentBytes}
	j := mustOpen(t, o)
	fill(t, j, 0, 2)
	require.NoError(t, os.RemoveAll(filepath.Dir(dir)))
	err := error(nil)
	for i := 0; err == nil && i < 100; i++ {
		numbered(j, i, 500)
		err = j.Commit()
	}
	require.ErrorIs(t, err, syscall.ENOENT)
	require.NoError(t, j.Renew())
	numbered(j, 0, 10)
	require.NoError(t, j.Commit())
	_, err = Open(o)
	require.ErrorIs(t, err, vfs.ErrLocked, "the new directory is taken")
	require.NoError(t, j.Close())
	require.Len(t, readJournal(t, mustOpen(t, o)), 1)
}

func TestCommitBeyondTheLimit(t *testing.T) {
	o := memOptions(vfs.NewMem())
	o.MaxBytes = 3 * minSegmentBytes
	j := mustOpen(t, o)
	err := error(nil)
	for i := 0; err == nil; i++ {
		numbered(j, i, 300)
		err = j.Commit()
	}
	require.ErrorIs(t, err, ErrFull)
	j.AppendMark(CheckpointBegun, 1)
	require.NoError(t, j.CommitBeyond())
	require.Equal(t, j.End(), j.Committed())
	j.AppendMark(CheckpointComplete, 1)
	require.ErrorIs(t, j.Commit(), ErrFull)
}
