package shim

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/schedcore"
	"github.com/containerd/containerd/v2/pkg/shim"

	"github.com/crsc-io/crsc/internal/cgroups"
)

// groupAnnotations name the group of a container, in order of preference. The
// containers of a group share one shim.
func groupAnnotations() []string {
	return []string{"io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"}
}

// readGroup returns the group of the bundle in the working directory, the
// container's ID if it has none.
func readGroup(id string) (string, error) {
	data, err := os.ReadFile("config.json")
	if err != nil {
		return "", err
	}
	var spec struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(data, &spec); err != nil {
		return "", fmt.Errorf("config.json: %w", err)
	}
	for _, a := range groupAnnotations() {
		if group, ok := spec.Annotations[a]; ok {
			return group, nil
		}
	}
	return id, nil
}

// launch starts the serving process of a group and returns its address. If the
// group has one, the error is errdefs.ErrAlreadyExists and the address its own.
func launch(ctx context.Context, id, group string, o shim.StartOpts) (_ string, retErr error) {
	in, err := readStartInput(os.Stdin)
	if err != nil {
		return "", err
	}
	s, err := listen(ctx, o.Address, group, in.socketDir, false)
	if err != nil {
		return s.address, err
	}
	defer s.settle(&retErr)
	cmd, err := serveCommand(ctx, id, o)
	if err != nil {
		return "", err
	}
	// pkg/shim expects the listener at descriptor 3, that of pprof at 4.
	cmd.ExtraFiles = []*os.File{s.file}
	if o.Debug {
		d, err := listen(ctx, o.Address, group, in.socketDir, true)
		if err != nil {
			return "", err
		}
		defer d.settle(&retErr)
		cmd.ExtraFiles = append(cmd.ExtraFiles, d.file)
	}
	if err := start(cmd); err != nil {
		return "", err
	}
	defer func() {
		if retErr != nil {
			_ = cmd.Process.Kill()
		}
	}()
	if err := joinCgroup(cmd.Process.Pid, in.options.ShimCgroup); err != nil {
		return "", err
	}
	if err := shim.AdjustOOMScore(cmd.Process.Pid); err != nil {
		return "", fmt.Errorf("failed to adjust OOM score for shim: %w", err)
	}
	return s.address, nil
}

// serveCommand is this binary once more, without an action: it serves.
func serveCommand(ctx context.Context, id string, o shim.StartOpts) (*exec.Cmd, error) {
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"-namespace", ns, "-id", id, "-address", o.Address}
	if o.Debug {
		args = append(args, "-debug")
	}
	cmd := exec.Command(self, args...)
	// As under runc's shim: enough threads for the Go runtime, few stacks.
	cmd.Env = append(os.Environ(), "GOMAXPROCS=4", "OTEL_SERVICE_NAME=containerd-shim-"+id)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
}

func start(cmd *exec.Cmd) error {
	// The child gets the scheduling core of this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Getenv("SCHED_CORE") != "" {
		if err := schedcore.Create(schedcore.ProcessGroup); err != nil {
			return fmt.Errorf("enable sched core support: %w", err)
		}
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	return nil
}

// joinCgroup moves the shim to the cgroup of the runtime options, if they name
// one.
func joinCgroup(pid int, path string) (err error) {
	if path == "" {
		return nil
	}
	if cgroups.Unified() {
		var cg *cgroup2.Manager
		if cg, err = cgroup2.Load(path); err == nil {
			err = cg.AddProc(uint64(pid))
		}
	} else {
		var cg cgroup1.Cgroup
		if cg, err = cgroup1.Load(cgroup1.StaticPath(path)); err == nil {
			err = cg.AddProc(uint64(pid))
		}
	}
	if err != nil {
		return fmt.Errorf("join cgroup %s: %w", path, err)
	}
	return nil
}
