package status

import "time"

// Images sums up the OCI images of a container's checkpoints.
type Images struct {
	Count  int `json:"count"`
	Failed int `json:"failed"`
	// Last is the last complete one.
	Last *Image `json:"last,omitempty"`
	// LastError is the failure of the last attempt, if it failed; RetryAt is
	// when the next one begins, with the checkpoint that is the last by then.
	LastError string     `json:"last_error,omitempty"`
	RetryAt   *time.Time `json:"retry_at,omitempty"`
}

// Image describes one image. TotalMS is how long it took to make, in
// milliseconds.
type Image struct {
	Name     string    `json:"name"`
	Digest   string    `json:"digest"`
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	TotalMS  float64   `json:"total_ms"`
	// Chain is how many images before it share layers with it.
	Chain int `json:"chain"`
	// Bytes were added to the content store, compressed, for ChangedBytes of
	// memory that it did not have, out of MemoryBytes.
	Bytes        int64 `json:"bytes"`
	ChangedBytes int64 `json:"changed_bytes"`
	MemoryBytes  int64 `json:"memory_bytes"`
}
