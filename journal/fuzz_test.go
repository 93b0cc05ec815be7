package journal

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/internal/vfs"
)

// FuzzReader reads arbitrary bytes as a segment, of either version, in the clear or
// encrypted. With sealed set, the checksums of what can be taken as frames are made
// right first, and what can be taken as bodies is encrypted, so that the fuzzer gets
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
		for kind := range byte(9) {
			f.Add(b[headerSize:], true, kind)
		}
		f.Add(b, false, byte(n%3))
	}
	f.Add(append([]byte{1, 2, 3, 4, 8, 0, 0, 1}, make([]byte, 4096)...), true, byte(0))
	f.Fuzz(func(t *testing.T, data []byte, sealed bool, kind byte) {
		h := header{journal: 7, seq: 1, base: firstPosition, class: Memory + Durability(kind%3), version: uint16(1 + min(kind/3%3, 1))}
		var key *Key
		file := data
		if kind/3%3 == 2 {
			var err error
			key, h.cipher = testKey, cipherAES
			h.keyID, err = key.id()
			require.NoError(t, err)
		}
		if sealed {
			file = append(h.encode(), data...)
			encryptAll(t, h, key, file[h.encodedSize():])
			sealAll(h, file[h.encodedSize():])
		}
		fs := vfs.NewMem()
		require.NoError(t, fs.MkdirAll(testDir))
		out, err := fs.Create(filepath.Join(testDir, segmentName(1)))
		require.NoError(t, err)
		_, err = out.WriteAt(file, 0)
		require.NoError(t, errors.Join(err, out.Close()))

		r, err := OpenReader(fs, testDir, 0, key)
		if err == nil {
			var recs []Record
			recs, err = readAll(r)
			checkOrder(t, recs)
			if err == nil || errors.Is(err, ErrTornTail) {
				checkOpens(t, fs, len(recs), key)
				return
			}
		}
		known := errors.Is(err, ErrTornTail) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnsupportedVersion)
		require.True(t, known, "%v", err)
	})
}

// encryptAll encrypts the bodies of all whole frames in b that have room for a tag.
func encryptAll(t *testing.T, h header, key *Key, b []byte) {
	c, err := h.records(key)
	require.NoError(t, err)
	for pos := h.base; c != nil && len(b) >= frameSize; {
		n := frameSize + frameLength(b)
		if n > len(b) || allZero(b[:frameSize]) {
			return
		}
		if n >= frameSize+tagSize {
			copy(b, c.seal(nil, h.salt(), pos, b[:n]))
		}
		pos, b = pos+Position(n), b[n:]
	}
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
func checkOpens(t *testing.T, fs vfs.FS, n int, key *Key) {
	o := memOptions(fs)
	o.Key = key
	j := mustOpen(t, o)
	require.Equal(t, uint64(n), j.Recovered().Records)
	numbered(j, 0, 5)
	require.NoError(t, j.Close())
	s, err := Verify(fs, testDir, key)
	require.NoError(t, err)
	require.Equal(t, uint64(n+1), s.Records)
}
