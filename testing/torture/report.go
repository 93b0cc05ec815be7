package torture

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// Report is out/torture.json.
type Report struct {
	Passed int       `json:"passed"`
	Failed int       `json:"failed"`
	Tools  []*Result `json:"tools"`
}

// Result is what became of one tool.
type Result struct {
	Name string `json:"name"`
	// Direct and Proxied are what the tool found, Killed what it found while the
	// server was killed; empty where that is not done.
	Direct  string `json:"direct"`
	Proxied string `json:"proxied"`
	Killed  string `json:"killed,omitempty"`
	// Identical: all of them are the same.
	Identical bool   `json:"identical"`
	Kills     int    `json:"kills"`
	Failure   string `json:"failure,omitempty"`
}

// WriteJSON writes the report to a file, making its directory.
func (r *Report) WriteJSON(file string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
