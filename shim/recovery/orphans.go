package recovery

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/status"
)

// Orphans names the containers of a pod whose shim was killed and that nobody has
// cleaned up after: containerd has that done for the sandbox only, or for the others
// by the binary that the runtime's type names, which is runc's if the node names ours
// by its path.
func Orphans(namespace, sandbox string) ([]string, error) {
	node, err := config.Load("")
	if err != nil {
		return nil, fmt.Errorf("containers of pod %s: %w", sandbox, err)
	}
	of, err := stateDir(node.StateDir, namespace, sandbox)
	if err != nil {
		return nil, err
	}
	all, err := os.ReadDir(filepath.Dir(of))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("containers of pod %s: %w", sandbox, err)
	}
	var orphans []string
	for _, entry := range all {
		if !entry.IsDir() {
			continue
		}
		// Without a status it is not a container's, or it is only being made.
		s, err := status.Read(filepath.Join(filepath.Dir(of), entry.Name()))
		if err == nil && s.ID == entry.Name() && s.Pod != nil && s.Pod.Sandbox == sandbox && ended(s.ShimPid, s.ShimStarted) {
			orphans = append(orphans, s.ID)
		}
	}
	return orphans, nil
}

// ended reports whether a process has ended, if only just: it has no memory any more,
// or another process has its PID. started is 0 if it is not known.
func ended(pid int, started uint64) bool {
	_, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	now, err := startOf(pid)
	return err == nil && started != 0 && now != started
}
