package paritybench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/env/ociimage"
	"github.com/crsc-io/crsc/testing/isolate"
)

// kubelet calls the CRI as a kubelet does.
type kubelet struct {
	conn   *grpc.ClientConn
	run    cri.RuntimeServiceClient
	images cri.ImageServiceClient
}

// pod is one that runs, with its only container.
type pod struct{ sandbox, container string }

// dial connects to the CRI of a containerd, and returns when that has the images.
func dial(ctx context.Context, address string, images ...string) (*kubelet, error) {
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	k := &kubelet{conn: conn, run: cri.NewRuntimeServiceClient(conn), images: cri.NewImageServiceClient(conn)}
	for _, image := range images {
		if err := bench.Until(ctx, func() error { return k.hasImage(ctx, image) }); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func (k *kubelet) hasImage(ctx context.Context, image string) error {
	answer, err := k.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: image}})
	if err == nil && answer.GetImage() == nil {
		err = fmt.Errorf("the CRI has no image %s", image)
	}
	return err
}

// start starts a pod of a runtime handler, in the network namespace of the node:
// what CNI takes is the same for all shims.
func (k *kubelet) start(ctx context.Context, name, handler string) (p pod, err error) {
	config := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Uid: name, Namespace: "parity"},
		LogDirectory: isolate.Dir + "/pods/" + name,
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: namespaces(),
		}},
	}
	sandbox, err := k.run.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	if err != nil {
		return pod{}, fmt.Errorf("run sandbox %s: %w", name, err)
	}
	container, err := k.run.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: sandbox.PodSandboxId, SandboxConfig: config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "main"}, LogPath: "main.log",
			Image: &cri.ImageSpec{Image: ociimage.Ref("busybox")}, Command: []string{"sleep", "1000"},
			Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: namespaces()}},
		},
	})
	if err != nil {
		return pod{}, fmt.Errorf("create container of %s: %w", name, err)
	}
	p = pod{sandbox.PodSandboxId, container.ContainerId}
	if _, err := k.run.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: p.container}); err != nil {
		return pod{}, fmt.Errorf("start container of %s: %w", name, err)
	}
	return p, nil
}

func namespaces() *cri.NamespaceOption {
	return &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER, Ipc: cri.NamespaceMode_POD}
}

// exec runs true in the pod's container, as a kubelet's probe does.
func (k *kubelet) exec(ctx context.Context, p pod) error {
	answer, err := k.run.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: p.container, Cmd: []string{"/bin/true"}})
	if err == nil && answer.ExitCode != 0 {
		err = fmt.Errorf("/bin/true ended with %d: %s", answer.ExitCode, answer.Stderr)
	}
	return err
}

func (k *kubelet) remove(ctx context.Context, p pod) error {
	if _, err := k.run.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.sandbox}); err != nil {
		return err
	}
	_, err := k.run.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.sandbox})
	return err
}

// shim is the process that serves the pod: the parent of its container.
func (k *kubelet) shim(ctx context.Context, p pod) (pid int, err error) {
	answer, err := k.run.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: p.container, Verbose: true})
	if err != nil {
		return 0, err
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(answer.Info["info"]), &info); err != nil {
		return 0, fmt.Errorf("status of container %s: %w", p.container, err)
	}
	pid, err = parent(info.Pid)
	if err != nil {
		return 0, err
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err == nil && !strings.Contains(string(name), "containerd-shim-") {
		err = fmt.Errorf("the parent of container %s is %q and not a shim", p.container, name)
	}
	return pid, err
}

// parent reads a process's status, proc_pid_status(5).
func parent(pid int) (ppid int, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if n, err := fmt.Sscanf(line, "PPid: %d", &ppid); n == 1 {
			return ppid, err
		}
	}
	return 0, fmt.Errorf("status of process %d has no PPid", pid)
}
