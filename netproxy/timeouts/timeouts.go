package timeouts

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

var (
	// ErrNotFound is returned when there is no such connection.
	ErrNotFound = errors.New("no such connection")
	// ErrUnsupported is returned by Open where the kernel cannot be asked.
	ErrUnsupported = errors.New("the kernel does not show sockets' options")
)

// Timeouts are a socket's.
type Timeouts struct {
	// KeepAlive: an idle peer is probed after Idle, then every Interval, and given
	// up after Count probes. Zeroes are the namespace's defaults.
	KeepAlive      bool
	Idle, Interval time.Duration // whole seconds
	Count          int
	// User is how long data may stay unacknowledged, to the millisecond; 0: as
	// long as the namespace's net.ipv4.tcp_retries2 says.
	User time.Duration
}

// Reader asks the kernel. It is not safe for concurrent use.
type Reader struct {
	prog *ebpf.Program
	hz   uint32 // jiffies per second
	out  [frameLen]byte
}

// Open loads the program and tries it on a connection of its own over the
// loopback interface of the calling thread's network namespace. types are the
// kernel's; nil: they are read. ErrUnsupported. The caller closes the Reader.
func Open(types *btf.Spec) (*Reader, error) {
	l, err := readLayout(types)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	r := &Reader{}
	if r.prog, err = ebpf.NewProgram(program(l)); err != nil {
		return nil, fmt.Errorf("%w: load program: %w", ErrUnsupported, err)
	}
	if err := r.calibrate(); err != nil {
		r.prog.Close()
		return nil, fmt.Errorf("%w: self-test: %w", ErrUnsupported, err)
	}
	return r, nil
}

// Close unloads the program.
func (r *Reader) Close() error { return r.prog.Close() }

// Read returns the timeouts of the socket with these addresses in the calling
// thread's network namespace. ErrNotFound, also for one that is in TIME_WAIT or
// listens.
func (r *Reader) Read(local, remote netip.AddrPort) (Timeouts, error) {
	raw, err := r.read(local, remote)
	if err != nil {
		return Timeouts{}, err
	}
	seconds := func(jiffies uint32) time.Duration { return time.Duration(jiffies/r.hz) * time.Second }
	return Timeouts{
		KeepAlive: raw.keepAlive, Idle: seconds(raw.idle), Interval: seconds(raw.interval), Count: int(raw.count),
		User: time.Duration(raw.user) * time.Millisecond,
	}, nil
}

// raw is what the kernel has, times in jiffies but for user, in milliseconds.
type raw struct {
	keepAlive            bool
	idle, interval, user uint32
	count                uint8
}

func (r *Reader) read(local, remote netip.AddrPort) (raw, error) {
	var frame [frameLen]byte
	question(frame[frameQuestion:], local, remote)
	verdict, err := r.prog.Run(&ebpf.RunOptions{Data: frame[:], DataOut: r.out[:]})
	if err != nil {
		return raw{}, fmt.Errorf("look up %v-%v: %w", local, remote, err)
	}
	if verdict != verdictFound {
		return raw{}, fmt.Errorf("%v-%v: %w", local, remote, ErrNotFound)
	}
	b := r.out[frameAnswer:]
	ne := binary.NativeEndian
	return raw{
		keepAlive: b[answerKeepAlive] != 0, count: b[answerCount],
		idle: ne.Uint32(b[answerIdle:]), interval: ne.Uint32(b[answerInterval:]), user: ne.Uint32(b[answerUser:]),
	}, nil
}

// question writes a length and a struct bpf_sock_tuple, as a packet from the
// remote end would have it.
func question(b []byte, local, remote netip.AddrPort) {
	from, to := remote.Addr().AsSlice(), local.Addr().AsSlice()
	t := append(append(b[4:4], from...), to...)
	t = binary.BigEndian.AppendUint16(t, remote.Port())
	t = binary.BigEndian.AppendUint16(t, local.Port())
	binary.NativeEndian.PutUint32(b, uint32(len(t)))
}
