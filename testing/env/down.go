package env

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Fixed places of containerd's shims, in which only entries that carry our
// namespace or belong to our bundles are touched.
const (
	runcRoot   = "/run/containerd/runc"
	shimSocket = "/run/containerd/s"
	fifoRoot   = "/run/containerd/fifo"
)

// Down destroys the environment: the daemon, shims, containers, everything in
// its network namespaces and cgroups, mounts and files. It is idempotent and
// needs nothing to be intact.
func (e *Env) Down(ctx context.Context) error {
	unlock, err := e.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return e.downLocked(ctx)
}

func (e *Env) downLocked(ctx context.Context) error {
	err := e.stopDaemon(2 * time.Second)
	found := e.findRemains()
	err = errors.Join(err, e.killAll(ctx, found), e.unmountAll())
	for _, group := range found.cgroups {
		err = errors.Join(err, removeCgroup(ctx, group))
	}
	for _, name := range found.netns {
		err = errors.Join(err, removeNetns(name))
	}
	for _, file := range found.files {
		err = errors.Join(err, os.RemoveAll(file))
	}
	if err != nil {
		// Dir stays, so that the next Down knows what to look for.
		return fmt.Errorf("environment %s is not quite down: %w", e.Name, err)
	}
	return os.RemoveAll(e.Dir)
}

// remains is what the environment consists of outside of Dir.
type remains struct {
	netns   []string
	cgroups []string // absolute directories, in every hierarchy
	files   []string
}

func (e *Env) findRemains() remains {
	var r remains
	entries, _ := os.ReadDir(netnsDir) // absent: nothing to find
	for _, entry := range entries {
		// "crsc-ab12cd" is a prefix of the instance "crsc-ab12cd-demo", whose
		// namespaces are left alone: pods.json tells which names are ours.
		if e.ownsNetns(entry.Name()) {
			r.netns = append(r.netns, entry.Name())
		}
	}
	r.files = append(r.files, filepath.Join(runcRoot, e.Namespace))
	groups := []string{e.Namespace}
	bundles, _ := filepath.Glob(filepath.Join(e.Dir, "state", "io.containerd.runtime.v2.task", "*", "*"))
	for _, bundle := range bundles {
		id, ns := filepath.Base(bundle), filepath.Base(filepath.Dir(bundle))
		r.files = append(r.files, filepath.Join(runcRoot, ns, id))
		if s := shimAddress(bundle); s != "" {
			r.files = append(r.files, s)
		}
		if g := cgroupsPath(bundle); g != "" {
			groups = append(groups, g)
		}
	}
	r.files = append(r.files, e.fifoDirs()...)
	for _, mount := range cgroupMounts() {
		for _, g := range groups {
			if dir := filepath.Join(mount, g); dir != mount && isDir(dir) {
				r.cgroups = append(r.cgroups, dir)
			}
		}
	}
	slices.Sort(r.cgroups)
	r.cgroups = slices.Compact(r.cgroups)
	return r
}

func (e *Env) ownsNetns(name string) bool {
	short, ok := strings.CutPrefix(name, e.Name+"-")
	if !ok {
		return false
	}
	if short == "client" || short == "pod" {
		return true
	}
	pods, err := e.pods()
	if err != nil {
		return false
	}
	_, ok = pods[short]
	return ok
}

// killAll repeats until nothing is left: a dying daemon or shim may still fork.
func (e *Env) killAll(ctx context.Context, r remains) error {
	inodes := map[uint64]bool{}
	for _, name := range r.netns {
		var st unix.Stat_t
		if path := filepath.Join(netnsDir, name); isNetns(path) && unix.Stat(path, &st) == nil {
			inodes[st.Ino] = true
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		victims, err := e.victims(r, inodes)
		if err != nil || len(victims) == 0 {
			return err
		}
		for _, g := range r.cgroups {
			thaw(g)
		}
		for _, p := range victims {
			if err := p.signal(syscall.SIGKILL); err != nil {
				return err
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes do not die: %v", victims)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// victims are the living processes that belong to the environment: daemons and
// shims by their arguments, the rest by cgroup or network namespace.
func (e *Env) victims(r remains, netnsInodes map[uint64]bool) ([]process, error) {
	inGroup := map[int]bool{}
	for _, g := range r.cgroups {
		for _, pid := range cgroupProcs(g) {
			inGroup[pid] = true
		}
	}
	var out []process
	err := eachProcess(func(pid int) {
		if !inGroup[pid] && !e.isOurTool(pid) {
			var st unix.Stat_t
			if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) != nil || !netnsInodes[st.Ino] {
				return
			}
		}
		if start, _, err := procStat(pid); err == nil {
			out = append(out, process{pid, start})
		}
	})
	return out, err
}

// isOurTool recognises containerd, shims, runc and CRIU that work in Dir.
func (e *Env) isOurTool(pid int) bool {
	name, args := cmdline(pid)
	if !strings.HasPrefix(name, "containerd") && name != "runc" && name != "criu" && name != "ctr" {
		return false
	}
	return slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, e.Dir+"/") })
}

// unmountAll detaches what is mounted below Dir, the innermost first.
func (e *Env) unmountAll() error {
	points, err := mountsBelow(e.Dir)
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(points) {
		err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	return nil
}

// mountsBelow lists mount points in the order in which they were mounted.
func mountsBelow(dir string) ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var out []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		if p := unescape.Replace(fields[4]); strings.HasPrefix(p, dir+"/") || p == dir {
			out = append(out, p)
		}
	}
	return out, nil
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
