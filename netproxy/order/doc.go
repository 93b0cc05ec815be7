// Package order tells in which order an application takes the input of its
// connections. Journal order is not application order: what arrives first on
// one connection may be read after what arrived later on another. A replay that
// is to give the same replies on shared state must feed inputs in the order of
// consumption.
//
// There are two sources. The tracepoint source watches the kernel: a BPF
// program on the tracepoint tcp_rcv_space_adjust, which fires inside recv
// each time data has been taken from a TCP socket, writes the socket's ports, peer
// and copied_seq to a ring that Poll reads from memory, without system calls.
// It needs Linux 5.9 with BTF, CAP_BPF and CAP_PERFMON; no kprobes or ftrace. The serial source needs
// nothing: the caller delivers one input at a time and waits until Consumed
// says that it was taken, or until it is clear that the application needs something
// else first.
//
// # Precision
//
// An event is written under the socket's lock, before recv returns to the
// application, so what a single-threaded application does with the data comes
// after it. One recv that takes several segments gives several events with
// growing positions. MSG_PEEK gives an event that repeats the position. splice,
// recvmmsg and io_uring are seen like recv.
//
// When the ring overflows, Poll says so: ErrOrderLost. Order is never lost in
// silence.
//
// # One program for all
//
// Every recv of the host runs what is attached to the tracepoint: some 60 ns for each
// program (see docs/BENCHMARKS.md). So all sources have one in common, also those of other
// processes, which finds a socket's namespace in a table and writes to the ring of that
// namespace's source. It is found by name, through the kernel's list of links, and needs
// neither a pin nor a daemon: each source has it open, and it goes with the last. What a
// killed process has left in the table is taken out by the next that comes. Whoever joins
// holds a lock on /run/crsc.lock meanwhile; who sees another /run has another program. Only one
// source of a namespace can be in the table; a second, or one that can't join, attaches
// a program of its own, and says nothing, since it makes no difference but in speed.
// Builds with another program don't share with each other.
//
// # Datagrams
//
// With Options.Datagrams the ring also has an event for each datagram that the
// application takes from a UDP socket (tracepoint sock_recv_length, Linux 6.3), in
// the same order. It tells the port only: which datagram it was is known from the
// order in which they were delivered.
//
// # Exits
//
// The kernel's side also counts the processes that crash (Source.Crashes). It
// does so before it closes the task's files, so what others do because they have
// noticed the end comes after the count.
package order
