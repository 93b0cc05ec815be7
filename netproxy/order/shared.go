package order

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// shared is the program at tcp_rcv_space_adjust, with its tables. Every recv on the
// host runs it, so there is one for all namespaces, whoever watches them: it is found
// by its name, lives as long as somebody has it open, and is not pinned. A table's
// entry lives until its owner removes it or, should that have been killed, somebody
// else comes.
type shared struct {
	link                     link.Link
	watched, rings, counters *ebpf.Map
}

const (
	// maxWatched bounds the namespaces of one program; each takes some 100 bytes.
	maxWatched = 4096
	// aloneName is that of a program which nobody else finds.
	aloneName = "crsc_taken"
)

// sharedName depends on what the program does, so that other builds have theirs, and on
// the lock.
func sharedName(l *layout, g legs, lock string) string {
	sum := sha256.Sum256(fmt.Append([]byte(lock), takenProgram("", l, g, tables{}).Instructions))
	return fmt.Sprintf("crsc_%x", sum[:5])
}

// watchTaken has the ring told what the application takes in the target's namespace. A
// namespace has one owner in the shared program: the second in a pod, and whoever
// can't share, has a program of its own.
func (t *tracepoint) watchTaken(l *layout, g legs, inum uint32, w watch) error {
	s, err := t.joinShared(l, g, inum, w)
	if err != nil {
		if s, err = newShared(aloneName, l, g, 1); err != nil {
			return err
		}
		if err = t.enter(s, inum, w); err != nil {
			return errors.Join(err, s.close())
		}
	}
	t.shared = s
	t.closers = append(t.closers, s.close, func() error { return s.remove(inum, w.Owner) })
	return nil
}

func (t *tracepoint) joinShared(l *layout, g legs, inum uint32, w watch) (*shared, error) {
	lock, unlock, err := lockShared(lockFile)
	if err != nil {
		return nil, err
	}
	defer unlock()
	name := sharedName(l, g, lock)
	s, err := findShared(name)
	if s == nil && err == nil {
		s, err = newShared(name, l, g, maxWatched)
	}
	if err != nil {
		return nil, err
	}
	if err = errors.Join(s.sweep(), t.enter(s, inum, w)); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// lockFile keeps others from joining; lockWait bounds how long they may take to. Only
// root of this mount namespace can open it.
const (
	lockFile = "/run/crsc.lock"
	lockWait = 2 * time.Second
)

// lockShared returns what the file is known by: those who don't have the same one must
// not share, since nothing keeps them apart.
func lockShared(name string) (id string, unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", nil, fmt.Errorf("stat %s: %w", name, err)
	}
	if st.Mode != unix.S_IFREG|0o600 || st.Uid != 0 {
		return "", nil, fmt.Errorf("%s is not a file of root's with mode 0600: remove it", name)
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(2 * time.Millisecond) {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return fmt.Sprintf("%d:%d", st.Dev, st.Ino), func() { f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR || time.Now().After(end) {
			return "", nil, fmt.Errorf("lock %s: %w", name, err)
		}
	}
}

// findShared opens the program of that name; nil: there is none.
func findShared(name string) (*shared, error) {
	var it link.Iterator
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil || info.Type != link.RawTracepointType {
			continue
		}
		s, err := openShared(info.Program, name)
		if err != nil {
			return nil, err
		}
		if s != nil {
			s.link = it.Take()
			return s, nil
		}
	}
	return nil, it.Err()
}

// openShared opens the tables of a program, if it has that name.
func openShared(id ebpf.ProgramID, name string) (_ *shared, err error) {
	prog, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil || info.Name != name {
		return nil, err
	}
	s := &shared{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	maps, _ := info.MapIDs()
	for _, id := range maps {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, err
		}
		is, err := m.Info()
		if err != nil {
			return nil, errors.Join(err, m.Close())
		}
		switch is.Name {
		case watchedName:
			s.watched = m
		case ringsName:
			s.rings = m
		case countersName:
			s.counters = m
		default:
			m.Close()
		}
	}
	if s.watched == nil || s.rings == nil || s.counters == nil {
		return nil, fmt.Errorf("program %s lacks its tables", name)
	}
	return s, nil
}

// Names of the tables.
const (
	watchedName  = "crsc_watched"
	ringsName    = "crsc_rings"
	countersName = "crsc_counts"
)

func newShared(name string, l *layout, g legs, size uint32) (_ *shared, err error) {
	s := &shared{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for _, m := range []struct {
		to   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&s.watched, ebpf.MapSpec{Name: watchedName, Type: ebpf.Hash, ValueSize: watchLen}},
		{&s.rings, ebpf.MapSpec{Name: ringsName, Type: ebpf.ArrayOfMaps, ValueSize: 4, InnerMap: ringSpec(os.Getpagesize())}},
		{&s.counters, ebpf.MapSpec{Name: countersName, Type: ebpf.ArrayOfMaps, ValueSize: 4, InnerMap: counterSpec()}},
	} {
		m.spec.KeySize, m.spec.MaxEntries = 4, size
		if *m.to, err = ebpf.NewMap(&m.spec); err != nil {
			return nil, fmt.Errorf("table %s: %w", m.spec.Name, err)
		}
	}
	s.link, err = attach(takenProgram(name, l, g, tables{s.watched.FD(), s.rings.FD(), s.counters.FD()}))
	return s, err
}

// enter adds a namespace, last to the table that is looked at first. It fails if it
// has an owner.
func (t *tracepoint) enter(s *shared, inum uint32, w watch) (err error) {
	var is watch
	if err := s.watched.Lookup(inum, &is); !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("network namespace %d is watched already: %w", inum, errors.Join(err, os.ErrExist))
	}
	if w.Slot, err = s.freeSlot(); err != nil {
		return err
	}
	// Each change of these tables waits for the programs that run: when the ring comes,
	// none is at work that has looked the slot up for somebody else.
	if err = s.counters.Put(w.Slot, t.counters); err == nil {
		if err = s.rings.Put(w.Slot, t.events); err == nil {
			err = s.watched.Put(inum, &w)
		}
	}
	return err
}

