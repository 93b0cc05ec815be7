package journal

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/internal/vfs"
)

// FuzzReader reads arbitrary bytes as a segment. With sealed set, the checksums
// of what can be taken as frames are made right first, so that the fuzzer gets
// at the decoding of bodies.
func FuzzReader(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 1))
	for n := range 8 {
		o := memOptions(vfs.NewMem())
		j := mustOpen(f, o)
		for range n {
			appendRandom(j, rng, 40)
		}
		require.NoError(f, j.Close())
		b := contents(f, o.FS, segmentFiles(f, o.FS)[0])
		f.Add(b[headerSize:], true, byte(n%3))
		f.Add(b, false, byte(n%3))
	}
	f.Add(append([]byte{1, 2, 3, 4, 8, 0, 0, 1}, make([]byte, 4096)...), true, byte(0))
	f.Fuzz(func(t *testing.T, data []byte, sealed bool, class byte) {
		h := header{journal: 7, seq: 1, base: firstPosition, class: Memory + Durability(class%3)}
		file := data
		if sealed {
			file = append(h.encode(), data...)
			sealAll(h, file[headerSize:])
		}
		fs := vfs.NewMem()
		require.NoError(t, fs.MkdirAll(testDir))
		out, err := fs.Create(filepath.Join(testDir, segmentName(1)))
		require.NoError(t, err)
		_, err = out.WriteAt(file, 0)
		require.NoError(t, errors.Join(err, out.Close()))

		r, err := OpenReader(fs, testDir, 0)
		if err == nil {
			var recs []Record
			recs, err = readAll(r)
			checkOrder(t, recs)
			if err == nil || errors.Is(err, ErrTornTail) {
				checkOpens(t, fs, len(recs))
				return
			}
		}
		known := errors.Is(err, ErrTornTail) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnsupportedVersion)
		require.True(t, known, "%v", err)
	})
}

// sealAll sets the checksums of all whole frames in b.
func sealAll(h header, b []byte) {
	pos := h.base
	for len(b) >= frameSize {
		n := frameSize + frameLength(b)
		if n > len(b) || allZero(b[:frameSize]) {
			return
		}
		seal(h.salt(), pos, b[:n])
		pos, b = pos+Position(n), b[n:]
	}
}

func checkOrder(t *testing.T, recs []Record) {
	for i, r := range recs {
		require.Less(t, r.Position, r.End)
		require.LessOrEqual(t, len(r.Payload), MaxPayload)
		if i > 0 {
			require.GreaterOrEqual(t, r.Position, recs[i-1].End)
		}
	}
}

// checkOpens: what reads cleanly, or with a torn tail, can be continued.
func checkOpens(t *testing.T, fs vfs.FS, n int) {
	o := memOptions(fs)
	j := mustOpen(t, o)
	require.Equal(t, uint64(n), j.Recovered().Records)
	numbered(j, 0, 5)
	require.NoError(t, j.Close())
	s, err := Verify(fs, testDir)
	require.NoError(t, err)
	require.Equal(t, uint64(n+1), s.Records)
}
