package journal

// Stats are figures for metrics. Counters are since Open.
type Stats struct {
	Start     Position // of the oldest segment
	Committed Position
	Records   uint64 // committed
	Commits   uint64 // of batches that were not empty
	Writes    uint64 // of batches to a segment
	Syncs     uint64 // of those, the synced
	Segments  int
	Spares    int
	DiskBytes int64 // allocated to segments and spares
}

// Stats returns the figures as of the last Commit.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.stats
	s.Start, s.Committed = j.segments[0].base, j.Committed()
	s.Segments, s.Spares = len(j.segments), len(j.spares)
	s.DiskBytes = int64(len(j.spares)) * j.opts.SegmentBytes
	for i := range j.segments {
		s.DiskBytes += j.segments[i].size
	}
	return s
}

// Since returns how many bytes of records were committed after p.
func (j *Journal) Since(p Position) int64 { return int64(j.Committed()) - int64(p) }
