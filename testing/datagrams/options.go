package datagrams

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// ErrFailed is returned when a client was not answered, or wrongly, or a
// crash was not recovered. The report says which.
var ErrFailed = errors.New("the run failed")

// Options say what to run.
type Options struct {
	Instance string        // of the environment; default "datagrams"
	Kills    int           // how often the server is killed
	Clients  int           // default 20
	Gap      time.Duration // between two kills, on average; default 500 ms
	Interval time.Duration // between checkpoints; default 1 s
	Progress io.Writer     // for the progress; nil: none
}

func (o *Options) defaultsAndValidate() error {
	if o.Instance == "" {
		o.Instance = "datagrams"
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
		return fmt.Errorf("options: negative value in %+v", *o)
	}
	return nil
}
