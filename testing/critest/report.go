package critest

import (
	"fmt"
	"io"
	"maps"
	"slices"
)

// Tally counts the specs of one run by result.
type Tally struct {
	Passed  int     `json:"passed"`
	Failed  int     `json:"failed"`
	Skipped int     `json:"skipped"`
	Seconds float64 `json:"seconds"`
	// Failures names the specs that failed.
	Failures []string `json:"failures"`
}

// Difference is a spec that does not have the same result everywhere.
type Difference struct {
	Spec string `json:"spec"`
	// Handler is the one that differs from runc, with its result.
	Handler string `json:"handler"`
	Runc    string `json:"runc"`
	Result  string `json:"result"`
	Message string `json:"message,omitempty"`
}

// Report is the file that make critest writes.
type Report struct {
	Runc      *Tally       `json:"runc"`
	Crsc      *Tally       `json:"crsc,omitempty"`
	Protected *Tally       `json:"crsc_protected,omitempty"`
	Diffs     []Difference `json:"differences"`
}

func tally(specs []spec) *Tally {
	t := &Tally{Failures: []string{}}
	for _, s := range specs {
		switch s.Result {
		case "passed":
			t.Passed++
		case "skipped":
			t.Skipped++
		default:
			t.Failed++
			t.Failures = append(t.Failures, s.Name)
		}
	}
	slices.Sort(t.Failures)
	return t
}

// compare lists the specs whose result with a handler is not that with runc,
// and those that only one of them has.
func compare(handler string, runc, other []spec) []Difference {
	have := byName(other)
	var out []Difference
	for name, r := range byName(runc) {
		o, ok := have[name]
		if !ok {
			o = spec{Result: "absent"}
		}
		if o.Result != r.Result {
			message := o.Message
			if r.Result == "failed" {
				message = "with runc: " + r.Message
			}
			out = append(out, Difference{Spec: name, Handler: handler, Runc: r.Result, Result: o.Result, Message: message})
		}
		delete(have, name)
	}
	for name := range maps.Keys(have) {
		out = append(out, Difference{Spec: name, Handler: handler, Runc: "absent", Result: have[name].Result})
	}
	slices.SortFunc(out, func(a, b Difference) int {
		if a.Spec < b.Spec {
			return -1
		}
		return 1
	})
	return out
}

// byName indexes the specs. Several may share a name: they are numbered in the
// order of the suite, which its seed fixes.
func byName(specs []spec) map[string]spec {
	out := map[string]spec{}
	for _, s := range specs {
		name := s.Name
		for i := 2; ; i++ {
			if _, taken := out[name]; !taken {
				break
			}
			name = fmt.Sprintf("%s (%d)", s.Name, i)
		}
		out[name] = s
	}
	return out
}

// WriteText writes what a person wants to know.
func (r *Report) WriteText(w io.Writer) {
	row := func(name string, t *Tally) {
		if t != nil {
			fmt.Fprintf(w, "%-15s %3d passed, %d failed, %d skipped in %.0f s\n", name, t.Passed, t.Failed, t.Skipped, t.Seconds)
		}
	}
	row("runc", r.Runc)
	row("crsc", r.Crsc)
	row("crsc-protected", r.Protected)
	for _, d := range r.Diffs {
		fmt.Fprintf(w, "difference: %s: %s with %s, %s with runc: %s\n", d.Spec, d.Result, d.Handler, d.Runc, d.Message)
	}
	if len(r.Diffs) == 0 {
		fmt.Fprintln(w, "no differences")
	}
}
