package criu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A container with a user namespace is dumped from outside of it and restored
// from inside: CRIU runs as the namespace's root then, in a mount namespace that
// belongs to it too. Only so are the new processes in the old namespaces, with
// the rights over them that the dead ones had.
//
// Nothing below the directories of pins and images can be reached by that user.
// What CRIU needs of it is put into a tmpfs in the place of insideDir, in CRIU's
// mount namespace alone, or handed over as a descriptor.

// insideDir is where CRIU makes its temporary directories (create_mnt_roots of
// its criu/mount.c), and looks for its answers of the kernel, as told by
// XDG_RUNTIME_DIR.
const insideDir = "/tmp"

// inside says how a CRIU is started in a user namespace.
type inside struct {
	user    string // path of the user namespace
	root    owner  // who its root is
	kerndat string
	mounts  []string // what is to be found below insideDir, by its last element
	images  *os.File
	// nsenter and unshare are the paths of util-linux's.
	nsenter, unshare string
}

// insideTools finds what takes CRIU into a user namespace. A Go program can't
// enter one itself: it has more than one thread.
func insideTools() (nsenter, unshare string, err error) {
	for _, tool := range []struct {
		name string
		path *string
	}{{"nsenter", &nsenter}, {"unshare", &unshare}} {
		if *tool.path, err = exec.LookPath(tool.name); err != nil {
			return "", "", fmt.Errorf("%w: a container with a user namespace is restored with %s of util-linux: %w", ErrUnsupported, tool.name, err)
		}
	}
	return nsenter, unshare, nil
}

// newInside returns nil for a container without a user namespace.
func newInside(p *Pins, kerndat string, images *os.File) (*inside, error) {
	user := p.namespace(specs.UserNamespace)
	if user.Path == "" {
		return nil, nil
	}
	if p.IDMaps == nil || kerndat == "" {
		return nil, fmt.Errorf("restore into a user namespace: IDMaps and Kerndat are required")
	}
	in := &inside{user: user.Path, kerndat: kerndat, images: images}
	var err error
	if in.root, err = p.IDMaps.root(); err != nil {
		return nil, err
	}
	for _, m := range p.Mounts {
		in.mounts = append(in.mounts, m.Host)
	}
	in.nsenter, in.unshare, err = insideTools()
	return in, err
}

// seen returns where CRIU finds a mount that is at path for us.
func (in *inside) seen(path string) string {
	if in == nil {
		return path
	}
	return filepath.Join(insideDir, filepath.Base(path))
}

// giveFiles makes CRIU's user the owner of the images, which it opens one by
// one, and of the pipes that take the place of standard descriptors.
func (in *inside) giveFiles(stdio [3]*os.File) error {
	names, err := in.images.Readdirnames(-1)
	if err != nil {
		return err
	}
	dir := int(in.images.Fd())
	for _, name := range append(names, "") {
		if err := unix.Fchownat(dir, name, in.root.uid, in.root.gid, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH); err != nil {
			return &os.PathError{Op: "chown", Path: filepath.Join(in.images.Name(), name), Err: err}
		}
	}
	for _, f := range stdio {
		if f == nil {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFIFO && st.Uid == 0 {
			if err := f.Chown(in.root.uid, in.root.gid); err != nil {
				return err
			}
		}
	}
	return nil
}

// furnish gives the calling thread a mount namespace with what CRIU needs.
func (in *inside) furnish() error {
	if err := privateMounts(); err != nil {
		return err
	}
	answers, err := os.ReadFile(in.kerndat)
	if err != nil {
		return err
	}
	trees, err := openTrees(in.mounts)
	defer closeAll(trees)
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", insideDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=1777,size=1m"); err != nil {
		return &os.PathError{Op: "mount tmpfs", Path: insideDir, Err: err}
	}
	for i, t := range trees {
		if err := attach(t, in.seen(in.mounts[i])); err != nil {
			return fmt.Errorf("%s for criu: %w", in.mounts[i], err)
		}
	}
	if err := os.Mkdir(in.seen(rootDir), 0o700); err != nil {
		return err
	}
	file := filepath.Join(insideDir, filepath.Base(kerndatFile))
	if err := os.WriteFile(file, answers, 0o600); err != nil {
		return err
	}
	return os.Chown(file, in.root.uid, in.root.gid)
}

const (
	// firstFile is the number of the first of a command's ExtraFiles.
	firstFile = 3
	// insideImages is the number of the descriptor of the images, after those of
	// the socket and the configuration.
	insideImages = 5
)

// wrap makes cmd, which runs CRIU, run it in the user namespace. The files it
// opens are closed by the caller when cmd has been started.
func (in *inside) wrap(cmd *exec.Cmd) (opened []*os.File, err error) {
	for _, path := range []string{in.user, cmd.Path} {
		f, err := os.Open(path)
		if err != nil {
			closeAll(opened)
			return nil, err
		}
		opened = append(opened, f)
	}
	pass := func(f *os.File) string {
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		return "/proc/self/fd/" + strconv.Itoa(firstFile+len(cmd.ExtraFiles)-1)
	}
	user, binary := pass(opened[0]), pass(opened[1])
	cmd.Args = append([]string{
		in.nsenter, "--user=" + user, "--setuid", "0", "--setgid", "0", "--",
		in.unshare, "--mount", "--propagation", "slave", "--", binary,
	}, cmd.Args[1:]...)
	cmd.Path = in.nsenter
	cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+insideDir)
	return opened, nil
}

// mountRoot shows a CRIU that has been started the root file system.
func (in *inside) mountRoot(pid int, rootfs string) error {
	return onThread(func() error {
		// The kernel wants a file system context of the thread's own.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, rootfs, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return &os.PathError{Op: "open_tree", Path: rootfs, Err: err}
		}
		defer unix.Close(fd)
		if err := enter([]string{fmt.Sprintf("/proc/%d/ns/mnt", pid)}); err != nil {
			return err
		}
		root := in.seen(rootDir)
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, root, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return &os.PathError{Op: "move_mount", Path: root, Err: err}
		}
		return nil
	})
}

// pinIDMaps takes down who the users of the container's user namespace are, and
// makes sure that its root may do what CRIU has to do.
func (p *Pins) pinIDMaps(pid int) error {
	user := p.namespace(specs.UserNamespace)
	if user.Path == "" {
		return nil
	}
	if _, _, err := insideTools(); err != nil {
		return err
	}
	var err error
	if p.IDMaps, err = idMapsOf(pid); err != nil {
		return err
	}
	if _, err := p.IDMaps.root(); err != nil {
		return err
	}
	ours, err := ownedBy(p.NetNS(), user.Path)
	if err != nil {
		return err
	}
	if !ours {
		return fmt.Errorf("%w: the network namespace does not belong to the container's user namespace, whose root could not restore connections in it", ErrUnsupported)
	}
	return nil
}

// ownedBy reports whether a namespace belongs to a user namespace.
func ownedBy(path, user string) (bool, error) {
	if path == "" {
		return false, nil // it is ours
	}
	ns, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer ns.Close()
	fd, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS)
	if errors.Is(err, unix.EPERM) {
		return false, nil // neither ours nor below
	}
	if err != nil {
		return false, fmt.Errorf("owner of namespace %s: %w", path, err)
	}
	owner := os.NewFile(uintptr(fd), path)
	defer owner.Close()
	have, err := owner.Stat()
	if err != nil {
		return false, err
	}
	want, err := os.Stat(user)
	return err == nil && os.SameFile(have, want), err
}
