// Package control is how an operator asks a running shim for something: a
// unix socket in the state directory of each container that has the annotation
// crsc.io/checkpoint-restore.
//
//	server, err := control.Serve(dir, handler) // in the shim
//	defer server.Close()
//	…
//	client := control.Client{Dir: dir} // in crsc
//	made, err := client.Checkpoint(ctx, true)
//
// A connection carries one request, a JSON object, and its answer, another one,
// each followed by a newline. A client that closes the connection gives the
// request up.
//
// Invariants:
//
//   - The socket has mode 0600, in a directory with mode 0700: who can connect
//     may do anything.
//   - A shim is not held up by clients: their number, the size of a request and
//     the time to send it are bounded.
//   - Sockets are bound and dialled through a descriptor of the directory, so
//     that the path may be longer than the 107 bytes of sun_path.
package control
