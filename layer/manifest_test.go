package layer

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func sealChecksum(b []byte) {
	sum := fileChecksum(b)
	b[12], b[13], b[14], b[15] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
}

// manifestOf encodes entries as they come, good or bad.
func manifestOf(entries ...entry) []byte {
	m := &manifest{count: len(entries), packs: []packInfo{{id: 3, size: 1000, live: 10}}}
	for i := range entries {
		m.body = appendEntry(m.body, &entries[i])
	}
	return m.encode()
}

func file(depth int, name string) entry {
	return entry{depth: depth, kind: kindRegular, name: []byte(name), mode: 0o644}
}

func dir(depth int, name string) entry {
	return entry{depth: depth, kind: kindDir, name: []byte(name), mode: 0o755}
}

func with(e entry, edit func(*entry)) entry { edit(&e); return e }

func TestManifestRoundTrip(t *testing.T) {
	in := []entry{
		dir(0, ""),
		with(dir(1, "a"), func(e *entry) { e.flags = flagImmutable; e.xattrs = []xattr{{[]byte("user.x"), []byte("v")}} }),
		with(file(2, "f\xff"), func(e *entry) {
			e.size, e.uid, e.gid = 100, 1, 2
			e.extents = []extent{{0, 10, 3, 5}, {50, 50, 3, 950}}
			e.mtime, e.atime = timestamp{-5e9, 999_999_999}, timestamp{1 << 40, 1}
		}),
		{depth: 1, kind: kindSymlink, name: []byte("l"), target: []byte("../..")},
		{depth: 1, kind: kindLink, name: []byte("m"), link: 2},
		{depth: 1, kind: kindChar, name: []byte("n"), major: 1, minor: 3},
	}
	m, err := decodeManifest(manifestOf(in...))
	require.NoError(t, err)
	x := newIndex(m)
	for i := range in {
		var e entry
		require.NoError(t, x.record(i).decode(&e))
		require.Equal(t, appendEntry(nil, &in[i]), appendEntry(nil, &e))
		require.Equal(t, in[i].mtime, e.mtime)
	}
	require.Equal(t, []uint32{6, 3, 3, 4, 5, 6}, x.ends)
	require.Equal(t, []int{1}, x.ancestors(2))
}

func TestHostileManifests(t *testing.T) {
	root := dir(0, "")
	hostile := map[string][]entry{
		"empty":                {},
		"root is a file":       {file(0, "")},
		"root has a name":      {dir(0, "x")},
		"two roots":            {root, dir(0, "")},
		"dot dot":              {root, dir(1, "..")},
		"dot":                  {root, dir(1, ".")},
		"no name":              {root, file(1, "")},
		"slash":                {root, file(1, "a/b")},
		"absolute":             {root, file(1, "/etc")},
		"zero byte":            {root, file(1, "a\x00b")},
		"long name":            {root, file(1, string(make([]byte, 300)))},
		"skips a level":        {root, file(2, "a")},
		"below a file":         {root, file(1, "a"), file(2, "b")},
		"below a link":         {root, {depth: 1, kind: kindSymlink, name: []byte("a"), target: []byte("/")}, file(2, "b")},
		"out of order":         {root, file(1, "b"), file(1, "a")},
		"twice":                {root, file(1, "b"), file(1, "b")},
		"kind 0":               {root, {depth: 1, name: []byte("a")}},
		"kind too high":        {root, {depth: 1, kind: kindEnd, name: []byte("a")}},
		"link to itself":       {root, {depth: 1, kind: kindLink, name: []byte("a"), link: 1}},
		"link to later":        {root, {depth: 1, kind: kindLink, name: []byte("a"), link: 2}, file(1, "b")},
		"link to directory":    {root, {depth: 1, kind: kindLink, name: []byte("a"), link: 0}},
		"symlink to nothing":   {root, {depth: 1, kind: kindSymlink, name: []byte("a")}},
		"target of a file":     {root, with(file(1, "a"), func(e *entry) { e.target = []byte("x") })},
		"negative size":        {root, with(file(1, "a"), func(e *entry) { e.size = -1 })},
		"extent past the end":  {root, with(file(1, "a"), func(e *entry) { e.size = 9; e.extents = []extent{{0, 10, 3, 0}} })},
		"extents overlap":      {root, with(file(1, "a"), func(e *entry) { e.size = 99; e.extents = []extent{{0, 10, 3, 0}, {9, 2, 3, 0}} })},
		"extent overflows":     {root, with(file(1, "a"), func(e *entry) { e.size = 9; e.extents = []extent{{1<<63 - 1, 2, 3, 0}} })},
		"extent of length 0":   {root, with(file(1, "a"), func(e *entry) { e.size = 9; e.extents = []extent{{0, 0, 3, 0}} })},
		"extent past the pack": {root, with(file(1, "a"), func(e *entry) { e.size = 99; e.extents = []extent{{0, 10, 3, 991}} })},
		"no such pack":         {root, with(file(1, "a"), func(e *entry) { e.size = 99; e.extents = []extent{{0, 10, 4, 0}} })},
		"extent of a fifo":     {root, {depth: 1, kind: kindFifo, name: []byte("a"), size: 9, extents: []extent{{0, 9, 3, 0}}}},
		"nanoseconds":          {root, with(file(1, "a"), func(e *entry) { e.mtime.nsec = 1e9 })},
		"attribute name":       {root, with(file(1, "a"), func(e *entry) { e.xattrs = []xattr{{[]byte("a\x00"), nil}} })},
		"too deep":             {root, dir(maxDepth+1, "a")},
	}
	for name, entries := range hostile {
		t.Run(name, func(t *testing.T) {
			_, err := decodeManifest(manifestOf(entries...))
			require.ErrorIs(t, err, ErrCorrupt)
		})
	}
}

