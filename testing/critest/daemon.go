package critest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/isolate"
)

// criConfig is containerd's. No CAP_SYS_RESOURCE is needed with
// restrict_oom_score_adj.
const criConfig = `
[plugins."io.containerd.cri.v1.images"]
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = %q
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = %q
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
%s  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = [%q]
    conf_dir = %q
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.crsc]
      runtime_type = "io.containerd.crsc.v1"
      pod_annotations = ["crsc.io/*"]
      container_annotations = ["crsc.io/*"]
`

// cniConfig: no masquerading, which needs iptables, and nothing to reach.
const cniConfig = `{
  "cniVersion": "1.0.0", "name": "critest",
  "plugins": [
    {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}}
  ]
}
`

// node is the host side of a run: the daemon and the registry.
type node struct {
	env    *env.Env
	daemon *isolate.Containerd
	file   string // the shims' node file
}

// nodeOptions are what suites want of their node.
type nodeOptions struct {
	program string        // the built testing/critest/program
	cri     string        // lines for the CRI plugin
	again   time.Duration // see isolate.ContainerdOptions
}

func startNode(ctx context.Context, e *env.Env, o nodeOptions) (*node, error) {
	data, err := layer(o.program)
	if err != nil {
		return nil, err
	}
	store, err := newStore(data, images())
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go store.serve(l) // until the program ends
	n := &node{env: e, file: filepath.Join(isolate.Dir, "node.toml")}
	certs, cni := filepath.Join(isolate.Dir, "certs.d"), filepath.Join(isolate.Dir, "net.d")
	files := map[string]string{
		filepath.Join(certs, "_default", "hosts.toml"): fmt.Sprintf("[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", l.Addr()),
		filepath.Join(cni, "10-critest.conflist"):      cniConfig,
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	if err := writeNode(n.file, e, false); err != nil {
		return nil, err
	}
	n.daemon, err = isolate.StartContainerd(ctx, isolate.ContainerdOptions{
		Path: e.Path(), Node: n.file, Again: o.again,
		Config: fmt.Sprintf(criConfig, pauseImage, certs, o.cri, e.ToolsDir, cni),
	})
	return n, err
}

// writeNode writes the node file, which each shim reads when it starts.
func writeNode(file string, e *env.Env, protectAll bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "state_dir = %q\ncriu = %q\nlog_level = \"info\"\n", filepath.Join(isolate.Dir, "state-crsc"), filepath.Join(e.ToolsDir, "criu"))
	if protectAll {
		b.WriteString("[defaults]\n\"crsc.io/checkpoint-restore\" = \"true\"\n")
	}
	return os.WriteFile(file, []byte(b.String()), 0o600)
}

// keepLog copies the log of the daemon and the shims to where it outlives the
// isolation.
func (n *node) keepLog(file string) error {
	data, err := os.ReadFile(n.daemon.Log)
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}
