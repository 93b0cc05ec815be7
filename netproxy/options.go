package netproxy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/redirect"
)

// Options configure a Proxy. NetNS, Name, Journal and Dying are required.
type Options struct {
	// NetNS is an open descriptor of the container's network namespace. The
	// proxy duplicates it.
	NetNS int
	// Name distinguishes this proxy's nft table from others in the namespace.
	// At most 16 characters of [a-z0-9_].
	Name string
	// Journal receives what enters the container. The proxy is its only
	// writer; it never closes it.
	Journal *journal.Journal
	// Order says where the order of consumption comes from: auto, tracepoint
	// or serial.
	Order order.Kind
	// Dying reports whether a process of the container is exiting and its exit
	// is not yet explained. Called on the loop, so it must be quick (tens of
	// microseconds).
	Dying func() Dying
	// Owns tells whose the listening sockets with these inodes are, in a
	// namespace that others may share; nil: all are the container's. Called on a
	// goroutine of the proxy's, and not during a recovery.
	Owns func(inodes []uint32) redirect.Ownership
	// DyingFor bounds how long a close by a dying process other than the init
	// is held back while the init lives on. Default 250 ms: an init
	// follows its child within a millisecond or two, unless others have the
	// processors. A close is held for less if the child's parent goes to sleep.
	DyingFor time.Duration
	// Idle reports whether every thread of the application sleeps; nil: nobody can
	// tell. Called on the loop: in replays, and with the serial order when input is not
	// taken while other input waits.
	Idle func() bool
	// NoIngress lets connections of clients pass untouched.
	NoIngress bool
	// Egress intercepts the connections that the application opens.
	Egress bool
	// Datagrams journals the UDP of the application's sockets that are bound to a
	// port of its choice.
	Datagrams bool
	// OnUnrecorded is told of input that could not be journaled. Called on the
	// loop; must not block.
	OnUnrecorded func(what string)
	// ExcludePorts are destination ports that are never intercepted.
	ExcludePorts []uint16
	// ExcludeSources are client networks that are never intercepted.
	ExcludeSources []netip.Prefix
	// ExcludeServerPorts and ExcludeServers are servers' ports and networks to
	// which connections of the application are not intercepted. Name servers never
	// are: a question has a random number, and may be asked again.
	ExcludeServerPorts []uint16
	ExcludeServers     []netip.Prefix
	// Loopback intercepts also what other containers of the pod send over lo. It
	// needs Owns.
	Loopback bool
	// Node says how the node's own connections are treated during a recovery.
	Node NodeConns
	// MaxMemory is how many bytes may be kept for ends that do not take them;
	// beyond it every connection gets 4 KiB at a time. Default 64 MiB. A crash may
	// exceed it by what the kernel holds of the dead application's output.
	MaxMemory int
	// MaxConnections bounds the connections served at a time; further ones
	// wait in the listener's backlog. Default 10,000.
	MaxConnections int
	// OnTrigger is told once after each cut when TriggerRecords input records or
	// TriggerBytes input bytes have been journaled since (0: never): the tail
	// has become long enough for a checkpoint. Called on the loop; must not
	// block.
	TriggerRecords, TriggerBytes uint64
	OnTrigger                    func()
	// OnOrderLost is told when the order source has lost events: until the next
	// checkpoint a replay can't be in exact order. Called on the loop; must not
	// block.
	OnOrderLost func()
	// OnFault is told once when the journal fails. From then on the proxy
	// only relays. Called on the loop; must not block.
	OnFault func(error)
	// OnCollapse is told when the proxy has ended because of a defect of its own:
	// its connections were reset, and new ones do not go through it. Every method
	// returns ErrClosed from then on. Called on the loop; must not block.
	OnCollapse func(error)
	// HoldOnFault makes clients wait when the journal can't be written, because
	// of a fault or because it is full, until it can. Without it the proxy then
	// only relays.
	HoldOnFault bool
	// OnStall is told of such a fault, and with nil of its end. Called on the
	// loop; must not block.
	OnStall func(error)
	// OnNearlyFull is told, every other second, that the journal has reached three
	// quarters of its limit: a checkpoint is due, which makes room. Called on the
	// loop; must not block.
	OnNearlyFull func()
	// Log receives what an operator should see.
	Log *logrus.Entry

	orphanInterval, vigilInterval, stallAfter time.Duration // shorter in tests
}

// Dying says what is known of the application when a leg ends.
type Dying uint8

const (
	// Alive: the application closed the connection.
	Alive Dying = iota
	// ChildDying: a process other than the init is exiting or has just gone.
	// The init may follow, as a shell follows its only child.
	ChildDying
	// InitDying: the container ends or is recovered; Crash or Close will come.
	InitDying
)

func (o *Options) defaultsAndValidate() error {
	switch {
	case o.Journal == nil:
		return errors.New("netproxy: no journal")
	case o.Dying == nil:
		return errors.New("netproxy: no Dying function")
	case o.Name == "" || len(o.Name) > 16:
		return fmt.Errorf("netproxy: name %q: 1 to 16 characters are needed", o.Name)
	}
	if o.DyingFor <= 0 {
		o.DyingFor = 250 * time.Millisecond
	}
	if o.orphanInterval <= 0 {
		o.orphanInterval = orphanInterval
	}
	if o.stallAfter <= 0 {
		o.stallAfter = StallAfter
	}
	if o.vigilInterval <= 0 {
		o.vigilInterval = vigilInterval
	}
	if o.MaxMemory <= 0 {
		o.MaxMemory = 64 << 20
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = 10000
	}
	if o.OnFault == nil {
		o.OnFault = func(error) {}
	}
	if o.OnCollapse == nil {
		o.OnCollapse = func(error) {}
	}
	if o.OnStall == nil {
		o.OnStall = func(error) {}
	}
	if o.OnUnrecorded == nil {
		o.OnUnrecorded = func(string) {}
	}
	if o.OnNearlyFull == nil {
		o.OnNearlyFull = func() {}
	}
	if o.OnTrigger == nil {
		o.OnTrigger = func() {}
	}
	if o.OnOrderLost == nil {
		o.OnOrderLost = func() {}
	}
	if o.Log == nil {
		o.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	return nil
}

// nameServerPort is that of DNS.
const nameServerPort = 53

// passedServerPorts are the ports of servers to which connections pass.
func (o *Options) passedServerPorts() []uint16 {
	if slices.Contains(o.ExcludeServerPorts, nameServerPort) {
		return o.ExcludeServerPorts
	}
	return append(slices.Clone(o.ExcludeServerPorts), nameServerPort)
}