// FuzzManifest feeds the decoder anything with a good checksum. What it accepts
// must be usable without a further check.
func FuzzManifest(f *testing.F) {
	f.Add(manifestOf(dir(0, ""), dir(1, "a"), file(2, "b"), file(1, "c")))
	f.Add(manifestOf(dir(0, ""), with(file(1, "a"), func(e *entry) {
		e.size, e.extents, e.xattrs = 99, []extent{{0, 10, 3, 0}}, []xattr{{[]byte("user.a"), []byte("b")}}
	}), entry{depth: 1, kind: kindLink, name: []byte("b"), link: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 16 {
			sealChecksum(b)
		}
		m, err := decodeManifest(b)
		if err != nil {
			return
		}
		x := newIndex(m)
		var e entry
		body := []byte{}
		for ord := range m.count {
			if err := x.record(ord).decode(&e); err != nil {
				t.Fatal(err)
			}
			if e.depth > 0 && !validName(e.name) {
				t.Fatalf("name %q", e.name)
			}
			for _, up := range x.ancestors(ord) {
				if up >= ord || x.record(up).kind() != kindDir {
					t.Fatalf("entry %d below %d", ord, up)
				}
			}
			body = appendEntry(body, &e)
		}
		if string(body) != string(m.body) {
			t.Fatal("decoding and encoding again gives other bytes")
		}
		for c := newCursor(m); c.cur != nil; {
			if r, _ := c.find(c.cur.depth(), string(c.cur.name())); r == nil {
				t.Fatal("the cursor does not find where it stands")
			}
		}
	})
}

func FuzzIdentities(f *testing.F) {
	s := identities{dev: 7, ids: []identity{{1, 2, 3, true}, {4, 5, 6, false}}}
	f.Add(s.encode(), 2)
	f.Fuzz(func(t *testing.T, b []byte, count int) {
		if len(b) >= 16 {
			sealChecksum(b)
		}
		if count < 0 || count > 1<<20 {
			return
		}
		if s, err := decodeIdentities(b, count); err == nil && len(s.ids) != count {
			t.Fatal(len(s.ids))
		}
	})
}

func TestIdentitiesRoundTrip(t *testing.T) {
	in := &identities{dev: 7, boot: [16]byte{1, 2}, ids: []identity{{1, 2, 3, true}, {4, -5, 6, false}}}
	out, err := decodeIdentities(in.encode(), 2)
	require.NoError(t, err)
	require.Equal(t, in, out)
	_, err = decodeIdentities(in.encode(), 3)
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestFormatIsDocumented(t *testing.T) {
	b, err := os.ReadFile("FORMAT.md")
	require.NoError(t, err)
	for _, word := range []string{manifestMagic, identityMagic, "pack.%08x", syncedName} {
		require.Contains(t, string(b), word)
	}
}
