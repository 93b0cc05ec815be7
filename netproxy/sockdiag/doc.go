// Package sockdiag asks the kernel about TCP sockets of one network namespace,
// and destroys them, over NETLINK_SOCK_DIAG (inet_diag, linux/inet_diag.h).
//
// A Conn keeps one netlink socket open. Lookup of one four-tuple costs a hash
// lookup in the kernel and two system calls, and allocates nothing; Dump walks
// all sockets. An IPv6 socket that carries IPv4 (v4-mapped) is found by its
// IPv4 addresses and reported with them.
package sockdiag
