package journal

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/internal/vfs"
)

// written makes a journal with n batches of two records and closes it.
func written(t testing.TB, v variant, n int) (Options, []Record) {
	t.Helper()
	o := memOptions(vfs.NewMem())
	o.Durability, o.Key = v.class, v.key
	j := mustOpen(t, o)
	for i := range n {
		numbered(j, 2*i, 200)
		numbered(j, 2*i+1, 200)
		require.NoError(t, j.Commit())
	}
	recs := readJournal(t, j)
	require.NoError(t, j.Close())
	return o, recs
}

// offsetOf returns the segment and the offset in it of a position.
func offsetOf(t testing.TB, o Options, p Position) (string, int64) {
	t.Helper()
	l, err := inspect(o.FS, testDir)
	require.NoError(t, err)
	for i := len(l.segments) - 1; i >= 0; i-- {
		if s := &l.segments[i]; s.base <= p {
			return s.path, s.offset(p)
		}
	}
	t.Fatalf("position %d is in no segment", p)
	return "", 0
}

// requireUntouched opens the journal, which must fail, and checks that it did
// not change a byte.
func requireUntouched(t *testing.T, o Options) error {
	t.Helper()
	before := map[string][]byte{}
	names, err := o.FS.List(testDir)
	require.NoError(t, err)
	for _, name := range names {
		before[name] = contents(t, o.FS, filepath.Join(testDir, name))
	}
	_, openErr := Open(o)
	require.Error(t, openErr)
	after, err := o.FS.List(testDir)
	require.NoError(t, err)
	require.Equal(t, names, after)
	for _, name := range names {
		require.Equal(t, before[name], contents(t, o.FS, filepath.Join(testDir, name)), name)
	}
	return openErr
}

func TestCorruptionNamesFileAndOffset(t *testing.T) {
	for _, v := range variants {
		o, recs := written(t, v, 30)
		require.Greater(t, len(segmentFiles(t, o.FS)), 2)
		bad := recs[len(recs)/2]
		path, off := offsetOf(t, o, bad.Position)
		flip(t, o.FS, path, off+20)

		err := requireUntouched(t, o)
		require.ErrorIs(t, err, ErrCorrupt)
		require.NotErrorIs(t, err, ErrTornTail)
		require.NotErrorIs(t, err, ErrUnsupportedVersion)
		var corruption *CorruptionError
		require.ErrorAs(t, err, &corruption)
		require.Equal(t, path, corruption.File)
		require.Equal(t, off, corruption.Offset)

		s, err := Verify(o.FS, testDir, nil)
		require.ErrorIs(t, err, ErrCorrupt)
		require.Equal(t, len(recs)/2, int(s.Records), "what precedes the damage is readable")
	}
}

// TestDamageInTheLastSegment damages each record of the last segment. Only the
// last batch can have been interrupted; and of the classes below Disk, only
// its last record.
func TestDamageInTheLastSegment(t *testing.T) {
	for _, v := range variants {
		// Built anew for each record, since Open repairs.
		_, recs := written(t, v, 3)
		for i, bad := range recs {
			for _, damage := range []func(path string, off int64, fs vfs.FS){
				func(path string, off int64, fs vfs.FS) { flip(t, fs, path, off) },
				func(path string, off int64, fs vfs.FS) { overwrite(t, fs, path, off, make([]byte, 60)) },
			} {
				o, _ := written(t, v, 3)
				path, off := offsetOf(t, o, bad.Position)
				damage(path, off+30, o.FS)
				_, err := Verify(o.FS, testDir, nil)
				torn := i == len(recs)-1 || v.class == Disk && i == len(recs)-2
				if !torn {
					require.ErrorIs(t, err, ErrCorrupt, "%v, record %d", v, i)
					continue
				}
				require.ErrorIs(t, err, ErrTornTail, "%v, record %d", v, i)
				j := mustOpen(t, o)
				require.Equal(t, off, j.Recovered().Torn.Offset)
				require.Equal(t, path, j.Recovered().Torn.File)
				require.Len(t, readJournal(t, j), i)
				require.NoError(t, j.Close())
				_, err = Verify(o.FS, testDir, nil)
				require.NoError(t, err, "Open has repaired it")
			}
		}
	}
}

