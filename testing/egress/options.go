package egress

import (
	"errors"
	"fmt"
	"time"

	"github.com/crsc-io/crsc/testing/kills"
)

// ErrFailed is returned when a client saw an error, a charge was lost or made
// twice, or a crash was not recovered. The report says which.
var ErrFailed = errors.New("the run failed")

// Teller is an application that works for its clients with a bank.
type Teller string

const (
	// Nginx has one thread, and a pool of eight connections to the bank.
	Nginx Teller = "nginx"
	// Pool is a server of Go's net/http, whose threads share a pool: which of its
	// connections a request takes is another every time.
	Pool Teller = "pool"
)

// Options say what to run.
type Options struct {
	kills.Options
	Teller Teller // default Nginx
	// Idle is how many connections to the bank Pool keeps while they are idle, and
	// Most how many it has at all; 0: what net/http does by default, which is 2 and
	// as many as are needed.
	Idle, Most int
	// Beat is how often Pool charges the bank by itself, whatever its clients do; 0:
	// never.
	Beat time.Duration
}

func (o *Options) defaultsAndValidate() error {
	if o.Idle < 0 || o.Most < 0 {
		return fmt.Errorf("egress options: %d idle connections, %d in all: want no negative number", o.Idle, o.Most)
	}
	if o.Beat < 0 || o.Beat > 0 && o.Teller != Pool {
		return fmt.Errorf("egress options: beat %v with teller %q: only %s has one, and it is no negative number", o.Beat, o.Teller, Pool)
	}
	switch o.Teller {
	case "":
		o.Teller = Nginx
	case Nginx, Pool:
	default:
		return fmt.Errorf("egress options: teller %q: want %s or %s", o.Teller, Nginx, Pool)
	}
	return o.DefaultsAndValidate("egress")
}
