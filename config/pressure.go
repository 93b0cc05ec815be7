package config

import (
	"strconv"
	"strings"
)

// Pressure says from when on a container is short of memory. Its zero value
// watches nothing.
type Pressure struct {
	// Memory is the working set in percent of the container's limit; Off: it is
	// not watched.
	Memory float64
	// Stalled is the share of time, in percent of the last ten seconds, in
	// which some process waited for memory (PSI "some avg10"); Off: it is not
	// watched.
	Stalled float64
}

// usualPressure is what "true" means.
const usualPressure = "memory=90,psi=20"

// IsZero reports that nothing is watched.
func (p Pressure) IsZero() bool { return p == Pressure{} }

func parsePressure(s string) (Pressure, error) {
	switch s {
	case "false":
		return Pressure{}, nil
	case "true":
		s = usualPressure
	}
	var p Pressure
	for _, item := range strings.Split(s, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(item), "=")
		field := map[string]*float64{"memory": &p.Memory, "psi": &p.Stalled}[name]
		if field == nil || *field != Off {
			return Pressure{}, errForm
		}
		if value == "" || strings.Trim(value, "0123456789.") != "" {
			return Pressure{}, errForm
		}
		percent, err := strconv.ParseFloat(value, 64)
		if err != nil || percent <= 0 || percent > 100 {
			return Pressure{}, errForm
		}
		*field = percent
	}
	return p, nil
}
