package faultfs

import (
	"fmt"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Fault is what operations that change something fail with.
type Fault struct {
	Errno syscall.Errno
	// Suffix restricts it to files whose names ended so when they were opened;
	// empty: everything fails.
	Suffix string
}

// FS is a mounted file system. All methods may be called concurrently.
type FS struct {
	fuse.RawFileSystem
	server *fuse.Server

	mu    sync.Mutex
	fault *Fault
	names map[uint64]string // of nodes, when they were last looked up
}

// Mount shows the directory backing at the directory at. It needs root and
// /dev/fuse.
func Mount(backing, at string) (*FS, error) {
	root, err := fs.NewLoopbackRoot(backing)
	if err != nil {
		return nil, fmt.Errorf("faultfs: %w", err)
	}
	f := &FS{RawFileSystem: fs.NewNodeFS(root, &fs.Options{}), names: map[uint64]string{}}
	f.server, err = fuse.NewServer(f, at, &fuse.MountOptions{
		FsName: "faultfs", DirectMountStrict: true, DirectMountFlags: syscall.MS_NOSUID, AllowOther: true,
	})
	if err != nil {
		return nil, fmt.Errorf("faultfs: mount at %s: %w", at, err)
	}
	go f.server.Serve()
	return f, f.server.WaitMount()
}

// Unmount ends the file system; files may still be open.
func (f *FS) Unmount(at string) error {
	err := syscall.Unmount(at, syscall.MNT_DETACH)
	_ = f.server.Unmount()
	return err
}

// Fail makes operations fail from now on.
func (f *FS) Fail(fault Fault) { f.set(&fault) }

// Heal ends the fault.
func (f *FS) Heal() { f.set(nil) }

func (f *FS) set(fault *Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// ask returns what a change of a node fails with, or, if there is a name, of that
// entry in the node's directory.
func (f *FS) ask(node uint64, name string) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name == "" {
		name = f.names[node]
	}
	if f.fault == nil || !strings.HasSuffix(name, f.fault.Suffix) {
		return fuse.OK
	}
	return fuse.Status(f.fault.Errno)
}

func (f *FS) note(status fuse.Status, node uint64, name string) fuse.Status {
	if status.Ok() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.names[node] = name
	}
	return status
}

// then does op unless the change fails.
func (f *FS) then(node uint64, name string, op func() fuse.Status) fuse.Status {
	if s := f.ask(node, name); !s.Ok() {
		return s
	}
	return op()
}

// Lookup implements fuse.RawFileSystem.
func (f *FS) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	status := f.RawFileSystem.Lookup(cancel, h, name, out)
	return f.note(status, out.NodeId, name)
}

// Create implements fuse.RawFileSystem.
func (f *FS) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return f.then(in.NodeId, name, func() fuse.Status {
		status := f.RawFileSystem.Create(cancel, in, name, out)
		asked(&out.OpenOut)
		return f.note(status, out.NodeId, name)
	})
}

// Open implements fuse.RawFileSystem.
func (f *FS) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	status := f.RawFileSystem.Open(cancel, in, out)
	asked(out)
	return status
}

// asked keeps the kernel from reading and writing a file without asking us.
func asked(out *fuse.OpenOut) {
	out.OpenFlags &^= fuse.FOPEN_PASSTHROUGH
	out.BackingID = 0
}

// SetAttr implements fuse.RawFileSystem.
func (f *FS) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return f.then(in.NodeId, "", func() fuse.Status { return f.RawFileSystem.SetAttr(cancel, in, out) })
}

// Mknod implements fuse.RawFileSystem.
func (f *FS) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.then(in.NodeId, name, func() fuse.Status { return f.RawFileSystem.Mknod(cancel, in, name, out) })
}

// Mkdir implements fuse.RawFileSystem.
func (f *FS) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.then(in.NodeId, name, func() fuse.Status { return f.RawFileSystem.Mkdir(cancel, in, name, out) })
}

// Unlink implements fuse.RawFileSystem.
func (f *FS) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.then(h.NodeId, name, func() fuse.Status { return f.RawFileSystem.Unlink(cancel, h, name) })
}

// Rmdir implements fuse.RawFileSystem.
func (f *FS) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.then(h.NodeId, name, func() fuse.Status { return f.RawFileSystem.Rmdir(cancel, h, name) })
}

// Rename implements fuse.RawFileSystem.
func (f *FS) Rename(cancel <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	return f.then(in.NodeId, from, func() fuse.Status { return f.RawFileSystem.Rename(cancel, in, from, to) })
}

// Write implements fuse.RawFileSystem.
func (f *FS) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (n uint32, status fuse.Status) {
	status = f.then(in.NodeId, "", func() (s fuse.Status) {
		n, s = f.RawFileSystem.Write(cancel, in, data)
		return s
	})
	return n, status
}

// Fsync implements fuse.RawFileSystem.
func (f *FS) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return f.then(in.NodeId, "", func() fuse.Status { return f.RawFileSystem.Fsync(cancel, in) })
}

// Fallocate implements fuse.RawFileSystem.
func (f *FS) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	return f.then(in.NodeId, "", func() fuse.Status { return f.RawFileSystem.Fallocate(cancel, in) })
}

var _ fuse.RawFileSystem = (*FS)(nil)
