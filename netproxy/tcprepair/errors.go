package tcprepair

import "errors"

var (
	// ErrState is returned for an application's socket in a state that has no
	// leg: unconnected, opening, or closed in both directions.
	ErrState = errors.New("connection state has no leg")
	// ErrPeer is returned when the fields of a Peer contradict each other.
	ErrPeer = errors.New("inconsistent socket image")
	// ErrNoPort is returned by Ports.Get when every port is in use.
	ErrNoPort = errors.New("no free leg port")
	// ErrPortRange is returned by NewPorts for a range without usable ports.
	ErrPortRange = errors.New("no usable leg port in range")
)
