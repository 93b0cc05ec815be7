package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
	"github.com/crsc-io/crsc/testing/k8s/sandbox"
)

// Addresses of the cluster. All of them lie in its own network namespace.
const (
	NodeName  = "node1"
	NodeIP    = "172.31.99.1"
	serviceIP = "10.96.0.1"
	services  = "10.96.0.0/24"
	pods      = "10.244.0.0/24"
	apiserver = "https://" + NodeIP + ":6443"
)

// readyTimeout bounds the start of each component.
const readyTimeout = 90 * time.Second

// Cluster is a running Kubernetes.
type Cluster struct {
	// Root is the clone of the repository, Logs where components log to.
	Root, Logs string

	dir   string // of our files
	tools string
	env   []string

	Containerd, Kubelet *Process
	processes           []*Process // all, in the order of their start
}

// Start starts the cluster in the sandbox whose directory dir is. It returns
// when the node is ready to run pods.
func Start(ctx context.Context, dir, logs string) (*Cluster, error) {
	e, err := env.Locate("k8s")
	if err != nil {
		return nil, err
	}
	c := &Cluster{Root: e.Root, Logs: logs, dir: filepath.Join(dir, "cluster"), tools: e.ToolsDir}
	c.env = []string{
		"PATH=" + e.ToolsDir + ":" + filepath.Join(c.dir, "bin") + ":" + os.Getenv("PATH"), "HOME=" + dir,
		"KUBECONFIG=" + c.kubeconfig(), "CONTAINERD_ADDRESS=/run/containerd/containerd.sock", "CONTAINERD_NAMESPACE=k8s.io",
	}
	if err := os.MkdirAll(filepath.Join(c.dir, "bin"), 0o755); err != nil {
		return nil, err
	}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"programs", c.link}, {"network", c.makeNetwork}, {"cgroups", func(context.Context) error { return sandbox.MakeCgroups(filepath.Base(dir)) }},
		{"configuration", func(context.Context) error { return c.writeFiles(filepath.Base(dir)) }},
		{"control plane", c.startControlPlane}, {"node", c.startNode},
	} {
		if err := step.do(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", step.what, err), c.Stop())
		}
	}
	return c, nil
}

// Stop ends the components. Containers and their shims end with the sandbox.
func (c *Cluster) Stop() error {
	for i := len(c.processes) - 1; i >= 0; i-- {
		c.processes[i].Stop()
	}
	c.processes = nil
	return nil
}

func (c *Cluster) kubeconfig() string { return filepath.Join(c.dir, "kubeconfig") }

// Environ is the environment of commands that are to use the cluster.
func (c *Cluster) Environ() []string { return c.env }

