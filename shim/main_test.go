package shim

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/crsc-io/crsc/shim/internal/shimtest"
)

// shimBinary is the name under which the test's own binary is the shim: the
// shim is then built with the test's flags (-race), and has the test's guards.
const shimBinary = "containerd-shim-crsc-v1"

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == shimBinary {
		run(context.Background(), testGuards{})
		return
	}
	os.Exit(m.Run())
}

// Runtimes that a container can be run under.
const (
	ours  = RuntimeName
	stock = "io.containerd.runc.v2"
)

func startDaemon(t *testing.T) *shimtest.Daemon {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: runs a containerd")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return shimtest.Start(t, self)
}
