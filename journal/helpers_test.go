package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/internal/vfs"
)

const testDir = "/state/journal"

// clock returns a Now that starts in 2026 and advances a millisecond a call.
func clock() func() time.Time {
	t := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return func() time.Time {
		t = t.Add(time.Millisecond)
		return t
	}
}

// variant is a class of durability, in the clear or encrypted.
type variant struct {
	class Durability
	key   *Key
}

func (v variant) String() string {
	if v.key != nil {
		return v.class.String() + "-encrypted"
	}
	return v.class.String()
}

var (
	testKey  = &Key{secret: [KeySize]byte{1, 2, 3}}
	variants = []variant{{Memory, nil}, {PageCache, nil}, {Disk, nil}, {Memory, testKey}, {PageCache, testKey}, {Disk, testKey}}
)

func memOptions(fs vfs.FS) Options {
	return Options{Dir: testDir, FS: fs, SegmentBytes: minSegmentBytes, Now: clock()}
}

func mustOpen(t testing.TB, o Options) *Journal {
	t.Helper()
	j, err := Open(o)
	require.NoError(t, err)
	return j
}

// readAll returns copies of all records, and the error that ended them (nil
// for io.EOF).
func readAll(r *Reader) ([]Record, error) {
	var all []Record
	var rec Record
	for {
		err := r.Next(&rec)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		c := rec
		c.Payload = append([]byte(nil), rec.Payload...)
		all = append(all, c)
	}
}

// readJournal reads what the open journal shows, from its start.
func readJournal(t testing.TB, j *Journal) []Record {
	t.Helper()
	r, err := j.NewReader(j.Start())
	require.NoError(t, err)
	all, err := readAll(r)
	require.NoError(t, err)
	return all
}

// payload returns n bytes that only this record has.
func payload(i, n int) []byte {
	b := make([]byte, n)
	for k := range b {
		b[k] = byte(i*31 + k*7)
	}
	if n >= 8 {
		binary.LittleEndian.PutUint64(b, uint64(i))
	}
	return b
}

// numbered appends record number i: an input whose offset is its number.
func numbered(j *Journal, i, n int) Position {
	return j.AppendInput(uint32(i%7), uint64(i), uint64(i)*3, payload(i, n))
}

// checkNumbered fails unless recs are the numbered records from first on.
func checkNumbered(recs []Record, first int) error {
	for i, r := range recs {
		want := first + i
		if r.Type != TypeInput || r.Offset != uint64(want) || r.OutPos != uint64(want)*3 || r.Conn != uint32(want%7) {
			return fmt.Errorf("record %d: got %+v", want, r)
		}
		if string(r.Payload) != string(payload(want, len(r.Payload))) {
			return fmt.Errorf("record %d: wrong payload", want)
		}
	}
	return nil
}

func randomAddr(rng *rand.Rand) netip.AddrPort {
	var ip netip.Addr
	switch rng.IntN(5) {
	case 0:
		return netip.AddrPort{}
	case 1:
		ip = netip.AddrFrom4([4]byte{10, byte(rng.Uint32()), 1, 2})
	case 2:
		ip = netip.AddrFrom16([16]byte{0xfd, 15: byte(rng.Uint32())})
	case 3:
		ip = netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff, 12: 1, 15: byte(rng.Uint32())})
	case 4:
		ip = netip.MustParseAddr("fe80::1%eth0")
	}
	return netip.AddrPortFrom(ip, uint16(rng.Uint32()))
}

