package recovery

import (
	"path/filepath"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/journal"
)

const (
	segmentBytes = 8 << 20
	minJournal   = 4 * segmentBytes
)

// journalName and checkpointsName are directories of the state.
const (
	journalName     = "journal"
	checkpointsName = "checkpoints"
)

// openJournal makes the journal of the container.
func (g *guard) openJournal() (err error) {
	g.journal, err = journal.Open(g.journalOptions(g.dir))
	return err
}

func (g *guard) journalOptions(state string) journal.Options {
	return journal.Options{
		Dir: filepath.Join(state, journalName), Durability: durability(g.cfg.Durability), Key: g.key,
		MaxBytes: max(g.cfg.JournalMaxSize, minJournal), SegmentBytes: segmentBytes,
	}
}

func durability(d config.Durability) journal.Durability {
	switch d {
	case config.DurabilityMemory:
		return journal.Memory
	case config.DurabilityDisk:
		return journal.Disk
	}
	return journal.PageCache
}
