package recovery

import (
	"math"
	"time"
)

// amount is how much was journaled: input records, roughly requests, and bytes.
type amount struct{ records, bytes uint64 }

// since is what came after an earlier amount.
func (a amount) since(b amount) amount {
	return amount{a.records - min(a.records, b.records), a.bytes - min(a.bytes, b.bytes)}
}

// work is how long a replay of the amount takes on hardware of some years ago,
// in strict order: 25,000 records and 200 MB a second.
func (a amount) work() time.Duration {
	return time.Duration(a.records)*40*time.Microsecond + time.Duration(a.bytes)*5*time.Nanosecond
}

// size is what a restore has to do.
type size struct {
	pages       uint64 // of 4 KiB
	connections int
}

// work is how long a restore took when this was written: 16 to 46 ms for CRIU
// alone, 0.5 ms per MiB of memory, 0.1 ms per connection.
func (s size) work() time.Duration {
	return 60*time.Millisecond + time.Duration(s.pages)*2*time.Microsecond + time.Duration(s.connections)*100*time.Microsecond
}

// average follows a value, and how much it varies, as RFC 6298 does with round
// trips. Its zero value knows nothing.
type average struct {
	mean, dev float64
	known     bool
}

func (a *average) learn(x float64) {
	if !a.known {
		a.mean, a.dev, a.known = x, x/2, true
		return
	}
	a.dev += (math.Abs(x-a.mean) - a.dev) / 4
	a.mean += (x - a.mean) / 4
}

// high is seldom exceeded. Without any measurement it is other.
func (a *average) high(other float64) float64 {
	if !a.known {
		return other
	}
	return a.mean + 2*a.dev
}
