package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// instance is the environment's name.
const instance = "e2e"

func TestMain(m *testing.M) {
	flag.Parse()
	status, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}

// runAll brings the environment up for all tests together, and down again when
// they have ended or are interrupted.
func runAll(m *testing.M) (status int, err error) {
	e, err := env.Locate(instance)
	if err != nil {
		return 1, err
	}
	if err := checkBuild(e.Root); err != nil {
		return 1, err
	}
	ctx := context.Background()
	// What a run that was killed left behind.
	if err := e.Down(ctx); err != nil {
		return 1, err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		s := <-signals
		if err := e.Down(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
		}
		os.Exit(128 + int(s.(syscall.Signal)))
	}()
	defer func() { err = errors.Join(err, e.Down(ctx)) }()
	if err := e.Up(ctx); err != nil {
		return 1, err
	}
	for _, image := range []string{"redis", "busybox", "nginx"} {
		if _, err := ociimage.Import(ctx, e, image); err != nil {
			return 1, err
		}
	}
	if err := buildApp(e); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// appFile is the test application, built for containers of any image.
func appFile(e *env.Env) string { return filepath.Join(e.Dir, "app") }

func buildApp(e *env.Env) error {
	cmd := exec.Command("go", "build", "-o", appFile(e), "./testing/e2e/app")
	cmd.Dir = e.Root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the test application: %w: %s", err, out)
	}
	return nil
}

// checkBuild fails unless the shim in bin/ is newer than everything it is made
// of. `go build` sets the time of a binary that is up to date already.
func checkBuild(root string) error {
	const pkg = "./cmd/containerd-shim-crsc-v1"
	shim := filepath.Join(root, "bin", "containerd-shim-crsc-v1")
	built, err := os.Stat(shim)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: run make build", shim)
	}
	if err != nil {
		return err
	}
	// Of our own module only: the others come from a cache that does not change.
	const format = `{{if .Module}}{{if .Module.Main}}{{$d := .Dir}}{{range .GoFiles}}{{$d}}/{{.}}
{{end}}{{range .EmbedFiles}}{{$d}}/{{.}}
{{end}}{{end}}{{end}}`
	cmd := exec.Command("go", "list", "-deps", "-f", format, pkg)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("list the sources of the shim: %w", err)
	}
	sources := append(strings.Fields(string(out)), filepath.Join(root, "go.mod"))
	for _, f := range sources {
		st, err := os.Stat(f)
		if err != nil {
			return err
		}
		if st.ModTime().After(built.ModTime()) {
			return fmt.Errorf("%s is older (%s) than %s (%s): run make build", shim,
				built.ModTime().Format(time.RFC3339Nano), f, st.ModTime().Format(time.RFC3339Nano))
		}
	}
	return nil
}
