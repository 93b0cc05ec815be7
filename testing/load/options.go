package load

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// ErrOptions is returned when the options make no sense.
var ErrOptions = errors.New("load options")

// Options say how hard to drive which server.
type Options struct {
	// Netns is the path of the network namespace of the clients; empty: the
	// caller's.
	Netns string
	// Target is the server's address.
	Target netip.AddrPort
	// Connections is the number of clients, each with one connection.
	Connections int
	// Pipeline is the number of requests that a client sends before it reads
	// the replies; default 1.
	Pipeline int
	// Rate limits all clients together, in requests per second; 0: no limit.
	// After a stall the clients go on at this rate and do not catch up.
	Rate float64
	// ReconnectEvery makes each client close its connection and open another
	// after so many requests; 0: never.
	ReconnectEvery int
	// Timeout is how long a client waits for a connection or a reply before
	// that is an error; default 30 s.
	Timeout time.Duration
	// Prefix is that of all keys; default: one that no other run uses.
	Prefix string
}

func (o Options) defaultsAndValidate() (Options, error) {
	if o.Pipeline == 0 {
		o.Pipeline = 1
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Prefix == "" {
		o.Prefix = fmt.Sprintf("load-%d", time.Now().UnixNano())
	}
	switch {
	case !o.Target.IsValid():
		return o, fmt.Errorf("%w: no target", ErrOptions)
	case o.Connections < 1:
		return o, fmt.Errorf("%w: %d connections", ErrOptions, o.Connections)
	case o.Pipeline < 1 || o.Rate < 0 || o.ReconnectEvery < 0 || o.Timeout < 0:
		return o, fmt.Errorf("%w: negative value", ErrOptions)
	case o.ReconnectEvery%o.Pipeline != 0:
		return o, fmt.Errorf("%w: reconnecting every %d requests does not fit a pipeline of %d", ErrOptions, o.ReconnectEvery, o.Pipeline)
	}
	return o, nil
}
