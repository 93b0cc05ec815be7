package order

import (
	"github.com/cilium/ebpf/btf"

	"github.com/crsc-io/crsc/netproxy/internal/kernel"
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

func readLayout(types *btf.Spec) (l *layout, err error) {
	if types == nil {
		if types, err = kernel.Types(); err != nil {
			return nil, err
		}
	}
	l = &layout{}
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
		if *f.to, err = kernel.Offset(types, f.typ, f.path...); err != nil {
			return nil, err
		}
	}
	l.daddr6 += 12
	return l, nil
}
