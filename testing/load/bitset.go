package load

import "sync/atomic"

const chunkBits = 1 << 20

// bitset remembers which values were given, 1 bit each, in chunks of 128 KiB.
type bitset struct {
	chunks [4096]atomic.Pointer[[chunkBits / 64]atomic.Uint64]
}

// add returns false if n is there already, or is beyond what can be counted.
func (b *bitset) add(n int64) bool {
	i := n / chunkBits
	if n < 0 || i >= int64(len(b.chunks)) {
		return false
	}
	chunk := b.chunks[i].Load()
	if chunk == nil {
		b.chunks[i].CompareAndSwap(nil, new([chunkBits / 64]atomic.Uint64))
		chunk = b.chunks[i].Load()
	}
	mask := uint64(1) << (n % 64)
	return chunk[n%chunkBits/64].Or(mask)&mask == 0
}
