package order

import (
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Records in the ring, in host byte order:
//
//	received: kind u16, 0 u16, application's port u16, 0 u16, 0 u64
//	taken: kind u16, leg port u16, application's port u16, 0 u16, copied_seq u32, peer u32
const (
	recordTaken    = 1
	recordReceived = 2
	recordLen      = 16

	// noWakeup is BPF_RB_NO_WAKEUP: the reader polls.
	noWakeup = 1

	// Stack offsets.
	stackWord   = -8
	stackRecord = -8 - recordLen
)

// target is what the programs of one namespace compare with.
type target struct {
	inum              uint32
	ringFD, counterFD int
}

// legs tells our own sockets from the application's.
type legs struct {
	ownMark, ownMask uint32
	priority         uint32
}

// tables are descriptors of the maps that tell the program of all namespaces what
// to do in each: a watch by inode number, and by its slot the other two.
type tables struct{ watched, rings, counters int }

// watch is a namespace in the table watched.
type watch struct {
	Low, High uint16 // ports of legs
	Outgoing  uint32 // 0 or 1
	Slot      uint32
	Owner     uint32 // the link that lives as long as its source
}

// Offsets in watch.
const (
	watchLow      = 0
	watchHigh     = 2
	watchOutgoing = 4
	watchSlot     = 8
	watchLen      = 16
)

// Indices into the map of counters.
const (
	counterLost    = 0 // events for which the ring had no room
	counterCrashes = 1
	counters       = 2
)

// send sends the record to the ring in R1; it goes on only if there was no room.
func send() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackRecord),
		asm.Mov.Imm(asm.R3, recordLen),
		asm.Mov.Imm(asm.R4, noWakeup),
		asm.FnRingbufOutput.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
	}
}

// count adds one to a counter of the map in R1, and returns.
func count(counter int64) asm.Instructions {
	return asm.Instructions{
		asm.StoreImm(asm.RFP, stackWord, counter, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackWord),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}
}

// find looks a number up in a table; it goes on only if it is there, with what is
// found in R0.
func find(table int, number asm.Register) asm.Instructions {
	return asm.Instructions{
		asm.StoreMem(asm.RFP, stackWord, number, asm.Word),
		asm.LoadMapPtr(asm.R1, table),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackWord),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
	}
}

// takenProgram runs at tcp_rcv_space_adjust(struct sock *sk), for all sockets of the
// host: what most of them fail comes first.
func takenProgram(name string, l *layout, g legs, t tables) *ebpf.ProgramSpec {
	sk, port, here, peer, slot := asm.R6, asm.R7, asm.R8, asm.R9, asm.R8
	ins := slices.Concat(asm.Instructions{
		asm.LoadMem(sk, asm.R1, 0, asm.DWord),
		asm.LoadMem(asm.R1, sk, int16(l.net), asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, int16(l.nsInum), asm.Word),
	}, find(t.watched, asm.R1), asm.Instructions{
		asm.Mov.Reg(here, asm.R0),
		asm.LoadMem(peer, sk, int16(l.daddr), asm.Word),
		asm.LoadMem(asm.R1, sk, int16(l.family), asm.Half),
		asm.JNE.Imm(asm.R1, unix.AF_INET6, "ipv4"),
		asm.LoadMem(peer, sk, int16(l.daddr6), asm.Word),
		asm.HostTo(asm.BE, peer, asm.Word).WithSymbol("ipv4"),
		asm.LoadMem(port, sk, int16(l.dport), asm.Half),
		asm.HostTo(asm.BE, port, asm.Half), // network order to host order
		asm.LoadMem(asm.R1, here, watchHigh, asm.Half),
		asm.JGT.Reg(port, asm.R1, "other"),
		asm.LoadMem(asm.R1, here, watchLow, asm.Half),
		asm.JGE.Reg(port, asm.R1, "ours"),
		asm.LoadMem(asm.R1, here, watchOutgoing, asm.Word).WithSymbol("other"),
		asm.JEq.Imm(asm.R1, 0, "out"),
		asm.Mov.Reg(asm.R1, peer),
		asm.RSh.Imm32(asm.R1, 24),
		asm.JEq.Imm32(asm.R1, 127, "out"),
		asm.LoadMem(asm.R1, sk, int16(l.mark), asm.Word).WithSymbol("ours"),
		asm.And.Imm32(asm.R1, int32(g.ownMask)),
		asm.JEq.Imm32(asm.R1, int32(g.ownMark), "out"),
		asm.LoadMem(asm.R1, sk, int16(l.priority), asm.Word),
		asm.JEq.Imm32(asm.R1, int32(g.priority), "out"),
		asm.Mov.Reg(asm.R1, sk),
		asm.FnSkcToTcpSock.Call(), // the verifier knows sk as struct sock only
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R1, asm.R0, int16(l.copiedSeq), asm.Word),
		asm.StoreMem(asm.RFP, stackRecord+8, asm.R1, asm.Word),
		asm.StoreImm(asm.RFP, stackRecord, recordTaken, asm.Half),
		asm.StoreMem(asm.RFP, stackRecord+2, port, asm.Half),
		asm.LoadMem(asm.R1, sk, int16(l.num), asm.Half),
		asm.StoreMem(asm.RFP, stackRecord+4, asm.R1, asm.Half),
		asm.StoreImm(asm.RFP, stackRecord+6, 0, asm.Half),
		asm.StoreMem(asm.RFP, stackRecord+12, peer, asm.Word),
		asm.LoadMem(slot, here, watchSlot, asm.Word),
	},
		find(t.rings, slot), asm.Instructions{asm.Mov.Reg(asm.R1, asm.R0)}, send(),
		find(t.counters, slot), asm.Instructions{asm.Mov.Reg(asm.R1, asm.R0)}, count(counterLost))
	return spec(name, "tcp_rcv_space_adjust", ins)
}

