package order

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Records in the ring, in host byte order:
//
//	taken: kind u16, leg port u16, application's port u16, 0 u16, copied_seq u32, 0 u32
//	exit:  kind u16, 0 u16, wait status u32, tgid u32, pid u32
const (
	recordTaken = 1
	recordExit  = 2
	recordLen   = 16

	// noWakeup is BPF_RB_NO_WAKEUP: the reader polls.
	noWakeup = 1

	// headBytes are read of each socket at once: addresses, ports and netns.
	headBytes = 64

	// Stack offsets.
	stackHead   = -headBytes
	stackWord   = -headBytes - 8
	stackRecord = -headBytes - 8 - recordLen
)

// target is what the programs compare with.
type target struct {
	inum              uint32
	low, high         uint16
	ownMark, ownMask  uint32
	ringFD, counterFD int
}

// read emits *(dst stack) = size bytes at base+off, of kernel memory; a fault
// leaves zeros.
func read(stack int32, size int32, base asm.Register, off uint32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, stack),
		asm.Mov.Imm(asm.R2, size),
		asm.Mov.Reg(asm.R3, base),
		asm.Add.Imm(asm.R3, int32(off)),
		asm.FnProbeReadKernel.Call(),
	}
}

// emit sends the record to the ring, or counts it as lost, and returns.
func emit(t *target) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, t.ringFD),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackRecord),
		asm.Mov.Imm(asm.R3, recordLen),
		asm.Mov.Imm(asm.R4, noWakeup),
		asm.FnRingbufOutput.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.StoreImm(asm.RFP, stackWord, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, t.counterFD),
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

// takenProgram runs at tcp_rcv_space_adjust(struct sock *sk). The port test
// comes first: nearly all sockets of the host fail it.
func takenProgram(l *layout, t *target) *ebpf.ProgramSpec {
	sk, port := asm.R6, asm.R7
	ins := asm.Instructions{asm.LoadMem(sk, asm.R1, 0, asm.DWord)}
	ins = append(ins, read(stackHead, headBytes, sk, 0)...)
	ins = append(ins,
		asm.LoadMem(port, asm.RFP, stackHead+int16(l.dport), asm.Half),
		asm.HostTo(asm.BE, port, asm.Half), // network order to host order
		asm.JLT.Imm(port, int32(t.low), "out"),
		asm.JGT.Imm(port, int32(t.high), "out"),
		asm.LoadMem(asm.R8, asm.RFP, stackHead+int16(l.net), asm.DWord),
	)
	ins = append(ins, read(stackWord, 4, asm.R8, l.nsInum)...)
	ins = append(ins, skipUnless(t.inum)...)
	ins = append(ins, read(stackWord, 4, sk, l.mark)...)
	ins = append(ins,
		asm.LoadMem(asm.R1, asm.RFP, stackWord, asm.Word),
		asm.And.Imm32(asm.R1, int32(t.ownMask)),
		asm.JEq.Imm32(asm.R1, int32(t.ownMark), "out"),
	)
	ins = append(ins, read(stackWord, 4, sk, l.copiedSeq)...)
	ins = append(ins,
		asm.StoreImm(asm.RFP, stackRecord, recordTaken, asm.Half),
		asm.StoreMem(asm.RFP, stackRecord+2, port, asm.Half),
		asm.LoadMem(asm.R1, asm.RFP, stackHead+int16(l.num), asm.Half),
		asm.StoreMem(asm.RFP, stackRecord+4, asm.R1, asm.Half),
		asm.StoreImm(asm.RFP, stackRecord+6, 0, asm.Half),
		asm.LoadMem(asm.R1, asm.RFP, stackWord, asm.Word),
		asm.StoreMem(asm.RFP, stackRecord+8, asm.R1, asm.Word),
		asm.StoreImm(asm.RFP, stackRecord+12, 0, asm.Word),
	)
	return spec("crsc_taken", append(ins, emit(t)...))
}

// exitProgram runs at sched_process_exit(struct task_struct *p, ...), which
// do_exit calls after it has set PF_EXITING and the exit code, and before it
// closes files.
func exitProgram(l *layout, t *target) *ebpf.ProgramSpec {
	task := asm.R6
	ins := asm.Instructions{asm.LoadMem(task, asm.R1, 0, asm.DWord)}
	ins = append(ins, read(stackHead, 8, task, l.nsproxy)...)
	ins = append(ins, asm.LoadMem(asm.R7, asm.RFP, stackHead, asm.DWord))
	ins = append(ins, read(stackHead, 8, asm.R7, l.nsproxyNet)...)
	ins = append(ins, asm.LoadMem(asm.R7, asm.RFP, stackHead, asm.DWord))
	ins = append(ins, read(stackWord, 4, asm.R7, l.nsInum)...)
	ins = append(ins, skipUnless(t.inum)...)
	ins = append(ins, read(stackHead, 8, task, l.pid)...)
	ins = append(ins, read(stackWord, 4, task, l.exitCode)...)
	ins = append(ins,
		asm.StoreImm(asm.RFP, stackRecord, recordExit, asm.Half),
		asm.StoreImm(asm.RFP, stackRecord+2, 0, asm.Half),
		asm.LoadMem(asm.R1, asm.RFP, stackWord, asm.Word),
		asm.StoreMem(asm.RFP, stackRecord+4, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.RFP, stackHead+4, asm.Word),
		asm.StoreMem(asm.RFP, stackRecord+8, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.RFP, stackHead, asm.Word),
		asm.StoreMem(asm.RFP, stackRecord+12, asm.R1, asm.Word),
	)
	return spec("crsc_exit", append(ins, emit(t)...))
}

// skipUnless leaves the program unless the word just read is want.
func skipUnless(want uint32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.RFP, stackWord, asm.Word),
		asm.JNE.Imm32(asm.R1, int32(want), "out"),
	}
}

// spec names a licence that the kernel lets use bpf_probe_read_kernel.
func spec(name string, ins asm.Instructions) *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{Name: name, Type: ebpf.RawTracepoint, Instructions: ins, License: "Dual MIT/GPL"}
}
