// Package tcprepair makes legs, our sockets towards the application: fresh ones
// (Dial), and mirror images of connections that exist only on the application's
// side, in a CRIU image (Restore, by TCP_REPAIR).
//
// A leg is a transparent socket in the container's network namespace, bound to
// the client's address with a port of ours (Ports), connected to the address
// that the client asked for. All descriptors are raw, non-blocking and meant
// for epoll.
//
// # Restoring
//
//  1. Restore every leg before the application is restored. An established leg
//     sends nothing by itself, so nothing can meet a half-made peer.
//  2. Let CRIU restore the application.
//  3. Activate every leg. Only now is it written to.
//
// # Sequence numbers
//
// In an image inq_seq is the application's rcv_nxt and outq_seq its write_seq;
// a FIN received or sent counts as one in them, and not in inq_len, outq_len
// and unsq_len (soccr/soccr.c of CRIU). Mirror.Snd is therefore the sequence
// number of the next input byte to deliver, Mirror.Rcv that of the next output
// byte to arrive (Mirror.Sent with Options.SentArrived); with the BaseSeqs of
// the connection's first leg both convert to stream offsets.
package tcprepair
