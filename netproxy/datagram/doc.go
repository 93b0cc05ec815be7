// Package datagram gives UDP datagrams to an application again, as if they came
// from the network: from their sender's address, over lo, through a raw socket.
//
//	in, err := datagram.Open(ns, mark)
//	err = in.Send(source, dest, payload)
//	in.Close()
//
// Datagrams with a mark of ours pass all rules of ours. Delivery takes place in
// the call, or soon after it when the kernel is busy; a datagram for which nobody
// has a socket vanishes.
package datagram
