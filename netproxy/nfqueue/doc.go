// Package nfqueue takes packets that a netfilter rule hands to a queue, and
// gives the verdict on them later (linux/netfilter/nfnetlink_queue.h). While
// nobody has a queue open, packets of rules with the bypass flag pass.
//
// A Conn belongs to one network namespace and owns one queue of it. Its
// descriptor is meant for epoll.
package nfqueue
