package criu

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Pins keeps alive, past the death of a container's init, what lives in its
// namespaces and cannot be made again from images: the network namespace, and
// every file system that is mounted into it from outside or is a tmpfs of its
// own. Without them each tmpfs would be archived while the container is frozen
// (3.5 to 4.3 ms each), and a restore would depend on the host's paths still
// meaning what they meant when the container was created.
//
// The pins are bind mounts below Dir, so they outlive the shim too: a new one
// opens them again, or removes them, with OpenPins.
type Pins struct {
	// Dir holds the pins. It is a private mount, nothing below it propagates.
	Dir string `json:"-"`
	// Namespaces that CRIU is started in, as paths below Dir. The network
	// namespace is among them unless the container uses ours.
	Namespaces []PinnedNamespace `json:"namespaces"`
	// Mounts in the order of the container's mount table.
	Mounts []PinnedMount `json:"mounts"`
	// IDMaps of the container's user namespace, nil if it has none. The processes
	// of a checkpoint are restored with the same maps only.
	IDMaps *IDMaps `json:"idMaps,omitempty"`
}

// PinnedNamespace is a namespace that outlives the container's processes.
type PinnedNamespace struct {
	Type specs.LinuxNamespaceType `json:"type"`
	Path string                   `json:"path"`
	// Private: runc made it for this container alone.
	Private bool `json:"private"`
}

// PinnedMount is one mount of the container that CRIU takes as given.
type PinnedMount struct {
	Host      string `json:"host"`      // where it can be reached from the host
	Container string `json:"container"` // where the container sees it
	Kind      Kind   `json:"kind"`
	ReadOnly  bool   `json:"readOnly"`
	NoLinks   bool   `json:"noLinks,omitempty"` // nosymfollow
}

// Kind says whose the contents of a PinnedMount are.
type Kind string

const (
	// Scratch is a tmpfs of the container's own (/dev, /dev/shm, /run). It must
	// be captured at the cut and rolled back before a restore, like the
	// writable layer.
	Scratch Kind = "scratch"
	// Mask hides a directory and is empty for ever.
	Mask Kind = "mask"
	// Kernel shows the kernel's own state, like the cgroup file systems.
	Kernel Kind = "kernel"
	// Volume comes from outside the container.
	Volume Kind = "volume"
)

// Scratch returns the mounts that the caller has to capture and roll back.
func (p *Pins) Scratch() []PinnedMount { return p.ofKind(Scratch) }

// Volumes returns what is mounted from outside. Writable ones decide whether
// the container can be protected at all.
func (p *Pins) Volumes() []PinnedMount { return p.ofKind(Volume) }

func (p *Pins) ofKind(k Kind) []PinnedMount {
	var out []PinnedMount
	for _, m := range p.Mounts {
		if m.Kind == k {
			out = append(out, m)
		}
	}
	return out
}

// NetNS returns the path of the container's pinned network namespace, or "" if
// the container uses the one of the calling process.
func (p *Pins) NetNS() string { return p.namespace(specs.NetworkNamespace).Path }

// namespace returns the pinned namespace of a sort, or a zero one.
func (p *Pins) namespace(t specs.LinuxNamespaceType) PinnedNamespace {
	for _, ns := range p.Namespaces {
		if ns.Type == t {
			return ns
		}
	}
	return PinnedNamespace{}
}

// paths returns where the namespaces of m are pinned that CRIU is started in by
// entering them. How it gets into a user namespace is in userns.go.
func (p *Pins) paths(m *meta) ([]string, error) {
	var out []string
	for _, t := range m.Namespaces {
		if t == specs.UserNamespace {
			continue
		}
		ns := p.namespace(t)
		if ns.Path == "" {
			return nil, fmt.Errorf("%w: the checkpoint needs a %s namespace, and none is pinned", ErrUnsupported, t)
		}
		out = append(out, ns.Path)
	}
	return out, nil
}

const pinsFile = "pins.json"

// Pin pins the container whose init, created but not yet started or running, is
// pid. spec is the one it was created from. dir must not exist or be empty. On
// an error nothing is left behind. It wraps ErrUnsupported for containers whose
// namespaces rule out a restore in place.
func Pin(pid int, spec *specs.Spec, dir string) (*Pins, error) {
	if err := checkNamespaces(spec); err != nil {
		return nil, err
	}
	p := &Pins{Dir: dir}
	err := p.prepare()
	if err == nil {
		err = p.pinNamespaces(pid, spec)
	}
	if err == nil {
		err = p.pinIDMaps(pid)
	}
	if err == nil {
		err = p.pinMounts(pid, spec)
	}
	if err == nil {
		err = p.save()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pin container of process %d: %w", pid, err), p.Close())
	}
	return p, nil
}

