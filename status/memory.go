package status

// Memory is what checkpoints take in memory, in bytes, after the last one. A
// limit of 0 is none.
type Memory struct {
	Bytes    int64 `json:"bytes"`     // of this container
	MaxBytes int64 `json:"max_bytes"` // crsc.io/checkpoint-memory
	// Of all containers of the node, and checkpoint_memory_max_size.
	NodeBytes    int64 `json:"node_bytes"`
	NodeMaxBytes int64 `json:"node_max_bytes"`
}
