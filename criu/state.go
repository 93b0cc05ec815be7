package criu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// runcState is runc's own record of a container, state.json in its state
// directory. Only the fields below are read or written, all others pass
// through as they are (runc 1.1 to 1.5, libcontainer.State).
type runcState struct {
	path   string
	fields map[string]json.RawMessage
}

// statePath returns where runc keeps the record of container id.
func statePath(root, id string) string { return filepath.Join(root, id, "state.json") }

func loadState(root, id string) (*runcState, error) {
	s := &runcState{path: statePath(root, id)}
	b, err := os.ReadFile(s.path)
	if err != nil {
		return nil, fmt.Errorf("state of runc: %w", err)
	}
	if err := json.Unmarshal(b, &s.fields); err != nil {
		return nil, fmt.Errorf("state of runc %s: %w", s.path, err)
	}
	for _, key := range []string{"init_process_pid", "init_process_start", "namespace_paths", "config", "cgroup_paths"} {
		if _, ok := s.fields[key]; !ok {
			return nil, fmt.Errorf("%w: state of runc %s has no field %q", ErrUnsupported, s.path, key)
		}
	}
	return s, nil
}

func (s *runcState) get(key string, v any) error {
	raw, ok := s.fields[key]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("state of runc %s: field %q: %w", s.path, key, err)
	}
	return nil
}

func (s *runcState) set(key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	s.fields[key] = b
	return nil
}

func (s *runcState) pid() (pid int, err error) {
	err = s.get("init_process_pid", &pid)
	return pid, err
}

// stdio returns what the init's standard descriptors were: links of
// /proc/PID/fd, "pipe:[N]" or a path.
func (s *runcState) stdio() (names []string, err error) {
	err = s.get("external_descriptors", &names)
	return names, err
}

// cgroups returns the container's cgroup directories.
func (s *runcState) cgroups() ([]string, error) {
	var paths map[string]string
	if err := s.get("cgroup_paths", &paths); err != nil {
		return nil, err
	}
	seen, out := map[string]bool{}, []string{}
	for _, p := range paths {
		// Controllers mounted together show as links to one directory.
		real, err := filepath.EvalSymlinks(p)
		if err != nil || seen[real] || isMountRoot(real) {
			continue
		}
		seen[real] = true
		out = append(out, real)
	}
	return out, nil
}

// isMountRoot reports whether dir is the root of its file system. A root cgroup
// holds all processes of the host: it is never taken for a container's.
func isMountRoot(dir string) bool {
	var a, b unix.Stat_t
	if unix.Stat(dir, &a) != nil || unix.Stat(filepath.Dir(dir), &b) != nil {
		return true
	}
	return a.Dev != b.Dev
}

// adopt records pid as the container's init, as runc restore does.
func (s *runcState) adopt(pid int, stdio []string) error {
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	var paths map[string]string
	if err := s.get("namespace_paths", &paths); err != nil {
		return err
	}
	old, err := s.pid()
	if err != nil {
		return err
	}
	for typ, p := range paths {
		if rest, ok := strings.CutPrefix(p, fmt.Sprintf("/proc/%d/", old)); ok {
			paths[typ] = fmt.Sprintf("/proc/%d/%s", pid, rest)
		}
	}
	if err := s.joinTimeNamespace(); err != nil {
		return err
	}
	for key, v := range map[string]any{
		"init_process_pid":     pid,
		"init_process_start":   start,
		"namespace_paths":      paths,
		"external_descriptors": stdio,
	} {
		if err := s.set(key, v); err != nil {
			return err
		}
	}
	// While it is there runc takes the container for one that was not started.
	if err := os.Remove(filepath.Join(filepath.Dir(s.path), execFifo)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("start of runc: %w", err)
	}
	return s.save()
}

// execFifo is where a created init of runc waits for the start.
const execFifo = "exec.fifo"

// joinTimeNamespace makes runc exec enter the time namespace in which CRIU
// restores, so that all processes of the container agree on the monotonic
// clock.
func (s *runcState) joinTimeNamespace() error {
	var config map[string]json.RawMessage
	if err := s.get("config", &config); err != nil {
		return err
	}
	var list []map[string]any
	if err := json.Unmarshal(config["namespaces"], &list); err != nil {
		return fmt.Errorf("state of runc %s: namespaces: %w", s.path, err)
	}
	for _, ns := range list {
		if ns["type"] == "NEWTIME" {
			return nil
		}
	}
	list = append(list, map[string]any{"type": "NEWTIME", "path": ""})
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	config["namespaces"] = b
	return s.set("config", config)
}

// save replaces the record in one step: runc may read it at any time.
func (s *runcState) save() error {
	b, err := json.Marshal(s.fields)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(s.path), "state-")
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), s.path)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return fmt.Errorf("write state of runc: %w", err)
	}
	return nil
}
