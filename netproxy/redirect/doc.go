// Package redirect steers the inbound TCP connections of a container's network
// namespace to listeners of ours, and the application's replies on the legs
// back to us. It uses one nftables table, two policy routing rules and two
// routes, and one setting (inheritance), all in the container's namespace; no NAT
// and no connection tracking.
//
// # Use
//
//	l, err := redirect.Listen(ns, 0)
//	r, err := redirect.Install(redirect.Options{NetNS: ns, Suffix: id, Listener: l})
//	... accept on l.FD4 and l.FD6; getsockname is the original destination ...
//	r.Remove()
//	l.Close()
//
// Install has to happen before the application listens: connections that it
// accepted before would lose their replies.
//
// # How it steers
//
// A SYN that arrives on any interface but lo, for an address and port at which
// somebody really listens (the kernel's own listener lookup, nft "socket"), and
// which is not known yet, waits in a packet queue until it is clear whose the
// listener is. If it is the application's, (address, port) is added to a set and
// the SYN goes to our listener by TPROXY; otherwise the address is left alone for
// some seconds. Without Options.Owns every listener is the application's.
// All later packets to an address in the set do the same, so SYN cookies work
// and the port stays ours while the application is dead. A port nobody listens
// on is never touched: the client is refused by the kernel as ever.
//
// All but those with ACK and PSH, which most data has: they find the socket of their
// connection by themselves, and the way to it with the socket. What TPROXY gives a
// socket is routed anew, packet by packet. The one that completes a handshake by
// cookie is a plain ACK; only if that is lost, the client of a flood is reset.
//
// TCP looks for the listener once more, microseconds later. Who begins to listen
// between the two would have a connection that we don't know of. So what a listener
// answers to a SYN is looked at as well: unless it is for a leg, the application's is
// met with a reset, and the client's SYN, sent again after a second, is redirected.
//
// A leg connects to the application from the client's address. What the
// application sends to it leaves from an address in the set; the output chain
// gives it MarkSteer, and a routing rule delivers it locally. Our own sockets
// carry MarkOwn and are exempt.
//
// So that not every such packet has to be marked and then routed once more, legs
// carry MarkSteer themselves, and net.ipv4.tcp_fwmark_accept gives the sockets that
// the application accepts the mark of the leg's SYN. It is left off while somebody
// else in the namespace routes by marks. A checkpoint carries the mark; without the
// routing rule it means nothing. A leg must never carry MarkOwn, which would be
// inherited as well and keep the replies from coming back.
//
// # Connections that the application opens
//
// With Options.Outgoing the first SYN of each such connection waits in a
// netfilter queue (package nfqueue) until its reader has decided. So a
// connection can be granted when the server has answered, and not before: the
// application sees a refusal or silence as the server meant it. A granted
// connection's server, port and local port go into a set; its packets are
// steered to lo, where the first meets a second listener and the later ones the
// accepted socket.
//
// # Datagrams
//
// With Options.Datagrams what is sent to the application's UDP sockets, and what
// it sends from the same addresses, waits in two packet queues for whoever reads
// them. Nothing is steered, and sockets see the real addresses. Whose a socket is
// is decided as for listeners. An address that was the application's stays so while
// it is dead, and ICMP does not say that nobody is there.
//
// # Others in the namespace
//
// In a pod each protected container has a redirection of its own, in a table of
// its own; rules and routes are shared and go with the last. The tables are owned
// by our netlink sockets: nobody else can flush them, and when the process is
// killed they vanish with its listeners. Routing rules and routes that somebody
// removes are put back at once. The prerouting chain comes after destination
// NAT, so that connections which a service mesh redirects go where it wants.
//
// # What passes untouched
//
// Traffic over lo without Options.Loopback, UDP without Options.Datagrams,
// connections the application opens without Options.Outgoing (unless it binds them
// to a port it also listens on), IPv6 link-local, excluded ports and prefixes.
package redirect
