package criu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	criu_core "github.com/checkpoint-restore/go-criu/v7/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/pstree"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/seccomp"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

const (
	magicSeccomp = 0x64413049
	seccompImage = "seccomp.img"
	// filterTSync is SECCOMP_FILTER_FLAG_TSYNC: all threads get the filter. CRIU
	// writes it for the filters of a process whose threads have the same ones.
	filterTSync = 1
)

// ErrUnfiltered is returned by Confine for a task that no filter would hold.
var ErrUnfiltered = errors.New("without a seccomp filter")

// Confine makes sure that each task in the images of a checkpoint has a seccomp
// filter, a program as SeccompFilters returns it. Where it is missing it is added
// to what the task has, and both hold then; or, with replace, it takes the place
// of the task's first filter. That one is the profile that runc had installed, if
// there was one: the same profile gives various programs (runc 1.5 goes through
// maps), and each move from container to container would add one.
//
// Errors: ErrUnfiltered for a task that has no filter at all, ErrCorrupt.
func Confine(images string, program []byte, replace bool) error {
	f := &filterImage{program: program, replace: replace}
	if err := f.read(os.DirFS(images)); err != nil {
		return fmt.Errorf("checkpoint %s: %w", images, err)
	}
	if !f.changed {
		return nil
	}
	return f.write(images)
}

// filterImage is seccomp.img: programs, each with the number of the one that was
// there before it.
type filterImage struct {
	program          []byte // that each chain has to have
	replace, changed bool
	entry            *seccomp.SeccompEntry
}

func (f *filterImage) read(dir fs.FS) (err error) {
	f.entry, err = readSingle[seccomp.SeccompEntry](dir, seccompImage, magicSeccomp)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return readEntries(dir, "pstree.img", magicPstree, func(p *pstree.PstreeEntry) error { return f.process(dir, p) })
}

// process confines the threads of one process. Those that have no filters in
// their images get their leader's, as far as these say so.
func (f *filterImage) process(dir fs.FS, p *pstree.PstreeEntry) error {
	leader, err := readSingle[criu_core.CoreEntry](dir, fmt.Sprintf("core-%d.img", p.GetPid()), magicCore)
	if err != nil {
		return err
	}
	if leader.GetThreadCore().GetCreds() == nil {
		return nil // a zombie
	}
	var own []uint32 // the last filters of the threads that have their own
	inherit := false
	for _, tid := range p.GetThreads() {
		core := leader
		if tid != p.GetPid() {
			if core, err = readSingle[criu_core.CoreEntry](dir, fmt.Sprintf("core-%d.img", tid), magicCore); err != nil {
				return err
			}
		}
		t := core.GetThreadCore()
		switch {
		case core.GetTc() != nil && (core.Tc.OldSeccompMode != nil || core.Tc.OldSeccompFilter != nil):
			return fmt.Errorf("%w: task %d has filters in an outdated form", ErrCorrupt, tid)
		case t.GetSeccompMode() == criu_core.SeccompMode_filter && t.SeccompFilter != nil:
			own = append(own, t.GetSeccompFilter())
		case tid != p.GetPid() && t.SeccompMode == nil:
			inherit = true
		default:
			return fmt.Errorf("task %d is %w", tid, ErrUnfiltered)
		}
	}
	if len(own) == 0 {
		return fmt.Errorf("task %d is %w", p.GetPid(), ErrUnfiltered)
	}
	for _, last := range own {
		if err := f.complete(last, inherit); err != nil {
			return fmt.Errorf("task %d: %w", p.GetPid(), err)
		}
	}
	return nil
}

// complete adds what is missing to the chain of filters that ends with one.
func (f *filterImage) complete(last uint32, sync bool) error {
	list, at, has := f.entry.GetSeccompFilters(), last, false
	for steps := 0; ; steps++ {
		if int64(at) >= int64(len(list)) || steps == len(list) {
			return fmt.Errorf("%w: filter %d of %d", ErrCorrupt, at, len(list))
		}
		has = has || bytes.Equal(list[at].GetFilter(), f.program)
		if list[at].Prev == nil {
			break
		}
		at = list[at].GetPrev()
	}
	first := list[at]
	// CRIU installs the oldest last, so what it does to threads is what counts.
	if sync && first.GetFlags()&filterTSync == 0 {
		return fmt.Errorf("its threads are %w", ErrUnfiltered)
	}
	switch {
	case has:
		return nil
	case f.replace:
		first.Filter = f.program
	default:
		first.Prev = proto.Uint32(uint32(len(list)))
		f.entry.SeccompFilters = append(list, &seccomp.SeccompFilter{Filter: f.program, Flags: proto.Uint32(first.GetFlags() & filterTSync)})
	}
	f.changed = true
	return nil
}

func (f *filterImage) write(images string) error {
	b := binary.NativeEndian.AppendUint32(nil, magicImage)
	b = binary.NativeEndian.AppendUint32(b, magicSeccomp)
	m, err := proto.Marshal(f.entry)
	if err != nil {
		return err
	}
	b = append(binary.NativeEndian.AppendUint32(b, uint32(len(m))), m...)
	path := filepath.Join(images, seccompImage)
	if err := os.WriteFile(path+".log", b, 0o600); err != nil { // a name that CRIU does not look at
		return err
	}
	return os.Rename(path+".log", path)
}

const (
	ptraceGetFilter = 0x420c // PTRACE_SECCOMP_GET_FILTER, ptrace(2)
	// maxFilters is more than a process can have: 32768 instructions in all, and
	// four more for each filter (MAX_INSNS_PER_PATH of the kernel).
	maxFilters = 8192
)

// SeccompFilters returns the programs of a process's seccomp filters, the oldest
// first. It stops the process for a moment, and waits for that: it must not be
// called in a process that has somebody else reap its children, who would take
// the stop for an end.
func SeccompFilters(pid int) (programs [][]byte, err error) {
	err = onThread(func() error {
		if err := unix.PtraceSeize(pid); err != nil {
			return fmt.Errorf("seccomp filters of process %d: seize: %w", pid, err)
		}
		defer func() { _ = unix.PtraceDetach(pid) }() // the end of the thread does it too
		if err := unix.PtraceInterrupt(pid); err != nil {
			return fmt.Errorf("seccomp filters of process %d: interrupt: %w", pid, err)
		}
		var ws unix.WaitStatus
		for !ws.Stopped() {
			_, err := unix.Wait4(pid, &ws, unix.WALL, nil)
			if ws.Exited() || ws.Signaled() {
				err = unix.ESRCH
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("seccomp filters of process %d: wait: %w", pid, err)
			}
		}
		programs, err = readFilters(pid)
		return err
	})
	return programs, err
}

func readFilters(pid int) (programs [][]byte, err error) {
	for i := range maxFilters {
		n, err := getFilter(pid, i, nil)
		if errors.Is(err, unix.ENOENT) || i == 0 && errors.Is(err, unix.EINVAL) { // no more; none
			return programs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("seccomp filter %d of process %d: %w", i, pid, err)
		}
		program := make([]byte, n*8) // struct sock_filter
		if _, err := getFilter(pid, i, program); err != nil {
			return nil, fmt.Errorf("seccomp filter %d of process %d: %w", i, pid, err)
		}
		programs = append(programs, program)
	}
	return nil, fmt.Errorf("seccomp filters of process %d: more than %d", pid, maxFilters)
}

// getFilter reads a filter of a stopped process into buf, unless that is nil. It
// returns its number of instructions.
func getFilter(pid, index int, buf []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, ptraceGetFilter, uintptr(pid), uintptr(index), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
