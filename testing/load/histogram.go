package load

import (
	"math/bits"
	"time"
)

// Values are kept with 5 significant bits, that is to 3 %.
const (
	subBits    = 5
	subBuckets = 1 << subBits
)

// histogram counts durations. It is not safe for concurrent use.
type histogram struct {
	buckets [64 * subBuckets]uint64
	count   uint64
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucket(uint64(max(d, 0)))]++
	h.count++
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.count += o.count
}

// quantile returns the lower edge of the bucket that holds the q-th part of
// the values, 0 < q <= 1; 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.count))
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; n > 0 && seen >= rank {
			return time.Duration(edge(i))
		}
	}
	return 0
}

func bucket(v uint64) int {
	shift := bits.Len64(v) - subBits - 1
	if shift <= 0 {
		return int(v)
	}
	return shift*subBuckets + int(v>>shift)
}

// edge is the least value in a bucket.
func edge(i int) uint64 {
	if i < 2*subBuckets {
		return uint64(i)
	}
	shift := i/subBuckets - 1
	return uint64(i-shift*subBuckets) << shift
}
