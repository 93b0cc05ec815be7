package env

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// shimAddress returns the socket that a shim left at its fixed place; killed
// shims cannot remove it.
func shimAddress(bundle string) string {
	data, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json"))
	var boot struct {
		Address string `json:"address"`
	}
	if err == nil {
		err = json.Unmarshal(data, &boot)
	}
	if err != nil { // daemons before 2.0 wrote only the address
		data, _ = os.ReadFile(filepath.Join(bundle, "address"))
		boot.Address = string(data)
	}
	path := filepath.Clean(strings.TrimPrefix(strings.TrimSpace(boot.Address), "unix://"))
	if filepath.Dir(path) != shimSocket {
		return ""
	}
	return path
}

// cgroupsPath returns the cgroup of a bundle, as a relative clean path.
func cgroupsPath(bundle string) string {
	data, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return ""
	}
	var spec struct {
		Linux struct {
			CgroupsPath string `json:"cgroupsPath"`
		} `json:"linux"`
	}
	if err := json.Unmarshal(data, &spec); err != nil {
		return ""
	}
	return filepath.Clean("/" + spec.Linux.CgroupsPath)[1:]
}

// fifoDirs finds the FIFO directories that ctr made for our containers, by the
// descriptors of the living shims.
func (e *Env) fifoDirs() []string {
	var out []string
	// An unreadable /proc is reported by killAll, which walks it next.
	_ = eachProcess(func(pid int) {
		if !e.isOurTool(pid) {
			return
		}
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			target, err := os.Readlink(fd)
			if err == nil && strings.HasPrefix(target, fifoRoot+"/") {
				out = append(out, filepath.Dir(target))
			}
		}
	})
	return out
}
