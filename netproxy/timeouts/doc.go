// Package timeouts reads from the kernel how long an application's TCP socket
// waits for its peer: SO_KEEPALIVE with its times, and TCP_USER_TIMEOUT. Between
// the application and the network stands a proxy, whose kernel answers for the
// peer; a proxy that gives up as soon as the application would have can tell it.
//
// No system call shows these options of somebody else's socket, unless its
// descriptor is taken. A BPF program, run once for each question, looks the socket
// up by its addresses and reads them from the kernel's structures. It needs Linux
// 5.11 with BTF, CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.
package timeouts
