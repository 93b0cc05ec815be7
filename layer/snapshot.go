package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// snapshot is an open snapshot directory.
type snapshot struct {
	dirfd int
	m     *manifest
	ids   *identities    // zero ones if the file was unusable
	packs map[uint32]int // descriptors, open for reading
}

// openSnapshot opens a snapshot with all its packs. A Sync that runs meanwhile
// may replace them: what was opened stays valid.
func openSnapshot(dir string) (*snapshot, error) {
	s := &snapshot{dirfd: -1}
	var err error
	if s.dirfd, err = openPrivate(dir); err == nil {
		err = s.load(s.openPacks)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// openPrivate opens a snapshot directory and checks who can get at it.
func openPrivate(dir string) (int, error) {
	fd, err := openRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, fmt.Errorf("%w: %w", ErrNoSnapshot, err)
	}
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	err = pathError("fstat", dir, unix.Fstat(fd, &st))
	if err == nil && (int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0) {
		err = fmt.Errorf("%w: %s has owner %d and mode %#o", ErrUnsafeDir, dir, st.Uid, st.Mode&0o7777)
	}
	if err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

// load reads manifest and identities, then lets the caller take hold of the
// packs. It begins again when one is gone, because Sync merged it into another.
func (s *snapshot) load(usePacks func() error) error {
	for attempt := 0; ; attempt++ {
		b, err := readFileAt(s.dirfd, manifestName)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %w", ErrNoSnapshot, err)
		}
		if err == nil {
			s.m, err = decodeManifest(b)
		}
		if err != nil {
			return err
		}
		err = usePacks()
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || attempt == 3 {
			return err
		}
	}
	return s.loadIdentities()
}

// loadIdentities settles for none if the file is damaged: Rollback replaces it
// without waiting for the disk, and without it bytes are compared instead.
func (s *snapshot) loadIdentities() error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	if s.m.boot != boot && unix.Faccessat(s.dirfd, syncedName, unix.F_OK, 0) != nil {
		return ErrNotDurable
	}
	b, err := readFileAt(s.dirfd, identityName)
	if err == nil {
		s.ids, err = decodeIdentities(b, s.m.count)
	}
	if err != nil {
		s.ids = &identities{ids: make([]identity, s.m.count)}
	}
	if s.ids.boot != boot {
		s.ids.distrust()
	}
	return nil
}

func (s *snapshot) openPacks() error {
	s.closePacks()
	s.packs = make(map[uint32]int, len(s.m.packs))
	for _, p := range s.m.packs {
		fd, err := openAt(s.dirfd, packName(p.id), unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		s.packs[p.id] = fd
		if err := checkPack(fd, p); err != nil {
			return err
		}
	}
	return nil
}

// linkPacks gives the packs another name in the directory dst.
func (s *snapshot) linkPacks(dst int) error {
	for _, p := range s.m.packs {
		name := packName(p.id)
		if err := unix.Linkat(s.dirfd, name, dst, name, 0); err != nil {
			return &os.LinkError{Op: "linkat", Old: name, New: name, Err: err}
		}
		fd, err := openAt(dst, name, unix.O_PATH, 0)
		if err != nil {
			return err
		}
		err = checkPack(fd, p)
		closeFD(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

func checkPack(fd int, p packInfo) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return pathError("fstat", packName(p.id), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size < p.size {
		return corrupt(packName(p.id), int(st.Size), fmt.Sprintf("pack is shorter than %d bytes", p.size))
	}
	return nil
}

func (s *snapshot) closePacks() {
	for _, fd := range s.packs {
		closeFD(fd)
	}
	s.packs = nil
}

func (s *snapshot) close() {
	s.closePacks()
	if s.dirfd >= 0 {
		closeFD(s.dirfd)
		s.dirfd = -1
	}
}

// readFileAt reads a file of a snapshot.
func readFileAt(dirfd int, name string) ([]byte, error) {
	fd, err := openAt(dirfd, name, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer closeFD(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, pathError("fstat", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > 2*maxManifest {
		return nil, corrupt(name, 0, "not a regular file of a sensible size")
	}
	b := make([]byte, st.Size)
	return b, readFull(fd, b, 0)
}

// tempSuffix marks a file that is being written.
const tempSuffix = ".tmp"

func createAt(dirfd int, name string) (int, error) {
	return openAt(dirfd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
}

// replaceFileAt writes a file of a snapshot. One that exists is replaced at
// once or not at all.
func replaceFileAt(dirfd int, name string, b []byte) error {
	temp := name + tempSuffix
	if err := unix.Unlinkat(dirfd, temp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return pathError("unlinkat", temp, err)
	}
	fd, err := createAt(dirfd, temp)
	if err != nil {
		return err
	}
	err = writeFull(fd, b, 0)
	closeFD(fd)
	if err != nil {
		return err
	}
	return pathError("renameat", name, unix.Renameat(dirfd, temp, dirfd, name))
}