// link puts the programs in place: those of Kubernetes are one.
func (c *Cluster) link(context.Context) error {
	all := filepath.Join(c.tools, "kubernetes")
	if _, err := os.Stat(all); err != nil {
		return fmt.Errorf("%w: run testing/env/install kubernetes", err)
	}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl", "metrics-server"} {
		if err := os.Symlink(all, filepath.Join(c.dir, "bin", name)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll("/opt/cni", 0o755); err != nil {
		return err
	}
	return os.Symlink(c.tools, "/opt/cni/bin")
}

func (c *Cluster) launch(name string, args ...string) (*Process, error) {
	path := filepath.Join(c.dir, "bin", name)
	if _, err := os.Lstat(path); err != nil {
		path = filepath.Join(c.tools, name)
	}
	p, err := supervise(c.Logs, c.env, path, args...)
	if err == nil {
		c.processes = append(c.processes, p)
	}
	return p, err
}

// await repeats a check until it succeeds or the time is over; the error is
// that of the last try.
func await(ctx context.Context, most time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		try, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := check(try)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %v: %w", most, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Import gives the node an image of the test environment, and returns its name.
func (c *Cluster) Import(ctx context.Context, name string) (string, error) {
	file, ref, err := ociimage.Archive(name)
	if err != nil {
		return "", err
	}
	_, err = c.Run(ctx, "ctr", "images", "import", "--local", "--no-unpack", file)
	return ref, err
}

func (c *Cluster) startControlPlane(ctx context.Context) error {
	d := func(name string) string { return filepath.Join(c.dir, name) }
	start := [][]string{
		{"etcd", "--data-dir=" + d("etcd"), "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380", "--initial-cluster=default=http://127.0.0.1:2380"},
		{"kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--advertise-address=" + NodeIP, "--secure-port=6443",
			"--tls-cert-file=" + d("apiserver.crt"), "--tls-private-key-file=" + d("apiserver.key"),
			"--service-account-issuer=https://kubernetes.default.svc", "--service-account-signing-key-file=" + d("serviceaccount.key"),
			"--service-account-key-file=" + d("serviceaccount.key"), "--token-auth-file=" + d("tokens.csv"),
			"--authorization-mode=Node,RBAC", "--service-cluster-ip-range=" + services, "--allow-privileged=true",
			"--kubelet-preferred-address-types=InternalIP", "--feature-gates=MutatingAdmissionPolicy=true",
			"--runtime-config=admissionregistration.k8s.io/v1beta1=true", "--enable-priority-and-fairness=false",
			"--requestheader-client-ca-file=" + d("ca.crt"), "--requestheader-allowed-names=" + aggregator,
			"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + d("aggregator.crt"), "--proxy-client-key-file=" + d("aggregator.key")},
		{"kube-controller-manager", "--kubeconfig=" + c.kubeconfig(), "--leader-elect=false", "--use-service-account-credentials=false",
			"--service-account-private-key-file=" + d("serviceaccount.key"), "--root-ca-file=" + d("ca.crt"),
			"--allocate-node-cidrs=false"},
		{"kube-scheduler", "--kubeconfig=" + c.kubeconfig(), "--leader-elect=false"},
		{"kube-proxy", "--kubeconfig=" + c.kubeconfig(), "--proxy-mode=nftables", "--cluster-cidr=" + pods, "--hostname-override=" + NodeName,
			"--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0"},
	}
	for i, args := range start {
		if _, err := c.launch(args[0], args[1:]...); err != nil {
			return err
		}
		if i != 1 {
			continue
		}
		if err := await(ctx, readyTimeout, func(ctx context.Context) error {
			_, err := c.Kubectl(ctx, "get", "--raw", "/readyz")
			return err
		}); err != nil {
			return fmt.Errorf("kube-apiserver is not ready: %w", err)
		}
	}
	return nil
}

func (c *Cluster) startNode(ctx context.Context) (err error) {
	if c.Containerd, err = c.launch("containerd"); err != nil {
		return err
	}
	if err := await(ctx, readyTimeout, func(ctx context.Context) error {
		_, err := c.Run(ctx, "ctr", "version")
		return err
	}); err != nil {
		return fmt.Errorf("containerd is not ready: %w", err)
	}
	if _, err := c.Import(ctx, "pause"); err != nil {
		return err
	}
	if c.Kubelet, err = c.launch("kubelet", "--kubeconfig="+c.kubeconfig(), "--config="+filepath.Join(c.dir, "kubelet.yaml"),
		"--hostname-override="+NodeName, "--node-ip="+NodeIP); err != nil {
		return err
	}
	return await(ctx, readyTimeout, func(ctx context.Context) error {
		out, err := c.Kubectl(ctx, "get", "node", NodeName, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}/{.spec.taints}`)
		if err == nil && strings.TrimSpace(out) != "True/" {
			err = fmt.Errorf("node: Ready/taints %s", out)
		}
		return err
	})
}

// ImportImage is Import for an image that is not in the table of images.
func (c *Cluster) ImportImage(ctx context.Context, i ociimage.Image) error {
	file, err := i.Archive()
	if err != nil {
		return err
	}
	_, err = c.Run(ctx, "ctr", "images", "import", "--local", "--no-unpack", file)
	return err
}
