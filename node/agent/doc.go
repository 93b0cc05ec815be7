// Package agent tells Kubernetes what happens on a node that has crsc: it labels
// the node, and turns what the shims write into their status files into Events
// on the pods concerned.
//
// It needs to read the state directory and may create Events and change the
// labels of its node; nothing else. It holds no state: an Event's name follows
// from what it tells, so that none is told twice.
//
// It talks to the API server with two kinds of request, which is why it does
// without a client library: that would be forty times its size.
package agent
