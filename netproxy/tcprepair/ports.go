package tcprepair

import (
	"fmt"
	"math/bits"
	"slices"
)

// Ports hands out source ports of legs. A leg has its client's address, so a
// client whose own port equals that of a live leg to the same application port
// hangs in connect. Clients have unprivileged ports: mostly ephemeral ones, but
// behind address translation any from 1024 on. Each peer's first legs therefore
// have ports below that; only one with more of them gets ports of the common
// range. Ports come back in the order they were freed, so each rests as long as
// possible. Not safe for concurrent use.
type Ports struct {
	ring  []uint16 // queue of common ports, each at most once
	head  int
	count int
	ours  bitmap // ports of the common range
	inUse bitmap
	high  uint16

	// private are the ports below privateEnd that each peer's legs have.
	private map[uint64]*privatePorts
	cursor  uint16 // where the search for the next begins
}

type bitmap [65536 / 64]uint64

func (b *bitmap) has(port uint16) bool { return b[port/64]&(1<<(port%64)) != 0 }
func (b *bitmap) add(port uint16)      { b[port/64] |= 1 << (port % 64) }
func (b *bitmap) remove(port uint16)   { b[port/64] &^= 1 << (port % 64) }

// privateEnd is the first port that an unprivileged client may have.
const privateEnd = 1024

type privatePorts struct {
	used  [privateEnd / 64]uint64
	count int
}

// next finds a free port from the cursor on; 0 if there is none.
func (s *privatePorts) next(cursor uint16) uint16 {
	first := int(cursor / 64)
	for i := range len(s.used) + 1 {
		w := (first + i) % len(s.used)
		free := ^s.used[w]
		switch {
		case i == 0:
			free &= ^uint64(0) << (cursor % 64)
		case i == len(s.used):
			free &^= ^uint64(0) << (cursor % 64)
		}
		if w == 0 {
			free &^= 1 // port 0
		}
		if free != 0 {
			return uint16(w*64 + bits.TrailingZeros64(free))
		}
	}
	return 0
}

// Default common range of leg ports: below the kernel's default ephemeral ports
// (32768-60999) and above most services.
const (
	DefaultLowPort  = 10000
	DefaultHighPort = 32767
)

// PortOptions say which ports are legs'.
type PortOptions struct {
	// Low and High bound the common range, inclusive; zeroes mean the defaults.
	Low, High uint16
	// EphemeralLow and EphemeralHigh is the namespace's
	// net.ipv4.ip_local_port_range, from which the application's outgoing
	// connections take their ports; zeroes mean none.
	EphemeralLow, EphemeralHigh uint16
	// Reserved are ranges, inclusive, within those that nobody is given: the
	// namespace's net.ipv4.ip_local_reserved_ports.
	Reserved [][2]uint16
	// Exclude are single ports to leave out.
	Exclude []uint16
}

// fewPorts is how many ports of the default range are so few that all others
// which the namespace gives to nobody are taken as well.
const fewPorts = 8192

// NewPorts makes the allocator. ErrPortRange if no port is left.
func NewPorts(o PortOptions) (*Ports, error) {
	wider := o.Low == 0 && o.High == 0
	if wider {
		o.Low, o.High = DefaultLowPort, DefaultHighPort
	}
	p := &Ports{private: map[uint64]*privatePorts{}, cursor: privateEnd / 2}
	p.take(&o)
	if wider && len(p.ring) < fewPorts {
		o.Low, o.High = privateEnd, 65535
		p.take(&o)
	}
	p.count = len(p.ring)
	if p.count == 0 {
		return nil, fmt.Errorf("%w: %d-%d, of which %d-%d are ephemeral", ErrPortRange, o.Low, o.High, o.EphemeralLow, o.EphemeralHigh)
	}
	return p, nil
}

// take adds the usable ports from o.Low to o.High to the common range.
func (p *Ports) take(o *PortOptions) {
	for n := int(o.Low); n <= int(o.High); n++ {
		port := uint16(n)
		if port < privateEnd || p.ours.has(port) || o.ephemeral(port) || slices.Contains(o.Exclude, port) {
			continue
		}
		p.ours.add(port)
		p.ring = append(p.ring, port)
		p.high = max(p.high, port)
	}
}

// ephemeral reports whether the kernel may give the port to a socket of the
// application's that asks for none.
func (o *PortOptions) ephemeral(port uint16) bool {
	if o.EphemeralHigh == 0 || port < o.EphemeralLow || port > o.EphemeralHigh {
		return false
	}
	return !slices.ContainsFunc(o.Reserved, func(r [2]uint16) bool { return r[0] <= port && port <= r[1] })
}

// Range returns the bounds, inclusive, of all ports that may be handed out.
func (p *Ports) Range() (low, high uint16) { return 1, max(p.high, privateEnd-1) }

// Has tells whether a leg may have the port.
func (p *Ports) Has(port uint16) bool { return port > 0 && port < privateEnd || p.ours.has(port) }

// Len returns how many ports of the common range are free.
func (p *Ports) Len() int { return p.count }

// Get takes a port that no other leg of the peer has. Peers are told apart by
// their number. ErrNoPort if all are in use.
func (p *Ports) Get(peer uint64) (uint16, error) {
	s := p.private[peer]
	if s == nil {
		s = &privatePorts{}
		p.private[peer] = s
	}
	port := s.next(p.cursor)
	if port == 0 {
		return p.GetCommon()
	}
	s.used[port/64] |= 1 << (port % 64)
	s.count++
	p.cursor = (port + 1) % privateEnd
	return port, nil
}

// GetCommon takes the port of the common range that has been free for longest.
// ErrNoPort if all are in use.
func (p *Ports) GetCommon() (uint16, error) {
	if p.count == 0 {
		return 0, ErrNoPort
	}
	port := p.ring[p.head]
	p.head = (p.head + 1) % len(p.ring)
	p.count--
	p.inUse.add(port)
	return port, nil
}

// Put gives a port of the peer back. One that is not in use is ignored.
func (p *Ports) Put(peer uint64, port uint16) {
	if port < privateEnd {
		s := p.private[peer]
		if s == nil || s.used[port/64]&(1<<(port%64)) == 0 {
			return
		}
		s.used[port/64] &^= 1 << (port % 64)
		if s.count--; s.count == 0 {
			delete(p.private, peer)
		}
		return
	}
	if !p.inUse.has(port) {
		return
	}
	p.inUse.remove(port)
	p.ring[(p.head+p.count)%len(p.ring)] = port
	p.count++
}
