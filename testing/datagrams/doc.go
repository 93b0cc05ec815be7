// Package datagrams shows that a UDP server's crashes cost no datagram.
//
// Its server counts requests, which come by UDP and by TCP, and chains them all,
// in the order in which it takes them, in one sum that each answer carries: one
// that is lost, doubled or moved changes every later answer. The clients send one
// request at a time and never again; they know what count they must be told.
// The server runs in a container and is killed again and again under load.
package datagrams
