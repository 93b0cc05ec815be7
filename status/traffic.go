package status

// Traffic sums up what the proxy and its journal do. Counters are since the shim's
// start of the protection.
type Traffic struct {
	// Accepted connections were opened by clients, Opened ones by the application.
	Accepted uint64 `json:"accepted"`
	Opened   uint64 `json:"opened"`
	// InBytes entered the container, OutBytes left it.
	InBytes  uint64 `json:"in_bytes"`
	OutBytes uint64 `json:"out_bytes"`
	// HeldBytes are kept for clients and applications that are slow to take them;
	// above HeldMaxBytes (crsc.io/proxy-memory) their senders wait.
	HeldBytes    int64 `json:"held_bytes"`
	HeldMaxBytes int64 `json:"held_max_bytes"`
	// JournalBytes are since the checkpoint that the oldest recovery begins with. At
	// JournalMaxBytes (crsc.io/journal-max-size) crsc.io/on-journal-fault decides.
	JournalBytes    int64 `json:"journal_bytes"`
	JournalMaxBytes int64 `json:"journal_max_bytes"`
}
