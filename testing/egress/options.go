package egress

import (
	"errors"
	"fmt"
	"io"
	"time"
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
	Instance string        // of the environment; default "egress"
	Teller   Teller        // default Nginx
	Kills    int           // how often the teller is killed
	Clients  int           // default 20
	Gap      time.Duration // between two kills, on average; default 500 ms
	Interval time.Duration // between checkpoints; default 1 s
	Progress io.Writer     // for the progress; nil: none
}

func (o *Options) defaultsAndValidate() error {
	if o.Instance == "" {
		o.Instance = "egress"
	}
	switch o.Teller {
	case "":
		o.Teller = Nginx
	case Nginx, Pool:
	default:
		return fmt.Errorf("egress options: teller %q: want %s or %s", o.Teller, Nginx, Pool)
	}
	if o.Clients == 0 {
		o.Clients = 20
	}
	if o.Gap == 0 {
		o.Gap = 500 * time.Millisecond
	}
	if o.Interval == 0 {
		o.Interval = time.Second
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if o.Kills < 0 || o.Clients < 0 || o.Gap < 0 || o.Interval < 0 {
		return fmt.Errorf("egress options: negative value in %+v", *o)
	}
	return nil
}
