package timeouts

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/crsc-io/crsc/netproxy/internal/kernel"
)

// The program runs on a frame that is question and answer at once: an Ethernet
// header that nobody reads, the length of the tuple and the tuple, the answer.
const (
	frameQuestion = 14
	tupleLen4     = 12
	tupleLen6     = 36
	questionLen   = 4 + tupleLen6
	frameAnswer   = frameQuestion + questionLen
	answerLen     = 16
	frameLen      = frameAnswer + answerLen

	// Offsets in the answer, in host byte order.
	answerKeepAlive = 0 // u8, 0 or not
	answerCount     = 1 // u8
	answerIdle      = 4 // u32
	answerInterval  = 8
	answerUser      = 12

	// Stack offsets.
	stackQuestion = -questionLen
	stackAnswer   = stackQuestion - answerLen

	verdictFound = 1
)

// tcpListen is TCP_LISTEN: the kernel falls back to the port's listener.
const tcpListen = 10

// currentNetns is BPF_F_CURRENT_NETNS: that of the thread that runs the program.
const currentNetns = -1

// layout holds byte offsets of kernel structures.
type layout struct {
	state, flags          uint32 // in struct sock_common
	idle, interval, count uint32 // in struct tcp_sock
	user                  uint32 // in struct inet_connection_sock
	keepOpen              uint64 // bit of flags
}

func readLayout(types *btf.Spec) (l *layout, err error) {
	if types == nil {
		if types, err = kernel.Types(); err != nil {
			return nil, err
		}
	}
	l = &layout{}
	for _, f := range []struct {
		to          *uint32
		typ, member string
	}{
		{&l.state, "sock_common", "skc_state"},
		{&l.flags, "sock_common", "skc_flags"},
		{&l.idle, "tcp_sock", "keepalive_time"},
		{&l.interval, "tcp_sock", "keepalive_intvl"},
		{&l.count, "tcp_sock", "keepalive_probes"},
		{&l.user, "inet_connection_sock", "icsk_user_timeout"},
	} {
		if *f.to, err = kernel.Offset(types, f.typ, f.member); err != nil {
			return nil, err
		}
	}
	l.keepOpen, err = kernel.Constant(types, "sock_flags", "SOCK_KEEPOPEN")
	return l, err
}

// program returns verdictFound, with the answer in the frame, or 0. The structures
// begin with each other: tcp_sock, inet_connection_sock, inet_sock, sock,
// sock_common.
//
// The kernel gives typed pointers only to programs under a GPL-compatible licence.
// The program in this file is therefore offered under the MIT licence or the GPL,
// at your choice, besides the project's own.
func program(l *layout) *ebpf.ProgramSpec {
	ctx, ref, sk := asm.R6, asm.R7, asm.R8
	ins := asm.Instructions{
		asm.Mov.Reg(ctx, asm.R1),
		asm.Mov.Imm(asm.R2, frameQuestion),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stackQuestion),
		asm.Mov.Imm(asm.R4, questionLen),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "none"),
		asm.LoadMem(asm.R1, asm.RFP, stackQuestion, asm.Word),
		asm.Mov.Imm(asm.R3, tupleLen4),
		asm.JEq.Imm(asm.R1, tupleLen4, "look"),
		asm.Mov.Imm(asm.R3, tupleLen6),
		asm.Mov.Reg(asm.R1, ctx).WithSymbol("look"),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackQuestion+4),
		asm.Mov.Imm(asm.R4, currentNetns),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkcLookupTcp.Call(),
		asm.JEq.Imm(asm.R0, 0, "none"),
		asm.Mov.Reg(ref, asm.R0),
		asm.Mov.Reg(asm.R1, ref),
		asm.FnSkcToTcpSock.Call(),
		asm.JEq.Imm(asm.R0, 0, "release"),
		asm.Mov.Reg(sk, asm.R0),
		asm.LoadMem(asm.R1, sk, int16(l.state), asm.Byte),
		asm.JEq.Imm(asm.R1, tcpListen, "release"),
		asm.StoreImm(asm.RFP, stackAnswer, 0, asm.Word),
		asm.LoadMem(asm.R1, sk, int16(l.flags), asm.DWord),
		asm.RSh.Imm(asm.R1, int32(l.keepOpen)),
		asm.And.Imm(asm.R1, 1),
		asm.StoreMem(asm.RFP, stackAnswer+answerKeepAlive, asm.R1, asm.Byte),
		asm.LoadMem(asm.R1, sk, int16(l.count), asm.Byte),
		asm.StoreMem(asm.RFP, stackAnswer+answerCount, asm.R1, asm.Byte),
		asm.LoadMem(asm.R1, sk, int16(l.idle), asm.Word),
		asm.StoreMem(asm.RFP, stackAnswer+answerIdle, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, sk, int16(l.interval), asm.Word),
		asm.StoreMem(asm.RFP, stackAnswer+answerInterval, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, sk, int16(l.user), asm.Word),
		asm.StoreMem(asm.RFP, stackAnswer+answerUser, asm.R1, asm.Word),
		asm.Mov.Reg(asm.R1, ref),
		asm.FnSkRelease.Call(),
		asm.Mov.Reg(asm.R1, ctx),
		asm.Mov.Imm(asm.R2, frameAnswer),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stackAnswer),
		asm.Mov.Imm(asm.R4, answerLen),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkbStoreBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "none"),
		asm.Mov.Imm(asm.R0, verdictFound),
		asm.Return(),
		asm.Mov.Reg(asm.R1, ref).WithSymbol("release"),
		asm.FnSkRelease.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("none"),
		asm.Return(),
	}
	return &ebpf.ProgramSpec{Name: "crsc_timeouts", Type: ebpf.SchedCLS, Instructions: ins, License: "Dual MIT/GPL"}
}