// receivedProgram runs at sock_recv_length(struct sock *sk, int ret, int flags),
// the end of each receiving system call. What was only peeked at, or is an error of
// the network's, is not taken.
func receivedProgram(l *layout, t *target) *ebpf.ProgramSpec {
	sk, ret := asm.R6, asm.R7
	ins := asm.Instructions{
		asm.LoadMem(sk, asm.R1, 0, asm.DWord),
		asm.LoadMem(ret, asm.R1, 8, asm.DWord),
		asm.LoadMem(asm.R8, asm.R1, 16, asm.DWord),
		asm.LoadMem(asm.R1, sk, int16(l.protocol), asm.Half),
		asm.JNE.Imm(asm.R1, unix.IPPROTO_UDP, "out"),
		asm.JSLT.Imm32(ret, 0, "out"),
		asm.And.Imm32(asm.R8, unix.MSG_PEEK|unix.MSG_ERRQUEUE),
		asm.JNE.Imm32(asm.R8, 0, "out"),
		asm.LoadMem(asm.R1, sk, int16(l.net), asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, int16(l.nsInum), asm.Word),
		asm.JNE.Imm32(asm.R1, int32(t.inum), "out"),
		asm.StoreImm(asm.RFP, stackRecord, recordReceived, asm.Half),
		asm.StoreImm(asm.RFP, stackRecord+2, 0, asm.Half),
		asm.LoadMem(asm.R1, sk, int16(l.num), asm.Half),
		asm.StoreMem(asm.RFP, stackRecord+4, asm.R1, asm.Half),
		asm.StoreImm(asm.RFP, stackRecord+6, 0, asm.Half),
		asm.StoreImm(asm.RFP, stackRecord+8, 0, asm.Word),
		asm.StoreImm(asm.RFP, stackRecord+12, 0, asm.Word),
	}
	ins = slices.Concat(ins, asm.Instructions{asm.LoadMapPtr(asm.R1, t.ringFD)}, send(),
		asm.Instructions{asm.LoadMapPtr(asm.R1, t.counterFD)}, count(counterLost))
	return spec("crsc_received", "sock_recv_length", ins)
}

// exitProgram runs at sched_process_exit(struct task_struct *p, ...), which
// do_exit calls after it has set PF_EXITING and the exit code, and before it
// closes files.
func exitProgram(l *layout, t *target) *ebpf.ProgramSpec {
	task := asm.R6
	ins := asm.Instructions{
		asm.LoadMem(task, asm.R1, 0, asm.DWord),
		asm.LoadMem(asm.R1, task, int16(l.nsproxy), asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "out"),
		asm.LoadMem(asm.R1, asm.R1, int16(l.nsproxyNet), asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, int16(l.nsInum), asm.Word),
		asm.JNE.Imm32(asm.R1, int32(t.inum), "out"),
		asm.LoadMem(asm.R1, task, int16(l.exitCode), asm.Word),
		asm.JEq.Imm(asm.R1, 0, "out"),
		asm.LoadMem(asm.R1, task, int16(l.tgid), asm.Word),
		asm.LoadMem(asm.R2, task, int16(l.pid), asm.Word),
		asm.JNE.Reg(asm.R1, asm.R2, "out"), // a thread
		asm.LoadMapPtr(asm.R1, t.counterFD),
	}
	return spec("crsc_exit", "sched_process_exit", append(ins, count(counterCrashes)...))
}

// spec makes a BTF-typed raw tracepoint program: it reads kernel structures
// directly, with the offsets checked by the verifier.
//
// The kernel gives typed pointers only to programs under a GPL-compatible
// licence. The programs in this file are therefore offered under the MIT licence
// or the GPL, at your choice, besides the project's own.
func spec(name, tracepoint string, ins asm.Instructions) *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{
		Name: name, Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: tracepoint,
		Instructions: ins, License: "Dual MIT/GPL",
	}
}
