package order

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// tracepoint is the source that watches the kernel.
type tracepoint struct {
	*serial // for Consumed

	events   *ebpf.Map // the ring
	ring     *ring     // its mapping
	counters *ebpf.Map
	counter  []byte  // its mapping
	shared   *shared // what writes to the ring
	lost     *uint64 // in counter
	lostSeen uint64
	crashes  *uint64     // in counter
	fn       func(Event) // of the running Poll
	record   func([]byte)
	closers  []func() error // in order of opening
}

func openTracepoint(o Options) (*tracepoint, error) {
	t := &tracepoint{}
	t.record = t.handle // bound once: a method value allocates
	if err := t.open(o); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func (t *tracepoint) open(o Options) (err error) {
	if t.serial, err = openSerial(o.NetNS); err != nil {
		return err
	}
	t.closers = append(t.closers, t.serial.Close)
	l, err := readLayout(o.Types)
	if err != nil {
		return err
	}
	var to target
	if to.inum, err = netns.Inum(o.NetNS); err != nil {
		return err
	}
	if err := t.openMaps(o.RingBytes, &to); err != nil {
		return err
	}
	exits, err := t.attach(exitProgram(l, &to))
	if err != nil {
		return err
	}
	owner, err := exits.Info()
	if err != nil {
		return fmt.Errorf("link of sched_process_exit: %w", err)
	}
	w := watch{Low: o.LowPort, High: o.HighPort, Owner: uint32(owner.ID)}
	if o.Outgoing {
		w.Outgoing = 1
	}
	g := legs{ownMark: o.OwnMark & o.OwnMask, ownMask: o.OwnMask, priority: o.LegPriority}
	if err := t.watchTaken(l, g, to.inum, w); err != nil {
		return err
	}
	if o.Datagrams {
		if _, err := t.attach(receivedProgram(l, &to)); err != nil {
			return err
		}
	}
	return t.selfTest(o)
}

func ringSpec(size int) *ebpf.MapSpec {
	return &ebpf.MapSpec{Name: "crsc_events", Type: ebpf.RingBuf, MaxEntries: uint32(size)}
}

func counterSpec() *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: "crsc_counters", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: counters, Flags: unix.BPF_F_MMAPABLE,
	}
}

func (t *tracepoint) openMaps(size int, to *target) (err error) {
	if t.events, err = ebpf.NewMap(ringSpec(size)); err != nil {
		return fmt.Errorf("ring: %w", err)
	}
	t.closers = append(t.closers, t.events.Close)
	if t.counters, err = ebpf.NewMap(counterSpec()); err != nil {
		return fmt.Errorf("counter: %w", err)
	}
	t.closers = append(t.closers, t.counters.Close)
	if t.ring, err = mapRing(t.events.FD(), size); err != nil {
		return err
	}
	t.closers = append(t.closers, t.ring.close)
	t.counter, err = unix.Mmap(t.counters.FD(), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map counter: %w", err)
	}
	t.closers = append(t.closers, func() error { return unix.Munmap(t.counter) })
	t.lost = (*uint64)(unsafe.Pointer(&t.counter[8*counterLost]))
	t.crashes = (*uint64)(unsafe.Pointer(&t.counter[8*counterCrashes]))
	to.ringFD, to.counterFD = t.events.FD(), t.counters.FD()
	return nil
}

// attach has a program run until the source is closed.
func (t *tracepoint) attach(spec *ebpf.ProgramSpec) (link.Link, error) {
	at, err := attach(spec)
	if err == nil {
		t.closers = append(t.closers, at.Close)
	}
	return at, err
}

// attach has a program run until the link is closed.
func attach(spec *ebpf.ProgramSpec) (link.Link, error) {
	prog, err := ebpf.NewProgram(spec)
	if err != nil {
		return nil, fmt.Errorf("load program for %s: %w", spec.AttachTo, err)
	}
	defer prog.Close() // the link keeps it
	at, err := link.AttachTracing(link.TracingOptions{Program: prog})
	if err != nil {
		return nil, fmt.Errorf("attach to %s: %w", spec.AttachTo, err)
	}
	return at, nil
}

func (t *tracepoint) Serial() bool { return false }

func (t *tracepoint) Crashes() uint64 { return atomic.LoadUint64(t.crashes) }

func (t *tracepoint) Poll(fn func(Event)) error {
	t.fn = fn
	t.ring.drain(t.record)
	t.fn = nil
	if lost := atomic.LoadUint64(t.lost); lost != t.lostSeen {
		n := lost - t.lostSeen
		t.lostSeen = lost
		return fmt.Errorf("%w (%d events)", ErrOrderLost, n)
	}
	return nil
}

func (t *tracepoint) handle(b []byte) {
	switch kind, port, appPort, copied, peer := decode(b); kind {
	case recordTaken:
		t.fn(Event{LegPort: port, AppPort: appPort, Peer: peer, CopiedSeq: copied})
	case recordReceived:
		t.fn(Event{AppPort: appPort, Datagram: true})
	}
}

// Close detaches the programs first, then releases what they write to.
func (t *tracepoint) Close() error {
	var errs []error
	for i := len(t.closers) - 1; i >= 0; i-- {
		errs = append(errs, t.closers[i]())
	}
	t.closers = nil
	return errors.Join(errs...)
}
