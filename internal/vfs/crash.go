package vfs

import "math/rand/v2"

// crashBlock is the unit in which unsynced data survives, in bytes: the
// smallest sector that disks write atomically.
const crashBlock = 512

// Survival says which unsynced changes outlive a crash.
type Survival int

const (
	// SyncedOnly keeps nothing that was not synced: the harshest host crash.
	SyncedOnly Survival = iota
	// SomeUnsynced keeps, for each block and each directory, a random state
	// out of those it went through since the last sync: any host crash.
	SomeUnsynced
	// AllWritten keeps everything: the crash of a process, not of the host.
	AllWritten
)

// CrashClone returns what is found after a crash at this moment. The original
// is not changed. rng is used, and must be given, for SomeUnsynced only.
// Everything in the clone counts as synced, and nothing in it is locked.
func (m *MemFS) CrashClone(s Survival, rng *rand.Rand) *MemFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	clone := &MemFS{dirs: make(map[string]*memDir, len(m.dirs))}
	for name, d := range m.dirs {
		c := newMemDir()
		for file, n := range d.survivors(s, rng) {
			data := n.survivor(s, rng)
			c.names[file] = &memNode{data: data, synced: append([]byte(nil), data...)}
			c.synced[file] = c.names[file]
		}
		clone.dirs[name] = c
	}
	return clone
}

// survivors returns the names after a crash: a prefix of the directory's log.
func (d *memDir) survivors(s Survival, rng *rand.Rand) map[string]*memNode {
	if s == AllWritten {
		return d.names
	}
	after := &memDir{names: make(map[string]*memNode, len(d.synced))}
	for name, n := range d.synced {
		after.names[name] = n
	}
	if s == SomeUnsynced {
		for _, op := range d.log[:rng.IntN(len(d.log)+1)] {
			after.apply(op)
		}
	}
	return after.names
}

// survivor returns the content after a crash: each block, and the size, as of
// some moment since the last sync.
func (n *memNode) survivor(s Survival, rng *rand.Rand) []byte {
	switch {
	case s == AllWritten:
		return append([]byte(nil), n.data...)
	case s == SyncedOnly || len(n.log) == 0:
		return append([]byte(nil), n.synced...)
	}
	size := int64(len(n.synced))
	longest := size
	for i, keep := 0, rng.IntN(len(n.log)+1); i < len(n.log); i++ {
		end := n.log[i].off + int64(len(n.log[i].data))
		longest = max(longest, end)
		if i < keep && (n.log[i].resize || end > size) {
			size = end
		}
	}
	data := resize(append([]byte(nil), n.synced...), longest)
	for off := int64(0); off < size; off += crashBlock {
		block := data[off:min(off+crashBlock, longest)]
		for _, op := range n.log[:rng.IntN(len(n.log)+1)] {
			op.applyBlock(block, off)
		}
	}
	return data[:size]
}

// applyBlock does to one block, which starts at off, what the operation does
// to the file.
func (op fileOp) applyBlock(block []byte, off int64) {
	end := off + int64(len(block))
	if op.resize {
		if op.off < end {
			clear(block[max(0, op.off-off):])
		}
		return
	}
	if op.off >= end || op.off+int64(len(op.data)) <= off {
		return
	}
	if op.off >= off {
		copy(block[op.off-off:], op.data)
	} else {
		copy(block, op.data[off-op.off:])
	}
}
