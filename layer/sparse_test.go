package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// sparseFile has data of length bytes at each of the offsets.
type sparseFile struct {
	name   string
	size   int64
	data   []int64
	length int
}

func (f sparseFile) create(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, f.name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	out, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, out.Truncate(f.size))
	for i, at := range f.data {
		_, err := out.WriteAt([]byte(strings.Repeat(string(rune('a'+i%26)), f.length)), at)
		require.NoError(t, err)
	}
	require.NoError(t, out.Close())
	require.NoError(t, os.Chown(path, 3_000_000, 70_000)) // more than a header of the first tar has room for
	require.NoError(t, unix.Setxattr(path, "user.color", []byte("a=b\n12 GNU.sparse.name=/etc/passwd\n\x00"), 0))
	require.NoError(t, unix.Setxattr(path, "user.line\n"+sparseStandIn+"major", []byte("7"), 0))
	at := unix.Timespec{Sec: 1_234_567_890, Nsec: 987_654_321}
	require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, 0))
}

func each(first, step int64, n int) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = first + int64(i)*step
	}
	return out
}

func sparseFiles() []sparseFile {
	const page = 4096
	return []sparseFile{
		{"hole-at-start", 8<<20 + page, []int64{8 << 20}, page},
		{"hole-at-end", 8 << 20, []int64{0}, page},
		{"odd-end", 4<<20 + 123, []int64{4 << 20}, 123},
		{"odd-hole-at-end", 4<<20 + 123, []int64{page}, 77},
		{"only-a-hole", 16 << 20, nil, 0},
		{"odd-and-only-a-hole", 5<<20 + 1, nil, 0},
		{"small-holes", 512 << 10, each(0, 64<<10, 8), page},
		{"hundreds", 64 << 20, each(page, 128<<10, 500), page},
		{"dense", 2 << 20, each(0, 1<<20, 2), 1 << 20},
		{"empty", 0, nil, 0},
		{strings.Repeat("directory/", 15) + strings.Repeat("long", 40), 4 << 20, []int64{1 << 20}, page},
		{"line\nbreak=1 \u00fc", 4 << 20, []int64{1 << 20}, page},
		{"not\xffutf8", 4 << 20, []int64{1 << 20}, page},
		{"GNUSparseFile.0/hole-at-start", 4 << 20, []int64{0, 3 << 20}, page},
		{"after", 10, []int64{0}, 10},
	}
}

// tarOf returns the tar of a snapshot of upper, and its size.
func tarOf(t *testing.T, upper string) (string, int64) {
	t.Helper()
	snap, name := filepath.Join(t.TempDir(), "snap"), filepath.Join(t.TempDir(), "tar")
	mustCapture(t, upper, snap, "")
	out, err := os.Create(name)
	require.NoError(t, err)
	require.NoError(t, errors.Join(WriteTar(t.Context(), snap, out), out.Close()))
	st, err := os.Stat(name)
	require.NoError(t, err)
	requireTarSize(t, snap, st.Size())
	return name, st.Size()
}

// TestSparseTar: every reader gets the files back, whatever holes they have.
func TestSparseTar(t *testing.T) {
	needRoot(t)
	upper := t.TempDir()
	for _, f := range sparseFiles() {
		f.create(t, upper)
	}
	require.NoError(t, os.Link(upper+"/hundreds", upper+"/linked"))
	name, size := tarOf(t, upper)
	require.Less(t, size, int64(6<<20), "most of it is holes")
	in, err := os.Open(name)
	require.NoError(t, err)
	requireSameFiles(t, in, upper)
	require.NoError(t, in.Close())
	for reader, extract := range map[string]func(t *testing.T, dir string){
		"GNU tar": func(t *testing.T, dir string) {
			run(t, "tar", "--extract", "--file="+name, "--directory="+dir, "--numeric-owner", "--xattrs", "--xattrs-include=*")
		},
		"containerd": func(t *testing.T, dir string) {
			in, err := os.Open(name)
			require.NoError(t, err)
			_, err = archive.Apply(t.Context(), dir, in)
			require.NoError(t, errors.Join(err, in.Close()))
		},
	} {
		t.Run(reader, func(t *testing.T) {
			dir := t.TempDir()
			extract(t, dir)
			want, got := describe(t, upper, false), describe(t, dir, false)
			delete(want, ".")
			delete(got, ".")
			requireSame(t, want, got, reader)
		})
	}
}