func TestZeroedMiddleIsCorruption(t *testing.T) {
	for _, v := range variants {
		o, recs := written(t, v, 3)
		path, off := offsetOf(t, o, recs[0].Position)
		commit := Position(commitFrame)
		if v.key != nil {
			commit += tagSize
		}
		overwrite(t, o.FS, path, off, make([]byte, recs[2].Position-recs[0].Position-commit))
		require.ErrorIs(t, requireUntouched(t, o), ErrCorrupt)
	}
}

func TestMissingSegmentIsCorruption(t *testing.T) {
	o, _ := written(t, variant{class: PageCache}, 60)
	files := segmentFiles(t, o.FS)
	require.Greater(t, len(files), 3)
	require.NoError(t, o.FS.Remove(files[2]))
	require.ErrorIs(t, requireUntouched(t, o), ErrCorrupt)
}

func TestForeignSegmentIsCorruption(t *testing.T) {
	o, _ := written(t, variant{class: PageCache}, 60)
	other, _ := written(t, variant{class: PageCache}, 60)
	files := segmentFiles(t, o.FS)
	mine, theirs := contents(t, o.FS, files[2]), contents(t, other.FS, files[2])
	overwrite(t, o.FS, files[2], 0, theirs)
	require.ErrorIs(t, requireUntouched(t, o), ErrCorrupt)
	// Nor do its records belong under our header, at the same positions.
	overwrite(t, o.FS, files[2], 0, mine[:headerSize])
	require.ErrorIs(t, requireUntouched(t, o), ErrCorrupt)
	overwrite(t, o.FS, files[2], 0, mine)
	_, err := Verify(o.FS, testDir, nil)
	require.NoError(t, err)
}

func TestDamagedHeaders(t *testing.T) {
	o, _ := written(t, variant{class: PageCache}, 60)
	files := segmentFiles(t, o.FS)
	for i, path := range files {
		saved := contents(t, o.FS, path)[:headerSize]
		for off := range int64(headerSize) {
			overwrite(t, o.FS, path, off, []byte{saved[off] ^ 0x40})
			_, err := Verify(o.FS, testDir, nil)
			require.ErrorIs(t, err, ErrCorrupt, "segment %d, byte %d", i, off)
			overwrite(t, o.FS, path, off, saved[off:off+1])
		}
		overwrite(t, o.FS, path, 0, make([]byte, headerSize))
		_, err := Verify(o.FS, testDir, nil)
		require.ErrorIs(t, err, ErrCorrupt, "segment %d without header", i)
		overwrite(t, o.FS, path, 0, saved)
	}
	_, err := Verify(o.FS, testDir, nil)
	require.NoError(t, err)
}

func TestNewerVersionIsUnsupported(t *testing.T) {
	o, _ := written(t, variant{class: PageCache}, 60)
	for _, path := range segmentFiles(t, o.FS) {
		saved := contents(t, o.FS, path)[:headerSize]
		h := append([]byte(nil), saved...)
		h[8] = 3
		crc := headerChecksum(h)
		h[12], h[13], h[14], h[15] = byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24)
		overwrite(t, o.FS, path, 0, h)
		err := requireUntouched(t, o)
		require.ErrorIs(t, err, ErrUnsupportedVersion)
		require.NotErrorIs(t, err, ErrCorrupt)
		var version *VersionError
		require.ErrorAs(t, err, &version)
		require.Equal(t, VersionError{File: path, Version: 3}, *version)
		overwrite(t, o.FS, path, 0, saved)
	}
}

func TestUnfinishedSegmentIsATornTail(t *testing.T) {
	o := memOptions(vfs.NewMem())
	require.NoError(t, o.FS.MkdirAll(testDir))
	_, err := Verify(o.FS, testDir, nil)
	require.ErrorIs(t, err, ErrNoJournal)
	f, err := o.FS.Create(filepath.Join(testDir, segmentName(1)))
	require.NoError(t, errors.Join(err, f.Preallocate(4096), f.Close()))
	_, err = Verify(o.FS, testDir, nil)
	require.ErrorIs(t, err, ErrTornTail)
	j := mustOpen(t, o)
	require.NotNil(t, j.Recovered().Torn)
	numbered(j, 0, 10)
	require.NoError(t, j.Close())
	require.Len(t, readJournal(t, mustOpen(t, o)), 1)
}

