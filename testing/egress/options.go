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
	// Redis and Postgres are the same server with sessions: a pool of go-redis to a
	// Redis, and one of database/sql, with a transaction for each request, to a
	// PostgreSQL.
	Redis    Teller = "redis"
	Postgres Teller = "postgres"
)

// Options say what to run.
type Options struct {
	kills.Options
	Teller Teller // default Nginx
	// Idle is how many connections to the bank a pool keeps while they are idle, and
	// Most how many it has at all; 0: what its library does by default, which for Pool
	// is 2 and as many as are needed.
	Idle, Most int
	// Beat is how often the pool's owner charges the bank by itself, whatever its
	// clients do; 0: never.
	Beat time.Duration
	// Log is the file in which containerd's log is kept; default: none.
	Log string
}

func (o *Options) defaultsAndValidate() error {
	if o.Idle < 0 || o.Most < 0 {
		return fmt.Errorf("egress options: %d idle connections, %d in all: want no negative number", o.Idle, o.Most)
	}
	if o.Beat < 0 || o.Beat > 0 && (o.Teller == "" || o.Teller == Nginx) {
		return fmt.Errorf("egress options: beat %v with teller %q: %s has none, and it is no negative number", o.Beat, o.Teller, Nginx)
	}
	switch o.Teller {
	case "":
		o.Teller = Nginx
	case Nginx, Pool, Redis, Postgres:
	default:
		return fmt.Errorf("egress options: teller %q: want %s, %s, %s or %s", o.Teller, Nginx, Pool, Redis, Postgres)
	}
	return o.DefaultsAndValidate("egress")
}
