package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/internal/vfs"
)

func TestKeyText(t *testing.T) {
	k, err := NewKey()
	require.NoError(t, err)
	again, err := ParseKey(k.Text())
	require.NoError(t, err)
	require.Equal(t, k, again)
	other, err := NewKey()
	require.NoError(t, err)
	require.NotEqual(t, k.secret, other.secret)
	require.NotEqual(t, k.String(), other.String())
	for _, printed := range []string{k.String(), fmt.Sprintf("%v %+v %#v", k, k, k)} {
		require.NotContains(t, printed, string(bytes.TrimSpace(k.Text())))
	}
	for _, bad := range []string{"", "12", string(k.Text()[1:]), "x" + string(k.Text()[1:])} {
		_, err := ParseKey([]byte(bad))
		require.Error(t, err, "%q", bad)
	}
	k.Destroy()
	require.Zero(t, k.secret)
}

// TestEncryptedFilesGiveNothingAway but types and lengths.
func TestEncryptedFilesGiveNothingAway(t *testing.T) {
	secret := []byte("the quick brown fox")
	client := netip.MustParseAddrPort("192.0.2.7:50000")
	for _, key := range []*Key{nil, testKey} {
		o := Options{Dir: filepath.Join(t.TempDir(), "j"), Key: key}
		j := mustOpen(t, o)
		j.AppendOpen(ConnOpen{Conn: 1, Client: client, Server: client})
		j.AppendInput(1, 0, 0, secret)
		j.AppendOutputBytes(1, 0, secret)
		require.NoError(t, j.Close())
		files, err := filepath.Glob(filepath.Join(o.Dir, "*"))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		found := 0
		addr := client.Addr().As4()
		for _, path := range files {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			found += bytes.Count(b, secret) + bytes.Count(b, addr[:])
		}
		want := 4
		if key != nil {
			want = 0
		}
		require.Equal(t, want, found)
	}
}

// TestWithoutTheKey: no key, a wrong key and damage are told apart, and nothing is
// changed.
func TestWithoutTheKey(t *testing.T) {
	wrong, err := NewKey()
	require.NoError(t, err)
	for _, class := range classes {
		for key, want := range map[*Key]error{nil: ErrNoKey, wrong: ErrWrongKey} {
			o, recs := written(t, variant{class, testKey}, 30)
			o.Key = key
			err := requireUntouched(t, o)
			require.ErrorIs(t, err, want)
			require.NotErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, segmentName(1))

			r, err := OpenReader(o.FS, testDir, 0, key)
			require.NoError(t, err)
			_, err = readAll(r)
			require.ErrorIs(t, err, want)

			s, err := Verify(o.FS, testDir, key)
			if key != nil {
				require.ErrorIs(t, err, want)
				continue
			}
			require.NoError(t, err, "checksums need no key")
			require.True(t, s.Sealed)
			require.Len(t, recs, int(s.Records))
			path, off := offsetOf(t, o, recs[len(recs)/2].Position)
			overwrite(t, o.FS, path, off+30, []byte{1, 2, 3})
			_, err = Verify(o.FS, testDir, nil)
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorIs(t, requireUntouched(t, o), ErrNoKey)
		}
	}
}

// TestKeyOfAJournalInTheClear is for what is written from now on.
func TestKeyOfAJournalInTheClear(t *testing.T) {
	o, recs := written(t, variant{class: PageCache}, 30)
	o.Key = testKey
	j := mustOpen(t, o)
	numbered(j, len(recs), 100)
	require.NoError(t, j.Commit())
	require.NoError(t, checkNumbered(readJournal(t, j), 0))
	require.NoError(t, j.Close())
	s, err := Verify(o.FS, testDir, nil)
	require.NoError(t, err)
	require.True(t, s.Sealed)
	o.Key = nil
	require.ErrorIs(t, requireUntouched(t, o), ErrNoKey)
}

