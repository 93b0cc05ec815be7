package journal

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/internal/vfs"
)

// fill commits numbered records from number i until there are n segments. It
// returns the next number.
func fill(t testing.TB, j *Journal, i, n int) int {
	t.Helper()
	for ; j.Stats().Segments < n; i++ {
		numbered(j, i, 300)
		require.NoError(t, j.Commit())
	}
	return i
}

func names(t testing.TB, fs vfs.FS, suffix string) int {
	t.Helper()
	all, err := fs.List(testDir)
	require.NoError(t, err)
	n := 0
	for _, name := range all {
		if strings.HasSuffix(name, suffix) {
			n++
		}
	}
	return n
}

func TestTrimRecyclesAndRemoves(t *testing.T) {
	o := memOptions(vfs.NewMem())
	o.RecycleSegments = 2
	j := mustOpen(t, o)
	next := fill(t, j, 0, 6)
	require.ErrorIs(t, j.TrimBefore(j.End()+1), ErrPosition)
	require.NoError(t, j.TrimBefore(j.Start()))
	require.Equal(t, 6, j.Stats().Segments)

	cut := j.segments[4].base
	require.NoError(t, j.TrimBefore(cut+1))
	require.Equal(t, cut, j.Start())
	require.Equal(t, 2, names(t, o.FS, segmentSuffix))
	require.Equal(t, 2, names(t, o.FS, spareSuffix))
	require.Equal(t, int64(4*minSegmentBytes), j.Stats().DiskBytes)

	next = fill(t, j, next, 4)
	require.Equal(t, 0, names(t, o.FS, spareSuffix), "spares are used first")
	recs := readJournal(t, j)
	require.NoError(t, checkNumbered(recs, next-len(recs)))
	require.Equal(t, next-1, int(recs[len(recs)-1].Offset))
	_, err := j.NewReader(cut - 1)
	require.ErrorIs(t, err, ErrTrimmed)

	// Everything may go but the active segment; spares survive reopening.
	require.NoError(t, j.TrimBefore(j.End()))
	require.Equal(t, 1, j.Stats().Segments)
	end := j.End()
	require.NoError(t, j.Close())
	j = mustOpen(t, o)
	require.Equal(t, end, j.End())
	require.Equal(t, 1, j.Stats().Spares, "one of two became the new segment")
	require.NoError(t, j.Destroy())
	_, err = o.FS.List(testDir)
	require.Error(t, err)
}

func TestReaderKeepsItsSegments(t *testing.T) {
	o := memOptions(vfs.NewMem())
	j := mustOpen(t, o)
	next := fill(t, j, 0, 6)
	r, err := j.NewReader(j.Start())
	require.NoError(t, err)
	var rec Record
	require.NoError(t, r.Next(&rec))
	require.NoError(t, j.TrimBefore(j.End()))
	require.Equal(t, 6, j.Stats().Segments)
	fill(t, j, next, 8)
	rest, err := readAll(r)
	require.NoError(t, err)
	require.NoError(t, checkNumbered(rest, 1))
	require.Len(t, rest, next-1, "what was committed when the reader was made")
	require.NoError(t, j.TrimBefore(j.End()))
	require.Equal(t, 1, j.Stats().Segments)

	r, err = j.NewReader(j.Start())
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.ErrorIs(t, r.Next(&rec), ErrClosed)
	require.Empty(t, j.readers)
}

func TestFullJournalAcceptsAgainAfterTrim(t *testing.T) {
	o := memOptions(vfs.NewMem())
	o.MaxBytes = 3 * minSegmentBytes
	j := mustOpen(t, o)
	i := 0
	err := error(nil)
	for ; err == nil; i++ {
		numbered(j, i, 300)
		err = j.Commit()
	}
	require.ErrorIs(t, err, ErrFull)
	require.ErrorIs(t, j.Commit(), ErrFull)
	require.NoError(t, j.Err(), "full is not a fault")
	require.LessOrEqual(t, j.Stats().DiskBytes, o.MaxBytes+minSegmentBytes)
	require.NoError(t, j.TrimBefore(j.Committed()))
	require.NoError(t, j.Commit(), "the batch was kept")
	recs := readJournal(t, j)
	require.NoError(t, checkNumbered(recs, i-len(recs)))
}

func TestFailedTrimCanBeRepeated(t *testing.T) {
	fail := errors.New("no more")
	var armed bool
	o := memOptions(vfs.NewFault(vfs.NewMem(), func(op vfs.Op) error {
		if armed && (op.Kind == vfs.OpRename || op.Kind == vfs.OpRemove) {
			return fail
		}
		return nil
	}))
	j := mustOpen(t, o)
	n := fill(t, j, 0, 5)
	armed = true
	require.ErrorIs(t, j.TrimBefore(j.End()), fail)
	require.Len(t, readJournal(t, j), n, "nothing was lost")
	require.NoError(t, j.Commit())
	armed = false
	require.NoError(t, j.TrimBefore(j.End()))
	require.Equal(t, 1, j.Stats().Segments)
}

func TestFailureStaysUntilHeal(t *testing.T) {
	var armed bool
	o := memOptions(vfs.NewFault(vfs.NewMem(), func(op vfs.Op) error {
		if armed && op.Kind == vfs.OpSync {
			return syscall.EIO
		}
		return nil
	}))
	o.Durability = Disk
	j := mustOpen(t, o)
	numbered(j, 0, 100)
	require.NoError(t, j.Commit())
	acked := j.Committed()
	armed = true
	numbered(j, 1, 100)
	require.ErrorIs(t, j.Commit(), syscall.EIO)
	armed = false
	numbered(j, 2, 100)
	require.ErrorIs(t, j.Commit(), syscall.EIO, "a passing fault must not be forgotten")
	require.ErrorIs(t, j.Err(), syscall.EIO)
	require.Equal(t, acked, j.Committed())
	require.Len(t, readJournal(t, j), 1)
	require.NoError(t, j.Heal())
	require.NoError(t, checkNumbered(readJournal(t, j), 0))
	require.Equal(t, j.End(), j.Committed())
	require.Len(t, readJournal(t, j), 3)
}
