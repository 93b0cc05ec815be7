package criu

import (
	"fmt"
	"io/fs"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/stats"
)

// DumpStats tells where the time of a Dump went.
type DumpStats struct {
	// As CRIU measures it (stats-dump). Frozen is what clients notice: from the
	// first task that was seized to the last that was let go; it includes
	// PostDump.
	Freezing time.Duration // until the last task was seized
	Frozen   time.Duration // from then to the thaw
	Memory   time.Duration // part of Frozen: copying memory out of the tasks
	Pages    uint64        // pages written, of 4096 bytes on amd64

	// Rounds are the pre-dumps that went before; PreDumpError is why there are
	// none although they were wanted.
	Rounds       []Round
	PreDumpError error

	// As we measure it, in order.
	Start    time.Duration // until CRIU was started and warm, after all rounds
	PreDump  time.Duration // the caller's OnPreDump
	Dump     time.Duration // until all images were written
	PostDump time.Duration // the caller's OnPostDump
	Thaw     time.Duration // until CRIU had ended; most of it after the thaw
	Total    time.Duration
}

// LongestStall is Stall, or that of a round if one was longer.
func (s DumpStats) LongestStall() time.Duration {
	longest := s.Stall()
	for _, r := range s.Rounds {
		longest = max(longest, r.Stall)
	}
	return longest
}

// Stall is how long the container's tasks stood still for the dump itself.
func (s DumpStats) Stall() time.Duration { return s.Freezing + s.Frozen }

func (s *DumpStats) load(images fs.FS) error {
	e, err := readSingle[stats.StatsEntry](images, "stats-dump", magicStats)
	if err != nil {
		return err
	}
	d := e.GetDump()
	if d == nil {
		return fmt.Errorf("%w: stats-dump has no dump statistics", ErrCorrupt)
	}
	us := func(n uint32) time.Duration { return time.Duration(n) * time.Microsecond }
	s.Freezing, s.Frozen, s.Memory = us(d.GetFreezingTime()), us(d.GetFrozenTime()), us(d.GetMemdumpTime())
	s.Pages = d.GetPagesWritten()
	return nil
}

// RestoreStats tells where the time of a restore went. All but Arm and End pass
// between the call of Armed.Restore and the processes running.
type RestoreStats struct {
	Arm     time.Duration // starting CRIU, probing the kernel, reading images
	Join    time.Duration // entering the cgroups, if that was still to do
	Prepare time.Duration // root mount, pinned namespaces
	Restore time.Duration // until the processes were complete
	Check   time.Duration // namespaces, runc's state, the caller's OnPostRestore
	Resume  time.Duration // until the processes ran
	End     time.Duration // until CRIU had ended
	Total   time.Duration // Join to Resume
}
