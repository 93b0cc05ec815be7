package kernel

import (
	"fmt"
	"math"

	"github.com/cilium/ebpf/btf"
)

// Types returns those of the running kernel. Types that were looked at once are
// found fast in the same Spec, and slowly in another.
func Types() (*btf.Spec, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("kernel BTF: %w", err)
	}
	return spec, nil
}

// Offset returns the offset, in bytes, of a member of a structure. The path leads
// to it through members with names; those without are looked through. It is
// within a load's reach.
func Offset(spec *btf.Spec, structure string, path ...string) (uint32, error) {
	var s *btf.Struct
	if err := spec.TypeByName(structure, &s); err != nil {
		return 0, fmt.Errorf("kernel BTF: struct %s: %w", structure, err)
	}
	off, ok := offset(s, path)
	if !ok {
		return 0, fmt.Errorf("kernel BTF: struct %s has no %v", structure, path)
	}
	if off > math.MaxInt16 {
		return 0, fmt.Errorf("kernel BTF: %v at offset %d of struct %s, beyond a load's reach", path, off, structure)
	}
	return off, nil
}

func offset(t btf.Type, path []string) (uint32, bool) {
	var members []btf.Member
	switch s := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		members = s.Members
	case *btf.Union:
		members = s.Members
	}
	for _, m := range members {
		rest := path
		switch m.Name {
		case path[0]:
			rest = path[1:]
		case "":
		default:
			continue
		}
		if len(rest) == 0 {
			return m.Offset.Bytes(), true
		}
		if off, ok := offset(m.Type, rest); ok {
			return m.Offset.Bytes() + off, true
		}
	}
	return 0, false
}

// Constant returns the value of an enumerator.
func Constant(spec *btf.Spec, enum, name string) (uint64, error) {
	var e *btf.Enum
	if err := spec.TypeByName(enum, &e); err != nil {
		return 0, fmt.Errorf("kernel BTF: enum %s: %w", enum, err)
	}
	for _, v := range e.Values {
		if v.Name == name {
			return v.Value, nil
		}
	}
	return 0, fmt.Errorf("kernel BTF: enum %s has no %s", enum, name)
}
