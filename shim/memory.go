package shim

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// settleDelay is when a serving shim has done what it does only once.
const settleDelay = 2 * time.Second

// settleMemory gives back, once, what only the start needed: garbage, and the
// pages of the binary that package initialisation touched. Those are mapped
// again from the page cache when they are needed, which takes less than half a
// millisecond for all of them. A node has a shim for each pod, and in most of
// them the larger part of this binary is never used.
func settleMemory() (stop func() bool) {
	return time.AfterFunc(settleDelay, func() {
		debug.FreeOSMemory()
		if err := unmapUnused(); err != nil {
			log.L.WithError(err).Debug("the binary's pages stay mapped")
		}
	}).Stop
}

// unmapUnused drops the pages of this binary's read-only mappings.
func unmapUnused() error {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for _, m := range readOnly(string(maps), self) {
		_, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
		if errno != 0 {
			err = errors.Join(err, fmt.Errorf("madvise %x-%x: %w", m.start, m.end, errno))
		}
	}
	return err
}

// mapping is a range of addresses.
type mapping struct{ start, end uintptr }

// readOnly lists the mappings of a file that cannot be written to, in the
// format of proc_pid_maps(5).
func readOnly(maps, file string) []mapping {
	var out []mapping
	for line := range strings.Lines(maps) {
		f := strings.Fields(line)
		if len(f) != 6 || f[5] != file || f[1][0] != 'r' || f[1][1] != '-' {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil {
			out = append(out, mapping{uintptr(start), uintptr(end)})
		}
	}
	return out
}
