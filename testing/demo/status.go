package demo

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// phaseRunning is the phase of a container that is neither being checkpointed
// into existence nor recovered.
const phaseRunning = "running"

// status is what this package reads of the shim's status file.
type status struct {
	Protected   bool   `json:"protected"`
	Reason      string `json:"reason"`
	Phase       string `json:"phase"`
	Checkpoints struct {
		Count  int `json:"count"`
		Failed int `json:"failed"`
	} `json:"checkpoints"`
	Recoveries []recovery `json:"recoveries"`
	// Goroutines of the shim; 0: not told.
	Goroutines int `json:"goroutines"`
}

// recovery is one entry of the status file. Time is when it was complete.
type recovery struct {
	Time      time.Time `json:"time"`
	Cause     string    `json:"cause"`
	DetectMS  float64   `json:"detect_ms"`
	RestoreMS float64   `json:"restore_ms"`
	ReplayMS  float64   `json:"replay_ms"`
	TotalMS   float64   `json:"total_ms"`
	Differing int64     `json:"differing"`
}

// readStatus needs no retries: the shim replaces the file atomically.
func readStatus(file string) (status, error) {
	var s status
	data, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

func (s status) lastRecovery() *recovery {
	if len(s.Recoveries) == 0 {
		return nil
	}
	return &s.Recoveries[len(s.Recoveries)-1]
}