// OpenPins returns the pins that an earlier process made in dir. The error is
// fs.ErrNotExist if there are none.
func OpenPins(dir string) (*Pins, error) {
	b, err := os.ReadFile(filepath.Join(dir, pinsFile))
	if err != nil {
		return nil, err
	}
	p := &Pins{Dir: dir}
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, pinsFile), err)
	}
	return p, nil
}

// Close removes the pins and Dir, whatever state they are in. What the
// container still uses stays alive with it.
func (p *Pins) Close() error { return RemovePins(p.Dir) }

// RemovePins is Close for a directory that cannot be opened any more. It is
// not an error if dir does not exist.
func RemovePins(dir string) error {
	// The private mount of dir on itself carries all others: one detach does
	// it, and a loop covers a crash between two attempts to make it.
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == nil {
			continue
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		return &os.PathError{Op: "unmount", Path: dir, Err: err}
	}
	return removeShallow(dir)
}

// removeShallow removes dir and the empty directories and files in it. Never
// recursively: should a mount have stayed, it may be a volume with data.
func removeShallow(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
	}
	return errors.Join(err, os.Remove(dir))
}

func checkNamespaces(spec *specs.Spec) error {
	if spec.Linux == nil {
		return fmt.Errorf("%w: not a Linux container", ErrUnsupported)
	}
	private := map[specs.LinuxNamespaceType]bool{}
	for _, ns := range spec.Linux.Namespaces {
		private[ns.Type] = ns.Path == ""
	}
	if !private[specs.PIDNamespace] {
		return fmt.Errorf("%w: the container shares its PID namespace, so its process IDs cannot be restored", ErrUnsupported)
	}
	if !private[specs.MountNamespace] {
		return fmt.Errorf("%w: the container has no mount namespace of its own", ErrUnsupported)
	}
	return nil
}

func (p *Pins) prepare() error {
	if err := RemovePins(p.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(p.Dir, p.Dir, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "bind", Path: p.Dir, Err: err}
	}
	if err := unix.Mount("", p.Dir, "", unix.MS_PRIVATE, ""); err != nil {
		return &os.PathError{Op: "make private", Path: p.Dir, Err: err}
	}
	return nil
}

func (p *Pins) save() error {
	b, err := json.MarshalIndent(p, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(p.Dir, pinsFile), b, 0o600)
}

// nsFiles names the namespaces that are pinned, in /proc/PID/ns. CRIU is
// started inside them, which takes them out of the images: each that is in
// there costs a fork of CRIU in the freeze, and the network namespace a walk of
// the host's connection tracking table. A cgroup namespace it would not restore
// at all with manage-cgroups=ignore.
var nsFiles = []struct {
	typ  specs.LinuxNamespaceType
	file string
}{
	{specs.NetworkNamespace, "net"},
	{specs.CgroupNamespace, "cgroup"},
	{specs.IPCNamespace, "ipc"},
	{specs.UTSNamespace, "uts"},
	{specs.UserNamespace, "user"},
}

func (p *Pins) pinNamespaces(pid int, spec *specs.Spec) error {
	for _, n := range nsFiles {
		i := slices.IndexFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == n.typ })
		if i < 0 {
			continue
		}
		// Not /proc/self, the first thread: it may have gone into another one.
		theirs := fmt.Sprintf("/proc/%d/ns/%s", pid, n.file)
		same, err := sameFile(theirs, "/proc/thread-self/ns/"+n.file)
		if err != nil {
			return err
		}
		if same {
			continue
		}
		ns := PinnedNamespace{Type: n.typ, Path: filepath.Join(p.Dir, "ns-"+n.file), Private: spec.Linux.Namespaces[i].Path == ""}
		if err := os.WriteFile(ns.Path, nil, 0o600); err != nil {
			return err
		}
		if err := ns.pin(pid); err != nil {
			return err
		}
		p.Namespaces = append(p.Namespaces, ns)
	}
	return nil
}

// pin binds the namespace of pid to ns.Path, in place of what is there.
func (ns PinnedNamespace) pin(pid int) error {
	theirs := fmt.Sprintf("/proc/%d/ns/%s", pid, nsFile(ns.Type))
	for unix.Unmount(ns.Path, unix.MNT_DETACH) == nil {
	}
	if err := unix.Mount(theirs, ns.Path, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "bind", Path: theirs, Err: err}
	}
	return nil
}

// madeByCRIU are the file systems CRIU mounts afresh at a restore: they show
// the new namespaces, a pinned one would show the dead.
var madeByCRIU = []string{"proc", "sysfs", "devpts", "mqueue"}

