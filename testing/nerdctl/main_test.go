package nerdctl

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/isolate"
)

const runtime = env.RuntimeCRSC

// restartMonitor looks every second instead of every ten.
const restartMonitor = `
[plugins."io.containerd.monitor.container.v1.restart"]
  interval = "1s"
[plugins."io.containerd.internal.v1.restart"]
  interval = "1s"
`

// host is what all tests use; TestMain sets it once.
var host *machine

func TestMain(m *testing.M) {
	flag.Parse()
	e, err := env.Locate("")
	if err == nil && isolate.Outside() {
		err = install(e)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nerdctl:", err)
		os.Exit(1)
	}
	inside, status, err := isolate.Enter(isolate.Options{Name: "nerdctl"})
	if inside {
		if host, err = newMachine(e); err == nil {
			status = m.Run()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nerdctl:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}

func install(e *env.Env) error {
	if _, err := os.Stat(filepath.Join(e.Root, "bin", "containerd-shim-crsc-v1")); err != nil {
		return fmt.Errorf("%w: run make build", err)
	}
	cmd := exec.Command(filepath.Join(e.Root, "testing", "env", "install"), "nerdctl")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}

// machine is the isolated host with its containerd.
type machine struct {
	env    *env.Env
	daemon *isolate.Containerd
	state  string // state_dir of the shims
}

func newMachine(e *env.Env) (*machine, error) {
	h := &machine{env: e, state: filepath.Join(isolate.Dir, "crsc")}
	node := filepath.Join(isolate.Dir, "node.toml")
	text := fmt.Sprintf("state_dir = %q\ncriu = %q\n", h.state, filepath.Join(e.ToolsDir, "criu"))
	err := errors.Join(os.MkdirAll(isolate.Dir, 0o711), os.WriteFile(node, []byte(text), 0o600))
	if err != nil {
		return nil, err
	}
	h.daemon, err = isolate.StartContainerd(context.Background(), isolate.ContainerdOptions{
		Path: e.Path(), Node: node, Config: restartMonitor,
		Off: []string{"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"},
	})
	if err != nil {
		return nil, err
	}
	return h, h.loadImages()
}
