package node

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"
)

// handler is the name of our runtime in containerd and in the RuntimeClass.
const handler = "crsc"

// runtimePlugin is the section with the runtimes, by configuration version.
func runtimePlugin(version int) string {
	if version == 2 {
		return "io.containerd.grpc.v1.cri"
	}
	return "io.containerd.cri.v1.runtime"
}

// table is a TOML table.
type table = map[string]any

// sub returns a table below t, or an empty one.
func sub(t table, path ...string) table {
	for _, name := range path {
		t, _ = t[name].(table)
	}
	return t
}

// dropIn makes the file with our runtime: a copy of the node's own default
// runtime, or runc, with our shim. That way it has the node's cgroup driver, base
// spec, snapshotter and so on. The effective configuration is what containerd
// itself makes of its files, which may be of a newer version than they. A runtime
// that names no runc gets the given one, if any.
func dropIn(version int, effective table, shim, runc string) ([]byte, error) {
	var containerd table
	for _, v := range []int{3, 2} {
		if containerd = sub(effective, "plugins", runtimePlugin(v), "containerd"); len(containerd) > 0 {
			break
		}
	}
	name, _ := containerd["default_runtime_name"].(string)
	if name == "" || name == handler {
		name = "runc"
	}
	runtime := maps.Clone(sub(containerd, "runtimes", name))
	if runtime["runtime_type"] != "io.containerd.runc.v2" {
		return nil, fmt.Errorf("%w: the runtime %s has the type %v, not io.containerd.runc.v2, so it can't be taken as a model", ErrConfig, name, runtime["runtime_type"])
	}
	// The type stays: containerd hands the node's options for runc, and the
	// owner of the pipes in a user namespace, to that type only. The path alone
	// decides which program it starts.
	runtime["runtime_path"] = shim
	if is, _ := sub(runtime, "options")["BinaryName"].(string); is == "" && runc != "" {
		options := table{"BinaryName": runc}
		for key, value := range sub(runtime, "options") {
			if key != "BinaryName" {
				options[key] = value
			}
		}
		runtime["options"] = options
	}
	for _, key := range []string{"pod_annotations", "container_annotations"} {
		have, _ := runtime[key].([]any)
		runtime[key] = append(have, "crsc.io/*")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Written by crsc-node; changes are overwritten.\n")
	if err := toml.NewEncoder(&b).Encode(table{
		"version": version,
		"plugins": table{runtimePlugin(version): table{"containerd": table{"runtimes": table{handler: runtime}}}},
	}); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// shimName is containerd's name for the program of our runtime type.
const shimName = "containerd-shim-crsc-v1"

func (o Options) shim() string { return filepath.Join(o.programs(), shimName) }

// lost names something that a configuration says and the one after it does not
// any more; empty: nothing. What a list of our own making adds is no loss.
func lost(before, after any, path string) string {
	b, ok := before.(table)
	if !ok {
		if fmt.Sprint(before) != fmt.Sprint(after) {
			return fmt.Sprintf("%s was %v and would be %v", path, before, after)
		}
		return ""
	}
	a, _ := after.(table)
	for key, value := range b {
		if path == "" && key == "imports" {
			continue
		}
		if s := lost(value, a[key], path+"/"+key); s != "" {
			return s
		}
	}
	return ""
}
