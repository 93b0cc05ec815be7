// Package netproxy stands between a container and the network.
//
// It accepts the TCP connections that clients open to the container (steered
// to it by package redirect), opens for each a second one, the leg, to the
// application over loopback, and copies bytes between the two. What enters the
// container is journaled, what leaves it is fingerprinted, and the order in
// which the application consumed its input is recorded (package order). When
// the application dies the client-side sockets stay, the legs are re-created
// with TCP_REPAIR (package tcprepair) as the mirror image of the sockets in the
// checkpoint, and the tail of the journal is fed again (package replay).
//
// Connections that the application opens go the same way, the other way round:
// a listener of ours stands in for the server, and the server-side socket stays
// when the application dies. Input is what the server sends. In a replay the
// application opens its connections again; what it sends is compared with what
// the server has already, and not sent again (egress, replayState). Where the
// server speaks HTTP/1, what comes again is not connections but exchanges, since a
// pool gives a request another connection every time (upstream). The same goes for
// several sessions with a Redis or a PostgreSQL, between those that are alike (package
// session). What is made only after the replay is answered from the record then
// (repeats).
//
// Datagrams (UDP, with Options.Datagrams) wait in the kernel until they are
// journaled and the journal is committed, and then go their way; so do those that
// the application sends. Which it has taken, and in which order among all input, is
// recorded, too. A recovery sends it again, from the addresses of their senders,
// those that it had taken after the cut, and then those that lay in its sockets,
// which no checkpoint holds. What it then sends and had sent before is dropped
// (udpState, replies).
//
// # Use
//
//	p, err := netproxy.New(opts)      // rules and listeners are in place
//	p.Hold(ctx, max)                  // before a dump: nothing is in flight
//	table, err := p.Cut()             // tasks are frozen: where every stream stands
//	p.Release()                       // data flows again
//	p.Crash(ctx)                      // the init is dead: drain, drop the legs
//	p.Rebuild(ctx, plan)              // legs as in the image, before the restore
//	p.Replay(ctx)                     // after the restore: the tail, then live
//	p.Close()
//
// # Invariants
//
//   - One goroutine owns all sockets and all connection state (the loop). Other
//     goroutines reach it through commands only. It is in the container's network
//     namespace while it runs a command and where it makes sockets (inside).
//   - Input is forwarded to the application before it is committed to the
//     journal; output leaves for a client only after all input and all order
//     records that precede it are committed (output commit). The loop does not
//     wait for a disk: output that does lies in an outbox meanwhile.
//   - Memory per connection is at most one buffer in each direction; a full
//     buffer stops reading, so back-pressure reaches the sender.
//   - A peer that has vanished is given up when the application's own socket would
//     have given it up (vigil): the application then reads ECONNRESET, not
//     ETIMEDOUT. A client of an application that sets no timeouts is given up after
//     200 s of silence.
//   - A stream offset counts bytes since the connection was opened and never
//     changes its meaning, whatever happens to legs and sequence numbers.
package netproxy
