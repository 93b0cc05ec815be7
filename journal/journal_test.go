package journal

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/internal/vfs"
)

var classes = []Durability{Memory, PageCache, Disk}

func TestRoundTripOnDisk(t *testing.T) {
	for _, v := range variants {
		t.Run(v.String(), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, uint64(v.class)))
			o := Options{Dir: filepath.Join(t.TempDir(), "a", "journal"), SegmentBytes: 32 << 10, Durability: v.class, Key: v.key, MemoryBytes: 64 << 10}
			j := mustOpen(t, o)
			var want []Record
			for range 200 {
				for range rng.IntN(20) {
					want = append(want, appendRandom(j, rng, 3000))
				}
				require.NoError(t, j.Commit())
				require.Equal(t, j.End(), j.Committed())
			}
			requireSame(t, want, readJournal(t, j))
			stats := j.Stats()
			require.Equal(t, uint64(len(want)), stats.Records)
			require.Greater(t, stats.Segments, 3)
			require.Equal(t, int64(j.End()-1), j.Since(1))
			end := j.End()
			require.NoError(t, j.Close())
			require.ErrorIs(t, j.Close(), ErrClosed)

			j = mustOpen(t, o)
			require.Equal(t, end, j.End(), "positions survive reopening")
			require.Equal(t, uint64(len(want)), j.Recovered().Records)
			require.Nil(t, j.Recovered().Torn)
			requireSame(t, want, readJournal(t, j))
			require.NoError(t, j.Destroy())
			_, err := os.Stat(o.Dir)
			require.ErrorIs(t, err, os.ErrNotExist)
		})
	}
}

// TestPropertyReopenTrimRead does random things and compares with a list.
func TestPropertyReopenTrimRead(t *testing.T) {
	for seed := range uint64(15) {
		for _, v := range variants {
			t.Run(fmt.Sprintf("%v/%d", v, seed), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 7))
				o := memOptions(vfs.NewMem())
				o.Durability, o.Key, o.MemoryBytes, o.RecycleSegments = v.class, v.key, 1+rng.IntN(20000), rng.IntN(4)-1
				j := mustOpen(t, o)
				var want []Record
				for range 150 {
					switch k := rng.IntN(20); {
					case k == 0:
						require.NoError(t, j.Close())
						j = mustOpen(t, o)
						require.Nil(t, j.Recovered().Torn)
					case k == 1 && len(want) > 0:
						i := rng.IntN(len(want))
						require.NoError(t, j.TrimBefore(want[i].Position))
						for len(want) > 0 && want[0].Position < j.Start() {
							want = want[1:]
						}
					case k < 4 && len(want) > 0:
						i := rng.IntN(len(want))
						r, err := j.NewReader(want[i].Position)
						require.NoError(t, err)
						got, err := readAll(r)
						require.NoError(t, err)
						requireSame(t, want[i:], got)
					default:
						for range rng.IntN(8) {
							want = append(want, appendRandom(j, rng, rng.IntN(6000)))
						}
						require.NoError(t, j.Commit())
					}
				}
				requireSame(t, want, readJournal(t, j))
				require.NoError(t, j.Close())
				s, err := Verify(o.FS, testDir, nil)
				require.NoError(t, err)
				require.Equal(t, len(want), int(s.Records))
			})
		}
	}
}

func TestReaderPositions(t *testing.T) {
	o := memOptions(vfs.NewMem())
	o.Durability = Memory
	o.MemoryBytes = 3000
	j := mustOpen(t, o)
	starts := map[Position]bool{}
	for i := range 100 {
		starts[numbered(j, i, 50)] = true
		require.NoError(t, j.Commit())
	}
	require.NotZero(t, j.Pending(), "the last records are in memory")
	good := 0
	for p := j.Start(); p <= j.End(); p++ {
		r, err := j.NewReader(p)
		var rec Record
		if err == nil {
			err = r.Next(&rec)
			require.NoError(t, r.Close())
		}
		switch {
		case starts[p]:
			require.NoError(t, err)
			require.Equal(t, p, rec.Position)
			good++
		case err != nil && p != j.End():
			require.ErrorIs(t, err, ErrPosition, "position %d", p)
		}
	}
	require.Equal(t, len(starts), good)
	_, err := j.NewReader(j.End() + 1)
	require.ErrorIs(t, err, ErrPosition)
	_, err = j.NewReader(0)
	require.ErrorIs(t, err, ErrTrimmed)
}

func TestBatchTimes(t *testing.T) {
	o := memOptions(vfs.NewMem())
	j := mustOpen(t, o)
	for i := range 3 {
		numbered(j, 2*i, 10)
		numbered(j, 2*i+1, 10)
		require.NoError(t, j.Commit())
	}
	recs := readJournal(t, j)
	require.Len(t, recs, 6)
	for i := 0; i < 6; i += 2 {
		require.Equal(t, recs[i].Time, recs[i+1].Time)
	}
	require.True(t, recs[0].Time.Before(recs[2].Time))
	require.True(t, recs[2].Time.Before(recs[4].Time))
}

