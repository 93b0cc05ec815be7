package shimtest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
)

// stop removes everything, however the test ended, and fails the test if a shim
// reported a data race.
func (d *Daemon) stop() {
	if d.run.cmd != nil {
		d.deleteContainers()
		_ = d.run.cmd.Process.Signal(syscall.SIGTERM)
		_ = d.run.cmd.Wait()
	}
	for _, s := range d.shims() {
		d.t.Errorf("shim of %s is left", s.id)
		_ = syscall.Kill(s.pid, syscall.SIGKILL)
	}
	d.report()
	d.removeCgroups()
	_ = os.RemoveAll(filepath.Join("/run/containerd/runc", d.Namespace))
	if err := mount.UnmountRecursive(d.Dir, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.t.Error(err)
	}
	if err := os.RemoveAll(d.Dir); err != nil {
		d.t.Error(err)
	}
}

func (d *Daemon) deleteContainers() {
	out, err := d.TryCtr("task", "ls", "-q")
	if err != nil {
		d.t.Log(err)
	}
	for _, id := range strings.Fields(out) {
		_, _ = d.TryCtr("task", "kill", "-s", "KILL", id)
		if _, err := d.TryCtr("task", "delete", "-f", id); err != nil {
			d.t.Logf("clean up: %v", err)
		}
	}
	out, _ = d.TryCtr("container", "ls", "-q")
	for _, id := range strings.Fields(out) {
		_, _ = d.TryCtr("container", "delete", id)
	}
	// A shim ends shortly after its last task.
	for deadline := time.Now().Add(patience); len(d.shims()) > 0 && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
}

// report prints the daemon's log of a failed test.
func (d *Daemon) report() {
	log, _ := os.ReadFile(d.Log)
	races, _ := filepath.Glob(d.Log + ".race.*")
	for _, r := range races {
		text, _ := os.ReadFile(r)
		d.t.Errorf("data race in a shim:\n%s", text)
	}
	if d.t.Failed() {
		if len(log) > 20000 {
			log = log[len(log)-20000:]
		}
		d.t.Logf("log of containerd and its shims:\n%s", log)
	}
}

// removeCgroups removes the namespace's cgroups, which runc leaves.
func (d *Daemon) removeCgroups() {
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + d.Namespace)
	more, _ := filepath.Glob("/sys/fs/cgroup/" + d.Namespace)
	for _, dir := range append(dirs, more...) {
		children, _ := filepath.Glob(dir + "/*/cgroup.procs")
		for _, c := range children {
			if err := os.Remove(filepath.Dir(c)); err != nil {
				d.t.Error(err)
			}
		}
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.t.Error(err)
		}
	}
}
