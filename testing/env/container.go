package env

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Container says how to run one.
type Container struct {
	ID, Image   string
	Runtime     string            // empty: io.containerd.crsc.v1
	Annotations map[string]string // of the spec
	Netns       string            // path; empty: a new one without network
	Flags       []string          // further flags of ctr run
	Args        []string          // instead of the image's command
	Files       uint64            // that it may open; 0: as many as ctr lets it
}

// RuntimeCRSC is the shim under test, RuntimeRunc the stock one.
const (
	RuntimeCRSC = "io.containerd.crsc.v1"
	RuntimeRunc = "io.containerd.runc.v2"
)

// Run starts a container in the background, its output in [Env.ContainerLog].
func (e *Env) Run(ctx context.Context, c Container) error {
	if c.Runtime == "" {
		c.Runtime = RuntimeCRSC
	}
	if c.Files > 0 {
		return e.runWithFiles(ctx, c)
	}
	args := []string{"run", "--detach", "--runtime", c.Runtime, "--log-uri", "file://" + e.ContainerLog(c.ID)}
	for k, v := range c.Annotations {
		args = append(args, "--annotation", k+"="+v)
	}
	if c.Netns != "" {
		args = append(args, "--with-ns", "network:"+c.Netns)
	}
	args = append(append(args, c.Flags...), c.Image, c.ID)
	_, err := e.Ctr(ctx, append(args, c.Args...)...)
	return err
}

// ContainerLog is the file with a container's standard output and error.
func (e *Env) ContainerLog(id string) string { return filepath.Join(e.Dir, "log-"+id) }

// StatusFile is where the shim writes the status of a protected container.
func (e *Env) StatusFile(id string) string {
	return filepath.Join(e.StateDir, e.Namespace, id, "status.json")
}

// Task returns the pid of a container's init, as the host sees it, and the
// task's status (RUNNING, STOPPED, …).
func (e *Env) Task(ctx context.Context, id string) (pid int, status string, err error) {
	out, err := e.Ctr(ctx, "task", "ls")
	if err != nil {
		return 0, "", err
	}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == id {
			pid, err := strconv.Atoi(f[1])
			return pid, f[2], err
		}
	}
	return 0, "", fmt.Errorf("container %s has no task", id)
}

// DeleteContainer kills the task, waits for its end, and removes both task and
// container. What is gone already is no error.
func (e *Env) DeleteContainer(ctx context.Context, id string) error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, _, err := e.Task(ctx, id)
		if err == nil {
			// rm --force kills and waits, but refuses in some states; again, then.
			_, err = e.Ctr(ctx, "task", "rm", "--force", id)
		} else if strings.Contains(err.Error(), "has no task") {
			break
		}
		if err != nil && time.Now().After(deadline) {
			return err
		}
	}
	if _, err := e.Ctr(ctx, "container", "rm", id); err != nil && !strings.Contains(err.Error(), "not found") {
		return err
	}
	return nil
}

// Shim returns the pid of the shim that serves a container. Shims that serve a
// whole group are found by the ID of its first container only.
func (e *Env) Shim(id string) (pid int, err error) {
	err = eachProcess(func(p int) {
		name, args := cmdline(p)
		if !strings.HasPrefix(name, "containerd-shim") || !slices.Contains(args, e.Address) {
			return
		}
		if i := slices.Index(args, "-id"); i >= 0 && i+1 < len(args) && args[i+1] == id {
			pid = p
		}
	})
	if err == nil && pid == 0 {
		err = fmt.Errorf("container %s has no shim", id)
	}
	return pid, err
}