// appendRandom appends a random record and returns what reading it must give,
// but for End and Time.
func appendRandom(j *Journal, rng *rand.Rand, maxPayload int) Record {
	// Small and large numbers alike, so that all lengths of varints occur.
	number := func() uint64 { return rng.Uint64() >> rng.IntN(64) }
	r := Record{Conn: uint32(number())}
	switch r.Type = TypeOpen + Type(rng.IntN(13)); r.Type {
	case TypeOpen:
		r.Open = ConnOpen{Conn: r.Conn, Direction: Direction(rng.IntN(2)), Client: randomAddr(rng), Server: randomAddr(rng), LegPort: uint16(rng.Uint32())}
		r.Position = j.AppendOpen(r.Open)
	case TypeInput:
		r.Offset, r.OutPos, r.Payload = number(), number(), payload(int(rng.Uint32()), rng.IntN(maxPayload+1))
		r.Position = j.AppendInput(r.Conn, r.Offset, r.OutPos, r.Payload)
	case TypeConsumed:
		r.Offset = number()
		r.Position = j.AppendConsumed(r.Conn, r.Offset)
	case TypeOutput:
		r.Offset, r.Length, r.Hash = number(), uint32(number()), rng.Uint64()
		r.Position = j.AppendOutput(r.Conn, r.Offset, r.Length, r.Hash)
	case TypeOutputBytes:
		r.Offset, r.Payload = number(), payload(int(rng.Uint32()), rng.IntN(maxPayload+1))
		r.Position = j.AppendOutputBytes(r.Conn, r.Offset, r.Payload)
	case TypeClose:
		r.Direction, r.Close, r.Offset = Direction(rng.IntN(2)), CloseKind(rng.IntN(2)), number()
		r.Position = j.AppendClose(r.Conn, r.Direction, r.Close, r.Offset)
	case TypeMark:
		r.Conn, r.Mark, r.Checkpoint = 0, MarkKind(1+rng.IntN(5)), number()
		r.Position = j.AppendMark(r.Mark, r.Checkpoint)
	case TypeDatagram:
		r.Conn, r.Source, r.Dest, r.Sent, r.Payload = 0, randomAddr(rng), randomAddr(rng), number(), payload(int(rng.Uint32()), rng.IntN(maxPayload+1))
		r.Position = j.AppendDatagram(r.Source, r.Dest, r.Sent, r.Payload)
	case TypeDatagramTaken:
		r.Conn, r.Of = 0, Position(number())
		r.Position = j.AppendDatagramTaken(r.Of)
	case TypeDatagramSent:
		r.Conn, r.Flow, r.Hash = 0, rng.Uint64(), rng.Uint64()
		r.Position = j.AppendDatagramSent(r.Flow, r.Hash)
	case TypeUrgent:
		r.Offset = number()
		r.Position = j.AppendUrgent(r.Conn, r.Offset)
	case TypeFailed:
		r.Errno = uint32(number())
		r.Position = j.AppendFailed(r.Conn, r.Errno)
	case TypeRepeated:
		r.Offset = number()
		r.Position = j.AppendRepeated(r.Conn, r.Offset)
	}
	return r
}

// requireSame compares records, taking End and Time from got as they are.
func requireSame(t testing.TB, want, got []Record) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		w, g := want[i], got[i]
		require.Greater(t, g.End, g.Position)
		w.End, w.Time = g.End, g.Time
		if len(w.Payload) == 0 && len(g.Payload) == 0 {
			w.Payload, g.Payload = nil, nil
		}
		require.Equal(t, w, g, "record %d", i)
	}
}

// segmentFiles returns the paths of the segments, oldest first.
func segmentFiles(t testing.TB, fs vfs.FS) []string {
	t.Helper()
	l, err := inspect(fs, testDir)
	require.NoError(t, err)
	var paths []string
	for _, s := range l.segments {
		paths = append(paths, s.path)
	}
	if l.unfinished != "" {
		paths = append(paths, l.unfinished)
	}
	return paths
}

// overwrite puts b at off in a file, or at the end of the file and before if
// off is negative.
func overwrite(t testing.TB, fs vfs.FS, path string, off int64, b []byte) {
	t.Helper()
	f, err := fs.OpenWrite(path)
	require.NoError(t, err)
	_, err = f.WriteAt(b, off)
	require.NoError(t, errors.Join(err, f.Sync(), f.Close()))
}

// flip changes a byte, whatever it is: of what is encrypted each is 0 now and then.
func flip(t testing.TB, fs vfs.FS, path string, off int64) {
	t.Helper()
	overwrite(t, fs, path, off, []byte{contents(t, fs, path)[off] ^ 0xff})
}

func contents(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	require.NoError(t, err)
	size, err := f.Size()
	require.NoError(t, err)
	b := make([]byte, size)
	if size > 0 {
		_, err = f.ReadAt(b, 0)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	return b
}
