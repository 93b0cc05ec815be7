package paritybench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
	"github.com/crsc-io/crsc/testing/isolate"
)

// Runtime handlers of the CRI.
const (
	handlerStock = "runc"
	handlerOurs  = "crsc"
)

// nodeConfig is containerd's; the handler of ours is as docs/KUBERNETES.md has
// it. No CAP_SYS_RESOURCE is needed with restrict_oom_score_adj.
const nodeConfig = `
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %q
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.` + handlerStock + `]
  runtime_type = "io.containerd.runc.v2"
  runtime_path = %q
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.` + handlerOurs + `]
  runtime_type = "io.containerd.crsc.v1"
  pod_annotations = ["crsc.io/*"]
  container_annotations = ["crsc.io/*"]
`

// node is an isolated containerd with a CRI.
type node struct {
	*kubelet
	daemon *isolate.Containerd
}

// startNode must be called isolated. The stock shim is given by its path.
func startNode(ctx context.Context, stock string) (*node, error) {
	e, err := env.Locate("")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(isolate.Dir, 0o711); err != nil {
		return nil, err
	}
	file := filepath.Join(isolate.Dir, "node.toml")
	text := fmt.Sprintf("state_dir = %q\ncriu = %q\n", filepath.Join(isolate.Dir, "crsc"), filepath.Join(e.ToolsDir, "criu"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	n := &node{}
	n.daemon, err = isolate.StartContainerd(ctx, isolate.ContainerdOptions{
		Path: e.Path(), Node: file, Config: fmt.Sprintf(nodeConfig, ociimage.Ref("pause"), stock),
	})
	if err != nil {
		return nil, err
	}
	var refs []string
	for _, name := range []string{"pause", "busybox"} {
		ref, err := n.load(ctx, e, name)
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	if n.kubelet, err = dial(ctx, n.daemon.Address, refs...); err != nil {
		err = n.explain(err)
	}
	return n, err
}

func (n *node) load(ctx context.Context, e *env.Env, name string) (ref string, err error) {
	file, ref, err := ociimage.Archive(name)
	if err != nil {
		return "", err
	}
	ctr := filepath.Join(e.ToolsDir, "ctr")
	out, err := exec.CommandContext(ctx, ctr, "-a", n.daemon.Address, "-n", "k8s.io", "images", "import", "--local", file).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("import image %s: %w: %s", name, err, out)
	}
	return ref, err
}

// explain adds what the daemon and the shims have logged last, which is lost
// with the isolation.
func (n *node) explain(err error) error {
	return fmt.Errorf("%w\n%s", err, n.daemon.LogTail(30))
}