func (s *shared) freeSlot() (uint32, error) {
	used := make([]bool, s.rings.MaxEntries())
	if err := s.each(func(_ uint32, w watch) { used[w.Slot] = true }); err != nil {
		return 0, err
	}
	slot := slices.Index(used, false)
	if slot < 0 {
		return 0, fmt.Errorf("%d network namespaces are watched: %w", len(used), unix.ENOSPC)
	}
	return uint32(slot), nil
}

func (s *shared) each(fn func(inum uint32, w watch)) error {
	var inum uint32
	var w watch
	entries := s.watched.Iterate()
	for entries.Next(&inum, &w) {
		fn(inum, w)
	}
	return entries.Err()
}

// remove takes a namespace out, if it is still the owner's. Its slot is without a ring
// before it is free; the counters, a page, stay until somebody else has the slot.
func (s *shared) remove(inum, owner uint32) error {
	var is watch
	if err := s.watched.Lookup(inum, &is); err != nil || is.Owner != owner {
		return nil // swept
	}
	return errors.Join(s.rings.Delete(is.Slot), s.watched.Delete(inum))
}

// sweep takes out what the killed have left.
func (s *shared) sweep() error {
	dead := map[uint32]uint32{}
	err := s.each(func(inum uint32, w watch) {
		l, err := link.NewFromID(link.ID(w.Owner))
		switch {
		case errors.Is(err, os.ErrNotExist):
			dead[inum] = w.Owner
		case err == nil:
			l.Close()
		}
	})
	for inum, owner := range dead {
		err = errors.Join(err, s.remove(inum, owner))
	}
	return err
}

func (s *shared) close() error {
	var errs []error
	if s.link != nil {
		errs = append(errs, s.link.Close())
	}
	for _, m := range []*ebpf.Map{s.watched, s.rings, s.counters} {
		errs = append(errs, m.Close()) // of a nil map it does nothing
	}
	return errors.Join(errs...)
}
