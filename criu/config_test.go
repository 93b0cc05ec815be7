package criu_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

// TestConfigOfCRIU: what CRIU's RPC can't tell it reaches it.
func TestConfigOfCRIU(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	b.dump()
	sized := 0
	err := criu.EachFile(os.DirFS(b.images), func(e *fdinfo.FileEntry) error {
		if reg := e.GetReg(); reg != nil && reg.Size != nil {
			sized++
			if len(reg.GetBuildId()) != 0 {
				t.Errorf("%s was searched for a build ID while tasks were frozen", reg.GetName())
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if sized == 0 {
		t.Error("no file has a size to be compared at a restore")
	}
}

// TestAwake: processors stay awake while an urgent dump has tasks frozen, and
// not longer.
func TestAwake(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	for _, urgent := range []bool{false, true} {
		frozen := false
		b.dump(func(o *criu.DumpOptions) {
			o.Urgent = urgent
			o.OnPostDump = func() error { frozen = heldAwake(t); return nil }
		})
		if frozen != urgent {
			t.Errorf("urgent %v: kept awake while frozen: %v", urgent, frozen)
		}
		if heldAwake(t) {
			t.Errorf("urgent %v: processors are kept awake after the dump", urgent)
		}
	}
}

// heldAwake reports whether this process has the device open.
func heldAwake(t testing.TB) bool {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && to == criu.LatencyFile {
			return true
		}
	}
	return false
}
