package critest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/isolate"
)

// clientTests are those of containerd's integration/client that run a task or
// talk to a shim; the others test images, content and transfers. Skipped is one
// more of those, and one that never ends with either shim: it expects that an
// ambient capability is refused, which runc 1.5 grants.
const (
	skippedClientTests = "^Test(Issue13030|BindLowPortNonOpt)$"
	clientTests        = "^Test(Container|NewContainer|NewTask|DeleteRunning|DeleteContainer|DeletedContainer|Kill|Wait|Task|Process|Shim|Short|" +
		"Regression|Daemon|UserNamespaces|UIDNoGID|BindLowPort|Issue|Checkpoint|IDMapped|RestartMonitor|ClientTTRPC)"
)

// RunClient compares by containerd's own integration tests of a runtime
// (integration/client of its source tree), which start, restart and kill a
// daemon of their own. It must be called isolated. The report is there also
// when an error is returned after the first run.
//
// Errors: a handler that does not exist, a run that did not come to its end.
func RunClient(ctx context.Context, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	e, err := env.Locate("")
	if err != nil {
		return nil, err
	}
	s, err := newClientSuite(e, o)
	if err != nil {
		return nil, err
	}
	return compareAll(o, func(handler string) ([]spec, error) { return s.run(ctx, handler) })
}

// clientSuite is what all runs share.
type clientSuite struct {
	env  *env.Env
	o    Options
	cert string // of the registry
}

// newClientSuite makes what the suite insists on: the registries whose images it
// names, and /var/lib, where its daemon keeps snapshots, on a file system that
// can carry an overlay.
func newClientSuite(e *env.Env, o Options) (*clientSuite, error) {
	if err := unix.Mount("tmpfs", "/var/lib", "tmpfs", 0, "mode=755"); err != nil {
		return nil, fmt.Errorf("mount /var/lib: %w", err)
	}
	if err := os.MkdirAll(isolate.Dir, 0o711); err != nil {
		return nil, err
	}
	data, err := layer(o.Program)
	if err != nil {
		return nil, err
	}
	shell := []string{"sh"}
	images, err := newStore(data, []image{
		{"containerd/busybox", "1.36", "", shell}, {"containerd/alpine", "3.14.0", "", shell},
		{"containerd/volume-copy-up", "2.2", "", shell}, {"containerd/volume-ownership", "2.1", "", shell},
	})
	if err != nil {
		return nil, err
	}
	s := &clientSuite{env: e, o: o, cert: filepath.Join(isolate.Dir, "registry.pem")}
	return s, images.impersonate(s.cert, "ghcr.io")
}

// run runs the suite once. Its output, with its daemon's log, goes to a file.
func (s *clientSuite) run(ctx context.Context, handler string) ([]spec, error) {
	runtime := "io.containerd.crsc.v1"
	if handler == "runc" {
		runtime = "io.containerd.runc.v2"
	}
	node := filepath.Join(isolate.Dir, "node.toml")
	if err := writeNode(node, s.env, handler == HandlerProtected); err != nil {
		return nil, err
	}
	tests := clientTests
	if s.o.Focus != "" {
		tests = s.o.Focus
	}
	ctx, cancel := context.WithTimeout(ctx, suiteLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.env.ToolsDir, "containerd-client-test"),
		"-test.root", "-test.run", tests, "-test.skip", skippedClientTests)
	cmd.Env = append(os.Environ(), "PATH="+s.env.Path(), "TEST_RUNTIME="+runtime, "CRSC_CONFIG="+node, "SSL_CERT_FILE="+s.cert, "TMPDIR="+isolate.Dir)
	specs, err := runGoTests(cmd, filepath.Join(s.o.LogDir, "client-"+handler+".log"))
	if err != nil {
		return nil, fmt.Errorf("containerd's client tests with %s: %w", handler, err)
	}
	return specs, nil
}
