// Package datagrambench measures what it costs a UDP server that its datagrams are
// journaled: the same server runs under runc, under the shim with its UDP left
// alone, and with crsc.io/udp=journal, and is asked in turn. Each client has a
// number of requests under way; one that gets no answer within a second counts as
// lost.
package datagrambench
