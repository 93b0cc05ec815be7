package demo

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// WriteJSON writes the figures, or with full everything, to a file, making its
// directory.
func (r *Report) WriteJSON(file string, full bool) error {
	var v any = r.Figures
	if full {
		v = r
	}
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}
