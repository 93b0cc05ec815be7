package bench

import (
	"errors"
	"fmt"
	"math"

	"github.com/crsc-io/crsc/testing/longrun"
)

// ErrNoValue is returned for a figure that could not be measured.
var ErrNoValue = errors.New("no value")

// Result is one figure.
type Result struct {
	Metric string  `json:"metric"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Note   string  `json:"note"`
}

// Results collects what a benchmark has found. It is not safe for concurrent
// use. The zero value is empty.
type Results struct {
	list   []Result
	tables []*Table
}

// Add appends a figure.
func (r *Results) Add(metric string, value float64, unit, note string) {
	r.list = append(r.list, Result{metric, value, unit, note})
}

// AddQuantiles appends the median of a sample and further quantiles of it, as
// PREFIX_p50, PREFIX_p99 and so on; 1 is PREFIX_max.
func (r *Results) AddQuantiles(prefix string, s Sample, unit, note string, quantiles ...float64) {
	r.Add(prefix+"_p50", s.Median(), unit, note)
	for _, q := range quantiles {
		name := "max"
		if q < 1 {
			name = fmt.Sprintf("p%g", q*100)
		}
		r.Add(prefix+"_"+name, s.Quantile(q), unit, note)
	}
}

// Get returns a figure that was added; NaN if there is none of this name.
func (r *Results) Get(metric string) float64 {
	for _, v := range r.list {
		if v.Metric == metric {
			return v.Value
		}
	}
	return math.NaN()
}

// WriteJSON writes the figures to a file, making its directory. The error is
// ErrNoValue if one is not a number; the file then holds the others.
func (r *Results) WriteJSON(file string) error {
	list, missing := []Result{}, []string{}
	for _, v := range r.list {
		if math.IsNaN(v.Value) || math.IsInf(v.Value, 0) {
			missing = append(missing, v.Metric)
			continue
		}
		v.Value = round(v.Value)
		list = append(list, v)
	}
	if err := longrun.WriteJSON(file, list); err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %v", ErrNoValue, missing)
	}
	return nil
}

// round keeps four significant digits: the rest is noise.
func round(v float64) float64 {
	if v == 0 {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	if scale < 1 {
		return math.Round(v)
	}
	return math.Round(v*scale) / scale
}
