package layer

import (
	"os"

	"golang.org/x/sys/unix"
)

// repair puts back an existing inode by changing no more than what differs. It
// reports false if that is not possible, and then has changed nothing.
func (r *rollback) repair(f *frame, name string, ord int, e *entry, st *unix.Statx_t) (kept bool, err error) {
	flags := unix.O_PATH
	if e.kind == kindRegular {
		flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOATIME
		if !r.dry {
			flags = unix.O_RDWR | unix.O_NONBLOCK | unix.O_NOATIME
			if inodeFlags(st) != 0 {
				if err := clearFlags(f.fd, name); err != nil {
					return false, err
				}
			}
		}
	}
	fd, err := openAt(f.fd, name, flags, 0)
	if err != nil {
		return false, err
	}
	defer closeFD(fd)
	switch {
	case e.whiteout():
		// It may be linked from everywhere, so it is never changed.
		if have, err := readXattrs(fd, true, &r.xattrs); err != nil || !sameXattrs(have, e.xattrs) {
			return false, err
		}
		if e.uid != st.Uid || e.gid != st.Gid || e.mode != st.Mode&07777 {
			return false, nil
		}
		r.after.ids[ord] = identityOf(st, false)
		return true, nil
	case e.kind == kindSymlink:
		target, err := readLink(fd)
		if err != nil || target != string(e.target) {
			return false, err
		}
	case e.kind == kindRegular:
		if err := r.repairContents(fd, e, int64(st.Size)); err != nil {
			return false, err
		}
	}
	return true, r.restoreMetadata(fd, ord, e, false)
}

// readLink reads a symbolic link that is open with O_PATH.
func readLink(fd int) (string, error) {
	var buf [4096]byte
	n, err := unix.Readlinkat(fd, "", buf[:])
	return string(buf[:max(n, 0)]), os.NewSyscallError("readlinkat", err)
}

// replace makes a name anew, in place of the one that exists.
func (r *rollback) replace(f *frame, name string, ord int, e *entry, exists bool, st *unix.Statx_t) error {
	if exists {
		if err := r.remove(f, name, st); err != nil {
			return err
		}
	}
	if err := r.modify(f); err != nil {
		return err
	}
	fd, err := r.create(f.fd, name, e)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	r.stats.Created++
	return r.restoreMetadata(fd, ord, e, true)
}

// create makes what e describes, still without its metadata, and opens it.
// Until that is set, no identity matches: a crash leaves nothing that would be
// taken for complete.
func (r *rollback) create(dirfd int, name string, e *entry) (fd int, err error) {
	var typ, dev int
	switch e.kind {
	case kindRegular:
		return r.createRegular(dirfd, name, e)
	case kindSymlink:
		err = pathError("symlinkat", name, unix.Symlinkat(string(e.target), dirfd, name))
	case kindFifo:
		typ = unix.S_IFIFO
	case kindSocket:
		typ = unix.S_IFSOCK
	case kindChar:
		typ, dev = unix.S_IFCHR, int(unix.Mkdev(e.major, e.minor))
	case kindBlock:
		typ, dev = unix.S_IFBLK, int(unix.Mkdev(e.major, e.minor))
	}
	if typ != 0 {
		err = pathError("mknodat", name, unix.Mknodat(dirfd, name, uint32(typ)|0o600, dev))
	}
	if err != nil {
		return -1, err
	}
	return openAt(dirfd, name, unix.O_PATH, 0)
}

func (r *rollback) createRegular(dirfd int, name string, e *entry) (fd int, err error) {
	fd, err = openAt(dirfd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return -1, err
	}
	if e.size > 0 {
		err = pathError("ftruncate", name, unix.Ftruncate(fd, e.size))
	}
	for _, x := range e.extents {
		for done := int64(0); done < x.length && err == nil; {
			if err = r.ctx.Err(); err != nil {
				break
			}
			var n int64
			n, err = copyRange(fd, x.off+done, r.snap.packs[x.pack], x.packOff+done, min(x.length-done, copyChunk), &r.noCFR)
			done += n
			r.stats.CopiedBytes += n
		}
	}
	if err != nil {
		closeFD(fd)
		return -1, err
	}
	r.stats.Bytes += e.bytes()
	r.stats.Copied++
	return fd, nil
}

