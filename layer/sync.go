package layer

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// syncedName marks a snapshot that survives the host.
const syncedName = "synced"

const (
	// maxDeadBytes is the garbage that a snapshot may always hold on to.
	maxDeadBytes = 16 << 20
	// fewPacks are not worth merging. Each costs a link while tasks are frozen.
	fewPacks  = 4
	manyPacks = 8
)

// Sync makes a snapshot durable, and merges its packs when they are many or
// mostly garbage. It is for after the thaw. A Capture with dst as prev and a
// Rollback may run at the same time, another Sync may not.
func Sync(dst string) error {
	s, err := openSnapshot(dst)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dst, err)
	}
	defer s.close()
	if err := s.sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dst, err)
	}
	return nil
}

func (s *snapshot) sync() error {
	if victims := worthMerging(s.m.packs); len(victims) > 0 {
		if err := s.merge(victims); err != nil {
			return err
		}
	}
	dir, err := openDir(s.dirfd, ".")
	if err != nil {
		return err
	}
	defer closeFD(dir)
	names, err := readNames(dir, make([]byte, 32<<10))
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == identityName || name == syncedName {
			continue // of this boot only, and empty
		}
		if id := strings.TrimPrefix(name, "pack."); id != name && !s.refersTo(name) {
			if err := unix.Unlinkat(dir, name, 0); err != nil {
				return pathError("unlinkat", name, err)
			}
			continue
		}
		if err := syncFile(dir, name); err != nil {
			return err
		}
	}
	if err := unix.Fsync(dir); err != nil {
		return pathError("fsync", ".", err)
	}
	if err := replaceFileAt(dir, syncedName, nil); err != nil {
		return err
	}
	return pathError("fsync", ".", unix.Fsync(dir))
}

func (s *snapshot) refersTo(name string) bool {
	return slices.ContainsFunc(s.m.packs, func(p packInfo) bool { return packName(p.id) == name })
}

func syncFile(dirfd int, name string) error {
	fd, err := openAt(dirfd, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	return pathError("fsync", name, unix.Fsync(fd))
}

// worthMerging returns the packs that should be rewritten into one: all of them
// if half is garbage, the smallest if there are many. So a byte is rewritten
// once for each halving, and each step in size, of its pack.
func worthMerging(packs []packInfo) map[uint32]bool {
	victims := map[uint32]bool{}
	var size, live int64
	for _, p := range packs {
		size, live = size+p.size, live+p.live
	}
	bySize := slices.Clone(packs)
	if size-live <= max(live, maxDeadBytes) {
		if len(packs) <= manyPacks {
			return nil
		}
		slices.SortFunc(bySize, func(a, b packInfo) int { return int(min(max(a.size-b.size, -1), 1)) })
		bySize = bySize[:len(packs)-fewPacks]
	}
	for _, p := range bySize {
		victims[p.id] = true
	}
	return victims
}

// merge copies what is live in the victims into a new pack and replaces the
// manifest by one that refers to it.
func (s *snapshot) merge(victims map[uint32]bool) error {
	w := newPackWriter(s.dirfd, s.m.packs[len(s.m.packs)-1].id+1)
	defer w.close()
	if err := unix.Unlinkat(s.dirfd, packName(w.id), 0); err != nil && err != unix.ENOENT {
		return pathError("unlinkat", packName(w.id), err) // of a merge that was interrupted
	}
	m := &manifest{boot: s.m.boot, count: s.m.count, body: make([]byte, 0, len(s.m.body))}
	var e entry
	var moved int64
	for rest := s.m.body; len(rest) > 0; {
		r, err := nextRecord(rest)
		if err == nil {
			err = r.decode(&e)
		}
		if err != nil {
			return err
		}
		rest = rest[len(r):]
		for i, x := range e.extents {
			if !victims[x.pack] {
				continue
			}
			packOff, err := w.copy(context.Background(), s.packs[x.pack], x.packOff, x.length)
			if err != nil {
				return err
			}
			moved += x.length
			e.extents[i].pack, e.extents[i].packOff = w.id, packOff
		}
		m.body = appendEntry(m.body, &e)
	}
	if err := w.flush(); err != nil {
		return err
	}
	for _, p := range s.m.packs {
		if !victims[p.id] {
			m.packs = append(m.packs, p)
		}
	}
	if moved > 0 {
		m.packs = append(m.packs, packInfo{id: w.id, size: w.size, live: moved})
	}
	if moved > 0 {
		if err := syncFile(s.dirfd, packName(w.id)); err != nil {
			return err
		}
	}
	s.m = m
	return replaceFileAt(s.dirfd, manifestName, m.encode())
}
