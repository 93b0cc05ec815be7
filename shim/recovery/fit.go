package recovery

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crsc-io/crsc/oci"
)

// specOfImage is the spec that an image brings along. Nothing is decided by it in
// favour of the image.
//
// Errors: oci.ErrCorrupt.
func specOfImage(b []byte) (*specs.Spec, error) {
	spec := new(specs.Spec)
	if err := json.Unmarshal(b, spec); err != nil {
		return nil, fmt.Errorf("%w: spec.dump: %w", oci.ErrCorrupt, err)
	}
	return spec, nil
}

// sameMounts compares the mounts of the spec in an image with those of the live
// one. Where they come from on the host does not count.
//
// Errors: oci.ErrIncompatible.
func sameMounts(was, live *specs.Spec) error {
	describe := func(s *specs.Spec) (out []string) {
		for _, m := range s.Mounts {
			what := m.Type
			if isBind(m) {
				what = "bind"
			}
			if slices.Contains(m.Options, "ro") {
				what += ", read-only"
			}
			out = append(out, fmt.Sprintf("%s (%s)", filepath.Clean("/"+m.Destination), what))
		}
		if s.Root != nil && s.Root.Readonly {
			out = append(out, "/ (read-only)")
		}
		return out
	}
	a, b := describe(was), describe(live)
	if onlyA, onlyB := difference(a, b); len(onlyA)+len(onlyB) > 0 {
		return fmt.Errorf("%w: mounts: only in the image %q, only here %q", oci.ErrIncompatible, onlyA, onlyB)
	}
	if !slices.Equal(a, b) {
		return fmt.Errorf("%w: the mounts come in another order: in the image %q, here %q", oci.ErrIncompatible, a, b)
	}
	return nil
}

// difference returns what one of two lists has and the other has not, as often.
func difference(a, b []string) (onlyA, onlyB []string) {
	onlyB = slices.Clone(b)
	for _, s := range a {
		if i := slices.Index(onlyB, s); i >= 0 {
			onlyB = slices.Delete(onlyB, i, i+1)
		} else {
			onlyA = append(onlyA, s)
		}
	}
	return onlyA, onlyB
}
