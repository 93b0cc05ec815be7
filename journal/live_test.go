package journal

import (
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/internal/vfs"
)

// TestReadAndTrimWhileWriting runs with -race: readers, trimming, statistics
// and readers of the files beside the writer.
func TestReadAndTrimWhileWriting(t *testing.T) {
	for _, class := range []Durability{Memory, PageCache} {
		t.Run(class.String(), func(t *testing.T) {
			o := Options{Dir: t.TempDir() + "/j", SegmentBytes: 64 << 10, Durability: class, MemoryBytes: 40 << 10}
			j := mustOpen(t, o)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			loop := func(f func() error) {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if err := f(); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			reads := 0
			loop(func() error {
				r, err := j.NewReader(j.Start())
				if errors.Is(err, ErrTrimmed) {
					return nil // trimmed between the two calls
				}
				if err != nil {
					return err
				}
				recs, err := readAll(r)
				if err != nil || len(recs) == 0 {
					return err
				}
				reads++
				return checkNumbered(recs, int(recs[0].Offset))
			})
			loop(func() error {
				time.Sleep(5 * time.Millisecond)
				if since := j.Since(j.Start()); since < 300<<10 {
					return nil
				}
				return j.TrimBefore(j.Committed())
			})
			loop(func() error { j.Stats(); return nil })
			loop(func() error { return readLive(o) })

			for i := range 20000 {
				numbered(j, i, i%500)
				if i%7 == 0 {
					require.NoError(t, j.Commit())
				}
			}
			close(stop)
			wg.Wait()
			require.NoError(t, j.Close())
			require.NotZero(t, reads)
		})
	}
}

// readLive reads the files as another process does: the end may be torn, a
// segment may be trimmed meanwhile, but nothing is corrupt.
func readLive(o Options) error {
	r, err := OpenReader(vfs.OS(), o.Dir, 0, nil)
	if errors.Is(err, ErrTrimmed) {
		return nil
	}
	if err != nil {
		return err
	}
	recs, err := readAll(r)
	if len(recs) > 0 {
		if err := checkNumbered(recs, int(recs[0].Offset)); err != nil {
			return err
		}
	}
	if err == nil || err == io.EOF || errors.Is(err, ErrTornTail) || errors.Is(err, ErrTrimmed) {
		return nil
	}
	return err
}

// TestWriterOvertakesAReaderOfFiles lets a writer commit, roll and trim before
// each single read of a reader in another process. The reader must not take
// the change for damage.
func TestWriterOvertakesAReaderOfFiles(t *testing.T) {
	for _, trim := range []bool{false, true} {
		for nth := 1; ; nth++ {
			mem := vfs.NewMem()
			j := mustOpen(t, memOptions(mem))
			next := fill(t, j, 0, 2)
			reads := 0
			live := vfs.NewFault(mem, func(op vfs.Op) error {
				if op.Kind != vfs.OpRead {
					return nil
				}
				if reads++; reads == nth {
					for range 3 {
						numbered(j, next, 100)
						next++
						require.NoError(t, j.Commit())
					}
					if trim {
						next = fill(t, j, next, 4)
						require.NoError(t, j.TrimBefore(j.Committed()))
						next = fill(t, j, next, 3)
					}
				}
				return nil
			})
			r, err := OpenReader(live, testDir, 0, nil)
			if err == nil {
				var recs []Record
				recs, err = readAll(r)
				if len(recs) > 0 {
					require.NoError(t, checkNumbered(recs, int(recs[0].Offset)))
				}
			}
			if err != nil {
				require.True(t, trim && errors.Is(err, ErrTrimmed), "read %d: %v", nth, err)
			}
			if reads < nth {
				require.Greater(t, nth, 5)
				break
			}
		}
	}
}
