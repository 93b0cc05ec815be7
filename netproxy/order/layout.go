package order

import (
	"fmt"
	"math"

	"github.com/cilium/ebpf/btf"
)

// layout holds byte offsets of kernel structures, from the running kernel's BTF.
type layout struct {
	dport, num, net uint32 // in struct sock
	family          uint32
	daddr, daddr6   uint32 // the peer's address; its last four bytes with IPv6
	mark, priority  uint32
	protocol        uint32 // in struct sock
	copiedSeq       uint32 // in struct tcp_sock
	nsInum          uint32 // in struct net
	nsproxy         uint32 // in struct task_struct
	nsproxyNet      uint32 // in struct nsproxy
	pid, tgid       uint32 // in struct task_struct
	exitCode        uint32 // in struct task_struct
}

func readLayout() (*layout, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("kernel BTF: %w", err)
	}
	var l layout
	for _, f := range []struct {
		to   *uint32
		typ  string
		path []string
	}{
		{&l.dport, "sock", []string{"__sk_common", "skc_dport"}},
		{&l.num, "sock", []string{"__sk_common", "skc_num"}},
		{&l.net, "sock", []string{"__sk_common", "skc_net", "net"}},
		{&l.family, "sock", []string{"__sk_common", "skc_family"}},
		{&l.daddr, "sock", []string{"__sk_common", "skc_daddr"}},
		{&l.daddr6, "sock", []string{"__sk_common", "skc_v6_daddr"}},
		{&l.mark, "sock", []string{"sk_mark"}},
		{&l.priority, "sock", []string{"sk_priority"}},
		{&l.protocol, "sock", []string{"sk_protocol"}},
		{&l.copiedSeq, "tcp_sock", []string{"copied_seq"}},
		{&l.nsInum, "net", []string{"ns", "inum"}},
		{&l.nsproxy, "task_struct", []string{"nsproxy"}},
		{&l.nsproxyNet, "nsproxy", []string{"net_ns"}},
		{&l.pid, "task_struct", []string{"pid"}},
		{&l.tgid, "task_struct", []string{"tgid"}},
		{&l.exitCode, "task_struct", []string{"exit_code"}},
	} {
		var s *btf.Struct
		if err := spec.TypeByName(f.typ, &s); err != nil {
			return nil, fmt.Errorf("kernel BTF: struct %s: %w", f.typ, err)
		}
		off, ok := offset(s, f.path)
		if !ok {
			return nil, fmt.Errorf("kernel BTF: struct %s has no %v", f.typ, f.path)
		}
		if off > math.MaxInt16 {
			return nil, fmt.Errorf("kernel BTF: %v at offset %d of struct %s, beyond a load's reach", f.path, off, f.typ)
		}
		*f.to = off
	}
	l.daddr6 += 12
	return &l, nil
}

// offset finds a member by its path, looking through anonymous members.
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
