package criu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/pagemap"
	"google.golang.org/protobuf/proto"
)

// chain writes a page map into each directory, newest first. A page is a number:
// 0 is none, and a negative one is that of the directory after.
func chain(t *testing.T, dirs []string, name string, levels [][]int) {
	t.Helper()
	head, err := proto.Marshal(&pagemap.PagemapHead{PagesId: proto.Uint32(7)})
	if err != nil {
		t.Fatal(err)
	}
	for i, level := range levels {
		f := &flattening{}
		var pages, m bytes.Buffer
		for n, content := range level {
			r := run{vaddr: 0x10000 + uint64(n)*pageBytes(), pages: 1, flags: pagePresent}
			switch {
			case content == 0:
				continue
			case content < 0:
				r.flags = pageInParent
			default:
				pages.Write(bytes.Repeat([]byte{byte(content)}, int(pageBytes())))
			}
			f.add(r)
		}
		if err := os.MkdirAll(dirs[i], 0o700); err != nil {
			t.Fatal(err)
		}
		err := errors.Join(writePageMap(&m, head, f.runs), os.WriteFile(filepath.Join(dirs[i], name), m.Bytes(), 0o600),
			os.WriteFile(filepath.Join(dirs[i], pagesName(7)), pages.Bytes(), 0o600))
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestFlatten compares joined page maps with what they should hold, for random
// chains of up to four rounds.
func TestFlatten(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		images := filepath.Join(t.TempDir(), "images")
		dirs, rounds := []string{images}, []string(nil)
		for n := 1 + rng.IntN(maxRounds); n > 0; n-- {
			rounds = append(rounds, roundDir(n))
			dirs = append(dirs, filepath.Join(images, roundDir(n)))
		}
		levels := make([][]int, len(dirs))
		want := make([]int, 30)
		for i := range levels {
			levels[i] = make([]int, len(want))
		}
		for n := range want {
			if rng.IntN(5) == 0 {
				continue // not mapped
			}
			owner := rng.IntN(len(dirs))
			want[n] = 1 + rng.IntN(200)
			for i := range levels {
				switch {
				case i < owner:
					levels[i][n] = -1
				case i == owner:
					levels[i][n] = want[n]
				default:
					levels[i][n] = rng.IntN(200) // what it was before, if anything
				}
			}
		}
		chain(t, dirs, "pagemap-1.img", levels)
		if err := flatten(images, rounds); err != nil {
			t.Fatal(err)
		}
		got, err := contents([]string{images}, "pagemap-1.img")
		if err != nil {
			t.Fatal(err)
		}
		for n, content := range want {
			page := got[0x10000+uint64(n)*pageBytes()]
			if (content == 0) != (page == nil) || content != 0 && !bytes.Equal(page, bytes.Repeat([]byte{byte(content)}, int(pageBytes()))) {
				t.Fatalf("page %d of %v is %.1v…, want %d", n, levels, page, content)
			}
		}
		if err := validatePages(os.DirFS(images)); err != nil {
			t.Fatal(err)
		}
		if list, _ := filepath.Glob(filepath.Join(images, "*")); len(list) != 2 {
			t.Fatalf("left: %v", list)
		}
	}
}

// TestFlattenRefuses: chains with pages that are nowhere.
func TestFlattenRefuses(t *testing.T) {
	for name, levels := range map[string][][]int{
		"no parent at all":     {{1, -1}},
		"missing in a parent":  {{-1, -1}, {1, 0}},
		"missing in the first": {{-1}, {-1}, {0}},
		"beyond the last":      {{-1}, {-1}},
	} {
		images := filepath.Join(t.TempDir(), "images")
		dirs, rounds := []string{images}, []string(nil)
		for n := len(levels) - 1; n > 0; n-- {
			rounds = append(rounds, roundDir(n))
			dirs = append(dirs, filepath.Join(images, roundDir(n)))
		}
		chain(t, dirs, "pagemap-1.img", levels)
		before, _ := os.ReadFile(filepath.Join(images, "pagemap-1.img"))
		if err := flatten(images, rounds); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error is %v", name, err)
		}
		if after, _ := os.ReadFile(filepath.Join(images, "pagemap-1.img")); !bytes.Equal(before, after) {
			t.Errorf("%s: the page map has changed", name)
		}
	}
	overlap := filepath.Join(t.TempDir(), "pagemap-1.img")
	var b bytes.Buffer
	if err := writePageMap(&b, binary.AppendUvarint([]byte{8}, 7), []run{{vaddr: 0x3000, pages: 4, flags: pagePresent}, {vaddr: 0x4000, pages: 1, flags: pagePresent}}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlap, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openPageMap(filepath.Dir(overlap), "pagemap-1.img"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("rows of pages that overlap: error is %v", err)
	}
}

func TestAnotherRound(t *testing.T) {
	for _, tc := range []struct {
		pages []uint64
		want  bool
	}{
		{[]uint64{100_000}, true}, {[]uint64{fewPages}, false},
		{[]uint64{100_000, 60_000}, true}, {[]uint64{100_000, 80_000}, false}, {[]uint64{100_000, 2000}, false},
	} {
		var done []Round
		for _, n := range tc.pages {
			done = append(done, Round{Pages: n})
		}
		if got := anotherRound(done); got != tc.want {
			t.Errorf("after %v: %v", tc.pages, got)
		}
	}
}