// TestForgery: what was changed by somebody who makes the checksums right is not
// read, be it a record or the header that its key is derived from.
func TestForgery(t *testing.T) {
	for name, forge := range map[string]func(h *header, segment []byte, at int64){
		"body":   func(_ *header, b []byte, at int64) { b[at+frameSize] ^= 1 },
		"tag":    func(_ *header, b []byte, at int64) { b[at+frameSize+int64(frameLength(b[at:]))-1] ^= 1 },
		"type":   func(_ *header, b []byte, at int64) { b[at+7] = byte(TypeOutputBytes) },
		"header": func(h *header, _ []byte, _ int64) { h.created++ },
		"salt":   func(h *header, _ []byte, _ int64) { h.keySalt[3]++ },
	} {
		t.Run(name, func(t *testing.T) {
			o, recs := written(t, variant{PageCache, testKey}, 3)
			path, at := offsetOf(t, o, recs[3].Position)
			b := contents(t, o.FS, path)
			h, err := decodeHeader(b)
			require.NoError(t, err)
			forge(&h, b, at)
			copy(b, h.encode())
			sealAll(h, b[headerSize:])
			overwrite(t, o.FS, path, 0, b)
			_, err = Verify(o.FS, testDir, nil)
			require.NoError(t, err, "the checksums are right")
			s, err := Verify(o.FS, testDir, testKey)
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, "not what was encrypted here")
			if h.created == 0 || name == "header" || name == "salt" {
				require.Zero(t, s.Records)
			} else {
				require.EqualValues(t, 3, s.Records)
			}
			require.ErrorIs(t, requireUntouched(t, o), ErrCorrupt)
		})
	}
}

// TestEachLifeOfASegmentHasItsOwnKey, also one that is begun again after a fault,
// with the same number and at the same position.
func TestEachLifeOfASegmentHasItsOwnKey(t *testing.T) {
	var headers [][]byte
	mem := vfs.NewMem()
	o := memOptions(nil)
	o.Key, o.Durability, o.RecycleSegments = testKey, Disk, 1
	o.FS = vfs.NewFault(mem, func(op vfs.Op) error {
		if op.Kind != vfs.OpSync {
			return nil
		}
		f, err := mem.Open(op.Path)
		require.NoError(t, err)
		b := make([]byte, headerSize)
		_, err = f.ReadAt(b, 0)
		require.NoError(t, err)
		if len(headers) == 0 || !bytes.Equal(b, headers[len(headers)-1]) {
			headers = append(headers, b)
			if len(headers)%2 == 0 {
				return errors.New("no luck")
			}
		}
		return nil
	})
	j := mustOpen(t, o)
	for i := range 60 {
		numbered(j, i, 300)
		for err := j.Commit(); err != nil; err = j.Heal() {
			require.ErrorContains(t, err, "no luck")
		}
		if i%10 == 9 {
			require.NoError(t, j.TrimBefore(j.Committed()))
		}
	}
	require.Greater(t, len(headers), 6)
	salts, numbers := map[string]bool{}, map[uint64]int{}
	for _, b := range headers {
		h, err := decodeHeader(b)
		require.NoError(t, err)
		salts[string(h.keySalt[:])] = true
		numbers[h.seq]++
	}
	require.Len(t, salts, len(headers))
	require.Less(t, len(numbers), len(headers), "no segment was begun twice")
}

// TestVersion1 reads a journal that crsc 0.1 wrote, and goes on with it.
func TestVersion1(t *testing.T) {
	for _, key := range []*Key{nil, testKey} {
		o := Options{Dir: filepath.Join(t.TempDir(), "j"), Key: key, SegmentBytes: minSegmentBytes}
		require.NoError(t, os.Mkdir(o.Dir, 0o700))
		files, err := filepath.Glob("testdata/version1/*.seg")
		require.NoError(t, err)
		require.Len(t, files, 3)
		for _, path := range files {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.EqualValues(t, 1, binary.LittleEndian.Uint16(b[8:]))
			require.NoError(t, os.WriteFile(filepath.Join(o.Dir, filepath.Base(path)), b, 0o600))
		}
		j := mustOpen(t, o)
		require.Nil(t, j.Recovered().Torn)
		recs := readJournal(t, j)
		require.Len(t, recs, 33)
		require.Equal(t, ContainerStart, recs[0].Mark)
		require.Equal(t, "192.0.2.7:50000", recs[1].Open.Client.String())
		require.NoError(t, checkNumbered(recs[2:32], 0))
		require.Equal(t, TypeClose, recs[32].Type)
		numbered(j, 30, 100)
		require.NoError(t, j.Close())
		s, err := Verify(nil, o.Dir, key)
		require.NoError(t, err)
		require.EqualValues(t, 34, s.Records)
		require.Equal(t, 4, s.Segments)

		damaged := filepath.Join(o.Dir, segmentName(2))
		b, err := os.ReadFile(damaged)
		require.NoError(t, err)
		b[headerSize1+100] ^= 1
		require.NoError(t, os.WriteFile(damaged, b, 0o600))
		_, err = Verify(nil, o.Dir, key)
		require.ErrorIs(t, err, ErrCorrupt)
	}
}