// TestAnyDamageLeavesAPrefix: whatever happens to the bytes, what is read is a
// prefix of what was written.
func TestAnyDamageLeavesAPrefix(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 11))
		o, recs := written(t, variants[seed%6], 20)
		files := segmentFiles(t, o.FS)
		for range 1 + rng.IntN(3) {
			path := files[rng.IntN(len(files))]
			b := contents(t, o.FS, path)
			damage := make([]byte, 1+rng.IntN(64))
			if rng.IntN(2) == 0 {
				copy(damage, b[rng.IntN(len(b)):])
			} else {
				for i := range damage {
					damage[i] = byte(rng.Uint32())
				}
			}
			overwrite(t, o.FS, path, int64(rng.IntN(len(b))), damage)
		}
		r, err := OpenReader(o.FS, testDir, 0, o.Key)
		if err != nil {
			require.Truef(t, errors.Is(err, ErrCorrupt) || errors.Is(err, ErrTornTail), "%v", err)
			continue
		}
		got, _ := readAll(r)
		require.LessOrEqual(t, len(got), len(recs))
		requireSame(t, recs[:len(got)], got)
	}
}

// TestStaleRecordsOfARecycledSegmentAreNotRead ends a journal in a recycled
// segment at every possible length of the new life.
func TestStaleRecordsOfARecycledSegmentAreNotRead(t *testing.T) {
	for _, v := range variants {
		for n := 1; n < 30; n++ {
			o := memOptions(vfs.NewMem())
			o.Durability, o.Key, o.RecycleSegments = v.class, v.key, 1
			j := mustOpen(t, o)
			i := 0
			for ; j.Stats().Segments < 3; i++ {
				numbered(j, i, 100)
				require.NoError(t, errors.Join(j.Commit(), j.writeOut()))
			}
			require.NoError(t, j.TrimBefore(j.Committed()))
			require.Equal(t, 1, j.Stats().Spares)
			for ; j.Stats().Spares == 1; i++ {
				numbered(j, i, 100)
				require.NoError(t, errors.Join(j.Commit(), j.writeOut()))
			}
			for k := range n {
				numbered(j, i, k)
				i++
				require.NoError(t, errors.Join(j.Commit(), j.writeOut()))
			}
			// The process is killed here: nothing is cut.
			after := o.FS.(*vfs.MemFS).CrashClone(vfs.AllWritten, nil)
			s, err := Verify(after, testDir, o.Key)
			require.NoError(t, err, "%v: a clean end", v)
			r, err := OpenReader(after, testDir, 0, o.Key)
			require.NoError(t, err)
			recs, err := readAll(r)
			require.NoError(t, err)
			require.NoError(t, checkNumbered(recs, int(recs[0].Offset)))
			require.Equal(t, i-1, int(recs[len(recs)-1].Offset))
			require.Equal(t, len(recs), int(s.Records))
		}
	}
}

func TestNoJournalAtAll(t *testing.T) {
	_, err := Verify(vfs.OS(), filepath.Join(t.TempDir(), "none"), nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Verify(vfs.OS(), t.TempDir(), nil)
	require.ErrorIs(t, err, ErrNoJournal)
}

// TestTornSegmentWithASuccessorIsCorruption: a segment is complete before the
// next file is begun.
func TestTornSegmentWithASuccessorIsCorruption(t *testing.T) {
	o, recs := written(t, variant{class: Disk}, 3)
	path, off := offsetOf(t, o, recs[len(recs)-1].Position)
	overwrite(t, o.FS, path, off+30, make([]byte, 60))
	_, err := Verify(o.FS, testDir, nil)
	require.ErrorIs(t, err, ErrTornTail)
	f, err := o.FS.Create(filepath.Join(testDir, segmentName(2)))
	require.NoError(t, errors.Join(err, f.Preallocate(minSegmentBytes), f.Close()))
	require.ErrorIs(t, requireUntouched(t, o), ErrCorrupt)
}
