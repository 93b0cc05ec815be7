package critest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/testing/env"
)

// criTests are those of containerd's integration suite of its CRI plugin that
// have a shim do something. The others test images, metadata and CNI, have
// handlers or daemons of their own, or download an older containerd; ContainerStopCancellation
// depends on whether a shell has set a trap when a signal comes.
const criTests = "^Test(AdditionalGids|PrivilegedContainerCgroupMountOptions|ContainerCgroupWritable|ContainerEvents|ContainerDrainExecIOAfterExit|" +
	"ContainerIOLeakAfterStartFailed|ContainerLogWithoutTailingNewLine|LongContainerLog|ContainerRestart|FailedContainerRestart|Container.*Stats.*|" +
	"SharedPidMultiProcessContainerStop|ContainerTTYLeakAfterExit|UpdateContainerResources_.*|" +
	"ContainerSymlinkVolumes|ContainerLifecycleWithoutImageRef|DuplicateName|Issue7496|PodDualStack|PodHostname|PodUserNS|Issue10598|UsernsVolumeCopyUp|" +
	"ContainerdRestart|RuntimeHandler|SandboxRemoveWithoutIPLeakage|VolumeCopyUp|VolumeOwnership)$"

// again is how long the daemon stays away when the suite ends it: the suite looks
// once a second whether it is gone.
const again = 3 * time.Second

// RunCRIServer compares by containerd's own integration tests of its CRI plugin
// (integration of its source tree). It must be called isolated. The report is
// there also when an error is returned after the first run.
//
// Errors: a handler that does not exist, a run that did not come to its end.
func RunCRIServer(ctx context.Context, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	e, err := env.Locate("")
	if err != nil {
		return nil, err
	}
	if err := makeRoot(); err != nil {
		return nil, err
	}
	n, err := startNode(ctx, e, nodeOptions{program: o.Program, again: again, cri: "  drain_exec_sync_io_timeout = \"10s\"\n"})
	if err != nil {
		return nil, err
	}
	r, err := compareAll(o, func(handler string) ([]spec, error) { return n.runCRITests(ctx, o, handler) })
	return r, errors.Join(err, n.keepLog(filepath.Join(o.LogDir, "cri-tests-containerd.log")), ctx.Err())
}

// makeRoot makes the directory that the suite takes for the daemon's, on a file
// system that maps users.
func makeRoot() error {
	if err := unix.Mount("tmpfs", "/var/lib", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /var/lib: %w", err)
	}
	return os.Mkdir("/var/lib/containerd-test", 0o700)
}

func (n *node) runCRITests(ctx context.Context, o Options, handler string) ([]spec, error) {
	if err := writeNode(n.file, n.env, handler == HandlerProtected); err != nil {
		return nil, err
	}
	tests := criTests
	if o.Focus != "" {
		tests = o.Focus
	}
	name := handler
	if handler == HandlerProtected {
		name = HandlerCrsc
	}
	ctx, cancel := context.WithTimeout(ctx, suiteLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(n.env.ToolsDir, "containerd-cri-test"),
		"-cri-endpoint", "unix://"+n.daemon.Address, "-runtime-handler", name, "-test.run", tests)
	cmd.Env = append(os.Environ(), "PATH="+n.env.Path())
	specs, err := runGoTests(cmd, filepath.Join(o.LogDir, "cri-tests-"+handler+".log"))
	if err != nil {
		return nil, fmt.Errorf("containerd's CRI tests with %s: %w", handler, err)
	}
	return specs, nil
}
