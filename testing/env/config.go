package env

import "fmt"

// containerdConfig disables what would touch the host (NRI's socket,
// /opt/containerd) or only cost time.
const containerdConfig = `version = 3
root = "%[1]s/root"
state = "%[1]s/state"
oom_score = 0
disabled_plugins = [
%[3]s  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = %[2]q

[ttrpc]
  address = "%[2]s.ttrpc"

[debug]
  level = "info"
%[4]s`

// ContainerdConfig is the configuration of a daemon without what no test uses.
type ContainerdConfig struct {
	Dir     string   // its root and state lie in it
	Address string   // of its gRPC socket
	Off     []string // further plugins to disable
	More    string   // further TOML
}

// TOML returns the file.
func (c ContainerdConfig) TOML() []byte {
	var off []byte
	for _, plugin := range c.Off {
		off = fmt.Appendf(off, "  %q,\n", plugin)
	}
	return fmt.Appendf(nil, containerdConfig, c.Dir, c.Address, off, c.More)
}
