// Package load drives a Redis server from another network namespace and checks
// every single reply.
//
// Each client increments a key of its own and a key that all share, in turn. A
// reply for the own key must be the previous one plus one. Replies for the
// shared key must grow on each connection and no value may ever be given
// twice. At the end the stored values are read and compared with what was
// acknowledged: too little stored is lost, too much was applied twice.
//
// A request whose connection failed before its reply may or may not have been
// applied; it is counted as uncertain and never as lost or doubled.
//
//	l, err := load.Start(ctx, load.Options{Netns: path, Target: addr, Connections: 50})
//	...
//	result, err := l.Stop(ctx)
//
// Latencies are those a client sees from the first byte sent to the last byte
// received, by the monotonic clock. The protocol is RESP,
// https://redis.io/docs/latest/develop/reference/protocol-spec/.
package load