// makeMountPoint makes a place for what was mounted there at the capture. What
// the mount hid could not be seen.
func (r *rollback) makeMountPoint(f *frame, name string, rec record) error {
	if err := r.modify(f); err != nil {
		return err
	}
	r.stats.Created++
	if kindOf(rec.mode()) == kindDir {
		return pathError("mkdirat", name, unix.Mkdirat(f.fd, name, 0o755))
	}
	return pathError("mknodat", name, unix.Mknodat(f.fd, name, unix.S_IFREG|0o644, 0))
}

// restoreMetadata puts back everything but contents and names of an open file,
// and notes its identity. It must come last: writing takes away capabilities
// and set-user-ID bits, and names in a directory move its times.
func (r *rollback) restoreMetadata(fd, ord int, e *entry, made bool) error {
	var st unix.Statx_t
	if err := statAt(fd, "", &st); err != nil {
		return err
	}
	path := procPath(fd)
	have, err := readXattrs(fd, e.kind != kindDir && e.kind != kindRegular, &r.xattrs)
	if err != nil {
		return err
	}
	if !e.sameStat(&st) || !sameXattrs(have, e.xattrs) {
		if err := r.step(); err != nil {
			return err
		}
		if !made {
			r.stats.Repaired++
		}
		if err := setMetadata(fd, path, e, &st, have); err != nil {
			return err
		}
		if err := statAt(fd, "", &st); err != nil {
			return err
		}
	}
	trusted := r.trust.metadata(&st)
	if e.kind == kindRegular {
		trusted = trusted && r.trust.writeNotify // no writer is left
	}
	r.after.ids[ord] = identityOf(&st, trusted)
	return nil
}

// sameStat compares what stat tells, except contents and kind.
func (e *entry) sameStat(st *unix.Statx_t) bool {
	return e.uid == st.Uid && e.gid == st.Gid && e.mode == st.Mode&07777 &&
		e.mtime == timestamp{st.Mtime.Sec, st.Mtime.Nsec} && e.flags == inodeFlags(st)
}

// setMetadata sets what differs, in the order in which one thing undoes
// another: a change of owner clears capabilities and set-user-ID, an access
// control list changes the mode, everything changes the times, and flags forbid
// it all.
func setMetadata(fd int, path string, e *entry, st *unix.Statx_t, have []xattr) error {
	if inodeFlags(st) != 0 {
		if err := setFlags(fd, 0); err != nil {
			return err
		}
	}
	chown := e.uid != st.Uid || e.gid != st.Gid
	if chown {
		if err := unix.Fchownat(fd, "", int(e.uid), int(e.gid), unix.AT_EMPTY_PATH); err != nil {
			return os.NewSyscallError("fchownat", err)
		}
		var err error
		var buf xattrBuffer
		if have, err = readXattrs(fd, e.kind != kindDir && e.kind != kindRegular, &buf); err != nil {
			return err
		}
	}
	changed, err := setXattrs(path, have, e.xattrs)
	if err != nil {
		return err
	}
	if e.kind != kindSymlink && (chown || changed || e.mode != st.Mode&07777) {
		if err := unix.Chmod(path, uint32(e.mode)); err != nil {
			return os.NewSyscallError("chmod", err)
		}
	}
	times := []unix.Timespec{
		{Sec: e.atime.sec, Nsec: int64(e.atime.nsec)},
		{Sec: e.mtime.sec, Nsec: int64(e.mtime.nsec)},
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, times, 0); err != nil {
		return os.NewSyscallError("utimensat", err)
	}
	if e.flags != 0 {
		return setFlags(fd, e.flags)
	}
	return nil
}