func requireSameFiles(t *testing.T, in io.Reader, upper string) {
	t.Helper()
	seen := 0
	for tr := tar.NewReader(in); ; seen++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if h.Typeflag != tar.TypeReg {
			continue
		}
		want, err := os.Open(filepath.Join(upper, h.Name))
		require.NoError(t, err)
		requireSameBytes(t, h.Name, want, tr)
		require.NoError(t, want.Close())
		require.EqualValues(t, []int{3_000_000, 70_000}, []int{h.Uid, h.Gid}, h.Name)
		require.Equal(t, "7", h.PAXRecords[paxXattr+"user.line\n"+sparseStandIn+"major"], h.Name)
	}
	require.Greater(t, seen, len(sparseFiles()))
}

// TestSparseTarOfTerabytes: holes cost nothing, neither us nor GNU tar.
func TestSparseTarOfTerabytes(t *testing.T) {
	needRoot(t)
	upper, dir := t.TempDir(), t.TempDir()
	const size = 3 << 40
	sparseFile{"huge", size, []int64{0, 1 << 40, 2<<40 + 8192, size - 4096}, 4096}.create(t, upper)
	name, n := tarOf(t, upper)
	require.Less(t, n, int64(64<<10))
	run(t, "tar", "--extract", "--file="+name, "--directory="+dir, "--numeric-owner", "--xattrs", "--xattrs-include=*")
	want, got := describe(t, upper, false), describe(t, dir, false)
	require.Equal(t, want["huge"], got["huge"])
	var st unix.Stat_t
	require.NoError(t, unix.Stat(dir+"/huge", &st))
	require.Less(t, st.Blocks*512, int64(1<<20), "it is sparse again")
}

// TestIslands: a map lists the largest holes, and no more than readers take.
func TestIslands(t *testing.T) {
	at := func(offsets []int64, length int64) (out []extent) {
		for _, off := range offsets {
			out = append(out, extent{off: off, length: length})
		}
		return out
	}
	fragments := file(1, "fragments")
	fragments.size = 1 << 40
	// Small holes between 100,000 extents at the start, and one large one.
	fragments.extents = append(at(each(0, 8192, 100_000), 4096), extent{off: 1<<40 - 4096, length: 4096})
	m := islandsOf(&fragments)
	require.LessOrEqual(t, len(m.list), maxIslands)
	require.LessOrEqual(t, m.stored, int64(100_000*8192+4096))
	require.Contains(t, m.list, island{1<<40 - 4096, 1 << 40})
	require.False(t, m.excessive(&fragments))

	everywhere := file(1, "everywhere")
	everywhere.size = 1 << 40
	everywhere.extents = at(each(0, 8<<20, 100_000), 4096)
	m = islandsOf(&everywhere)
	require.LessOrEqual(t, len(m.list), maxIslands)
	require.True(t, m.excessive(&everywhere), "%d bytes stored", m.stored)

	absurd := file(1, "absurd")
	absurd.size = 1<<63 - 1
	absurd.extents = at([]int64{1, 1 << 62, 1<<63 - 2}, 1)
	m = islandsOf(&absurd)
	require.Equal(t, []island{{0, 2}, {1 << 62, 1<<62 + 1}, {1<<63 - 2, 1<<63 - 1}}, m.list)
	require.EqualValues(t, 4, m.stored)

	widest := islands{list: make([]island, maxIslands)}
	for i := range widest.list {
		widest.list[i] = island{1 << 62, 1<<63 - 1}
	}
	require.LessOrEqual(t, len(widest.table()), 1<<20, "what archive/tar reads of a map")
}

// TestWriteTarLeavesOut: what can't be in a tar does not keep the rest from it.
func TestWriteTarLeavesOut(t *testing.T) {
	everywhere := file(1, "everywhere")
	everywhere.size = 1 << 50
	for i := range int64(2 * maxIslands) {
		everywhere.extents = append(everywhere.extents, extent{off: i << 30, length: 1, pack: 3})
	}
	entries := []entry{dir(0, ""), file(1, "before"), everywhere, {depth: 1, kind: kindLink, name: []byte("everywhere2"), link: 2}}
	for depth := range 20 {
		entries = append(entries, dir(depth+1, strings.Repeat("n", 250)))
	}
	entries = append(entries, file(1, "notes"))
	snap := t.TempDir()
	require.NoError(t, os.Chmod(snap, 0o700))
	for name, b := range map[string][]byte{"pack.00000003": make([]byte, 1000), manifestName: manifestOf(entries...), syncedName: nil} {
		require.NoError(t, os.WriteFile(filepath.Join(snap, name), b, 0o600))
	}
	var out bytes.Buffer
	require.NoError(t, WriteTar(t.Context(), snap, &out))
	requireTarSize(t, snap, int64(out.Len()))
	var names []string
	for tr := tar.NewReader(&out); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Less(t, len(h.Name), unix.PathMax)
		names = append(names, h.Name)
	}
	require.Len(t, names, 2+16, "two files, and the directories that have a path")
	require.Equal(t, "before", names[0])
	require.Equal(t, "notes", names[len(names)-1])
}
