package recovery

import (
	"context"
	"fmt"
	"os"
	"time"
)

// A CRIU that stands still does not end by itself: it waits for a disk, for a task
// that does not answer, or reads images that were cut short. Nothing may wait for it
// without end, least of all a frozen container.
const (
	dumpPatience    = 20 * time.Second
	restorePatience = 15 * time.Second
	// Dumps and restores go at some hundred MB/s and more. This is in a second, at the
	// very least.
	bytesPer = 40 << 20
)

// dumpLimit is how long CRIU may need for so many bytes.
func dumpLimit(bytes int64) time.Duration {
	return dumpPatience + time.Duration(bytes/bytesPer)*time.Second
}

// limitRestore bounds a restore of cp, and its preparation.
func limitRestore(ctx context.Context, cp *checkpoint) (context.Context, context.CancelFunc) {
	limit := restorePatience
	if cp.info != nil {
		limit += time.Duration(cp.info.Pages*uint64(os.Getpagesize())/bytesPer) * time.Second
	}
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("the restore of checkpoint %d took longer than %v", cp.seq, limit))
}
