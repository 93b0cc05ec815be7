package criu_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

// standIn makes the box use a CRIU whose kernel seems to track what is written
// to; see TestMain.
func (b *box) standIn(fail string) {
	b.t.Helper()
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	tt := b.t.(*testing.T)
	tt.Setenv("CRSC_TEST_REAL_CRIU", b.criu)
	tt.Setenv("CRSC_TEST_FAIL_ROUND", fail)
	b.criu = self
}

// fill makes the memory of a Redis too large for a single round.
func fill(c *criutest.Redis) {
	c.Do("EVAL", "local v = string.rep('x', 1000) for i = 1, 20000 do redis.call('SET', i, v) end return 1", "0")
}

// TestPreDump: images of a dump with pre-dumps are whole, and restore to the
// state at the end, not to that of a round.
func TestPreDump(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	real := b.criu
	c := b.redis()
	fill(c)
	b.standIn("")
	c.Do("SET", "key", "before")
	s := b.dump(func(o *criu.DumpOptions) {
		o.PreDump = true
		o.OnPreDump = func() error { c.Do("SET", "key", "late"); return nil }
	})
	if s.PreDumpError != nil || len(s.Rounds) != 2 || s.Rounds[0].Pages < 5000 || s.LongestStall() < s.Rounds[0].Stall {
		t.Errorf("%+v", s)
	}
	if err := criu.Validate(b.images); err != nil {
		t.Error(err)
	}
	for _, e := range readDir(t, b.images) {
		if !e.Type().IsRegular() || strings.HasSuffix(e.Name(), ".new") {
			t.Errorf("%s is left", e.Name())
		}
	}
	c.Do("SET", "key", "after")
	c.Reset()
	b.Crash()
	b.criu = real
	b.restore()
	c = b.redis()
	if got := c.Do("GET", "key"); got != "late" {
		t.Errorf("key is %q", got)
	}
	if got := c.Do("DBSIZE"); got != "20001" {
		t.Errorf("%s keys", got)
	}
}

// TestRestoreThroughParents: CRIU reads what the stand-in makes, and gets the
// same from it as from joined images: the stand-in writes what CRIU does.
func TestRestoreThroughParents(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	c := b.redis()
	fill(c)
	b.dump() // all there is
	base := filepath.Join(b.dir, "base")
	if err := os.CopyFS(base, os.DirFS(b.images)); err != nil {
		t.Fatal(err)
	}
	c.Do("SET", "key", "late")
	b.dump()
	if err := os.Rename(base, filepath.Join(b.images, "pre-1")); err != nil {
		t.Fatal(err)
	}
	whole := pagesOf(t, b.images)
	if err := criu.Subtract(b.images, filepath.Join(b.images, "pre-1")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("pre-1", filepath.Join(b.images, "parent")); err != nil {
		t.Fatal(err)
	}
	if part := pagesOf(t, b.images); part > whole/10 {
		t.Errorf("%d of %d bytes of pages are not in the parent", part, whole)
	}
	c.Reset()
	withoutParent(b)
	for _, how := range []string{"through parents", "joined"} {
		b.Crash()
		b.restore()
		c := b.redis()
		if key, n := c.Do("GET", "key"), c.Do("DBSIZE"); key != "late" || n != "20001" {
			t.Errorf("%s: key is %q, of %s", how, key, n)
		}
		c.Reset()
		if err := criu.Flatten(b.images, []string{"pre-1"}); err != nil {
			t.Fatal(err)
		}
	}
	if joined := pagesOf(t, b.images); joined != whole {
		t.Errorf("%d bytes of pages joined, %d before", joined, whole)
	}
}

// withoutParent: CRIU would look for the pages for ever.
func withoutParent(b *box) {
	b.t.Helper()
	if err := criu.Validate(b.images); err != nil {
		b.t.Error(err)
	}
	parent := filepath.Join(b.images, "pre-1")
	if err := os.Rename(parent, parent+"-away"); err != nil {
		b.t.Fatal(err)
	}
	err := criu.Validate(b.images)
	_, armErr := criu.Arm(b.t.Context(), b.restoreOptions())
	for _, err := range []error{err, armErr} {
		if !errors.Is(err, criu.ErrCorrupt) || !strings.Contains(err.Error(), "in no pre-dump") {
			b.t.Errorf("without the parent: %v", err)
		}
	}
	if err := os.Rename(parent+"-away", parent); err != nil {
		b.t.Fatal(err)
	}
}

// pagesOf is the size of all pages below a directory of images, in bytes.
func pagesOf(t testing.TB, images string) (n int64) {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(images, "pages-*.img"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		n += st.Size()
	}
	return n
}

// TestPreDumpFails: then everything is dumped.
func TestPreDumpFails(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	real := b.criu
	c := b.redis()
	fill(c)
	for _, fail := range []string{"1", "2"} {
		b.criu = real
		b.standIn(fail)
		s := b.dump(func(o *criu.DumpOptions) { o.PreDump = true })
		if s.PreDumpError == nil || !strings.Contains(s.PreDumpError.Error(), "round "+fail) {
			t.Errorf("round %s fails, and the error is %v", fail, s.PreDumpError)
		}
		for _, e := range readDir(t, b.images) {
			if !e.Type().IsRegular() {
				t.Errorf("%s is left", e.Name())
			}
		}
	}
	c.Do("SET", "key", "after")
	c.Reset()
	b.Crash()
	b.criu = real
	b.restore()
	if got := b.redis().Do("DBSIZE"); got != "20000" {
		t.Errorf("%s keys", got)
	}
}

// TestPreDumpWithoutTracking: on a kernel that does not track memory, the real
// CRIU refuses, and the dump goes on without.
func TestPreDumpWithoutTracking(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	b.redis()
	f, err := criu.Probe(t.Context(), criu.ProbeOptions{Path: b.criu})
	if err != nil {
		t.Fatal(err)
	}
	s := b.dump(func(o *criu.DumpOptions) { o.PreDump = true })
	if (s.PreDumpError == nil) != f.MemTrack {
		t.Errorf("MemTrack is %v, and the pre-dump says %v", f.MemTrack, s.PreDumpError)
	}
	if f.MemTrack != (len(s.Rounds) > 0) {
		t.Errorf("%d rounds", len(s.Rounds))
	}
	if err := criu.Validate(b.images); err != nil {
		t.Error(err)
	}
}