func TestNothingIsVisibleBeforeCommit(t *testing.T) {
	j := mustOpen(t, memOptions(vfs.NewMem()))
	numbered(j, 0, 10)
	require.Empty(t, readJournal(t, j))
	require.NoError(t, j.Commit())
	require.Len(t, readJournal(t, j), 1)
}

func TestAppendDoesNotAllocate(t *testing.T) {
	t.Run("clear", func(t *testing.T) { requireNoAllocations(t, nil) })
	t.Run("encrypted", func(t *testing.T) { requireNoAllocations(t, testKey) })
}

func requireNoAllocations(t *testing.T, key *Key) {
	j := mustOpen(t, Options{Dir: filepath.Join(t.TempDir(), "j"), Key: key})
	open := ConnOpen{Conn: 1, Client: netip.MustParseAddrPort("[fd00::1]:80"), LegPort: 3}
	data := make([]byte, 4096)
	appendAll := func() {
		j.AppendOpen(open)
		j.AppendInput(1, 1<<40, 1<<30, data)
		j.AppendConsumed(1, 99)
		j.AppendOutput(1, 5, 77, 1<<60)
		j.AppendOutputBytes(1, 5, data[:64])
		j.AppendClose(1, Out, RST, 1<<33)
		j.AppendMark(CheckpointBegun, 8)
	}
	const runs = 100
	for range 2 * runs {
		appendAll() // the batch reaches its size
	}
	require.NoError(t, j.Commit())
	require.Zero(t, testing.AllocsPerRun(runs, appendAll))
	require.Zero(t, testing.AllocsPerRun(runs, func() {
		appendAll()
		if err := j.Commit(); err != nil {
			t.Fatal(err)
		}
	}), "nor does Commit")
}

func TestOneWriterOnly(t *testing.T) {
	o := Options{Dir: filepath.Join(t.TempDir(), "j")}
	j := mustOpen(t, o)
	_, err := Open(o)
	require.ErrorIs(t, err, vfs.ErrLocked)
	require.NoError(t, j.Close())
	require.NoError(t, mustOpen(t, o).Close())
}

func TestReopeningLeavesNoEmptySegments(t *testing.T) {
	o := memOptions(vfs.NewMem())
	for range 5 {
		require.NoError(t, mustOpen(t, o).Close())
	}
	require.Len(t, segmentFiles(t, o.FS), 1)
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{},
		{Dir: "/x", SegmentBytes: 100},
		{Dir: "/x", SegmentBytes: 2 << 30},
		{Dir: "/x", Durability: 9},
		{Dir: "/x", MaxBytes: 1},
		{Dir: "/x", MemoryBytes: -1},
		{Dir: "/x", MaxBatchBytes: 1},
	} {
		o.FS = vfs.NewMem()
		_, err := Open(o)
		require.Error(t, err, "%+v", o)
	}
	for _, class := range classes {
		got, err := ParseDurability(class.String())
		require.NoError(t, err)
		require.Equal(t, class, got)
	}
	_, err := ParseDurability("tape")
	require.Error(t, err)
}

func TestLargestAndTooLargeRecords(t *testing.T) {
	o := memOptions(vfs.NewMem())
	j := mustOpen(t, o)
	require.NotZero(t, numbered(j, 0, MaxPayload), "larger than a segment")
	require.NotZero(t, numbered(j, 1, 0))
	require.NoError(t, j.Commit())
	require.NoError(t, checkNumbered(readJournal(t, j), 0))

	require.Zero(t, j.AppendInput(1, 1, 1, make([]byte, MaxPayload+1)))
	require.ErrorIs(t, j.Commit(), ErrRecordTooLarge)
	require.ErrorIs(t, j.Commit(), ErrRecordTooLarge, "it is not forgotten")
	require.NoError(t, j.Heal())
	require.NoError(t, j.Close())
	require.NoError(t, checkNumbered(readJournal(t, mustOpen(t, o)), 0))
}

func TestBatchIsBounded(t *testing.T) {
	o := memOptions(vfs.NewMem())
	o.MaxBatchBytes = 2 * MaxPayload
	j := mustOpen(t, o)
	i := 0
	for numbered(j, i, 10000) != 0 {
		i++
	}
	require.LessOrEqual(t, j.Pending(), o.MaxBatchBytes)
	require.ErrorIs(t, j.Commit(), ErrBatchFull)
	require.NoError(t, j.Heal())
	recs := readJournal(t, j)
	require.Len(t, recs, i)
	require.NoError(t, checkNumbered(recs, 0))
}
