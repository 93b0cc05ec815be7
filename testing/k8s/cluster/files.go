package cluster

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// adminToken authenticates the components and the tests. The API server is
// reachable in the sandbox only.
const adminToken = "admin"

// containerdConfig is that of a node before anything of ours is on it.
// restrict_oom_score_adj: the tests may lack CAP_SYS_RESOURCE.
const containerdConfig = `version = 3
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = %q

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['/opt/cni/bin']
    conf_dir = '/etc/cni/net.d'
`

const cniConfig = `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [{
    "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}
  }]
}
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /%s
clusterDNS: ["10.96.0.10"]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
containerLogMaxFiles: 100
containerLogMaxSize: 1Mi
containerLogMonitorInterval: 3s
crashLoopBackOff: {maxContainerRestartPeriod: 2s}
enforceNodeAllocatable: []
evictionHard: {memory.available: 0%%, nodefs.available: 0%%, nodefs.inodesFree: 0%%, imagefs.available: 0%%}
failCgroupV1: false
failSwapOn: false
featureGates: {KubeletCrashLoopBackOffMax: true}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
localStorageCapacityIsolation: false
makeIPTablesUtilChains: false
nodeStatusUpdateFrequency: 2s
registerWithTaints: []
staticPodPath: %s
syncFrequency: 5s
volumeStatsAggPeriod: -1s
`

const kubeconfigText = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: u, user: {token: %q}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`

// StaticPods is the directory of the manifests that the kubelet itself runs.
const StaticPods = "/etc/kubernetes/manifests"

// writeFiles writes what the components read.
func (c *Cluster) writeFiles(cgroup string) error {
	if err := makeCertificates(c.dir, []string{"kubernetes.default.svc", "kubernetes.default", "localhost"},
		[]net.IP{net.ParseIP(NodeIP), net.ParseIP(serviceIP), net.ParseIP("127.0.0.1")}); err != nil {
		return err
	}
	errs := []error{os.MkdirAll(StaticPods, 0o755)}
	for file, text := range map[string]string{
		"/etc/containerd/config.toml":        fmt.Sprintf(containerdConfig, ociimage.Ref("pause")),
		"/etc/cni/net.d/10-pods.conflist":    fmt.Sprintf(cniConfig, pods),
		filepath.Join(c.dir, "kubelet.yaml"): fmt.Sprintf(kubeletConfig, cgroup, StaticPods),
		filepath.Join(c.dir, "tokens.csv"):   adminToken + ",admin,1,system:masters\n",
		c.kubeconfig():                       fmt.Sprintf(kubeconfigText, apiserver, filepath.Join(c.dir, "ca.crt"), adminToken),
		"/etc/resolv.conf":                   "nameserver 127.0.0.1\n",
	} {
		errs = append(errs, os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600))
	}
	return errors.Join(errs...)
}

// ContainerdConfig is containerd's configuration on the node at first.
func (c *Cluster) ContainerdConfig() string {
	return fmt.Sprintf(containerdConfig, ociimage.Ref("pause"))
}
