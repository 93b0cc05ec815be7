package distribution

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/isolate"
)

// outVariable tells the isolated program where the results of make are.
const outVariable = "CRSC_DISTRIBUTION_OUT"

// path is the node's: what is installed goes to /usr/bin or /usr/local/bin.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// out has dist, as `make dist` writes it, and stage, as `make install` does.
var out string

func TestMain(m *testing.M) {
	flag.Parse()
	if isolate.Outside() {
		status, err := outside()
		if err != nil {
			fmt.Fprintln(os.Stderr, "distribution:", err)
			status = max(status, 1)
		}
		os.Exit(status)
	}
	inside, status, err := isolate.Enter(isolate.Options{Name: "distribution", Written: []string{"/usr"}})
	if inside {
		out = os.Getenv(outVariable)
		if err = node(); err == nil {
			status = m.Run()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "distribution:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}

// outside makes what is tested, where the compiler's cache is, and isolates.
func outside() (status int, err error) {
	e, err := env.Locate("")
	if err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "crsc-distribution-*")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, args := range [][]string{
		{"dist", "OUT=" + dir},
		{"install", "DESTDIR=" + filepath.Join(dir, "stage"), "PREFIX=/usr/local"},
	} {
		cmd := exec.Command("make", append([]string{"-C", e.Root}, args...)...)
		cmd.Env = withoutMake(os.Environ())
		if text, err := cmd.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("make %s: %w:\n%s", strings.Join(args, " "), err, text)
		}
	}
	if err := os.Setenv(outVariable, dir); err != nil {
		return 1, err
	}
	_, status, err = isolate.Enter(isolate.Options{Name: "distribution"})
	return status, err
}

// withoutMake leaves out what a make around us tells its children.
func withoutMake(environ []string) (rest []string) {
	for _, kv := range environ {
		if !strings.HasPrefix(kv, "MAKE") && !strings.HasPrefix(kv, "MFLAGS=") {
			rest = append(rest, kv)
		}
	}
	return rest
}

// node makes the host look like a node: containerd and runc, and nothing of ours.
func node() error {
	e, err := env.Locate("")
	if err != nil {
		return err
	}
	for _, name := range []string{"containerd", "ctr", "runc"} {
		if err := os.Symlink(filepath.Join(e.ToolsDir, name), filepath.Join("/usr/local/bin", name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"criu", "crsc", "crsc-node", "containerd-shim-crsc-v1"} {
		if found, err := isolate.LookPath(name, path); err == nil {
			return fmt.Errorf("%s is there already: the test would not tell who has put it there", found)
		}
	}
	return os.Setenv("PATH", path)
}