func (p *Pins) pinMounts(pid int, spec *specs.Spec) error {
	mounts, err := readMounts(pid)
	if err != nil {
		return err
	}
	var targets, alone []string
	masks := map[string]bool{}
	for _, m := range mounts {
		kind := kindOf(m, spec)
		if m.slave && (isDevice(m.target, spec) || kind == Mask) {
			alone = append(alone, m.target)
		}
		if m.target == "/" || slices.Contains(madeByCRIU, m.fstype) {
			continue
		}
		// runc masks all directories with one tmpfs and all files with one
		// /dev/null; CRIU finds the further mounts of both by itself.
		if kind == Mask {
			if m.root != "/" || masks[m.device] {
				continue
			}
			masks[m.device] = true
		}
		if m.shared && kind == Volume {
			return fmt.Errorf("%w: the volume at %s is shared with the host (mountPropagation Bidirectional): what the container mounts there would be lost in a crash", ErrUnsupported, m.target)
		}
		host := filepath.Join(p.Dir, "mnt-"+strconv.Itoa(len(p.Mounts)))
		p.Mounts = append(p.Mounts, PinnedMount{Host: host, Container: m.target, Kind: kind, ReadOnly: m.ro, NoLinks: m.flags&unix.MS_NOSYMFOLLOW != 0})
		targets = append(targets, m.target)
	}
	trees, err := cloneMounts(pid, targets, alone)
	defer closeAll(trees)
	if err != nil {
		return err
	}
	for i, t := range trees {
		if err := attach(t, p.Mounts[i].Host); err != nil {
			return fmt.Errorf("pin mount %s: %w", p.Mounts[i].Container, err)
		}
	}
	return nil
}

func kindOf(m mountLine, spec *specs.Spec) Kind {
	if m.fstype == "cgroup" || m.fstype == "cgroup2" {
		return Kernel
	}
	clean := func(s string) string { return filepath.Clean("/" + s) }
	// The last mount at a place is the visible one.
	for _, sm := range slices.Backward(spec.Mounts) {
		if clean(sm.Destination) == m.target {
			if sm.Type == "tmpfs" && m.fstype == "tmpfs" && !isBind(sm) {
				return Scratch
			}
			if sm.Type == "cgroup" && !isBind(sm) {
				return Kernel // version 1: a tmpfs with a directory for each hierarchy
			}
			return Volume
		}
	}
	if isDevice(m.target, spec) {
		return Kernel
	}
	for _, path := range spec.Linux.MaskedPaths {
		if clean(path) == m.target {
			return Mask
		}
	}
	return Volume
}

// isDevice says that a mount is one that runc makes in a user namespace, where it
// can't make a node, of a device that it gives to the container.
func isDevice(target string, spec *specs.Spec) bool {
	// As in AllowedDevices of runc's libcontainer/specconv.
	always := []string{"/dev/null", "/dev/random", "/dev/full", "/dev/tty", "/dev/zero", "/dev/urandom"}
	return slices.Contains(always, target) ||
		slices.ContainsFunc(spec.Linux.Devices, func(d specs.LinuxDevice) bool { return filepath.Clean("/"+d.Path) == target })
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// cloneMounts returns a detached copy of the single mount at each target in
// the mount namespace of pid. On an error it returns those it has. Those that are
// alone there take no part any more in what is mounted below them elsewhere, which
// is nothing: they are files. CRIU can't restore that several files of one file
// system do (restore_one_sharing_group of its criu/mount-v2.c).
func cloneMounts(pid int, targets, alone []string) (trees []*os.File, err error) {
	err = onThread(func() error {
		// The kernel wants a file system context of the thread's own.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := enter([]string{fmt.Sprintf("/proc/%d/ns/mnt", pid)}); err != nil {
			return err
		}
		for _, t := range alone {
			if err := unix.Mount("", t, "", unix.MS_PRIVATE, ""); err != nil {
				return &os.PathError{Op: "make private", Path: t, Err: err}
			}
		}
		var err error
		trees, err = openTrees(targets)
		return err
	})
	return trees, err
}

// openTrees returns a detached copy of the single mount at each path. On an error
// it returns those it has.
func openTrees(paths []string) (trees []*os.File, err error) {
	for _, path := range paths {
		fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
		if err != nil {
			return trees, &os.PathError{Op: "open_tree", Path: path, Err: err}
		}
		trees = append(trees, os.NewFile(uintptr(fd), path))
	}
	return trees, nil
}

// attach mounts the detached tree at path, which it makes: a directory or a
// file as the tree's root is one. What is mounted and unmounted below path has no
// effect on where the tree comes from.
func attach(tree *os.File, path string) error {
	st, err := os.Stat("/proc/self/fd/" + strconv.Itoa(int(tree.Fd())))
	if err != nil {
		return err
	}
	if st.IsDir() {
		err = os.Mkdir(path, 0o700)
	} else {
		err = os.WriteFile(path, nil, 0o600)
	}
	if err != nil {
		return err
	}
	if err := unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "move_mount", Path: path, Err: err}
	}
	if err := unix.Mount("", path, "", unix.MS_SLAVE, ""); err != nil {
		return &os.PathError{Op: "make a slave", Path: path, Err: err}
	}
	return nil
}
