package redirect

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers: a set key (address . port) starts at the first 32-bit register and
// takes two of them with IPv4, five with IPv6. scratch lies behind the key.
const (
	keyReg     = unix.NFT_REG32_00
	scratchReg = unix.NFT_REG32_08
	portReg    = unix.NFT_REG32_12
)

// family is what differs between IPv4 and IPv6 in a rule.
type family struct {
	proto      byte   // NFPROTO_*
	addrLen    uint32 // bytes
	saddr      uint32 // offset in the network header
	daddr      uint32
	loopback   netip.Addr
	set        string
	keyType    nftables.SetDatatype
	portKeyReg uint32 // where the port of a key goes
}

func families() [2]family {
	return [2]family{
		{
			proto: unix.NFPROTO_IPV4, addrLen: 4, saddr: 12, daddr: 16,
			loopback: netip.AddrFrom4([4]byte{127, 0, 0, 1}), set: "listen4",
			keyType:    nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService),
			portKeyReg: keyReg + 1,
		},
		{
			proto: unix.NFPROTO_IPV6, addrLen: 16, saddr: 8, daddr: 24,
			loopback: netip.IPv6Loopback(), set: "listen6",
			keyType:    nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetService),
			portKeyReg: keyReg + 4,
		},
	}
}

func be16(v uint16) []byte   { return binary.BigEndian.AppendUint16(nil, v) }
func host32(v uint32) []byte { return binaryutil.NativeEndian.PutUint32(v) }

func rule(parts ...[]expr.Any) []expr.Any { return slices.Concat(parts...) }

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func meta(key expr.MetaKey, op expr.CmpOp, data []byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: scratchReg},
		&expr.Cmp{Op: op, Register: scratchReg, Data: data},
	}
}

func (f *family) only() []expr.Any {
	return meta(expr.MetaKeyNFPROTO, expr.CmpOpEq, []byte{f.proto})
}

func (f *family) loadAddr(offset uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: keyReg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.addrLen},
	}
}

// inPrefix matches the address at offset.
func (f *family) inPrefix(offset uint32, p netip.Prefix) []expr.Any {
	mask := make([]byte, f.addrLen)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		&expr.Payload{DestRegister: scratchReg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.addrLen},
		&expr.Bitwise{
			SourceRegister: scratchReg, DestRegister: scratchReg, Len: f.addrLen,
			Mask: mask, Xor: make([]byte, f.addrLen),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: scratchReg, Data: p.Addr().AsSlice()},
	}
}

// key loads the address at offset and the port at portOffset of the TCP header.
func (f *family) key(offset, portOffset uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: keyReg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.addrLen},
		&expr.Payload{DestRegister: f.portKeyReg, Base: expr.PayloadBaseTransportHeader, Offset: portOffset, Len: 2},
	}
}

const (
	tcpSource = 0
	tcpDest   = 2
	tcpFlags  = 12 // the word that has them in its second byte

	flagsFinSynRstAck = 0x17
	flagSyn           = 0x02
	flagsSynAck       = 0x12
	flagPshAck        = 0x18
)

func bareSYN() []expr.Any { return flags(flagsFinSynRstAck, expr.CmpOpEq, flagSyn) }

// notSYN matches every packet but the first of a connection.
func notSYN() []expr.Any { return flags(flagsFinSynRstAck, expr.CmpOpNeq, flagSyn) }

// answersSYN matches the second packet of a connection.
func answersSYN() []expr.Any { return flags(flagsFinSynRstAck, expr.CmpOpEq, flagsSynAck) }

// pushed matches packets that end what somebody has sent in one go.
func pushed() []expr.Any { return flags(flagsFinSynRstAck|flagPshAck, expr.CmpOpEq, flagPshAck) }

// flags compares flags of TCP's. It loads four bytes, since the kernel masks four, and
// no other number, without a call for it (nft_bitwise_fast_ops), packet by packet.
func flags(mask byte, op expr.CmpOp, want byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: scratchReg, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlags, Len: 4},
		&expr.Bitwise{
			SourceRegister: scratchReg, DestRegister: scratchReg, Len: 4,
			Mask: []byte{0, mask, 0, 0}, Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: op, Register: scratchReg, Data: []byte{0, want, 0, 0}},
	}
}

func inSet(s *nftables.Set, invert bool) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: keyReg, SetName: s.Name, SetID: s.ID, Invert: invert}}
}

// appListens matches when the kernel finds a socket for the packet and it is
// not one of ours: for a SYN, a listener of the application.
func appListens() []expr.Any {
	return []expr.Any{
		&expr.Socket{Key: expr.SocketKeyTransparent, Register: scratchReg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: scratchReg, Data: []byte{0}},
	}
}

// reset answers with a TCP reset and drops the packet.
func reset() []expr.Any { return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }

func addToSet(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Dynset{
		SrcRegKey: keyReg, SetName: s.Name, SetID: s.ID, Operation: unix.NFT_DYNSET_OP_ADD,
	}}
}

// toListener hands the packet to our listener at port of the loopback address.
func (f *family) toListener(port uint16) []expr.Any {
	return append([]expr.Any{
		&expr.Immediate{Register: scratchReg, Data: f.loopback.AsSlice()},
		&expr.Immediate{Register: portReg, Data: be16(port)},
		&expr.TProxy{Family: f.proto, TableFamily: unix.NFPROTO_INET, RegAddr: scratchReg, RegPort: portReg},
	}, accept()...)
}

// marked matches packets with that mark in our bits.
func marked(mark uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: scratchReg},
		&expr.Bitwise{
			SourceRegister: scratchReg, DestRegister: scratchReg, Len: 4,
			Mask: host32(MarkMask), Xor: host32(0),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: scratchReg, Data: host32(mark)},
	}
}

// steer replaces our bits of the packet mark.
func steer() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: scratchReg},
		&expr.Bitwise{
			SourceRegister: scratchReg, DestRegister: scratchReg, Len: 4,
			Mask: host32(^MarkMask), Xor: host32(MarkSteer),
		},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: scratchReg},
	}
}
