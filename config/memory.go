package config

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// KeyImageMemory decides where checkpoints are written.
const KeyImageMemory = Prefix + "checkpoint-memory"

// minCheckpointMemory is less than the smallest process needs.
const minCheckpointMemory = 1 << 20

func memoryKeys() []key {
	return []key{{
		name: KeyImageMemory, form: `a number of bytes of at least 1Mi with an optional suffix Ki, Mi, Gi or Ti such as "512Mi", or "off"`, def: "512Mi",
		doc: "Memory of the node that the checkpoints of the container may take, in a tmpfs of their own, so that the frozen container does not wait for a disk. Older checkpoints are moved to disk when the next one needs the room, all of them if `durability` is `disk`; one that does not fit, or would leave less than a tenth of the node's memory available, or exceed `checkpoint_memory_max_size` of the node file, is written to disk, and the status says so. It is taken only as far as it is used, for 10 s longer than that if nobody else needs it, and counts as the shim's, not the container's. `off`: always to disk.",
		parse: orOff(func(c *Config, v string) (err error) {
			c.CheckpointMemory, err = sizeAtLeast(v, minCheckpointMemory)
			return err
		}, func(c *Config) { c.CheckpointMemory = Off }),
		rank: func(c *Config) float64 { return float64(c.CheckpointMemory) },
	}}
}

// memoryShare is the part of the node's memory, one in memoryShare, that all
// checkpoints may take together if the node file does not say.
const memoryShare = 4

func (n *Node) readMemoryLimit(v *string) (err error) {
	switch {
	case v == nil:
		var info unix.Sysinfo_t
		if err := unix.Sysinfo(&info); err != nil {
			return fmt.Errorf("the node's memory: sysinfo: %w", err)
		}
		n.NodeCheckpointMemory = max(minCheckpointMemory, int64(info.Totalram)*int64(info.Unit)/memoryShare)
	case *v == "off":
		n.NodeCheckpointMemory = Off
	default:
		if n.NodeCheckpointMemory, err = sizeAtLeast(*v, minCheckpointMemory); err != nil {
			return &KeyError{Key: "checkpoint_memory_max_size", Value: *v, Form: `a number of bytes of at least 1Mi such as "4Gi", or "off"`, Err: ErrMalformed}
		}
	}
	return nil
}
