package load

import (
	"sync/atomic"
	"time"
)

const (
	windowWidth  = 10 * time.Millisecond
	windowsChunk = 1 << 12 // 41 s, 32 KiB
)

// windows keeps the longest wait that ended in each span of 10 ms, for up to
// 11 hours; what comes later goes into the last span.
type windows struct {
	start  time.Time
	chunks [1000]atomic.Pointer[[windowsChunk]atomic.Int64]
}

func newWindows(start time.Time) *windows { return &windows{start: start} }

func (w *windows) index(t time.Time) int {
	return min(max(int(t.Sub(w.start)/windowWidth), 0), len(w.chunks)*windowsChunk-1)
}

// add records a wait that ended at end. It may be called concurrently.
func (w *windows) add(end time.Time, d time.Duration) {
	i := w.index(end)
	p := &w.chunks[i/windowsChunk]
	chunk := p.Load()
	if chunk == nil {
		p.CompareAndSwap(nil, new([windowsChunk]atomic.Int64))
		chunk = p.Load()
	}
	slot := &chunk[i%windowsChunk]
	for {
		old := slot.Load()
		if int64(d) <= old || slot.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// longest includes the spans that contain from and to.
func (w *windows) longest(from, to time.Time) time.Duration {
	var most int64
	for i := w.index(from); i <= w.index(to); i++ {
		chunk := w.chunks[i/windowsChunk].Load()
		if chunk == nil {
			i |= windowsChunk - 1 // the rest of an empty chunk
			continue
		}
		most = max(most, chunk[i%windowsChunk].Load())
	}
	return time.Duration(most)
}
