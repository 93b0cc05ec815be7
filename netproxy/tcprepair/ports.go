package tcprepair

import (
	"fmt"
)

// Ports hands out source ports of legs. They have to lie outside the range from
// which clients choose theirs: a client whose address and port equal a live
// leg's hangs in connect. Ports come back in the order they were freed, so each
// rests as long as possible. Not safe for concurrent use; every operation is O(1).
type Ports struct {
	ring  []uint16 // queue of ports, each at most once
	head  int
	count int
	ours  bitmap // ports of the range
	inUse bitmap
	// queued are the ports in the ring. A claimed port may still be there; Get
	// drops it when it comes to it.
	queued    bitmap
	free      int
	low, high uint16
}

type bitmap [65536 / 64]uint64

func (b *bitmap) has(port uint16) bool { return b[port/64]&(1<<(port%64)) != 0 }
func (b *bitmap) add(port uint16)      { b[port/64] |= 1 << (port % 64) }
func (b *bitmap) remove(port uint16)   { b[port/64] &^= 1 << (port % 64) }

// Default range of leg ports: below the kernel's default ephemeral ports
// (32768-60999) and above the services.
const (
	DefaultLowPort  = 10000
	DefaultHighPort = 32767
)

// PortOptions say which ports are legs'.
type PortOptions struct {
	// Low and High bound the range, inclusive; zeroes mean the defaults.
	Low, High uint16
	// EphemeralLow and EphemeralHigh is the namespace's
	// net.ipv4.ip_local_port_range, from which the application's outgoing
	// connections take their ports; zeroes mean none.
	EphemeralLow, EphemeralHigh uint16
	// Exclude are single ports to leave out.
	Exclude []uint16
}

// NewPorts makes the allocator. ErrPortRange if no port is left.
func NewPorts(o PortOptions) (*Ports, error) {
	if o.Low == 0 && o.High == 0 {
		o.Low, o.High = DefaultLowPort, DefaultHighPort
	}
	skip := make(map[uint16]bool, len(o.Exclude))
	for _, e := range o.Exclude {
		skip[e] = true
	}
	p := &Ports{low: o.Low, high: o.High}
	for n := int(o.Low); n <= int(o.High); n++ {
		port := uint16(n)
		ephemeral := o.EphemeralHigh > 0 && port >= o.EphemeralLow && port <= o.EphemeralHigh
		if port == 0 || ephemeral || skip[port] {
			continue
		}
		p.ours.add(port)
		p.queued.add(port)
		p.ring = append(p.ring, port)
	}
	p.count, p.free = len(p.ring), len(p.ring)
	if p.count == 0 {
		return nil, fmt.Errorf("%w: %d-%d", ErrPortRange, o.Low, o.High)
	}
	return p, nil
}

// Range returns the bounds, inclusive, of all ports that may be handed out.
func (p *Ports) Range() (low, high uint16) { return p.low, p.high }

// Len returns how many ports are free.
func (p *Ports) Len() int { return p.free }

// Get takes the port that has been free for longest. ErrNoPort if all are in use.
func (p *Ports) Get() (uint16, error) {
	for p.count > 0 {
		port := p.ring[p.head]
		p.head = (p.head + 1) % len(p.ring)
		p.count--
		p.queued.remove(port)
		if !p.inUse.has(port) {
			p.inUse.add(port)
			p.free--
			return port, nil
		}
	}
	return 0, ErrNoPort
}

// Claim takes one particular port, that of a leg to be restored. It tells
// whether the port was free and in the range.
func (p *Ports) Claim(port uint16) bool {
	if !p.ours.has(port) || p.inUse.has(port) {
		return false
	}
	p.inUse.add(port)
	p.free--
	return true
}

// Put gives a port back. A port that is not in use is ignored.
func (p *Ports) Put(port uint16) {
	if !p.inUse.has(port) {
		return
	}
	p.inUse.remove(port)
	p.free++
	if p.queued.has(port) {
		return // claimed and freed before its turn came
	}
	p.queued.add(port)
	p.ring[(p.head+p.count)%len(p.ring)] = port
	p.count++
}
