package kills

import (
	"fmt"
	"io"
	"time"
)

// Options are what the runs that kill have in common.
type Options struct {
	Instance string        // of the environment; default: the run's name
	Kills    int           // how often the application is killed
	Clients  int           // default 20
	Gap      time.Duration // between two kills, on average; default 500 ms
	Interval time.Duration // between checkpoints; default 1 s
	Progress io.Writer     // for the progress; nil: none
}

// DefaultsAndValidate completes the options of the run of that name.
//
// Errors: a negative value.
func (o *Options) DefaultsAndValidate(name string) error {
	if o.Instance == "" {
		o.Instance = name
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
		return fmt.Errorf("%s options: negative value in %+v", name, *o)
	}
	return nil
}
