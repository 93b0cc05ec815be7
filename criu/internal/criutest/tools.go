package criutest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Tool returns the path of a command that the tests need: from the cache that
// testing/env/install fills, else from PATH. It fails the test if there is none.
func Tool(t testing.TB, name string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("these tests run containers: run them as root")
	}
	cache := os.Getenv("CRSC_CACHE")
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(dir, "crsc")
	}
	path := filepath.Join(cache, "bin", name)
	if unix.Access(path, unix.X_OK) == nil {
		return path
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing (%v): run testing/env/install", name, err)
	}
	return path
}

// Run runs a command and fails the test with its output if it fails.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
