package demo

import "github.com/crsc-io/crsc/testing/longrun"

// WriteJSON writes the figures, or with full everything, to a file, making its
// directory.
func (r *Report) WriteJSON(file string, full bool) error {
	if full {
		return longrun.WriteJSON(file, r)
	}
	return longrun.WriteJSON(file, r.Figures)
}
